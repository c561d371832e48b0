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
from vlpbench.results.record import Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SEPARATORS = {"objectives": "+", "distilled": "+", "weights": "+", "image": "x"}
"""Fields of several values, and what separates them in a string."""
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
    "code",
)
"""Fields that a measure without training does not look at."""
_EXAMPLES = {"objectives": "itc+itm+mlm", "distilled": "itc+mlm", "weights": "1+1+0.5", "image": "224x224"}
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class SuiteError(ValueError):
    """A suite that cannot be read. The message names file, line, what is wrong and the nearest right thing."""


def axis_values(key: str, value: Any) -> list[Any]:
    """The items of an axis, each as the cell wants it.

    Raises:
        ValueError: for a list of which nobody can tell whether it is an axis or one value.
    """
    items = value if isinstance(value, list) else [value]
    if key == "changes":
        if not all(isinstance(item, dict) for item in items):
            raise ValueError(f"changes = {value!r} must be a table, such as {{ depth = 2 }}, or a list of tables")
        return [tuple(sorted(item.items())) for item in items]
    if not items:
        raise ValueError(f"{key} = [] has no value, so there would be no cell; leave the key out or name a value")
    if key not in SEPARATORS:
        return items
    separator = SEPARATORS[key]
    plain = [item for item in items if not isinstance(item, list) and separator not in str(item)]
    if isinstance(value, list) and len(plain) == len(items) and (len(items) > 1 or key == "image"):
        one = separator.join(str(item) for item in items)
        raise ValueError(
            f"{key} = {value!r} may be an axis or one value: write {one!r} for one value, lists in the list for an axis"
        )
    return [tuple(item) if isinstance(item, list) else _split(key, item, separator) for item in items]


def _split(key: str, item: Any, separator: str) -> tuple[Any, ...]:
    parts = [part.strip() for part in str(item).split(separator)] if item != "" else []
    kind: Callable[[str], Any] = {"objectives": str, "distilled": str, "weights": float, "image": int}[key]
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        raise ValueError(f"{key} = {item!r} cannot be read; write for example {_EXAMPLES[key]!r}") from None


def shown(value: Any) -> str:
    """A value as a suite file writes it; of changes their names and values."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return "+".join(f"{name}={item}" for name, item in value)
    if isinstance(value, tuple):
        return "+".join(str(item) for item in value) if not _is_image(value) else "x".join(str(item) for item in value)
    return str(value)


def _is_image(value: tuple[Any, ...]) -> bool:
    return len(value) == 2 and all(isinstance(item, int) for item in value)


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


def normalise(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in the objectives of the architecture's paper for a measure that trains, and drops what does not matter to
    one that does not, so that equal work is one cell."""
    kept = dict(values)
    if not measures.spec(kept["measure"]).trains:
        for key in TRAINING:
            kept.pop(key, None)
    elif not kept.get("objectives"):
        kept["objectives"] = registry.get(kept["arch"]).objectives
    return kept


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
