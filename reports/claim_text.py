"""Verdicts as a terminal and a program read them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from vlpbench.reports.claim_types import KINDS, STATISTICS, WORDS, Outcome, Verdict
from vlpbench.reports.claim_words import HOLM, bounds, p_words, shown, span
from vlpbench.reports.published import Published

WIDTH = 120


def as_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """One object a verdict."""
    return [
        {
            "id": verdict.claim.id,
            "kind": verdict.claim.kind,
            "verdict": verdict.word,
            "effect": verdict.effect,
            "ci": None if verdict.low is None else [verdict.low, verdict.high],
            "unit": verdict.unit,
            "about": verdict.about,
            "scale": verdict.scale,
            "p_holm": verdict.p_holm,
            "why": verdict.why,
            "missing": list(verdict.missing),
            "records": list(verdict.records),
        }
        for verdict in verdicts
    ]


def table(verdicts: Sequence[Verdict]) -> str:
    """One line a verdict, and how many there are of each."""
    heads = ("claim", "kind", "verdict", "effect", "95 % interval", "scale")
    rows = [heads, *(_row(verdict) for verdict in verdicts)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    lines = ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts = [f"{n} {word}" for word in WORDS if (n := sum(verdict.word == word for verdict in verdicts))]
    return "\n".join([*lines, "", ", ".join(counts), *textwrap.wrap(HOLM, WIDTH)])


def _row(verdict: Verdict) -> tuple[str, ...]:
    effect, ends = effect_words(verdict)
    return (verdict.claim.id, KINDS[verdict.claim.kind], verdict.word, effect, ends, verdict.scale)


def effect_words(found: Verdict | Outcome) -> tuple[str, str]:
    """Effect and interval; empty where there are none, and where what is counted has no other end."""
    if found.effect is None:
        return "", ""
    wide = found.low is not None and found.high is not None and found.low != found.high
    ends = span(found.low or 0.0, found.high or 0.0, found.unit) if wide else ""
    return shown(found.effect, found.unit), ends


def explanation(verdicts: Sequence[Verdict]) -> str:
    """Everything about the verdicts of one id: rule, cells, numbers, interval, scale, published numbers."""
    return "\n\n".join("\n".join(_lines(verdict)) for verdict in verdicts)


def _lines(verdict: Verdict) -> Iterator[str]:
    claim = verdict.claim
    yield f"{claim.id} ({KINDS[claim.kind]}): {verdict.word.upper()}"
    yield from _wrapped(f"The notes ({claim.source}): {claim.quote}", 2)
    yield from _wrapped(f"In English: {claim.gloss}", 2)
    yield from _wrapped(f"Scale: {verdict.scale}", 2)
    yield from _wrapped(f"Why: {verdict.why}", 2)
    if verdict.p_holm is not None:
        rest = f"; {p_words(verdict.p or 0.0)} before" if verdict.p is not None else ""
        yield f"  {p_words(verdict.p_holm)} after Holm's correction over {verdict.family} claims{rest}"
    for note in verdict.notes:
        yield from _wrapped(f"Note: {note}", 2)
    for number, outcome in enumerate(verdict.outcomes, 1):
        yield ""
        yield from _condition(number, outcome)
    if verdict.published:
        yield ""
        yield "  Published:"
        for published in verdict.published:
            yield from _wrapped(published_words(published), 4)


def _condition(number: int, outcome: Outcome) -> Iterator[str]:
    condition = outcome.condition
    yield from _wrapped(f"{number}. {condition.name}: {outcome.state}", 2)
    rule = f"{condition.statistic} ({STATISTICS[condition.statistic]})"
    asked = f"asked for: {bounds(condition)}" if condition.decides else "shown beside, decides nothing"
    yield from _wrapped(f"rule: {rule}; {asked}", 5)
    if condition.margin:
        yield from _wrapped(f"bound: {condition.margin}", 5)
    effect, ends = effect_words(outcome)
    if effect:
        yield f"     effect: {effect}" + (f" ({ends}; {outcome.method})" if ends else f" ({outcome.method})")
    for item in outcome.evidence:
        place = f" ({item.method})" if item.method else ""
        yield from _wrapped(f"{item.what}: {item.text}{place} [{', '.join(item.records)}]", 5)
    for cell in outcome.missing:
        yield from _wrapped(f"missing: {cell}", 5)


def published_words(published: Published) -> str:
    """A published number with all that has to stand beside it."""
    value = shown(published.value, published.unit) if published.unit in ("x", "points") else ""
    value = value or f"{published.value:g} {published.unit}"
    rest = "; ".join(filter(None, (published.table, published.protocol, published.hardware, published.mark)))
    return f"{published.what}: {value} ({rest}; {published.source})"


def _wrapped(text: str, indent: int) -> list[str]:
    pad = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=pad, subsequent_indent=pad + "  ", break_long_words=False)
