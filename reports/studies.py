"""Which records compare architectures, and which vary one of them to study its parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from vlpbench.reports import ablation_words
from vlpbench.results.record import Cell, Record

CLAIMS = "notes"
"""Suite whose cells decide claims: beside reference recipes it holds what single claims vary."""
VARIED = ("weights", "distilled", "queue_size", "momentum_rate", "alpha", "label_smoothing", "changes", "noise")
"""Fields that a study varies; a reference recipe leaves them at their default."""


def compared_records(records: Sequence[Record]) -> list[Record]:
    """Records for tables and figures that set architectures side by side.

    Rows of an ablation are too many and too alike for these, and so are recipes that a claim varies: of the suite of
    claims only the recipe that most of its cells share stands for an architecture. Without any other record all count.
    """
    kept = [record for record in records if record.suite not in (ablation_words.SUITE, CLAIMS)]
    claims = [record for record in records if record.suite == CLAIMS]
    return kept + _references(claims) or list(records)


def _references(records: Sequence[Record]) -> list[Record]:
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if not any(getattr(record.cell, name) != Cell.model_fields[name].default for name in VARIED):
            cell = record.cell
            groups[cell.arch, cell.size, cell.measure, cell.momentum].append(record)
    found = []
    for group in groups.values():
        most = max(len(record.cell.objectives) for record in group)
        whole = [record for record in group if len(record.cell.objectives) == most]
        common = Counter(_recipe(record.cell) for record in whole).most_common(1)[0][0]
        found += [record for record in whole if _recipe(record.cell) == common]
    return found


def _recipe(cell: Cell) -> tuple[object, ...]:
    return cell.objectives, cell.negatives, cell.finetune_momentum, cell.code
