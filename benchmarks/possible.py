"""What cannot be measured, and why: from a cell and the registries alone, so that a plan can say so. Without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlpbench.archs import registry
from vlpbench.archs.objectives.table import OBJECTIVES, impossible
from vlpbench.archs.types import Can, Unsupported
from vlpbench.benchmarks.measures import base as measures
from vlpbench.benchmarks.weights import bare

if TYPE_CHECKING:
    from vlpbench.archs.registry import ArchSpec
    from vlpbench.results.record import Cell, Env

SCORERS = {"embed": Can.EMBED, "match": Can.FUSE, "rerank": Can.EMBED | Can.FUSE}
"""What each way of scoring pairs needs of a model."""
MATCHING = "itm"
"""The objective that trains a score of fused pairs."""
WRITING = "lm"
"""The objective that trains a decoder."""


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
