"""CapFilt (BLIP, arXiv:2201.12086, section 4.3): a model writes captions, and filters those and the given ones.

A first model is pre-trained on the captions as they are; its decoder is the captioner, its matching head the filter.
A second one, from scratch and for as many steps, then learns from what the filter keeps. Other than in the paper,
captioner and filter are not fine-tuned on clean captions in between: there are none.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from vlpbench.archs.generate import Writing, sample
from vlpbench.archs.types import Batch, Text, Unsupported
from vlpbench.benchmarks import scoring
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.captioned import Judging
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import pretrain, pretrain_key, state_file

if TYPE_CHECKING:
    from pathlib import Path

    from vlpbench.benchmarks.data.base import Pairs, Source
    from vlpbench.benchmarks.loop import Progress

TOP = 0.9
"""Share of probability that captions are drawn from: nucleus sampling, which the paper found better than beams."""
KEPT = 0.0
"""Log-odds of a match above which a caption is kept."""
ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """Pairs with a written caption beside each given one, as far as they were kept.

    A `vlpbench.benchmarks.data.base.Pairs` whose row r < N is pair r, and whose row N + r is its picture with the
    written caption.
    """

    pairs: Pairs
    ids: Tensor
    """(N, L) written captions, as long as the given ones."""
    mask: Tensor
    """(N, L) bool."""
    kept: Tensor
    """(2 * N,) bool."""

    def __len__(self) -> int:
        return int(self.kept.sum())

    def batch(self, rows: np.ndarray) -> Batch:
        """Pairs of these rows."""
        number = len(self.pairs)
        batch, own = self.pairs.batch(rows % number), torch.from_numpy(rows % number)
        written = torch.from_numpy(rows >= number)[:, None]
        ids = torch.where(written, self.ids[own], batch.text.ids)
        mask = torch.where(written, self.mask[own], batch.text.mask)
        return Batch(image=batch.image, text=Text(ids=ids, mask=mask), sample_id=batch.sample_id)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Given and written captions in turn, each in an order of the pairs' own; what was not kept is left out."""
        given, written = (self.pairs.order(rng) for _ in range(2))
        every = np.stack([given, len(self.pairs) + written], axis=1).reshape(-1)
        return every[self.kept.numpy()[every]]


def bootstrapped(
    subject: Subject, source: Source, *, cache: Path, progress: Progress | None = None
) -> tuple[Filtered, dict[str, Any]]:
    """What the subject's cell, whose ``captions`` are ``capfilt``, is trained on, and what was kept, for a record.

    The first pre-training is that of the cell with ``captions`` as given, and is shared with it; written captions and
    verdicts are kept in the cache as well.

    Raises:
        Unsupported: for objectives without matching, and for texts without an end.
        DataError: for fewer captions than a batch that were kept.
    """
    cell = subject.cell.model_copy(update={"captions": "given"})
    if subject.tokens.sep is None:
        raise Unsupported(f"texts of {source.name} have no end token, so none can be written")
    first = pretrain(Subject.build(cell), source, cache=cache, progress=progress)
    file = state_file(cache, pretrain_key(subject.cell), source, "captions")
    pairs, state = source.pairs("train"), file.load()
    if state is None:
        engine = scoring.Engine(learner=first.learner, device=subject.device, autocast=subject.autocast)
        state = written_and_matched(subject, engine, pairs)
        file.save(state)
    found = Filtered(pairs=pairs, ids=state["ids"], mask=state["mask"], kept=(state["score"] > KEPT).flatten())
    if len(found) < cell.batch:
        few = f"the filter kept {len(found)} of {2 * len(pairs)} captions, fewer than a batch of {cell.batch}"
        raise DataError(f"{few}: it has learnt too little; raise budget")
    how = {"captioner": f"nucleus sampling, top {TOP}", "filter": f"log-odds of a match above {KEPT:g}"}
    return found, {**how, "first": first.key, "rows": len(found), **_counts(found)}


def written_and_matched(subject: Subject, engine: scoring.Engine, pairs: Pairs) -> dict[str, Tensor]:
    """A caption drawn for every pair's picture, (N, L) ``ids`` and ``mask``; (2, N) ``score`` of given and written."""
    model, tokens = engine.learner.model, subject.tokens
    generator = torch.Generator().manual_seed(zlib.crc32(f"captions {subject.cell.seed}".encode()))
    parts: dict[str, list[Tensor]] = {"ids": [], "mask": [], "score": []}
    for start in range(0, len(pairs), ROWS):
        batch = pairs.batch(np.arange(start, min(start + ROWS, len(pairs))))
        length = batch.text.ids.shape[1]
        how = Writing(end=tokens.sep or 0, pad=tokens.pad, max_len=length, words=tokens.vocab_size)
        with scoring.evaluating(engine.learner), engine.autocast():
            source = model.prepare_decode(model.encode_image(batch.image.to(engine.device)))
            begun = batch.text.ids[:, :1].to(engine.device)
            text = sample(model, source, begun, how, top=TOP, generator=generator).text
        short = length - text.ids.shape[1]
        text = Text(ids=F.pad(text.ids, (0, short), value=tokens.pad).cpu(), mask=F.pad(text.mask, (0, short)).cpu())
        parts["ids"].append(text.ids)
        parts["mask"].append(text.mask)
        parts["score"].append(scoring.score_pairs(engine, batch.image, [batch.text, text], "match"))
    score = torch.cat(parts["score"]).T.contiguous()
    return {"ids": torch.cat(parts["ids"]), "mask": torch.cat(parts["mask"]), "score": score}


def _counts(found: Filtered) -> dict[str, Any]:
    """By whether given or written and, where the data know it, by verdict: how many there were and were kept."""
    number = len(found.pairs)
    kept = found.kept.numpy().reshape(2, number)
    result: dict[str, Any] = {}
    for place, name in enumerate(("given", "written")):
        result[name] = {"rows": number, "kept": int(kept[place].sum())}
        if isinstance(found.pairs, Judging):
            result[name] |= _judged(found.pairs, place, found, kept[place])
    return result


def _judged(pairs: Any, place: int, found: Filtered, kept: np.ndarray) -> dict[str, Any]:
    """Counts by verdict, and precision and recall in percent of the filter as a finder of right captions."""
    verdict = []
    for start in range(0, len(pairs), ROWS):
        rows = np.arange(start, min(start + ROWS, len(pairs)))
        ids = found.ids[start : start + ROWS] if place else pairs.batch(rows).text.ids
        verdict.append(pairs.judge(rows, ids.numpy()))
    given = np.concatenate(verdict)
    counts = {
        name: {"rows": int((given == number).sum()), "kept": int(kept[given == number].sum())}
        for number, name in enumerate(pairs.verdicts)
    }
    right = counts[pairs.verdicts[0]]
    return {
        "verdicts": counts,
        "precision": 100 * right["kept"] / max(1, int(kept.sum())),
        "recall": 100 * right["kept"] / max(1, right["rows"]),
        "right_before": 100 * right["rows"] / len(given),
    }
