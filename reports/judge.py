"""Decides claims: the interval of every condition against its bounds, then all claims together by Holm's procedure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from vlpbench.reports import claim_words as words
from vlpbench.reports.claim_cells import Picked, Shelf, pick
from vlpbench.reports.claim_numbers import Absent, Effect, effect, series
from vlpbench.reports.claim_types import KINDS, LEVEL, Claim, Condition, Evidence, Outcome, State, Verdict, Word
from vlpbench.reports.published import of_claim
from vlpbench.results.record import Record

MOST = 3
"""Missing cells that a sentence names."""
ABSENT = Picked(setting=(), terms={}, missing=("not measured at this scale",))
"""Of a condition that decides nothing, at another scale than the claim's."""


def verdicts(claims: Sequence[Claim], records: Sequence[Record]) -> tuple[Verdict, ...]:
    """See `vlpbench.reports.claims.judge`."""
    shelf = Shelf.of(records)
    drafts = [draft for claim in claims for draft in _drafts(claim, shelf)]
    family = [number for number, draft in enumerate(drafts) if draft.p is not None]
    adjusted = dict(zip(family, holm([drafts[number].p or 0.0 for number in family]), strict=True))
    final = [
        _corrected(draft, adjusted[number], len(family)) if number in adjusted else draft
        for number, draft in enumerate(drafts)
    ]
    return tuple(_noted(verdict, final) for verdict in final)


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for all of them together (Holm, 1979): to reject those up to a level keeps the error."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def _drafts(claim: Claim, shelf: Shelf) -> list[Verdict]:
    """At the claim's own scale, and at every other that has all of its cells."""
    found = [pick(claim, condition, shelf) for condition in claim.conditions]
    own = [mine for mine, _ in found]
    drafts = [_draft(claim, own)]
    here = {(one.sizes, one.data) for one in own}
    if claim.kind == "S" or len(here) > 1:
        return drafts
    others: dict[tuple[Any, ...], list[Picked | None]] = {}
    for number, (_, elsewhere) in enumerate(found):
        for one in elsewhere:  # the newest of a scale comes last, and stays
            place = (one.sizes, one.data)
            if place not in here:
                others.setdefault(place, [None] * len(found))[number] = one
    for _, row in sorted(others.items()):
        if all(one or not condition.decides for one, condition in zip(row, claim.conditions, strict=True)):
            drafts.append(_draft(claim, [one or ABSENT for one in row]))
    return drafts


def _draft(claim: Claim, picked: Sequence[Picked]) -> Verdict:
    """A verdict by its intervals alone."""
    outcomes = tuple(_outcome(c, one) for c, one in zip(claim.conditions, picked, strict=True))
    deciding = [outcome for outcome in outcomes if outcome.condition.decides]
    word, about = _word(deciding)
    return Verdict(
        claim=claim,
        word=word,
        scale=words.scale_of(claim, picked),
        about=about.condition.name,
        effect=about.effect,
        low=about.low,
        high=about.high,
        unit=about.unit,
        why=_why(word, about, deciding),
        p=_p(word, deciding),
        outcomes=outcomes,
        published=of_claim(claim),
        notes=tuple(filter(None, (claim.note, _codes(picked)))),
    )


def _outcome(condition: Condition, picked: Picked) -> Outcome:
    lacking = Outcome(condition=condition, state="not measured", missing=picked.missing, unit=words.unit_of(condition))
    if picked.missing:
        return replace(lacking, why=picked.why or "cells are missing", evidence=_evidence(condition, picked))
    try:
        if condition.statistic == "exact":
            return _exact(condition, picked)
        found = effect(condition, picked)
    except (Absent, ValueError) as error:
        return replace(lacking, missing=(str(error),), why=str(error))
    state = _state(condition, found)
    ends = found.interval
    p_holds, p_fails = (None, None) if found.counted or state == "shown" else _tests(condition, found)
    return Outcome(
        condition=condition,
        state=state,
        effect=found.value,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        unit=words.unit_of(condition),
        method=found.method,
        p_holds=p_holds,
        p_fails=p_fails,
        evidence=_evidence(condition, picked),
        why=words.because(condition, found, state),
    )


def _state(condition: Condition, found: Effect) -> State:
    if not condition.decides:
        return "shown"
    low, high, ends = condition.at_least, condition.at_most, found.interval
    if found.counted:
        return "holds" if (low is None or found.value >= low) and (high is None or found.value <= high) else "fails"
    if ends is None:
        return "open"
    # Where one side is only bounded, the end that it leaves open is nowhere.
    bottom = -float("inf") if found.at_most else ends[0]
    top = float("inf") if found.at_least else ends[1]
    if (low is None or bottom > low) and (high is None or top < high):
        return "holds"
    return "fails" if (low is not None and top < low) or (high is not None and bottom > high) else "open"


def _tests(condition: Condition, found: Effect) -> tuple[float, float]:
    """p of the hypotheses that the effect is not within the bounds, and that it is not beyond them."""
    low, high = condition.at_least, condition.at_most
    within = [1.0 if found.at_most else found.p_above(low)] if low is not None else []
    within += [1.0 if found.at_least else found.p_below(high)] if high is not None else []
    beyond = [1.0 if found.at_least else found.p_below(low)] if low is not None else []
    beyond += [1.0 if found.at_most else found.p_above(high)] if high is not None else []
    return max(within), min(beyond)


