"""What is wrong with a results folder."""

from __future__ import annotations

import math
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from vlpbench.benchmarks.fields import label
from vlpbench.benchmarks.suite import load_suite, names
from vlpbench.results.packed import unpacked
from vlpbench.results.record import UNITS, Cell, Record, Status, Strict
from vlpbench.results.store import FINAL, Store, StoreError, latest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Finding(Strict):
    """One thing that is wrong."""

    level: Literal["error", "warning"]
    code: str
    """Kind of finding, for machines: ``unreadable``, ``failed``, ``missing``, ``flagged`` ..."""
    message: str
    cell: str | None = None
    """Id of the cell it is about."""


def check_results(store: Store, suite: str | None = None) -> list[Finding]:
    """Looks at a results folder as a reader would.

    Args:
        store: the folder.
        suite: name or file of the suite that it should hold; None takes those that the records name.

    Raises:
        SuiteError: for a suite that cannot be read.
    """
    try:
        history, rounds, problems = store.history(), store.rounds(), store.problems()
    except StoreError as error:
        return [Finding(level="error", code="unreadable", message=str(error))]
    records = latest(history)
    found = [Finding(level="warning", code="torn", message=problem) for problem in problems]
    if not records:
        found.append(Finding(level="error", code="empty", message=f"{store.path} holds no record"))
    found += _history(history)
    for record in records:
        found += _record(record)
    found += _together(records)
    for part in rounds:
        where = f"round {part.round} of {label(part.cell)} is in, and its record is not"
        found.append(Finding(level="warning", code="unfinished", message=f"{where}: run again", cell=part.cell.id))
    for name in [suite] if suite else sorted({r.suite for r in records} & set(names())):
        found += _complete(records, name)
    return found


def _history(history: Sequence[Record]) -> Iterator[Finding]:
    for record_id, times in Counter(record.id for record in history).items():
        if times > 1:
            yield Finding(level="error", code="duplicate", message=f"record id {record_id} occurs {times} times")


def _record(record: Record) -> Iterator[Finding]:
    where, cell = label(record.cell), record.cell.id
    if record.status not in FINAL:
        message = f"{where}: {record.status.value}: {record.reason.splitlines()[0] if record.reason else 'no reason'}"
        yield Finding(level="error", code="failed", message=message, cell=cell)
    if record.status is Status.OK and not record.samples:
        yield Finding(level="error", code="no-samples", message=f"{where}: ok, and no samples", cell=cell)
    for name, series in record.samples.items():
        if name not in UNITS or series.unit != UNITS[name].unit:
            wanted = UNITS[name].unit if name in UNITS else "a line in the table of units"
            message = f"{where}: {name} is in {series.unit!r}, and should be in {wanted!r}"
            yield Finding(level="error", code="unit", message=message, cell=cell)
        if not all(math.isfinite(value) for value in series.values):
            message = f"{where}: {name} holds a value that is not finite"
            yield Finding(level="error", code="not-finite", message=message, cell=cell)
    if record.status is Status.OK:
        for message in _without_items(record):
            yield Finding(level="error", code="no-items", message=f"{where}: {message}", cell=cell)
    for flag in record.flags:
        yield Finding(level="warning", code="flagged", message=f"{where}: {flag}", cell=cell)


def _without_items(record: Record) -> Iterator[str]:
    """What is missing of single answers and ranks, without which records cannot be compared item by item."""
    answered = ranked = False
    for path, block in _blocks({name: record.detail.get(name) for name in ("splits", "galleries")}):
        if "accuracy" in block:
            answered = True
            yield from (f"{path} has {problem}" for problem in _of_answers(block))
        if "recalls" in block:
            ranked = True
            yield from (f"{path} has {problem}" for problem in _of_ranks(block))
    if not answered and any(name.endswith("_accuracy") for name in record.samples):
        yield "an accuracy, and no split that has its answers"
    if not ranked and "recall_mean" in record.samples:
        yield "recalls, and no gallery that has their ranks"


def _blocks(detail: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every table in a detail with its place in it."""
    for name, value in detail.items():
        if isinstance(value, dict):
            yield f"{path}{name}", value
            yield from _blocks(value, f"{path}{name}.")


def _of_answers(block: Mapping[str, Any]) -> Iterator[str]:
    total = block["accuracy"].get("total")
    for name, what in (("given", "given answers"), ("right", "right answers")):
        try:
            count = len(unpacked(block[name]))
        except (LookupError, ValueError, AttributeError, struct.error):
            yield f"no {what} that can be read"
            continue
        if count != total:
            yield f"{count} {what} of {total} items"


def _of_ranks(block: Mapping[str, Any]) -> Iterator[str]:
    for side, recall in (("image", "tr_r1"), ("text", "ir_r1")):
        ranks, total = block.get("ranks", {}).get(side), block["recalls"].get(recall, {}).get("total")
        if not isinstance(ranks, list) or len(ranks) != total:
            count = len(ranks) if isinstance(ranks, list) else "no"
            yield f"{count} ranks of {total} {side} queries"


def _together(records: Sequence[Record]) -> Iterator[Finding]:
    """What does not fit together."""
    codes = {record.code for record in records}
    if len(codes) > 1:
        message = f"measured with {len(codes)} versions of the code ({', '.join(sorted(codes))}): run --again"
        yield Finding(level="warning", code="mixed-code", message=message)
    for record in records:
        rounds = record.detail.get("rounds")
        if record.status is Status.OK and isinstance(rounds, list) and len(rounds) < 3:
            message = f"{label(record.cell)}: {len(rounds)} rounds are too few for an interval; 3 or more give one"
            yield Finding(level="warning", code="few-rounds", message=message, cell=record.cell.id)


def _complete(records: Sequence[Record], name: str) -> Iterator[Finding]:
    suite = load_suite(name)
    there = {_placeless(record.cell) for record in records}
    for cell in suite.cells:
        if _placeless(cell) not in there:
            message = f"{label(cell)} of suite {suite.name} is missing: run it"
            yield Finding(level="error", code="missing", message=message, cell=cell.id)


def _placeless(cell: Cell) -> str:
    """A cell's identity on whatever device: a suite may leave that to the machine."""
    return cell.model_copy(update={"device": ""}).model_dump_json()
