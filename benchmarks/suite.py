"""Suites: a TOML file of matrices, read into cells.

A file holds ``title``, ``description``, ``rounds``, ``timeout``, one ``[defaults]`` table and ``[[matrix]]`` tables
(`vlpbench.results.matrix`). A file of claims is a suite too, of the cells that its claims need: its matrices have a
``name``, and its other tables are for whoever judges them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlpbench.archs.registry import nearest
from vlpbench.benchmarks import env
from vlpbench.benchmarks.fields import check_value, normalise
from vlpbench.results.matrix import Matrices, SuiteError, located
from vlpbench.results.record import Cell
from vlpbench.results.toml_lines import TOP, scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlpbench.benchmarks.weights import Brought

FOLDER = Path(__file__).with_name("suites")
"""Where the suites that are named without a path lie."""
NOTES = "notes"
"""The suite that is the cells which the claims of the notes need; its file lies with the claims."""
_TOP_KEYS = {"title": str, "description": str, "rounds": int, "timeout": (int, float), "defaults": dict, "matrix": list}
_TOP_KEYS |= {"claim": list}


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
    weights: tuple[Brought, ...] = ()
    """Weights that cells name, with their places."""
    folder: Path = Path()
    """Where paths in it begin."""


def names() -> list[str]:
    """The suites that come with the package."""
    return sorted([NOTES, *(path.stem for path in FOLDER.glob("*.toml"))])


def file_of(name: str) -> Path:
    """Where the suite of this name lies."""
    return env.package_folder("vlpbench.reports") / "claims.toml" if name == NOTES else FOLDER / f"{name}.toml"


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
        if name not in names():
            raise SuiteError(f"{nearest('suite', name, names())}; a file of your own must end in .toml")
        path = file_of(name)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"cannot read suite {path}: {getattr(error, 'strerror', None) or error}") from error
    suite = parse_suite(content, path, device=device)
    return replace(suite, name=NOTES) if name == NOTES else suite


def parse_suite(content: str, path: Path, *, device: str | None = None) -> Suite:
    """Reads the text of a suite; ``path`` names it in messages."""
    try:
        found = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(located(path, error)) from error
    reader = Matrices(path=path, lines=scan(content), check=check_value, complete=_completed, device=device)
    _check_top(found, reader)
    cells: dict[str, Cell] = {}
    for number, matrix in enumerate(found["matrix"]):
        fields = {key: value for key, value in matrix.items() if key != "name" or "claim" not in found}
        for cell in reader.expand(found.get("defaults", {}), fields, number):
            cells.setdefault(cell.id, cell)
    return Suite(
        name=path.stem,
        title=found.get("title", path.stem),
        description=found.get("description", ""),
        rounds=found.get("rounds", Suite.rounds),
        timeout=float(found.get("timeout", Suite.timeout)),
        cells=tuple(cells.values()),
        folder=path.parent,
    )


def _completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's fields with the objectives of its paper, without what its measure does not read, on a device."""
    found = normalise(values)
    return found | {"device": env.default_device()} if found.get("device") == "auto" else found


def _check_top(found: Mapping[str, Any], reader: Matrices) -> None:
    """Keys and types outside the matrices."""
    lines = reader.lines
    for key, value in found.items():
        line = lines.key(TOP, key) if not isinstance(value, (dict, list)) else lines.key((key, 0), "")
        if key not in _TOP_KEYS:
            reader.fail(line, nearest("key", key, list(_TOP_KEYS)))
        if not isinstance(value, _TOP_KEYS[key]) or isinstance(value, bool):
            reader.fail(line, f"{key} = {value!r} is not of the right type")
    for key in ("rounds", "timeout"):
        if found.get(key, 1) <= 0:
            reader.fail(lines.key(TOP, key), f"{key} = {found[key]!r} must be more than 0")
    if not found.get("matrix") or not all(isinstance(matrix, dict) for matrix in found["matrix"]):
        reader.fail(1, "a suite needs one or more [[matrix]] tables")
