"""The rows of an ablation as data: what each trains, and which cell of a results folder holds which of its numbers.

The command that measures rows and the report that finds them again both read them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlpbench.results.record import Cell

ACCURACY = ("retrieval", "vqa")
COST = ("train_step", "flops")
MEASURES = (*ACCURACY, *COST)
"""Measures whose numbers a row shows."""
_SEED = ("seed", "scorer", "k", "threads")
_TRAINED = ("budget", "lr", "noise", "label_smoothing", "momentum_rate", "finetune", "finetune_momentum", "augment")
IGNORED: dict[str, tuple[str, ...]] = {
    "retrieval": ("finetune", "finetune_momentum", "augment"),
    "vqa": ("scorer", "k"),
    "train_step": ("seed", "scorer", "k", *_TRAINED),
    "flops": ("seed", "scorer", "k", *_TRAINED),
}
"""Measure -> fields of a cell that its numbers do not depend on, so that rows which differ in them share a cell."""
RECIPE = (
    "objectives",
    "momentum",
    "distilled",
    "negatives",
    "queue_size",
    "momentum_rate",
    "alpha",
    "finetune_momentum",
    "noise",
    "changes",
)
"""Fields that rows differ in; all others are the setting that the rows of a table share."""
SWEPT = ("queue_size", "momentum_rate", "alpha", "noise", "changes")
"""Fields that a sweep takes through several values."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: a name, and the fields of a cell that make it what it is."""

    name: str
    recipe: Mapping[str, Any] = field(default_factory=dict)


_ALL = ("itc", "itm", "mlm")
LADDER: tuple[Row, ...] = (
    Row(name="MLM + ITM", recipe={"objectives": ("itm", "mlm"), "negatives": "uniform"}),
    Row(name="+ ITC", recipe={"objectives": _ALL, "momentum": "queue", "negatives": "uniform"}),
    Row(name="+ hard negatives", recipe={"objectives": _ALL, "momentum": "queue"}),
    Row(name="+ MoD on ITC", recipe={"objectives": _ALL, "momentum": "distill", "distilled": ("itc",)}),
    Row(name="+ MoD on MLM", recipe={"objectives": _ALL, "momentum": "distill"}),
    Row(
        name="+ MoD downstream",
        recipe={"objectives": _ALL, "momentum": "distill", "finetune_momentum": "distill"},
    ),
)
"""ALBEF's own ablation (Table 1 of arXiv:2107.07651), one change a row."""


def cell_of(measure: str, fields: Mapping[str, Any]) -> Cell:
    """The cell that holds the numbers of a row for this measure; ``fields`` is the row with its setting."""
    return Cell(measure=measure, **{key: value for key, value in fields.items() if key not in IGNORED[measure]})


def shared(cell: Cell) -> Cell:
    """The cell that stands for all seeds and ways of scoring of a row."""
    default = {key: Cell.model_fields[key].default for key in _SEED}
    return cell.model_copy(update=default)


def setting(cell: Cell) -> dict[str, Any]:
    """Fields of a cell that are not at their default and that all rows of its table share."""
    apart = {*RECIPE, *_SEED, "measure"}
    return {
        key: getattr(cell, key)
        for key, found in Cell.model_fields.items()
        if key not in apart and getattr(cell, key) != found.default
    }


def objectives_name(objectives: tuple[str, ...]) -> str:
    """``ITC + ITM``."""
    return " + ".join(name.upper() if len(name) <= 3 else name.replace("_", " ") for name in objectives)
