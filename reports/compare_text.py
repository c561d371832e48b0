"""A comparison in words: for a terminal, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vlpbench.reports.compare import Change, Comparison
from vlpbench.reports.gate import Outcome
from vlpbench.reports.stats import Estimate
from vlpbench.reports.units import scale, times

HEADS = ("Cell", "Quantity", "A", "B", "B/A", "95 %", "")
ELSEWHERE = "other environment"
WORDS = {"same": "no change seen", "undecided": "no interval"}


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the two sets are called, and how many records each has."""

    before: str
    after: str
    records: tuple[int, int]


def heading(found: Comparison, names: Names) -> list[str]:
    """What is compared, and whether its times can be."""
    lines = [f"{side}: {name} ({count} records)" for side, name, count in _sides(names)]
    if not found.changes:
        lines.append("No cell has numbers in both.")
    elif found.elsewhere:
        lines.append(
            f"A and B were measured in DIFFERENT ENVIRONMENTS: {found.elsewhere} of {len(found.changes)} rows, marked "
            f"'{ELSEWHERE}', tell of the machine and its software as much as of what is compared."
        )
    else:
        lines.append("Where numbers depend on the machine, A and B were measured in the same environment.")
    return lines


def _sides(names: Names) -> Iterator[tuple[str, str, int]]:
    return zip(("A", "B"), (names.before, names.after), names.records, strict=True)


def text(found: Comparison, outcomes: Sequence[Outcome], names: Names) -> str:
    """For a terminal."""
    blocks = [heading(found, names)]
    if found.differences:
        rows = [(d.field, d.before, d.after) for d in found.differences]
        blocks.append(_grid(("What differs", "A", "B"), rows, numeric=()))
    if found.changes:
        blocks.append(_by_cell(found.changes))
    blocks += [[f"{title}:", *(f"  {label}" for label in labels)] for title, labels in _alone(found)]
    blocks.append(gate_lines(outcomes))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def markdown(found: Comparison, outcomes: Sequence[Outcome], names: Names) -> str:
    """As a document."""
    blocks = ["# Comparison", *heading(found, names)]
    if found.differences:
        rows = [(d.field, d.before, d.after) for d in found.differences]
        blocks += ["## What differs", _markdown_table(("Field", "A", "B"), rows)]
    if found.changes:
        rows = [_row(change) for change in found.changes]
        blocks += ["## What changed", _markdown_table((*HEADS[:-1], "Verdict"), rows)]
    for title, labels in _alone(found):
        blocks += [f"## {title}", "\n".join(f"- {label}" for label in labels)]
    if outcomes:
        blocks += ["## Gates", "\n".join(f"- {line}" for line in gate_lines(outcomes))]
    return "\n\n".join(blocks) + "\n"


def gate_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """What each gate came to; every change that made one fail has a line."""
    lines = []
    for outcome in outcomes:
        gate = outcome.gate.text
        lines += [f"FAILED {gate}: {_said(change)}" for change in outcome.failed]
        lines += [f"undecided {gate}: {_said(change)}" for change in outcome.undecided]
        if not outcome.judged:
            lines.append(f"FAILED {gate}: there is nothing to judge, so it cannot pass")
        elif outcome.passed:
            lines.append(f"passed {gate}: {outcome.judged} judged")
    return lines


def _said(change: Change) -> str:
    marked = f" ({ELSEWHERE})" if change.elsewhere else ""
    said = f"{times(change.ratio.value)}, 95 % {_ends(change.ratio) or 'unknown'}" if change.ratio else _verdict(change)
    return f"{change.label}: {change.meaning.title} {said}{marked}"


def as_json(found: Comparison, outcomes: Sequence[Outcome], names: Names) -> dict[str, Any]:
    """For machines: stored units."""
    return {
        "a": {"name": names.before, "records": names.records[0]},
        "b": {"name": names.after, "records": names.records[1]},
        "differences": [asdict(difference) for difference in found.differences],
        "changes": [_change_json(change) for change in found.changes],
        "only_a": list(found.only_before),
        "only_b": list(found.only_after),
        "gates": [
            {
                "gate": outcome.gate.text,
                "passed": outcome.passed,
                "judged": outcome.judged,
                "failed": [f"{change.cell.id} {change.quantity}" for change in outcome.failed],
                "undecided": [f"{change.cell.id} {change.quantity}" for change in outcome.undecided],
            }
            for outcome in outcomes
        ],
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "cell": change.cell.id,
        "label": change.label,
        "quantity": change.quantity,
        "unit": change.meaning.unit,
        "a": change.before.value,
        "b": None if change.after is None else change.after.value,
        "ratio": None if change.ratio is None else change.ratio.value,
        "ci": None if change.ratio is None or change.ratio.interval is None else list(change.ratio.interval),
        "method": None if change.ratio is None else change.ratio.method,
        "verdict": change.verdict,
        "other_environment": change.elsewhere,
        "flags": list(change.flags),
        "status": change.status.value,
    }


def _row(change: Change) -> tuple[str, ...]:
    shown = [change.before.value] + ([change.after.value] if change.after else [])
    unit = scale(change.meaning.unit, shown)
    after = unit.full(change.after.value) if change.after else "none"
    ratio = times(change.ratio.value) if change.ratio else ""
    marks = [_verdict(change), ELSEWHERE if change.elsewhere else "", "flagged" if change.flags else ""]
    title = change.meaning.title
    ends = _ends(change.ratio)
    return (change.label, title, unit.full(change.before.value), after, ratio, ends, ", ".join(filter(None, marks)))


def _verdict(change: Change) -> str:
    if change.verdict == "lost":
        return "no number in B" if change.status == "ok" else f"no number in B: {change.status.value}"
    if change.verdict == "same" and change.ratio and change.ratio.method == "counted":
        return "equal"
    return WORDS.get(change.verdict, change.verdict)


def _ends(ratio: Estimate | None) -> str:
    if ratio is None or ratio.interval is None:
        return ""
    low, high = ratio.interval
    return "counted" if ratio.method == "counted" else f"{low:.3g}–{high:.3g}"


def _alone(found: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    sides = [("Only in A", found.only_before), ("Only in B", found.only_after)]
    return [(title, labels) for title, labels in sides if labels]


def _by_cell(changes: Sequence[Change]) -> list[str]:
    """A line with each cell's name, and its quantities below."""
    head, *lines = _grid(("", *HEADS[1:]), [("", *_row(change)[1:]) for change in changes], numeric=(2, 3, 4, 5))
    found, last = [head], None
    for change, line in zip(changes, lines, strict=True):
        found += [line] if change.label == last else [change.label, line]
        last = change.label
    return found


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int]) -> list[str]:
    wide = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, *rows):
        parts = [f"{p:>{w}}" if i in numeric else f"{p:<{w}}" for i, (p, w) in enumerate(zip(row, wide, strict=True))]
        lines.append("  ".join(parts).rstrip())
    return lines


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(part.replace("|", "\\|") for part in line) + " |" for line in lines)
