"""The matrices of a TOML file as cells: in a matrix a list is an axis, and the cells are the product of the axes.

Fields that hold several values at once are written as a string (``objectives = "itc+itm+mlm"``, ``image = "224x224"``)
or as a list in the list of the axis. Suites and claims are both written like this.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from vlpbench.results.record import Cell
from vlpbench.results.toml_lines import Lines, Table

SEPARATORS = {"objectives": "+", "distilled": "+", "weights": "+", "image": "x"}
"""Fields of several values, and what separates them in a string."""
_TABLES = {"changes": "{ depth = 2 }", "data_options": '{ faulty = "skip" }'}
"""Fields of names and values, with an example."""
_EXAMPLES = {"objectives": "itc+itm+mlm", "distilled": "itc+mlm", "weights": "1+1+0.5", "image": "224x224"}


class SuiteError(ValueError):
    """A file that cannot be read. The message names file, line, what is wrong and the nearest right thing."""


def nearest(kind: str, name: str, known: Sequence[str]) -> str:
    """``unknown KIND 'NAME': did you mean 'OTHER'? known are ...``."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}: {hint}known are {', '.join(sorted(known))}"


def axis_values(key: str, value: Any) -> list[Any]:
    """The items of an axis, each as the cell wants it.

    Raises:
        ValueError: for a list of which nobody can tell whether it is an axis or one value.
    """
    items = value if isinstance(value, list) else [value]
    if key in _TABLES:
        if not all(isinstance(item, dict) for item in items):
            raise ValueError(f"{key} = {value!r} must be a table, such as {_TABLES[key]}, or a list of tables")
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


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """Turns the matrices of one file into cells, and finds the line of what is wrong."""

    path: Path
    """Names the file in messages."""
    lines: Lines
    check: Callable[[str, Any], None] | None = None
    """Raises ValueError for a value of a field that no table knows."""
    complete: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    """Fills in what a cell leaves to a table, and drops what its measure does not read."""
    device: str | None = None
    """Replaces the device of every cell."""

    def fail(self, line: int, message: str) -> NoReturn:
        """Raises `SuiteError` for a line."""
        raise SuiteError(f"{self.path}:{line}: {message}")

    def expand(self, defaults: Mapping[str, Any], matrix: Mapping[str, Any], number: int) -> Iterator[Cell]:
        """The cells of the matrix with this number, from 0."""
        place = dict.fromkeys(defaults, ("defaults", 0)) | dict.fromkeys(matrix, ("matrix", number))
        axes = {key: self._axis(key, value, place[key]) for key, value in {**defaults, **matrix}.items()}
        for needed in ("arch", "measure"):
            if needed not in axes:
                self.fail(
                    self.lines.key(("matrix", number), ""), f"this matrix has no {needed!r}, and [defaults] neither"
                )
        if self.device is not None:
            axes["device"] = [self.device]
        fields = [field for field in Cell.model_fields if field in axes]
        for values in itertools.product(*(axes[field] for field in fields)):
            yield self._cell(dict(zip(fields, values, strict=True)), place)

    def _axis(self, key: str, value: Any, table: Table) -> list[Any]:
        """The values of one field."""
        if key not in Cell.model_fields:
            self.fail(self.lines.key(table, key), nearest("field", key, list(Cell.model_fields)))
        try:
            items = axis_values(key, value)
        except ValueError as error:
            self.fail(self.lines.key(table, key), str(error))
        for item in items if self.check else ():
            try:
                self.check(key, item)  # pyright: ignore[reportOptionalCall]
            except ValueError as error:
                self.fail(self.lines.value(table, key, shown(item)), str(error))
        return items

    def _cell(self, values: dict[str, Any], place: Mapping[str, Table]) -> Cell:
        """One validated cell."""
        try:
            return Cell(**(self.complete(values) if self.complete else values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = str(first["loc"][0])
            table = place.get(key, ("matrix", 0))
            self.fail(self.lines.value(table, key, shown(values[key])), f"{key} = {values[key]!r}: {first['msg']}")


def located(path: Path, error: Exception) -> str:
    """``file:line: message`` from the "(at line 3, column 5)" at the end of a TOML parser's message."""
    match = re.search(r"\s*\(at line (\d+), column \d+\)$", str(error))
    line = match.group(1) if match else "1"
    return f"{path}:{line}: {str(error)[: match.start()] if match else error}"
