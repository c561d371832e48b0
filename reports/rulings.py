"""Verdicts as a page shows them: word and icon, effect and interval against the bounds, scale, published numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vlpbench.reports.claim_words import bounds, shown
from vlpbench.reports.claims import KINDS, WORDS, Outcome, Verdict, Word
from vlpbench.reports.published import Published
from vlpbench.reports.svg import FAINT, GRID, INK, Picture
from vlpbench.reports.table import Head, Item, Table
from vlpbench.reports.units import times

ICONS: dict[Word, str] = {"supported": "✓", "refuted": "✗", "inconclusive": "?", "not measured": "–"}
"""Set before the word, so that neither colour nor the word alone carries the verdict."""
RULE = (
    "The bounds of every claim were written down before anything was measured. A claim is supported if the whole 95 % "
    "interval of each of its effects lies within its bounds, refuted if one lies beyond them, and inconclusive "
    "otherwise: an interval that touches a bound decides nothing. Lower and upper bound together are two one-sided "
    "tests of equivalence. Claims judged at once share an error of 5 % (Holm's procedure). What is counted or read off "
    "a built model has no interval. Accuracy and cost never meet in one verdict, and every verdict names the scale it "
    "holds at."
)
"""How verdicts are reached, for a reader."""
WIDE, HIGH = 150.0, 22.0
"""Units of the view box of an interval's drawing."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One condition of a claim, or one number behind it."""

    what: str
    text: str
    note: str = ""
    mark: str = ""
    """How a published number is known, where that has to stand beside it."""
    records: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """One row of the table of verdicts."""

    name: str
    """Anchor of the row."""
    kind: Word
    """The verdict; ``word`` is what a reader sees."""
    word: str
    icon: str
    subject: str
    """Accuracy, efficiency or structure."""
    gloss: str
    quote: str
    effect: str
    interval: str
    about: str
    rule: str
    picture: Picture | None
    scale: str
    published: tuple[Line, ...]
    why: str
    lines: tuple[Line, ...]
    """Conditions, then numbers."""
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    records: tuple[str, ...]
    item: Item
    """The effect as a cell of a table, for sorting and for the file."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many verdicts came out this way."""

    kind: Word
    word: str
    icon: str
    count: int


def rulings(verdicts: Sequence[Verdict]) -> tuple[Ruling, ...]:
    """One for a verdict; what was measured comes first, otherwise in the order of the claims."""
    ordered = sorted(verdicts, key=lambda v: v.word == "not measured")
    seen: Counter[str] = Counter()
    found = []
    for verdict in ordered:
        name = f"claim-{verdict.claim.id}-{verdict.claim.kind}".lower()
        seen[name] += 1
        found.append(_ruling(verdict, name if seen[name] == 1 else f"{name}-{seen[name]}"))
    return tuple(found)


def tallies(found: Sequence[Ruling]) -> tuple[Tally, ...]:
    """Counts in the order of the words; those of zero are left out."""
    count = Counter(one.kind for one in found)
    return tuple(Tally(kind=word, word=word, icon=ICONS[word], count=count[word]) for word in WORDS if count[word])


def _ruling(verdict: Verdict, name: str) -> Ruling:
    claim, outcome, low, high = verdict.claim, _deciding(verdict), verdict.low, verdict.high
    effect = "" if verdict.effect is None else shown(verdict.effect, verdict.unit)
    if verdict.effect is None and verdict.word != "not measured":
        effect = next((item.text for item in (outcome.evidence if outcome else ())), "")
    ends = "" if low is None or high is None or low == high else _span(low, high, verdict.unit)
    rule = bounds(outcome.condition) if outcome and outcome.condition.decides else ""
    return Ruling(
        name=name,
        kind=verdict.word,
        word=verdict.word,
        icon=ICONS[verdict.word],
        subject=KINDS[claim.kind],
        gloss=claim.gloss,
        quote=claim.quote,
        effect=effect,
        interval=ends,
        about=verdict.about,
        rule=rule,
        picture=_picture(outcome) if outcome else None,
        scale=verdict.scale,
        published=tuple(
            Line(
                what=p.what,
                text=_published(p),
                note=", ".join(filter(None, (p.table, p.hardware, p.mark))),
                mark=p.mark,
            )
            for p in verdict.published
        ),
        why=verdict.why,
        lines=tuple(_lines(verdict)),
        missing=verdict.missing,
        notes=verdict.notes,
        records=verdict.records,
        item=Item(
            text=effect,
            note=ends,
            value=verdict.effect,
            low=verdict.low,
            high=verdict.high,
            record=next(iter(verdict.records), None),
        ),
    )


