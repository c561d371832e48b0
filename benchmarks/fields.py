"""The fields of a cell as people write them: in suite files, in ``--only`` and in tables."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, get_args

from vlpbench.archs import registry
from vlpbench.archs.objectives import table as objectives
from vlpbench.archs.registry import UnknownName, nearest
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.measures import base as measures
from vlpbench.results.matrix import SuiteError, axis_values, shown
from vlpbench.results.record import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SuiteError", "axis_values", "check_value", "label", "normalise", "select", "shown"]

TRAINING = (
    "objectives",
    "weights",
    "momentum",
    "distilled",
    "negatives",
    "queue_size",
    "momentum_rate",
    "alpha",
    "label_smoothing",
    "captions",
    "positives",
    "whole_words",
    "augment",
    "code",
)
"""Fields that a measure without training does not look at."""
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


_SAID = ("arch", "size", "measure", "objectives", "momentum")
"""Fields that a label says in words of its own."""


def label(cell: Cell) -> str:
    """A cell in one line: measure, variant, size, and whatever else tells it from its neighbours."""
    parts = [cell.measure, cell.variant, cell.size]
    known = registry.specs().get(cell.arch.removesuffix(registry.LATE))
    if cell.objectives and (known is None or cell.objectives != known.objectives):
        parts.append("+".join(cell.objectives))
    for key, field in Cell.model_fields.items():
        if key not in _SAID and getattr(cell, key) != field.default:
            parts.append(f"{key} {shown(getattr(cell, key))}")
    return " ".join(parts)


def check_value(key: str, value: Any) -> None:
    """Names that a table knows.

    Raises:
        ValueError: with the nearest name.
    """
    if key == "arch":
        try:
            registry.get(str(value))
        except Unsupported as error:
            raise ValueError(str(error)) from error
    elif key == "measure":
        measures.spec(str(value))
    elif key in ("objectives", "distilled"):
        for name in value:
            objectives.spec(name)
    elif key == "size":
        known = sorted({size for spec in registry.specs().values() for size in spec.sizes})
        _one_of("size", value, known)
    elif key == "device":
        if not _DEVICE.fullmatch(str(value)):
            raise UnknownName(nearest("device", str(value), ["auto", "cpu", "cuda", "cuda:0"]))
    elif key == "data":
        _check_data(str(value))
    elif key == "data_options":
        _check_options(value)
    elif options := _options(key):
        _one_of(key, value, options)


def _one_of(kind: str, value: Any, known: list[str]) -> None:
    if value not in known:
        raise UnknownName(nearest(kind, str(value), known))


def _options(key: str) -> list[str]:
    """The strings that a field of the cell may hold, where its type lists them."""
    annotation = Cell.model_fields[key].annotation
    found = itertools.chain(get_args(annotation), *(get_args(part) for part in get_args(annotation)))
    return [option for option in found if isinstance(option, str)]


def _check_data(name: str) -> None:
    from vlpbench.benchmarks.data import sources

    _one_of("data source", name, ["random", *sources.names()])


def _check_options(value: Iterable[tuple[str, Any]]) -> None:
    from vlpbench.benchmarks.data.base import DataError
    from vlpbench.benchmarks.data.options import options_of

    try:
        options_of(value)
    except DataError as error:
        raise ValueError(str(error)) from error


def normalise(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in the objectives of the architecture's paper for a measure that trains, and drops what does not matter to
    one that does not, so that equal work is one cell."""
    kept = dict(values)
    if measures.spec(kept["measure"]).kind != "accuracy":
        kept.pop("checkpoint", None)  # no cost depends on the values of weights
        kept.pop("protocol", None)
    if registry.get(kept["arch"]).input == "pixels":
        kept.pop("boxes", None)
    if not measures.spec(kept["measure"]).trains:
        for key in TRAINING:
            kept.pop(key, None)
    elif not kept.get("objectives"):
        kept["objectives"] = registry.get(kept["arch"]).objectives
    return kept


def reads(cell: Cell) -> str:
    """What a cell's architecture reads of an image, as `vlpbench.benchmarks.data.sources.open_source` wants it."""
    given = registry.get(cell.arch).input
    return "detected" if given == "regions" and cell.boxes == "detected" else given


def select(cells: Iterable[Cell], expression: str) -> list[Cell]:
    """The cells that meet an expression such as ``size=tiny,measure=flops|latency``: all conditions, any value of each.

    Raises:
        SuiteError: for an expression that cannot be read, an unknown field, or one that keeps nothing.
    """
    cells = list(cells)
    for condition in expression.split(","):
        key, equals, wanted = (part.strip() for part in condition.partition("="))
        if not equals or not wanted:
            raise SuiteError(
                f"--only: {condition!r} is not FIELD=VALUE or FIELD=VALUE|VALUE, such as measure=flops|latency"
            )
        if key not in Cell.model_fields:
            raise SuiteError(f"--only: {nearest('field', key, list(Cell.model_fields))}")
        there = dict.fromkeys(shown(getattr(cell, key)) for cell in cells)
        options = [option.strip() for option in wanted.split("|")]
        for option in options:
            if option not in there:
                raise SuiteError(f"--only: {nearest(key, option, list(there))}")
        cells = [cell for cell in cells if shown(getattr(cell, key)) in options]
    return cells