def _exact(condition: Condition, picked: Picked) -> Outcome:
    """All cells have to have the number that is asked for."""
    values = [
        next(iter(series(slot, term.quantity).draws.values())) for term in condition.a for slot in picked.terms[term]
    ]
    low, high = condition.at_least, condition.at_most
    if not condition.decides:
        state: State = "shown"
    elif condition.equals is not None:
        state = "holds" if all(value == condition.equals for value in values) else "fails"
    else:
        inside = ((low is None or value >= low) and (high is None or value <= high) for value in values)
        state = "holds" if all(inside) else "fails"
    different = list(dict.fromkeys(values))
    seen = ", ".join(words.shown(value, "") for value in different)
    why = f"{seen}, shown beside" if state == "shown" else f"found: {seen}; asked for: {words.bounds(condition)}"
    one = different[0] if len(different) == 1 else None
    unit = words.unit_of(condition)
    found = _evidence(condition, picked)
    return Outcome(
        condition=condition,
        state=state,
        effect=one,
        low=one,
        high=one,
        unit=unit,
        method="counted",
        evidence=found,
        why=why,
    )


def _evidence(condition: Condition, picked: Picked) -> tuple[Evidence, ...]:
    slots = [slot for found in picked.terms.values() for slot in found]
    varying = words.varying_fields(slot.cell for slot in slots)
    lines = []
    for side, terms in (("A", condition.a), ("B", condition.b)):
        for term in terms:
            for slot in picked.terms.get(term, ()):
                if not slot.records:
                    continue
                try:
                    one = series(slot, term.quantity)
                except Absent:
                    continue
                lines.append(words.evidence(side if condition.b else "", slot, term, one, varying))
    return tuple(lines)


def _word(deciding: Sequence[Outcome]) -> tuple[Word, Outcome]:
    """The word by the states, and the condition that it hangs on."""
    options: tuple[tuple[str, Word], ...] = (
        ("fails", "refuted"),
        ("not measured", "not measured"),
        ("open", "inconclusive"),
        ("holds", "supported"),
    )
    for state, word in options:
        if found := [outcome for outcome in deciding if outcome.state == state]:
            # What is counted is beyond doubt, so it goes before what is tested.
            exact = [outcome for outcome in found if outcome.exact] if state == "fails" else []
            return word, (exact or sorted(found, key=_doubt) if state == "fails" else found)[0]
    raise ValueError("a claim without a condition that decides cannot be judged")


def _doubt(outcome: Outcome) -> float:
    return 0.0 if outcome.p_fails is None else outcome.p_fails


def _p(word: Word, deciding: Sequence[Outcome]) -> float | None:
    """Of the claim as a whole: for it the worst of its conditions, against it the best times how many were tried."""
    if word == "not measured":
        return None
    if any(outcome.state == "fails" and outcome.exact for outcome in deciding):
        return None
    for_it = [outcome.p_holds for outcome in deciding if outcome.p_holds is not None]
    against = [outcome.p_fails for outcome in deciding if outcome.p_fails is not None]
    if not for_it:
        return None
    refuting = min(1.0, len(against) * min(against))
    return {"supported": max(for_it), "refuted": refuting}.get(word, min(max(for_it), refuting))


def _why(word: Word, about: Outcome, deciding: Sequence[Outcome]) -> str:
    if word == "not measured":
        absent = [cell for outcome in deciding for cell in outcome.missing]
        listed = list(dict.fromkeys(absent))
        more = f" and {len(listed) - MOST} more" if len(listed) > MOST else ""
        return f"Not measured: {'; '.join(listed[:MOST])}{more}" + (f" ({about.why})." if "apart" in about.why else ".")
    tail = f"; all {len(deciding)} conditions hold" if word == "supported" and len(deciding) > 1 else ""
    return f"{about.condition.name}: {about.why}{tail}."


def _codes(picked: Iterable[Picked]) -> str:
    codes = {record.code for one in picked for record in one.records}
    return f"Its cells were measured with {len(codes)} versions of the code." if len(codes) > 1 else ""


def _corrected(verdict: Verdict, p: float, family: int) -> Verdict:
    """The verdict that is left once all claims are looked at together."""
    found = replace(verdict, p_holm=p, family=family)
    said = f"{words.p_words(p)} after Holm's correction over the {family} claims that rest on a test"
    if verdict.word not in ("supported", "refuted"):
        return found
    if p <= LEVEL:
        return replace(found, why=f"{verdict.why[:-1]} ({said}).")
    lost = f"By itself it would be {verdict.word}: {verdict.why[:-1]}; but {said}."
    return replace(found, word="inconclusive", why=lost)


def _noted(verdict: Verdict, everything: Sequence[Verdict]) -> Verdict:
    """With a note on every verdict of the same sentence that says otherwise."""
    decided = ("supported", "refuted")
    notes = [
        f"At another scale ({other.scale}) it is {other.word}."
        if other.claim.kind == verdict.claim.kind
        else f"As a sentence on {KINDS[other.claim.kind]} it is {other.word}."
        for other in everything
        if other is not verdict
        and other.claim.id == verdict.claim.id
        and other.word != verdict.word
        and other.word in decided
        and verdict.word in decided
    ]
    return replace(verdict, notes=(*verdict.notes, *notes)) if notes else verdict
