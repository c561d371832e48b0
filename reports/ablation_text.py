"""An ablation as text on a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vlpbench.reports.ablation import Study
from vlpbench.reports.ablation_rows import Line
from vlpbench.reports.ablation_words import DIFFERENCE, RATIO, paper_of, setting_words, tables
from vlpbench.reports.stats import Estimate
from vlpbench.reports.table import Head, Table


def text(study: Study) -> str:
    """For a terminal: a line for each row, and below it the differences to the row before with their intervals."""
    found = [f"{study.title}: {setting_words(study)}"]
    for table in tables(study, study.kind):
        found.append(_grid(table))
    reasons = dict.fromkeys(
        f"{line.name}: {entry.word}" for line in study.lines for entry in line.entries.values() if ":" in entry.word
    )
    if paper := paper_of(study):
        found.append(f"{paper['title']}: {paper['setting']}; from {paper['confidence']}")
    return "\n".join([*found, *reasons])


def _grid(table: Table) -> str:
    """A value and its difference share a column, one below the other."""
    columns: list[tuple[Head, list[list[str]]]] = []
    for place, head in enumerate(table.heads):
        cells = [[row[place].text, row[place].note] for row in table.rows]
        if head.title in (DIFFERENCE, RATIO):
            _, above = columns[-1]
            for old, (shown, ends) in zip(above, cells, strict=True):
                old[1:] = [shown, ends]
        else:
            columns.append((head, cells))
    return "\n".join(_lines(columns, len(table.rows)))


def _lines(columns: Sequence[tuple[Head, list[list[str]]]], rows: int) -> Iterator[str]:
    tops = [[head.title, head.note] for head, _ in columns]
    wide = [
        max(map(len, [*top, *(part for cell in cells for part in cell)]))
        for top, (_, cells) in zip(tops, columns, strict=True)
    ]
    for stack in (tops, *([cells[row] for _, cells in columns] for row in range(rows))):
        for level in range(max(map(len, stack))):
            parts = [cell[level] if level < len(cell) else "" for cell in stack]
            if any(parts):
                pairs = zip(parts, wide, columns, strict=True)
                yield "  ".join(f"{p:>{w}}" if head.numeric else f"{p:<{w}}" for p, w, (head, _) in pairs).rstrip()


def as_json(study: Study) -> dict[str, Any]:
    """For machines: stored units, differences in points, ratios of costs."""
    return {
        "kind": study.kind,
        "title": study.title,
        "setting": {key: value for key, value in study.setting.items() if value is not None},
        "environment": study.env,
        "seeds": study.seeds,
        "rows": [_line_json(line) for line in study.lines],
        "effects": [
            {"name": effect.name, "noise": effect.at, "values": {k: _json(v) for k, v in effect.values.items()}}
            for effect in study.effects
        ],
    }


def _line_json(line: Line) -> dict[str, Any]:
    entries = {
        key: {"value": _json(entry.value), "change": _json(entry.change), "word": entry.word}
        for key, entry in line.entries.items()
    }
    return {"name": line.name, "scored_by": line.protocol, **entries}


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    ends = list(estimate.interval) if estimate.interval else None
    return {"value": estimate.value, "ci": ends, "n": estimate.n, "method": estimate.method}
