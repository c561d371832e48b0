"""What a run would do: which cells run, are done already or cannot be, and how long it takes. Pure, without torch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import TYPE_CHECKING

from vlpbench.archs import registry
from vlpbench.archs.objectives.table import OBJECTIVES, impossible
from vlpbench.archs.types import Can, Unsupported
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.measures import base as measures
from vlpbench.benchmarks.weights import bare
from vlpbench.results.index import standing
from vlpbench.results.record import Status
from vlpbench.results.store import FINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vlpbench.archs.registry import ArchSpec
    from vlpbench.benchmarks.suite import Suite
    from vlpbench.results.index import Entry
    from vlpbench.results.record import Cell, Env

PHASES = ("count", "memory", "cost", "accuracy")
"""Kinds of measures in the order in which they run: what takes seconds first."""
PARALLEL = ("count", "accuracy")
"""Kinds that run side by side; the others have the machine to themselves."""
AT_ONCE_ON_GPU = 4
"""Trainings that share one GPU: enough to fill it with small models, few enough to leave them memory."""
SCORERS = {"embed": Can.EMBED, "match": Can.FUSE, "rerank": Can.EMBED | Can.FUSE}
"""What each way of scoring pairs needs of a model."""
MATCHING = "itm"
"""The objective that trains a score of fused pairs."""
WRITING = "lm"
"""The objective that trains a decoder."""

SECONDS = {
    "params": 1.5,
    "flops": 6.0,
    "latency": 4.0,
    "throughput": 4.0,
    "train_step": 15.0,
    "memory": 18.0,
    "max_batch": 90.0,
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


def unsupported(cell: Cell, env: Env) -> str | None:
    """Why a cell cannot be measured here, as far as that is known without building it; None if it can."""
    try:
        spec = registry.get(cell.arch)
    except Unsupported as error:
        return str(error)
    checks = (_without_capability, _untrainable, _unmeasured, _blind, _without_place, _unscored, _unfiltered)
    return next((reason for check in checks if (reason := check(cell, spec, env))), None)


def _without_capability(cell: Cell, spec: ArchSpec, _: Env) -> str | None:
    missing = measures.spec(cell.measure).needs & ~spec.can
    if cell.size not in spec.sizes:
        return f"{cell.arch} has no size {cell.size!r}; it has {', '.join(spec.sizes)}"
    if measures.spec(cell.measure).answers and not spec.answers:
        return f"{cell.measure} needs DECODE or a decoder for answers, and {cell.arch} has neither"
    return f"{cell.measure} needs {' and '.join(missing.names())}, which {cell.arch} lacks" if missing else None


def _untrainable(cell: Cell, spec: ArchSpec, _: Env) -> str | None:
    if cell.weights and len(cell.weights) != len(cell.objectives):
        return f"{len(cell.weights)} weights are given for {len(cell.objectives)} objectives"
    trains = measures.spec(cell.measure).trains
    return impossible(spec, cell.objectives, cell.momentum, cell.distilled) if trains else None


def _unmeasured(cell: Cell, _: ArchSpec, __: Env) -> str | None:
    needed = measures.spec(cell.measure)
    objectives = ", ".join(cell.objectives)
    if needed.objective and needed.objective not in cell.objectives:
        return f"{cell.measure} needs the objective {needed.objective}, which is not among {objectives}"
    if needed.queue and (cell.momentum == "off" or not any(OBJECTIVES[name].queued for name in cell.objectives)):
        return f"{cell.measure} looks at a momentum queue, and {objectives} with momentum {cell.momentum!r} has none"
    return None


def _blind(cell: Cell, spec: ArchSpec, _: Env) -> str | None:
    if cell.vision_init == "random":
        return None
    what = f"vision_init {cell.vision_init!r}"
    if measures.spec(cell.measure).kind != "accuracy":
        return f"{what} is a training before another one, and {cell.measure} has none"
    if spec.input != "pixels":
        return f"{what} trains what reads pixels, and {cell.arch} reads {spec.input}"
    if not spec.sees and Can.EMBED not in spec.can:
        return f"{what} runs the image side alone, by EMBED or by a method for it, and {cell.arch} has neither"
    return None


def _without_place(cell: Cell, _: ArchSpec, env: Env) -> str | None:
    kind = measures.spec(cell.measure).kind
    if bare(cell):
        return f"{cell.measure} is of a trained model: give weights (--checkpoint {cell.arch}=FILE) or a budget"
    if cell.data == "random" and (kind == "accuracy" or cell.measure == "train_throughput"):
        return f"{cell.measure} needs data to learn from; name a source, such as data = 'scenes'"
    if cell.data == "random" and cell.boxes == "detected":
        return "boxes = 'detected' are looked for in pictures; name a source, such as data = 'scenes'"
    if cell.device.startswith("cuda") and env.gpu is None and kind != "count":
        return f"device {cell.device!r} is not there: no GPU is visible"
    if cell.measure == "max_batch" and cell.device == "cpu" and cell.memory_limit is None:
        return "a CPU's memory is everybody's: say how much of it may be filled, such as memory_limit = '8GiB'"
    return None


def _unscored(cell: Cell, spec: ArchSpec, _: Env) -> str | None:
    scorer = cell.scorer
    if scorer is None and cell.measure == "retrieval":
        scorer = "embed" if Can.EMBED in spec.can else "match"  # what it is scored by where nothing is said
    if scorer is None:
        return None
    needed, trained = SCORERS[scorer], cell.objectives or spec.objectives
    objectives = ", ".join(trained)
    if missing := needed & ~spec.can:
        return f"scorer {scorer!r} needs {' and '.join(missing.names())}, which {cell.arch} lacks"
    if Can.FUSE in needed and MATCHING not in trained:
        return f"scorer {scorer!r} needs the objective {MATCHING}, which is not among {objectives}"
    if Can.EMBED in needed and not any(Can.EMBED in OBJECTIVES[name].needs for name in trained):
        return f"scorer {scorer!r} needs embeddings, and none of {objectives} trains them"
    return None


def _unfiltered(cell: Cell, spec: ArchSpec, _: Env) -> str | None:
    if cell.captions == "given":
        return None
    what, needed = f"captions = {cell.captions!r}", Can.FUSE | Can.DECODE
    if measures.spec(cell.measure).kind != "accuracy":
        return f"{what} is a step before a training to the end, and {cell.measure} trains none"
    if missing := needed & ~spec.can:
        return f"{what} needs {' and '.join(missing.names())}, which {cell.arch} lacks"
    if absent := [name for name in (WRITING, MATCHING) if name not in cell.objectives]:
        return f"{what} needs the objective {' and '.join(absent)}, not among {', '.join(cell.objectives)}"
    return None


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
