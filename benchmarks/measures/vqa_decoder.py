"""Question answering by a decoder: the likeliest of a closed list of answers, and an answer written freely.

These are two protocols, and a third is that of `vlpbench.benchmarks.measures.vqa`: their numbers are different
quantities. One fine-tuning serves both here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from vlpbench.archs import registry
from vlpbench.archs.generate import Writing, generate, rank
from vlpbench.archs.model import take
from vlpbench.archs.objectives.lm import text_loss
from vlpbench.archs.types import Text, Unsupported
from vlpbench.benchmarks.data.captioned import Worded
from vlpbench.benchmarks.finetune import BATCH, SPLIT, Judged, require_fusion, tuning
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.vqa import binding
from vlpbench.benchmarks.train import open_data, text_to
from vlpbench.benchmarks.vqa_score import normaliser

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlpbench.archs.answering import Answerer
    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.data.base import Questions, Source
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

CANDIDATES = 128
"""Answers that are scored in full, those with the likeliest first token: ALBEF's and BLIP's k."""
BEAMS = 3
"""BLIP's, for free answers."""
PROTOCOLS = {
    "rank": f"likeliest of a closed list, {CANDIDATES} candidates at most by their first token",
    "generate": f"written by {BEAMS} beams, right if it equals the answer after the official normalisation",
}


class DecoderVQA:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Samples are percent, one each.

        Raises:
            Unsupported: for an architecture that cannot write the answers to the data's questions, before it is
                trained; for soft targets; for data without words.
        """
        require_fusion(subject, "a question")
        if cell.finetune_momentum != "off":
            raise Unsupported("finetune_momentum softens the targets of a classifier, and a decoder has none")
        source = open_data(cell)
        if not isinstance(source, Worded) or subject.tokens.sep is None:
            raise Unsupported(f"{source.name} gives no answers in words; take data = 'scenes'")
        words: Worded = source

        def task(model: VLModel[Any, Any], questions: Questions) -> Answering:
            return Answering(subject=subject, model=model, questions=questions, words=words)

        _rehearse(task(subject.model, source.questions("train")))
        with tuning(subject, sets=_questions, task=task) as (answering, splits, detail):
            found = {name: answering.judged(data) for name, data in splits.items()}
        main = found[SPLIT]
        detail |= {
            "protocol": PROTOCOLS,
            "answers": list(main["rank"].data.answers),
            "splits": {name: {way: _detail(one) for way, one in both.items()} for name, both in found.items()},
        }
        values = {f"vqa_{way}_accuracy": [judged.accuracy.percent] for way, judged in main.items()}
        bound = {f"vqa_{way}_binding": binding(judged) for way, judged in main.items()}
        values |= {name: [value] for name, value in bound.items() if value is not None}
        flags = [f"{way}: {flag}" for way, judged in main.items() for flag in judged.flags()]
        return Samples(values=values, detail=detail, flags=flags)


class Answering:
    """A model that learns to write the answers to questions, a `vlpbench.benchmarks.loop.Task`."""

    loss = "answer"

    def __init__(self, *, subject: Subject, model: VLModel[Any, Any], questions: Questions, words: Worded) -> None:
        """What the decoder for answers does not take from the model is drawn from the cell's seed."""
        self.subject, self.model, self.data, self.words = subject, model, questions, words
        device = self.device = subject.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
            torch.manual_seed(subject.cell.seed)
            self.answerer: Answerer = registry.answerer(subject.cell.arch, model)
        self.module: nn.Module = nn.ModuleDict({"model": model, "answerer": self._module()})
        listed = words.encode(questions.answers)
        longest = int(listed.mask.sum(dim=1).max())
        self.answers = text_to(Text(ids=listed.ids[:, :longest], mask=listed.mask[:, :longest]), device)

    @property
    def reads(self) -> Questions:
        """The questions."""
        return self.data

    @property
    def rows(self) -> int:
        """Questions."""
        return len(self.data)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """At random."""
        return rng.permutation(self.rows)

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Negative log-likelihood of the answers: summed over tokens, mean over questions (ALBEF, section 4).

        A question without an answer on the list teaches nothing.
        """
        batch = self.data.batch(rows)
        chosen = batch.answer.to(self.device)
        answer = take(self.answers, chosen.clamp(min=0))
        logits, _ = self.answerer.decode_step(self.source(batch), answer.ids[:, :-1])
        return {self.loss: (text_loss(logits, answer) * (chosen >= 0)).mean()}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one loss there is."""
        return losses[self.loss]

    def after_step(self) -> None:
        """Nothing is left to do."""

    def source(self, batch: Any) -> Any:
        """What the decoder reads of a batch of questions."""
        image = self.model.encode_image(batch.image.to(self.device))
        question = self.model.encode_text(text_to(batch.question, self.device))
        return self.answerer.prepare_decode(image, question)

    def judged(self, questions: Questions) -> dict[str, Judged[Questions]]:
        """Answers to all questions by each protocol; a free answer that is none of the list is -1."""
        tokens, normal = self.subject.tokens, normaliser("official")
        known = {normal(answer): number for number, answer in reversed(list(enumerate(questions.answers)))}
        length = self.answers.ids.shape[1]
        how = Writing(end=tokens.sep or 0, pad=tokens.pad, max_len=length, beams=BEAMS, words=tokens.vocab_size)
        found: dict[str, list[np.ndarray]] = {"rank": [], "generate": [], "truth": []}
        for start in range(0, len(questions), BATCH):
            batch = questions.batch(np.arange(start, min(start + BATCH, len(questions))))
            size = len(batch.answer)
            with self.subject.autocast():
                source = self.source(batch)
                listed, _ = rank(
                    self.answerer, source, self.answers, size=size, k=min(CANDIDATES, len(questions.answers))
                )
                begun = self.answers.ids[:1, :1].expand(size, 1)
                text = generate(self.answerer, source, begun, how).text
            written = self.words.decode(Text(ids=text.ids.cpu(), mask=text.mask.cpu()))
            found["rank"].append(listed[:, 0].cpu().numpy())
            found["generate"].append(np.array([known.get(normal(answer), -1) for answer in written]))
            found["truth"].append(batch.answer.numpy())
        joined = {name: np.concatenate(parts) for name, parts in found.items()}
        return {way: Judged(answer=joined[way], truth=joined["truth"], data=questions) for way in PROTOCOLS}

    def _module(self) -> nn.Module:
        if not isinstance(self.answerer, nn.Module):
            raise TypeError(f"{type(self.answerer).__name__} writes answers and is no module, so it cannot be trained")
        return self.answerer


def _rehearse(answering: Answering) -> None:
    """Writes some answers, to learn before a long training whether the model can.

    Raises:
        Unsupported: where it cannot, such as for want of positions behind a long question.
    """
    try:
        with torch.no_grad():
            answering.losses(np.arange(min(BATCH, answering.rows)), 0, torch.Generator())
    except ValueError as error:
        cell, length = answering.subject.cell, answering.answers.ids.shape[1]
        room = answering.model.text_len + length
        reason = f"{cell.arch} cannot write an answer behind a question ({error}); set text_len = {room}"
        raise Unsupported(reason) from error


def _detail(judged: Judged[Questions]) -> dict[str, Any]:
    return judged.detail() | {"binding": binding(judged), "binding_kinds": sorted(judged.data.binding)}


def _questions(source: Source, split: str) -> Questions:
    return source.questions(split)
