"""Looks at a model while it is pre-trained: validation retrieval and the swap test, at a small part of the work.

How often and at how much follows from the cell and the data alone and not from a clock, so that a training that was
killed, or that ran on a slower machine, was looked at just as often.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from vlpbench.archs.objectives.table import spec
from vlpbench.archs.types import Can
from vlpbench.benchmarks import scoring
from vlpbench.benchmarks.curve import WINDOW
from vlpbench.benchmarks.data.base import Swaps
from vlpbench.benchmarks.drift import PROBES, Drift
from vlpbench.benchmarks.loop import Task
from vlpbench.benchmarks.metrics import Rate, recall_mean, recalls
from vlpbench.benchmarks.possible import MATCHING

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.learner import Learner
    from vlpbench.archs.types import Text
    from vlpbench.benchmarks.data.base import Foils, Gallery, Pairs, Source
    from vlpbench.benchmarks.schedule import TrainConfig
    from vlpbench.benchmarks.subject import Subject

GALLERY = "val"
LOOKS = 10
"""Looks at a training, the last at its end; fewer where a window of steps or `SHARE` leaves no room for them."""
SHARE = 0.1
"""All looks together take no more than this part of the training's work."""
IMAGES = 60
"""Images of the part of the gallery that every scorer ranks: matching all of it would take longer than training."""
FOILS = 64
"""Pictures of the swap test."""
BATCH = 256


class Pairing(Task, Protocol):
    """A training on pairs."""

    @property
    def module(self) -> Learner:
        """What is trained."""
        ...

    @property
    def pairs(self) -> Pairs:
        """On what."""
        ...


