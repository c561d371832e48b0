"""Suites: a TOML file of matrices, read into cells.

A file holds ``title``, ``description``, ``rounds``, ``timeout``, one ``[defaults]`` table and ``[[matrix]]`` tables. In
a matrix a list is an axis, and the cells are the product of the axes. Fields that hold several values at once are
written as a string (``objectives = "itc+itm+mlm"``, ``image = "224x224"``) or as a list in the list of the axis.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError
from vlpbench.archs.registry import nearest
from vlpbench.benchmarks import env
from vlpbench.benchmarks.fields import SuiteError, axis_values, check_value, normalise, shown
from vlpbench.benchmarks.suite_text import TOP, Lines, scan
from vlpbench.results.record import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FOLDER = Path(__file__).with_name("suites")
"""Where the suites that are named without a path lie."""
_TOP_KEYS = {"title": str, "description": str, "rounds": int, "timeout": (int, float), "defaults": dict, "matrix": list}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a suite file says."""

    name: str
    """The file's name without its ending."""
    title: str
    description: str = ""
    rounds: int = 3
    """Visits to each cost cell."""
    timeout: float = 3600.0
    """Seconds that the process of one cell may take."""
    cells: tuple[Cell, ...]


def names() -> list[str]:
    """The suites that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_suite(name: str, *, device: str | None = None) -> Suite:
    """Reads a suite by name, or a file by its path.

    Args:
        name: one of `names`, or a path that ends in ``.toml``.
        device: replaces the device of every cell.

    Raises:
        SuiteError: for an unknown suite, key or name, with the line.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = FOLDER / f"{name}.toml"
        if name not in names():
            raise SuiteError(f"{nearest('suite', name, names())}; a file of your own must end in .toml")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"cannot read suite {path}: {getattr(error, 'strerror', None) or error}") from error
    return parse_suite(content, path, device=device)


def parse_suite(content: str, path: Path, *, device: str | None = None) -> Suite:
    """Reads the text of a suite; ``path`` names it in messages."""
    try:
        found = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(_located(path, error)) from error
    reader = _Reader(path, scan(content), device)
    reader.check_top(found)
    cells: dict[str, Cell] = {}
    for number, matrix in enumerate(found["matrix"]):
        for cell in reader.expand(found.get("defaults", {}), matrix, number):
            cells.setdefault(cell.id, cell)
    return Suite(
        name=path.stem,
        title=found.get("title", path.stem),
        description=found.get("description", ""),
        rounds=found.get("rounds", Suite.rounds),
        timeout=float(found.get("timeout", Suite.timeout)),
        cells=tuple(cells.values()),
    )


def _located(path: Path, error: tomllib.TOMLDecodeError) -> str:
    """``file:line: message`` from the "(at line 3, column 5)" at the end of the parser's message."""
    match = re.search(r"\s*\(at line (\d+), column \d+\)$", str(error))
    line = match.group(1) if match else "1"
    return f"{path}:{line}: {str(error)[: match.start()] if match else error}"


class _Reader:
    """Turns the tables of one file into cells, and finds the line of what is wrong."""

    def __init__(self, path: Path, lines: Lines, device: str | None) -> None:
        self.path = path
        self.lines = lines
        self.device = device

    def fail(self, line: int, message: str) -> NoReturn:
        """Raises the error for a line."""
        raise SuiteError(f"{self.path}:{line}: {message}")

    def check_top(self, found: Mapping[str, Any]) -> None:
        """Keys and types outside the matrices."""
        for key, value in found.items():
            line = self.lines.key(TOP, key) if not isinstance(value, (dict, list)) else self.lines.key((key, 0), "")
            if key not in _TOP_KEYS:
                self.fail(line, nearest("key", key, list(_TOP_KEYS)))
            if not isinstance(value, _TOP_KEYS[key]) or isinstance(value, bool):
                self.fail(line, f"{key} = {value!r} is not of the right type")
        for key in ("rounds", "timeout"):
            if found.get(key, 1) <= 0:
                self.fail(self.lines.key(TOP, key), f"{key} = {found[key]!r} must be more than 0")
        if not found.get("matrix") or not all(isinstance(matrix, dict) for matrix in found["matrix"]):
            self.fail(1, "a suite needs one or more [[matrix]] tables")

    def expand(self, defaults: Mapping[str, Any], matrix: Mapping[str, Any], number: int) -> Iterable[Cell]:
        """The cells of one matrix."""
        place = dict.fromkeys(defaults, ("defaults", 0)) | dict.fromkeys(matrix, ("matrix", number))
        axes = {key: self.axis(key, value, place[key]) for key, value in {**defaults, **matrix}.items()}
        for needed in ("arch", "measure"):
            if needed not in axes:
                self.fail(
                    self.lines.key(("matrix", number), ""), f"this matrix has no {needed!r}, and [defaults] neither"
                )
        if self.device is not None:
            axes["device"] = [self.device]
        fields = [field for field in Cell.model_fields if field in axes]
        for values in itertools.product(*(axes[field] for field in fields)):
            yield self.cell(dict(zip(fields, values, strict=True)), place)

    def axis(self, key: str, value: Any, table: tuple[str, int]) -> list[Any]:
        """The values of one field."""
        if key not in Cell.model_fields:
            self.fail(self.lines.key(table, key), nearest("field", key, list(Cell.model_fields)))
        try:
            items = axis_values(key, value)
        except ValueError as error:
            self.fail(self.lines.key(table, key), str(error))
        for item in items:
            try:
                check_value(key, item)
            except ValueError as error:
                self.fail(self.lines.value(table, key, shown(item)), str(error))
        return items

    def cell(self, values: dict[str, Any], place: Mapping[str, tuple[str, int]]) -> Cell:
        """One validated cell."""
        if values.get("device") == "auto":
            values["device"] = env.default_device()
        try:
            return Cell(**normalise(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = str(first["loc"][0])
            table = place.get(key, ("matrix", 0))
            self.fail(self.lines.value(table, key, shown(values[key])), f"{key} = {values[key]!r}: {first['msg']}")
