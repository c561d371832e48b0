"""JSON files of annotations: whole ones, and those of one object a line. Nothing in them can end in a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.faults import Fault, Faults

_ODD = (ValueError, RecursionError)
"""What Python's parser raises: for what is no JSON, for numbers of thousands of digits, for endless nesting."""


def read_json(path: Path, what: str) -> Any:
    """The content of a file; bytes that are not UTF-8 stand in its texts as lone surrogates, see `faults.words`.

    Args:
        path: the file.
        what: what it should be, for the message.

    Raises:
        DataError: for a file that cannot be read or is not JSON.
    """
    try:
        return json.loads(_bytes(path, what).decode("utf-8-sig", errors="surrogateescape"))
    except _ODD as error:
        raise DataError(f"{path} is not JSON ({_said(error)}): fetch it again; it should be {what}") from error


def read_lines(path: Path, what: str, faults: Faults) -> Iterator[tuple[str, Any]]:
    """The name and the content of every line that is not blank; a line that is not JSON is a faulty sample.

    Raises:
        DataError: for a file that cannot be read, or without a single line of JSON.
    """
    lines = _bytes(path, what).decode("utf-8-sig", errors="surrogateescape").split("\n")
    good = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        with faults.at(f"{path}:{number}"):
            try:
                item = json.loads(line)
            except _ODD as error:
                raise Fault("not JSON", f"is not JSON ({_said(error)}): mend the file") from None
            good = True
            yield f"{path}:{number}", item
    if not good:
        raise DataError(f"{path} holds no line of JSON: fetch it again; it should be {what}")


def listed(content: Any, key: str, path: Path, what: str) -> list[Any]:
    """The list under a key of a whole file; with an empty key the file itself.

    Raises:
        DataError: for a file of another kind, saying what it holds.
    """
    found = content.get(key) if key and isinstance(content, dict) else content
    if isinstance(found, list) and (not key or isinstance(content, dict)):
        return found
    holds = ", ".join(list(map(repr, content))[:9]) if isinstance(content, dict) else f"a {type(content).__name__}"
    wanted = f"no list of {key!r}" if key else "is no list"
    raise DataError(f"{path} is not {what}: it holds {holds or 'nothing'} and {wanted}; give the right file")


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): it should be {what}") from error


def _said(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
