"""Tables as data: what a page, a Markdown file and a CSV file all show."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vlpbench.reports.board import Board, Column, quantity
from vlpbench.reports.measured import Measured
from vlpbench.reports.names import Row
from vlpbench.reports.stats import Estimate
from vlpbench.reports.units import Scale, scale
from vlpbench.results.record import Status

STATUS_WORDS = {
    Status.OOM: "out of memory",
    Status.TIMEOUT: "timed out",
    Status.ERROR: "failed",
    Status.UNSUPPORTED: "not supported",
}
ABSENT = "not run"
SHORT = {
    "params_stored": "Params",
    "flops_forward": "FLOPs",
    "step": "Train step",
    "memory_inference": "Memory, infer",
    "memory_training": "Memory, train",
    "recall_mean": "Mean recall",
    "vqa_accuracy": "VQA",
    "vqa_binding": "VQA binding",
    "reasoning_accuracy": "Reasoning",
    "entailment_accuracy": "Entailment",
}
"""Column headings where the full title would make the table too wide."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One cell of a table."""

    text: str
    note: str = ""
    """A second line: the interval."""
    by: str = ""
    """A third: scorer, or whose number it is."""
    value: float | None = None
    """What the column sorts by, in the stored unit; None sorts by text, after all numbers."""
    low: float | None = None
    high: float | None = None
    record: str | None = None
    """Id of the record behind it, which a page links to."""
    kind: str = ""
    """``failed``, ``absent``, ``head`` or empty."""
    flags: tuple[str, ...] = ()
    best: bool = False
    """Whether it is the best of its column, or its interval reaches the best."""
    family: str = ""
    """Architecture whose colour marks the cell."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """One column of a table."""

    title: str
    full: str = ""
    """The title in full, where it is shortened."""
    note: str = ""
    """Setting or unit, set small below the title."""
    unit: str = ""
    better: str = "neither"
    numeric: bool = False
    group: str = ""
    """Columns next to each other with the same group share a heading."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with its name (also of its CSV file) and a sentence on how to read it."""

    name: str
    title: str
    caption: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Item, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.heads):
                raise ValueError(f"table {self.name!r} has {len(self.heads)} columns and a row of {len(row)} cells")

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Shared headings with the number of columns below each; empty without any."""
        found: list[tuple[str, int]] = []
        for head in self.heads:
            if found and found[-1][0] == head.group:
                found[-1] = (head.group, found[-1][1] + 1)
            else:
                found.append((head.group, 1))
        return found if any(name for name, _ in found) else []

    def csv(self, say: Callable[[str], str] = str) -> str:
        """Numbers in stored units with their interval ends, a word where there is no number, the record behind each.

        Args:
            say: what the columns added to a number are called in the table's language.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        wide = [head.numeric for head in self.heads]
        writer.writerow(name for head in self.heads for name in _csv_names(head, say))
        for row in self.rows:
            writer.writerow(value for item, full in zip(row, wide, strict=True) for value in _csv_values(item, full))
        return out.getvalue()


def _csv_names(head: Head, say: Callable[[str], str]) -> list[str]:
    name = " ".join(
        part for part in (head.full or head.title, f"[{head.unit}]" if head.unit else "", head.group) if part
    )
    return [name, *(f"{name} {say(end)}" for end in ("low", "high", "record"))] if head.numeric else [name]


def _csv_values(item: Item, wide: bool) -> list[object]:
    if not wide:
        return [item.text]
    shown = item.text if item.value is None else item.value
    return [shown, *("" if end is None else end for end in (item.low, item.high)), item.record or ""]


def comparison(board: Board, name: str, caption: str) -> Table:
    """One row for a variant; costs first, then accuracies, each group headed by the size it was measured at."""
    columns = sorted(board.columns, key=lambda column: column.accuracy)
    heads = [Head(title="Variant"), *(column_head(column) for column in columns)]
    by_column = [_compared(board, column) for column in columns]
    rows = [(row_item(row), *items) for row, *items in zip(board.rows, *by_column, strict=True)]
    return Table(name=name, title="Comparison", caption=caption, heads=tuple(heads), rows=tuple(rows))


def _compared(board: Board, column: Column) -> list[Item]:
    """The items of a column; what has a detector in front of it says so, and is never the best without."""
    items = [entry(board, row, column) for row in board.rows]
    whole = [board.detected(row, column.quantity) for row in board.rows]
    bare = [replace(item, value=None) if more else item for item, more in zip(items, whole, strict=True)]
    return [
        replace(item, by=f"{column.scale.full(more.value)} with detector") if more else found
        for item, found, more in zip(items, marked(bare, column.meaning.better), whole, strict=True)
    ]


def row_item(row: Row) -> Item:
    """The heading of a line."""
    return Item(text=row.title, kind="head", family=row.arch)


