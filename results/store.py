"""A results folder: ``records.jsonl``, append-only and fsynced, and ``rounds.jsonl`` for interleaved cells under way.

One writer at a time holds a lock; any number may read. What a crash can leave is a torn last line: it is reported by
readers and cut off by the next writer. Nothing else is ever rewritten, apart from rounds that a record has taken in and
the index, which can be thrown away.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from vlpbench.results import index
from vlpbench.results.lines import StoreError, content_of, is_json, parse, read_rows
from vlpbench.results.record import SCHEMA, Cell, Record, Series, Status, Strict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vlpbench.results.index import Entry

RECORDS = "records.jsonl"
ROUNDS = "rounds.jsonl"
FINAL = (Status.OK, Status.UNSUPPORTED)
"""Statuses that running again would not change; the others are retried."""
_PROBE_BYTES = 1 << 20


class Round(Strict):
    """One visit to a cost cell. When the last one is in, a `Record` takes them all in."""

    schema_version: Literal[1] = SCHEMA
    id: str
    cell: Cell
    env_id: str
    code: str
    round: int
    seed: int
    """Seed of the order in which this round visited its cells."""
    position: int
    """Place in that order, from 0."""
    of: int
    """Cells in that order."""
    samples: dict[str, Series]
    detail: dict[str, Any]
    flags: tuple[str, ...] = ()
    data: str | None = None
    threads: int
    started: str
    seconds: float


class Store:
    """The records of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """The file of records."""
        return self.folder / RECORDS

    def history(self) -> list[Record]:
        """Every record in the order of the file.

        Raises:
            StoreError: for a foreign schema version or a line that is no record.
        """
        return read_rows(self.path, Record)[0]

    def records(self) -> list[Record]:
        """The record that counts for each (cell id, env id): the latest."""
        return latest(self.history())

    def done(self, env_id: str) -> set[str]:
        """Ids of the cells that need no more work in this environment."""
        found = index.standing(self.entries())
        return {entry.cell_id for entry in found if entry.env_id == env_id and entry.status in FINAL}

    def entries(self) -> list[Entry]:
        """An entry for every record, in the order of the file; what the index covers is not parsed again.

        Raises:
            StoreError: as `history`.
        """
        return self._scan()[0]

    def read(self, entry: Entry) -> Record:
        """The whole record of an entry."""
        with self.path.open("rb") as file:
            file.seek(entry.offset)
            return Record.model_validate_json(file.readline())

    def rounds(self, env_id: str | None = None, code: str | None = None) -> list[Round]:
        """Rounds that no record has taken in yet, of this environment and this code where they are named."""
        taken = {part["id"] for record in self.history() for part in record.detail.get("visits", ())}
        return [
            r
            for r in read_rows(self.folder / ROUNDS, Round)[0]
            if r.id not in taken and env_id in (None, r.env_id) and code in (None, r.code)
        ]

    def problems(self) -> list[str]:
        """What a crash left behind, in words."""
        found = [self._scan()[1], read_rows(self.folder / ROUNDS, Round)[1]]
        return [problem for problem in found if problem]

    def append(self, record: Record) -> None:
        """Adds a record; on return it is on the disk.

        Raises:
            StoreError: if the disk is full or not writable; earlier records stay whole.
        """
        with self.writing():
            _append(self.path, record)

    def append_round(self, part: Round) -> None:
        """Adds a round; on return it is on the disk."""
        with self.writing():
            _append(self.folder / ROUNDS, part)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the folder for one writer, after making sure that it can be written. Entered again, it does nothing.

        Raises:
            StoreError: if it cannot be written, is full, or another process writes there.
        """
        if self._lock is not None:
            yield
            return
        probe(self.folder)
        self._lock = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _hold(self._lock, self.folder)
            self._drop_taken_rounds()
            yield
            self._drop_taken_rounds()
            self._keep_index()
        finally:
            os.close(self._lock)
            self._lock = None

    def _scan(self) -> tuple[list[Entry], str | None]:
        """All entries, and what is wrong with the last line."""
        content = content_of(self.path)
        known = index.load(self.folder, content)
        rows, offsets, problem = parse(self.path, content, Record, known.size)
        return [*known.entries, *index.entries_of(rows, offsets)], problem

    def _keep_index(self) -> None:
        content = content_of(self.path)
        covered = content[: content.rfind(b"\n") + 1]
        if index.load(self.folder, content).size == len(covered):
            return
        try:
            entries = self.entries()
        except StoreError:
            return  # who reads the records will hear of it
        index.save(self.folder, [entry for entry in entries if entry.offset < len(covered)], covered)

    def _drop_taken_rounds(self) -> None:
        path = self.folder / ROUNDS
        if not path.exists():
            return
        kept = self.rounds()
        if not kept:
            path.unlink()
        elif len(kept) < len(read_rows(path, Round)[0]):
            fresh = path.with_suffix(".new")
            fresh.write_text("".join(r.model_dump_json() + "\n" for r in kept), encoding="utf-8")
            os.replace(fresh, path)


def latest(history: Iterable[Record]) -> list[Record]:
    """Of records with equal cell and environment only the last."""
    found: dict[tuple[str, str], Record] = {}
    env_ids: dict[str, str] = {}  # thousands of records share a few environments, and hashing one is slow
    for record in history:
        env = record.env.model_dump_json()
        env_id = env_ids.get(env) or env_ids.setdefault(env, record.env.id)
        key = (record.cell.model_dump_json(exclude_defaults=True), env_id)
        found.pop(key, None)
        found[key] = record
    return list(found.values())


def probe(folder: Path) -> None:
    """Makes sure that a file can be written in ``folder``, which is created.

    Raises:
        StoreError: before anything is measured, rather than after.
    """
    trial = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            trial.write_bytes(b"\0" * _PROBE_BYTES)
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        remedy = "free some space or name another folder with --out"
        raise StoreError(f"cannot write results in {folder}: {error.strerror or error}; {remedy}") from error


def _hold(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StoreError(
            f"another run is writing to {folder}; wait until it ends or name another folder with --out"
        ) from error


def _append(path: Path, row: Strict) -> None:
    whole = _whole(path)
    line = row.model_dump_json().encode() + b"\n"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(handle, whole)
            _write_all(handle, line, whole)
        finally:
            os.close(handle)
    except OSError as error:
        raise StoreError(
            f"could not append to {path}: {error.strerror or error}; what was appended before is kept, free some space "
            "and run the same command to go on"
        ) from error


def _write_all(handle: int, line: bytes, start: int) -> None:
    """Writes the line at the end of the whole ones, or not at all."""
    try:
        written = 0
        while written < len(line):
            written += os.pwrite(handle, line[written:], start + written)
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, start)
        raise


def _whole(path: Path) -> int:
    """Bytes up to the end of the last line that is whole. A last line without its end counts if it can be read."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    end = content.rfind(b"\n", 0, max(len(content) - 1, 0)) + 1
    tail = content[end:]
    if not tail or (tail.endswith(b"\n") and is_json(tail)):
        return len(content)
    if is_json(tail):
        with path.open("ab") as handle:
            handle.write(b"\n")
        return len(content) + 1
    return end
