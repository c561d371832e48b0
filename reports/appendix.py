"""The appendix: every record with what was asked, what came of it, and the command that measures it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlpbench.reports import ablation_words
from vlpbench.reports.board import quantity
from vlpbench.reports.names import Row, text_of
from vlpbench.reports.units import scale
from vlpbench.results.record import Record


@dataclass(frozen=True, kw_only=True)
class Card:
    """One record in the appendix: all that is needed to see where a number came from and to measure it again."""

    record: Record
    title: str
    fields: tuple[tuple[str, str], ...]
    """Of the cell, those that are not at their default."""
    values: tuple[str, ...]
    command: str


def cards(records: Sequence[Record]) -> tuple[Card, ...]:
    """One for each record, in reading order."""
    return tuple(_card(record) for record in sorted(records, key=reading_order))


def record_title(record: Record) -> str:
    """Variant, size and scorer."""
    row = Row(arch=record.cell.arch, momentum=record.cell.momentum)
    scorer = f", {record.cell.scorer}" if record.cell.scorer else ""
    return f"{row.title}, {record.cell.size}{scorer}"


def reading_order(record: Record) -> tuple[Any, ...]:
    """Architectures in their order, then measures."""
    cell = record.cell
    return Row(arch=cell.arch, momentum=cell.momentum).order, cell.measure, cell.id, record.env.id


def _card(record: Record) -> Card:
    cell = record.cell
    values = []
    for name, series in record.samples.items():
        if not series.values:
            continue
        ordered = sorted(series.values)
        unit = scale(series.unit, ordered)
        middle = ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1 :][:2]) / 2
        spread = f", {unit.span(ordered[0], ordered[-1])} in {len(ordered)} samples" if len(ordered) > 1 else ""
        values.append(f"{quantity(name).title}: {unit.full(middle)}{spread}")
    return Card(
        record=record,
        title=f"{record_title(record)}: {cell.measure}",
        fields=tuple((k, text_of(getattr(cell, k))) for k in cell.model_dump(exclude_defaults=True)),
        values=tuple(values),
        command=_command(record),
    )


def _command(record: Record) -> str:
    if record.suite == ablation_words.SUITE:
        return ablation_words.command(record.cell)
    return f"vlpbench run {record.suite} --only id={record.cell.id}"