def marked(items: Sequence[Item], better: str) -> list[Item]:
    """Marks the best of a column and all that its interval does not rule out; none where fewer than two differ."""
    known = [item.value for item in items if item.value is not None]
    if better == "neither" or len(set(known)) < 2:
        return list(items)
    top = min(known) if better == "lower" else max(known)
    best = next(item for item in items if item.value == top)
    low, high = _ends(best)

    def reaches(item: Item) -> bool:
        if item.value is None:
            return False
        ends = _ends(item)
        return ends[0] <= high and low <= ends[1]

    return [replace(item, best=reaches(item)) for item in items]


def _ends(item: Item) -> tuple[float, float]:
    value = item.value or 0.0
    return (value if item.low is None else item.low, value if item.high is None else item.high)


def column_head(column: Column) -> Head:
    """Title, unit and setting of a column of the comparison."""
    meaning = column.meaning
    return Head(
        title=SHORT.get(column.quantity, meaning.title),
        full=meaning.title,
        note=", ".join(filter(None, (column.scale.name, _noted(column)))),
        unit=meaning.unit,
        better=meaning.better,
        numeric=True,
        group=f"{'accuracy' if column.accuracy else 'cost'} at {column.size}",
    )


def _noted(column: Column) -> str:
    """The part of the setting that a reader of this column must know."""
    fields = dict(column.setting)
    if column.accuracy:
        noise = float(fields["noise"])
        return fields["data"] + (f", {noise:.0%} noise" if noise else "")
    return f"batch {fields['batch']}" if column.measure not in ("params", "flops") else ""


def entry(board: Board, row: Row, column: Column) -> Item:
    """A number with its interval, a status, or the words for nothing."""
    found = board.get(row, column.quantity)
    if found is None:
        other = board.elsewhere(row, column)
        return Item(text=ABSENT, note=f"only at {differing(other, column)}" if other else "", kind="absent")
    if column.quantity not in found.estimates:
        return failure_item(found)
    flags = [*found.flags, *([f"measured in environment {found.env}"] if found.env != board.env else [])]
    return value_item(
        found.estimates[column.quantity], column.scale, found, by=_borrowed(row, found), flags=tuple(flags)
    )


def value_item(
    estimate: Estimate, unit: Scale, found: Measured, *, by: str = "", flags: tuple[str, ...] | None = None
) -> Item:
    """A number as a table shows it."""
    ends = unit.span(*estimate.interval) if estimate.interval else ""
    return Item(
        text=unit.show(estimate.value),
        note=ends,
        by=by,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        record=found.first.id,
        flags=found.flags if flags is None else flags,
    )


def failure_item(found: Measured) -> Item:
    """A status in place of a number; a measurement with status ok that lacks the quantity says so."""
    words = STATUS_WORDS.get(found.first.status, "no value")
    return Item(text=words, record=found.first.id, kind="failed")


def _borrowed(row: Row, found: Measured) -> str:
    """Which relative or which scorer the number is from."""
    late = "+late" if found.row.arch != row.arch else ""
    return " · ".join(filter(None, (scorer_words(found), late)))


def scorer_words(found: Measured) -> str:
    """``rerank k=16``; empty for what is no retrieval."""
    return f"{found.scorer} k={found.k}" if found.scorer and found.k else found.scorer or ""


def differing(found: Measured, column: Column) -> str:
    """The fields of a measurement's setting that are not the column's."""
    wanted = dict(column.setting)
    return ", ".join(f"{name} {value}" for name, value in found.setting if wanted.get(name) != value)


def measurement_table(everything: Sequence[Measured]) -> Table:
    """Every quantity of every measurement, one a line, with its spread and its method."""
    titles = ("Variant", "Quantity", "Value", "Unit", "Quartiles", "n", "Interval from", "Setting", "Environment")
    heads = [Head(title=title, numeric=title in ("Value",)) for title in titles]
    rows = []
    for m in sorted(everything, key=lambda m: (m.row.order, m.measure, m.setting, m.scorer or "")):
        setting = setting_words(m)
        for name, value in m.estimates.items():
            meaning = quantity(name)
            unit = scale(meaning.unit, [value.value])
            quartiles = "" if value.q1 is None or value.q3 is None else unit.span(value.q1, value.q3)
            words = (unit.name, quartiles, f"{value.n:,}", value.method, setting, m.env)
            rows.append(
                (
                    row_item(m.row),
                    Item(text=meaning.title),
                    value_item(value, unit, m),
                    *(Item(text=word) for word in words),
                )
            )
    caption = (
        "Median and bootstrap interval of timings, rates with Wilson's interval; quartiles are of the raw samples."
    )
    return Table(name="measurements", title="All measurements", caption=caption, heads=tuple(heads), rows=tuple(rows))


def setting_words(m: Measured) -> str:
    """What of a measurement's setting is not the plain case."""
    plain = {"compile": "no", "attention": "sdpa", "data": "random", "noise": "0.0", "budget": "default"}
    words = [f"{k} {v}" for k, v in m.setting if plain.get(k) != v and v != "default"]
    return ", ".join([*words, *([f"scored by {scorer_words(m)}"] if m.scorer else [])])
