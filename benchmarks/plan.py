"""What a run would do: which cells run, are done already or cannot be, and how long it takes. Pure, without torch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import TYPE_CHECKING

from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.measures import base as measures
from vlpbench.benchmarks.possible import unsupported
from vlpbench.results.index import standing
from vlpbench.results.record import Status
from vlpbench.results.store import FINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vlpbench.benchmarks.suite import Suite
    from vlpbench.results.index import Entry
    from vlpbench.results.record import Cell, Env

PHASES = ("count", "memory", "cost", "accuracy")
"""Kinds of measures in the order in which they run: what takes seconds first."""
PARALLEL = ("count", "accuracy")
"""Kinds that run side by side; the others have the machine to themselves."""
AT_ONCE_ON_GPU = 4
"""Trainings that share one GPU: enough to fill it with small models, few enough to leave them memory."""
SECONDS = {
    "params": 1.5,
    "flops": 6.0,
    "latency": 4.0,
    "throughput": 4.0,
    "train_step": 15.0,
    "memory": 18.0,
    "max_batch": 90.0,
    "detector": 22.0,
    "retrieval_cost": 15.0,
}
"""A guess for one visit at size ``base`` on two cores, where no earlier record says better."""
BATCHES = {"train_step": 2, "memory": 2}
"""The batch of that guess, where it is not 1; a full-size model takes so many times longer with a larger one."""
SIZES = {"tiny": 0.15, "small": 0.2, "medium": 0.5, "l14": 4.0, "large": 4.0}
"""That guess times this for other sizes."""
STEP = {"tiny": 0.02, "small": 0.14, "medium": 1.5}
"""A guess for one training step on one core, seconds; 5 for every other size."""
PRETRAINED = ("retrieval", "learning", "grounding", "drift")
"""Accuracy measures that fine-tune nothing."""
SEEING = 0.4
"""A step of training the image side alone, of the time of one with texts."""
PICTURES = {"reasoning": 2}
"""Pictures of a sample that a measure fine-tunes on, where it is not one: a step takes so many times longer."""
WITH_TEACHER = 1.7
"""That guess times this where a momentum model runs beside the trained one."""
EVALUATION = {"tiny": 2.0, "small": 8.0}
"""A guess for set-up, data and evaluation of an accuracy cell, seconds; 120 for every other size."""
ON_GPU = 0.2
"""Both guesses times this on a GPU."""


class Action(StrEnum):
    """What a run does about a cell."""

    RUN = "run"
    DONE = "done"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One cell with what will happen to it."""

    cell: Cell
    action: Action
    reason: str = ""
    """Why it cannot be; or the status it has already."""
    seconds: float = 0.0
    """Estimate of its own time, all rounds together."""

    @property
    def kind(self) -> str:
        """The kind of its measure."""
        return measures.spec(self.cell.measure).kind


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of a suite, in its order."""

    suite: Suite
    items: tuple[Planned, ...]
    workers: int
    """Cores to share."""

    def width(self, kind: str) -> int:
        """Cells of a kind that run at once."""
        if kind not in PARALLEL:
            return 1
        on_gpu = kind == "accuracy" and any(cell.device != "cpu" for cell in self.todo(kind))
        return min(self.workers, AT_ONCE_ON_GPU) if on_gpu else self.workers

    def todo(self, kind: str | None = None) -> list[Cell]:
        """Cells that will run, of one kind of measure or of all."""
        return [i.cell for i in self.items if i.action is Action.RUN and kind in (None, i.kind)]

    def count(self, action: Action) -> int:
        """How many cells have it."""
        return sum(item.action is action for item in self.items)

    @property
    def seconds(self) -> float:
        """Estimate of the whole run."""
        return sum(self.phase_seconds(kind) for kind in PHASES)

    def phase_seconds(self, kind: str) -> float:
        """Estimate of one phase."""
        each = [item.seconds for item in self.items if item.action is Action.RUN and item.kind == kind]
        return max(*each, sum(each) / self.width(kind)) if each else 0.0


def make_plan(
    suite: Suite, history: Iterable[Entry], env: Env, *, workers: int, again: bool = False, code: str | None = None
) -> Plan:
    """Decides about every cell of a suite.

    Args:
        suite: what is asked for.
        history: what the results folder holds.
        env: where it would run; a cell counts as done only where it was done.
        workers: cells that run side by side where that is allowed.
        again: whether to measure what is done already once more.
        code: hash of the code; what other code could not do is tried again. None takes every record as of this code.
    """
    here = {entry.cell_id: entry for entry in standing(history) if entry.env_id == env.id}
    clock = _Estimates([entry for entry in here.values() if entry.status is Status.OK], suite.rounds)
    items = []
    trained: set[str] = set()
    for cell in suite.cells:
        known = here.get(cell.id)
        reason = unsupported(cell, env)
        if known is not None and not again and _settled(known, code):
            items.append(Planned(cell=cell, action=Action.DONE, reason=known.status.value))
        elif reason is not None:
            items.append(Planned(cell=cell, action=Action.UNSUPPORTED, reason=reason))
        else:
            items.append(Planned(cell=cell, action=Action.RUN, seconds=clock.of(cell, trained)))
    return Plan(suite=suite, items=tuple(items), workers=workers)


def _settled(entry: Entry, code: str | None) -> bool:
    """Whether running again would not change it, or only by chance."""
    if entry.status is Status.UNSUPPORTED and code is not None:
        return entry.code == code
    return entry.status in FINAL


class _Estimates:
    """Seconds of a cell: as it took before, or as its like took, or a guess."""

    def __init__(self, entries: Sequence[Entry], rounds: int) -> None:
        self.rounds = rounds
        self.own = {entry.cell_id: entry.seconds for entry in entries}
        like: Mapping[tuple[str, ...], list[float]] = defaultdict(list)
        for entry in entries:
            like[_like(entry.cell)].append(entry.seconds)
        self.like = {key: fmean(seconds) for key, seconds in like.items()}

    def of(self, cell: Cell, trained: set[str]) -> float:
        """Estimate of a cell; ``trained`` collects the pre-trainings that earlier cells will have left behind."""
        kind = measures.spec(cell.measure).kind
        if kind == "accuracy":
            before = [cell, *([cell.model_copy(update={"captions": "given"})] if cell.captions != "given" else [])]
            new = {sharing(one) for one in before} - trained
            trained |= new
            return self.own.get(cell.id) or _accuracy_guess(cell, pretrain=len(new))
        guess = SECONDS.get(cell.measure, 10.0) * SIZES.get(cell.size, 1.0)
        if kind != "count" and cell.size not in SIZES:
            guess *= max(1.0, cell.batch / BATCHES.get(cell.measure, 1))
        guess *= self.rounds if kind == "cost" else 1
        guess *= ON_GPU if cell.device != "cpu" and kind != "count" else 1.0
        return self.own.get(cell.id) or self.like.get(_like(cell)) or guess


def _like(cell: Cell) -> tuple[str, ...]:
    return (cell.measure, cell.size, cell.arch, cell.momentum, cell.device)


def _accuracy_guess(cell: Cell, *, pretrain: int) -> float:
    """``pretrain`` trainings come before it."""
    finetune = cell.finetune or (0 if cell.measure in PRETRAINED else schedule.defaults(cell.size).finetune)
    teacher = 1.0 if cell.momentum == "off" else WITH_TEACHER
    steps = (cell.budget or 0) * teacher * pretrain + finetune * PICTURES.get(cell.measure, 1)
    steps += schedule.vision_steps(cell) * SEEING
    guess = steps * STEP.get(cell.size, 5.0) + EVALUATION.get(cell.size, 120.0)
    return guess * (ON_GPU if cell.device != "cpu" else 1.0)


def sharing(cell: Cell) -> str:
    """Equal for cells that share a pre-training."""
    from vlpbench.benchmarks.train import pretrain_key

    return pretrain_key(cell)
