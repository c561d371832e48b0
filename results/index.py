"""What a plan needs of each record, kept beside the records so that finding nothing to do does not mean reading it all.

Derived and disposable: it holds the hash of the very bytes it was made from and of the code that reads records. Where
either has changed it is not believed; where lines were added, only those are parsed. Only a writer writes it.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from vlpbench.results import record as record_module
from vlpbench.results.record import Cell, Record, Status, Strict

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX = ".index.json"


class Entry(Strict):
    """A record without samples, detail and environment."""

    cell: Cell
    cell_id: str
    env_id: str
    status: Status
    code: str
    seconds: float
    offset: int
    """First byte of its line."""


class Index(Strict):
    """The entries of the whole lines of a file, in their order."""

    key: str
    """See `key_of`, of the lines it covers."""
    size: int
    """Bytes of those lines."""
    entries: tuple[Entry, ...]


def key_of(covered: bytes) -> str:
    """Hash of lines and of the code that gives them their meaning."""
    digest = hashlib.sha256(_reader())
    digest.update(covered)
    return digest.hexdigest()


@cache
def _reader() -> bytes:
    return hashlib.sha256(Path(record_module.__file__).read_bytes()).digest()


def load(folder: Path, content: bytes) -> Index:
    """The index of a folder if it fits the beginning of what its file of records holds; an empty one otherwise."""
    try:
        found = Index.model_validate_json((folder / INDEX).read_bytes())
    except (OSError, ValidationError):
        found = None
    if found is None or found.size > len(content) or found.key != key_of(content[: found.size]):
        return Index(key=key_of(b""), size=0, entries=())
    return found


def save(folder: Path, entries: Iterable[Entry], covered: bytes) -> None:
    """Writes the index of these lines. A disk that does not take it costs time later and nothing else."""
    index = Index(key=key_of(covered), size=len(covered), entries=tuple(entries))
    fresh = folder / f"{INDEX}-{os.getpid()}"
    try:
        try:
            fresh.write_text(index.model_dump_json(exclude_defaults=True), encoding="utf-8")
            os.replace(fresh, folder / INDEX)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError:
        pass


def entries_of(records: Iterable[Record], offsets: Iterable[int]) -> list[Entry]:
    """Entries of records that begin at these bytes."""
    ids: dict[str, str] = {}  # thousands of records share a few environments, and hashing one is slow
    found = []
    for record, offset in zip(records, offsets, strict=True):
        env = record.env.model_dump_json()
        entry = Entry(
            cell=record.cell,
            cell_id=record.cell.id,
            env_id=ids.get(env) or ids.setdefault(env, record.env.id),
            status=record.status,
            code=record.code,
            seconds=record.seconds,
            offset=offset,
        )
        found.append(entry)
    return found


def standing(entries: Iterable[Entry]) -> list[Entry]:
    """Of entries with equal cell and environment only the last."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = (entry.cell_id, entry.env_id)
        found.pop(key, None)
        found[key] = entry
    return list(found.values())
