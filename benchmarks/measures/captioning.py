"""Captioning: everything is fine-tuned to write captions, greedily and by beam search, which references judge."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from vlpbench.archs.generate import Writing, generate
from vlpbench.archs.learner import Learner
from vlpbench.archs.types import Can, Text, Unsupported
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.caption_score import caption_score, require
from vlpbench.benchmarks.data.captioned import Captioned, Judging, Worded
from vlpbench.benchmarks.finetune import BATCH, SPLIT, tuning
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.metrics import by_kind
from vlpbench.benchmarks.subject import recipe_of
from vlpbench.benchmarks.train import Pretraining, open_data
from vlpbench.results.packed import packed

if TYPE_CHECKING:
    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.data.base import Pairs, Source
    from vlpbench.benchmarks.data.captioned import Captions
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

OBJECTIVE = "lm"
WAYS = {"": 3, "_greedy": 1}
"""Ending of a quantity's name -> beams; 3 are BLIP's."""


class Captioning:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """One sample each.

        Raises:
            Unsupported: for a model that cannot decode, data without pictures to describe, or without the package.
        """
        if Can.DECODE not in subject.model.can:
            raise Unsupported(f"{cell.arch} cannot decode, so it writes no captions")
        require()
        source = open_data(cell)
        if not isinstance(source, Worded) or subject.tokens.sep is None:
            raise Unsupported(f"{source.name} has no words to describe pictures in; take data = 'scenes'")

        _captions(source, SPLIT)  # so that what is not there is said before a long training
        clean = open_data(cell.model_copy(update={"noise": 0.0})) if cell.noise else source

        def sets(opened: Source, split: str) -> Any:
            return clean.pairs(split) if split == "train" else _captions(opened, split)

        def task(model: VLModel[Any, Any], pairs: Pairs) -> Pretraining:
            return _writing(subject, model, pairs)

        with tuning(subject, sets=sets, task=task) as (writing, splits, detail):
            found = {name: _described(subject, writing.module, source, data) for name, data in splits.items()}
        parts = [detail["data_hash"], *(data.hash for data in splits.values())]
        detail |= {
            "data_hash": hashlib.sha256(" ".join(parts).encode()).hexdigest(),
            "protocol": "language modelling on captions without noise, all weights fine-tuned",
            "splits": found,
        }
        main = found[SPLIT]
        values = {
            f"caption_{name}{ending}": [main[_way(beams)][name]]
            for ending, beams in WAYS.items()
            for name in ("cider", "bleu4", "right")
            if name in main[_way(beams)]
        }
        return Samples(values=values, detail=detail)


def _captions(source: Source, split: str) -> Captions:
    if not isinstance(source, Captioned):
        raise Unsupported(f"{source.name} has no pictures to describe; take data = 'scenes'")
    return source.captions(split)


def _writing(subject: Subject, model: VLModel[Any, Any], pairs: Pairs) -> Pretraining:
    """The model under language modelling alone."""
    cell = subject.cell
    recipe = replace(recipe_of(cell), objectives=(OBJECTIVE,), weights=(), momentum="off", distilled=())
    learner = Learner(model, recipe, subject.tokens)
    return Pretraining(module=learner, pairs=pairs, device=subject.device, config=schedule.finetuning(cell))


def _described(subject: Subject, learner: Learner, source: Worded, data: Captions) -> dict[str, Any]:
    """What each way of writing gives of the pictures, for a record."""
    return {_way(beams): _scored(source, data, written(subject, learner, data, beams)) for beams in WAYS.values()}


def written(subject: Subject, learner: Learner, data: Captions, beams: int) -> Text:
    """A caption of every picture, on the CPU, as long as texts of the data may be."""
    model, tokens, length = learner.model, subject.tokens, learner.model.text_len
    how = Writing(end=tokens.sep or 0, pad=tokens.pad, max_len=length, beams=beams, words=tokens.vocab_size)
    ids, mask = [], []
    for start in range(0, len(data), BATCH):
        image = data.image_batch(np.arange(start, min(start + BATCH, len(data)))).to(subject.device)
        with subject.autocast():
            source = model.prepare_decode(model.encode_image(image))
            begun = torch.full((len(image), 1), tokens.cls, device=subject.device)
            text = generate(model, source, begun, how).text
        short = length - text.ids.shape[1]
        ids.append(F.pad(text.ids, (0, short), value=tokens.pad).cpu())
        mask.append(F.pad(text.mask, (0, short)).cpu())
    return Text(ids=torch.cat(ids), mask=torch.cat(mask))


def _scored(source: Worded, data: Captions, text: Text) -> dict[str, Any]:
    """Scores, and every caption as tokens, so that any other score can be worked out."""
    score = caption_score(source.decode(text), data.references)
    found: dict[str, Any] = {"cider": score.cider, "bleu4": score.bleu4}
    if isinstance(data, Judging):
        verdict = data.judge(np.arange(len(data)), text.ids.numpy())
        names = data.verdicts
        rates = by_kind(np.ones(len(verdict), bool), verdict, names)
        found |= {"right": 100 * float((verdict == 0).mean())}
        found |= {"verdicts": {name: rate.total for name, rate in rates.items()}, "verdict": packed(verdict.tolist())}
    thousandths = [round(1000 * value) for value in score.each]
    return found | {
        "each_cider_1000": packed(thousandths),
        "tokens": packed(text.ids.flatten().tolist()),
        "length": text.ids.shape[1],
    }


def _way(beams: int) -> str:
    return "greedy" if beams == 1 else f"beams_{beams}"
