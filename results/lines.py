"""Files of one JSON object a line: their rows, what is wrong with a line, and what a crash left of the last one."""

from __future__ import annotations

import gc
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError
from vlpbench.results.record import SCHEMA, Strict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Row = TypeVar("Row", bound=Strict)


class StoreError(Exception):
    """A results folder that cannot be read or written. The message names file, line and remedy."""


def content_of(path: Path) -> bytes:
    """What a file holds; nothing where there is none.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def read_rows(path: Path, kind: type[Row]) -> tuple[list[Row], str | None]:
    """The rows of a file, and what is wrong with its last line if a crash tore it."""
    rows, _, problem = parse(path, content_of(path), kind)
    return rows, problem


def parse(path: Path, content: bytes, kind: type[Row], start: int = 0) -> tuple[list[Row], list[int], str | None]:
    """The rows from byte ``start`` on, where each begins, and what is wrong with the last line if a crash tore it.

    Raises:
        StoreError: for a foreign schema version or a line that is no such row.
    """
    numbered, offset = [], start
    for number, line in enumerate(content[start:].split(b"\n"), content.count(b"\n", 0, start) + 1):
        if line.strip(b"\0 \r"):
            numbered.append((number, offset, line))
        offset += len(line) + 1
    rows: list[Row] = []
    problem = None
    with _collector_off():
        for place, (number, _, line) in enumerate(numbered):
            try:
                rows.append(kind.model_validate_json(line))
            except ValidationError as error:
                if place < len(numbered) - 1 or is_json(line):
                    raise StoreError(_explain(path, number, line, error)) from error
                problem = f"{path} line {number} was cut off by a crash and is left out; the next run removes it"
    return rows, [offset for _, offset, _ in numbered[: len(rows)]], problem


@contextmanager
def _collector_off() -> Iterator[None]:
    """Nothing that is read can be collected, and looking for it again and again takes more time than the reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _explain(path: Path, number: int, line: bytes, error: ValidationError) -> str:
    where = f"{path} line {number}"
    if not is_json(line):
        return f"{where} is not JSON: {line[:60]!r}; remove the line or restore the file"
    content = json.loads(line)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version != SCHEMA:
        return (
            f"{where} has schema version {version}, and this vlpbench reads {SCHEMA}; read it with the vlpbench "
            "that wrote it, or measure again into another folder with --out"
        )
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{where} is no record: {field}: {first['msg']} (found {str(first.get('input'))[:60]!r})"


def is_json(line: bytes) -> bool:
    """Whether a line is whole."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