class First:
    """The first images of a gallery with their texts, a `vlpbench.benchmarks.data.base.Gallery`."""

    def __init__(self, gallery: Gallery, images: int) -> None:
        """Takes a gallery and how many of its images to keep, all of them if it has fewer."""
        self._gallery = gallery
        self._texts = np.flatnonzero(gallery.owner < images)
        self.owner = gallery.owner[self._texts]
        self.images, self.texts = min(images, gallery.images), len(self._texts)

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """(K, 3, H, W)."""
        return self._gallery.image_batch(rows)

    def text_batch(self, rows: np.ndarray) -> Text:
        """(K,) rows -> their texts."""
        return self._gallery.text_batch(self._texts[rows])


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A `vlpbench.benchmarks.curve.Watch`."""

    steps: frozenset[int]
    what: dict[str, Any]
    engine: scoring.Engine
    scorer: str
    part: Gallery
    """Ranked by every scorer, so that these recalls compare."""
    whole: Gallery | None
    """All of the gallery, where embeddings rank it."""
    foils: Foils | None
    drift: Drift | None
    """Of the entries of a momentum queue, where there is one."""

    def look(self, done: int) -> dict[str, float]:
        """Percent: ``recall`` of the part, ``recall_whole``, ``swap_<kind>``, and ``binding``, the attributes' mean.

        Of a queue also `vlpbench.benchmarks.drift.Drift.seen`, which is not percent.
        """
        found = {"recall": recall_mean(recalls(scoring.rank(self.engine, self.part, self.scorer).ranks))}
        if self.whole is not None:
            found["recall_whole"] = recall_mean(recalls(scoring.rank(self.engine, self.whole, self.scorer).ranks))
        if self.foils is not None:
            rates = swap_rates(self.engine, self.foils, self.scorer, FOILS)
            found |= {f"swap_{kind}": rate.percent for kind, rate in rates.items()}
            bound = [rates[kind].percent for kind in self.foils.attributes]
            found["binding"] = sum(bound) / len(bound)
        if self.drift is not None:
            with scoring.evaluating(self.engine.learner):
                found |= self.drift.seen(done)
        return found


@dataclass(frozen=True, kw_only=True)
class Blind:
    """A watch that never looks, and why."""

    what: dict[str, Any]
    steps: frozenset[int] = frozenset()

    def look(self, done: int) -> dict[str, float]:
        """Nothing."""
        return {}


def watch(subject: Subject, task: Pairing, source: Source, config: TrainConfig) -> Watch | Blind:
    """Plans the looks at a pre-training.

    Compiled models are not looked at: inputs of other shapes would compile anew and might change what trains.
    """
    learner = task.module
    scorer = trained_scorer(learner)
    if subject.compiled:
        return Blind(what={"none": "looks would recompile a compiled model"})
    if scorer is None:
        return Blind(what={"none": f"{', '.join(learner.recipe.objectives)} trains no score of image and text"})
    if GALLERY not in source.galleries():
        return Blind(what={"none": f"{source.name} has no gallery {GALLERY!r}"})
    gallery = source.gallery(GALLERY)
    part = First(gallery, IMAGES)
    whole = gallery if scorer == "embed" and part.images < gallery.images else None
    foils = source.foils() if isinstance(source, Swaps) else None
    engine = scoring.Engine(learner=learner, device=subject.device, autocast=subject.autocast)
    drift = Drift.of(engine, task.pairs, task, config)
    work = _work(scorer, part) + (_work(scorer, whole) if whole else 0) + (_foil_work(foils, scorer) if foils else 0)
    work += PROBES if drift else 0
    steps = look_steps(config.steps, most=int(SHARE * config.steps * step_work(learner, config.batch) / work))
    if not steps:
        needed = ceil(work / SHARE / step_work(learner, config.batch))
        return Blind(what={"none": f"one look is a tenth of the work of {needed} steps, and there are {config.steps}"})
    what = {"gallery": GALLERY, "scorer": scorer, "images": part.images, "texts": part.texts}
    what |= {"whole": [whole.images, whole.texts] if whole else None}
    what |= {"foils": min(FOILS, len(foils)), "attributes": list(foils.attributes)} if foils else {}
    what |= {"probes": PROBES} if drift else {}
    return Watch(
        steps=frozenset(steps),
        what=what,
        engine=engine,
        scorer=scorer,
        part=part,
        whole=whole,
        foils=foils,
        drift=drift,
    )


def trained_scorer(learner: Learner) -> str | None:
    """The cheapest way to score pairs that the objectives train; None where they train none."""
    objectives = learner.recipe.objectives
    if any(Can.EMBED in spec(name).needs for name in objectives):
        return "embed"
    return "match" if MATCHING in objectives else None


def look_steps(steps: int, *, most: int) -> list[int]:
    """Evenly spaced ends of windows, the last step among them; at most ``most`` of them, and `LOOKS`."""
    count = min(LOOKS, most, ceil(steps / WINDOW))
    if count < 1:
        return []
    return sorted({WINDOW * round(steps * i / count / WINDOW) for i in range(1, count)} | {steps})


def step_work(learner: Learner, batch: int) -> float:
    """Forward passes of a pair that a step takes at least: one an objective, two more going backward for each."""
    objectives = learner.recipe.objectives
    return 3.0 * batch * (len(objectives) + (MATCHING in objectives))


def swap_rates(engine: scoring.Engine, foils: Foils, scorer: str, count: int) -> dict[str, Rate]:
    """How often a true statement scores strictly above the one that differs by a swap, by kind of swap.

    Args:
        engine: can score as ``scorer`` says.
        foils: the swap test.
        scorer: as for `scoring.score_pairs`.
        count: pictures, from the first on; all of them where there are fewer.
    """
    total = min(count, len(foils))
    hits: dict[str, int] = dict.fromkeys(foils.kinds, 0)
    for start in range(0, total, BATCH):
        batch = foils.batch(np.arange(start, min(start + BATCH, total)))
        texts = [batch.true, *(batch.false[kind] for kind in foils.kinds)]
        scores = scoring.score_pairs(engine, batch.image, texts, scorer)
        for column, kind in enumerate(foils.kinds, start=1):
            hits[kind] += int((scores[:, 0] > scores[:, column]).sum())
    return {kind: Rate(hits=count, total=total) for kind, count in hits.items()}


def _work(scorer: str, gallery: Gallery) -> float:
    """Forward passes of a pair: a fusion is at most one, encoding an image and a text together is one."""
    return scoring.fusions(scorer, gallery.images, gallery.texts) + (gallery.images + gallery.texts) / 2


def _foil_work(foils: Foils, scorer: str) -> float:
    texts = 1 + len(foils.kinds)
    return min(FOILS, len(foils)) * ((1 + texts) / 2 + (texts if scorer == "match" else 0))