def _span(low: float, high: float, unit: str) -> str:
    """``+2.0 to +4.0 points``: both ends, the unit once."""
    first, last = shown(low, unit), shown(high, unit)
    number, _, name = first.rpartition(" ")
    return f"{number if number and last.endswith(f' {name}') else first} to {last}"


def _deciding(verdict: Verdict) -> Outcome | None:
    return next((one for one in verdict.outcomes if one.condition.name == verdict.about), None)


def _published(number: Published) -> str:
    if number.unit == "x":
        return times(number.value)
    sign = "+" if number.unit == "points" and number.value > 0 else ""
    return f"{sign}{number.value:,g} {number.unit}".replace("-", "−")


def _lines(verdict: Verdict) -> list[Line]:
    found = []
    for outcome in verdict.outcomes:
        effect = "" if outcome.effect is None else shown(outcome.effect, outcome.unit)
        low, high = outcome.low, outcome.high
        ends = "" if low is None or high is None or low == high else f" ({_span(low, high, outcome.unit)})"
        condition = outcome.condition
        rule = f"has to be {bounds(condition)}" if condition.decides else ""
        note = "; ".join(filter(None, (rule, condition.margin if condition.decides else "", outcome.method)))
        found.append(Line(what=condition.name, text=f"{outcome.state}: {effect}{ends}".rstrip(": "), note=note))
        found += [
            Line(what=item.what, text=item.text, note=item.method, records=item.records) for item in outcome.evidence
        ]
    return found


def table(found: Sequence[Ruling]) -> Table:
    """For the Markdown twin and the file."""
    titles = ("Verdict", "Claim", "In the notes", "About", "Effect", "Needed", "Kind", "Scale", "Published", "Why")
    heads = tuple(Head(title=title, numeric=title == "Effect") for title in titles)
    rows = tuple(
        (
            Item(text=f"{one.icon} {one.word}"),
            Item(text=one.gloss),
            Item(text=one.quote),
            Item(text=one.about),
            one.item,
            Item(text=one.rule),
            Item(text=one.subject),
            Item(text=one.scale),
            Item(text="; ".join(f"{p.what} {p.text} ({p.note})" for p in one.published)),
            Item(text=one.why),
        )
        for one in found
    )
    return Table(name="verdicts", title="Verdicts", caption="", heads=heads, rows=rows)


def _picture(outcome: Outcome) -> Picture | None:
    """The interval against the bounds; shaded is where the condition holds. None without a number and a bound."""
    effect, low, high = outcome.effect, outcome.low, outcome.high
    bounds = [b for b in (outcome.condition.at_least, outcome.condition.at_most) if b is not None]
    if effect is None or not bounds:
        return None
    ends = [effect, *(end for end in (low, high) if end is not None), *bounds]
    wide = (max(ends) - min(ends)) or abs(max(ends)) or 1.0
    start, full = min(ends) - 0.18 * wide, 1.36 * wide

    def x(value: float) -> float:
        return round(WIDE * min(1.0, max(0.0, (value - start) / full)), 1)

    least, most = outcome.condition.at_least, outcome.condition.at_most
    left, right = 0.0 if least is None else x(least), WIDE if most is None else x(most)
    parts = [f'<rect x="{left}" y="3" width="{round(right - left, 1)}" height="16" fill="{GRID}"/>']
    parts += [_stroke(x(b), x(b), 1, 21, FAINT, ' stroke-dasharray="3 2"') for b in bounds]
    if low is not None and high is not None:
        parts += [_stroke(x(low), x(high), 11, 11, INK), *(_stroke(x(e), x(e), 7, 15, INK) for e in (low, high))]
    parts.append(f'<circle cx="{x(effect)}" cy="11" r="3.6" fill="{INK}"/>')
    return Picture(drawing=f'<svg viewBox="0 0 {WIDE:g} {HIGH:g}" aria-hidden="true">{"".join(parts)}</svg>')


def _stroke(x1: float, x2: float, y1: float, y2: float, hue: str, more: str = "") -> str:
    return f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}" stroke="{hue}" stroke-width="1.6"{more}/>'
