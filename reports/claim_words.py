"""Claims in words: numbers with their units, what a verdict rests on, and why it is the word that it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from vlpbench.reports.board import quantity as meaning_of
from vlpbench.reports.claim_cells import Picked, Slot, cell_words
from vlpbench.reports.claim_numbers import DETAIL, Effect, Series
from vlpbench.reports.claim_types import Claim, Condition, Evidence, Term
from vlpbench.reports.names import SIZES
from vlpbench.reports.stats import seeds
from vlpbench.reports.units import number, scale, times
from vlpbench.results.record import Cell

PAPER = ("large", "base")
"""Sizes of the papers; so is any that is not on the common ladder."""
HOLM = (
    "All claims judged at once that rest on a test share an error of 5 %: their p values are corrected by Holm's "
    "procedure, and a verdict that does not survive it is inconclusive."
)


def unit_of(condition: Condition) -> str:
    """What the effect of a condition is counted in."""
    if condition.statistic == "ratio":
        return "x"
    if condition.rank_of:
        return "places"
    name = condition.a[0].quantity
    unit = "" if name.startswith(DETAIL) else meaning_of(name).unit
    return "points" if unit == "%" and condition.statistic == "difference" else unit


def shown(value: float, unit: str) -> str:
    """A number with its unit, signed where it is a difference."""
    if unit == "x":
        return times(value) if value >= 1 else f"{number(value)}×"
    if unit in ("points", "places"):
        return f"{signed(value)} {unit}"
    if unit in ("1", ""):
        return f"{value:,.0f}" if value == round(value) else number(value)
    return scale(unit, [value]).full(value)


def signed(value: float) -> str:
    """With its sign, unless it is none."""
    return f"{value:+.1f}".replace("-", "−") if f"{abs(value):.1f}" != "0.0" else "0.0"


def span(low: float, high: float, unit: str) -> str:
    """Both ends of an interval."""
    if unit in ("points", "places"):
        return f"{signed(low)} to {signed(high)} {unit}"
    return f"{shown(low, unit)} to {shown(high, unit)}"


def title_of(quantity: str) -> str:
    """What a quantity is called."""
    return (
        quantity.removeprefix(DETAIL).replace(".", ", ") if quantity.startswith(DETAIL) else meaning_of(quantity).title
    )


def evidence(side: str, slot: Slot, term: Term, one: Series, varying: Sequence[str]) -> Evidence:
    """The line of one cell."""
    values = list(one.draws.values())
    mean = fmean(values)
    found = seeds(values) if len(values) > 1 and one.seeded else None
    unit = "" if term.quantity.startswith(DETAIL) else meaning_of(term.quantity).unit
    by = scale(unit, [mean])
    text = by.full(mean) if unit not in ("", "1") else shown(mean, unit)
    draws = "seed" if one.seeded else "round"
    method = "counted" if one.counted else f"{len(values)} {draws}s" if len(values) > 1 else f"1 {draws}"
    if one.short:
        text, method = f"over {text}", f"{method}, of which some did not get there"
    return Evidence(
        what=f"{f'{side}: ' if side else ''}{cell_words(slot.cell, varying)}: {title_of(term.quantity)}",
        text=text,
        value=mean,
        low=found.low if found else None,
        high=found.high if found else None,
        unit=unit,
        method=method,
        records=tuple(dict.fromkeys(record.id for record in slot.records.values())),
    )


def varying_fields(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Fields in which the cells of a condition differ, so that they have to be said."""
    listed = list(cells)
    return tuple(
        name
        for name in Cell.model_fields
        if name not in ("arch", "momentum", "seed", "measure", "finetune")
        and len({getattr(c, name) for c in listed}) > 1
    )


def scale_of(claim: Claim, picked: Iterable[Picked]) -> str:
    """What the numbers of a claim were measured at: never one scale passed off as another."""
    if claim.kind == "S":
        return "structure"
    listed = list(picked)
    sizes = sorted({size for one in listed for size in one.sizes})
    if claim.kind == "A":
        data = sorted({name for one in listed for name in one.data})
        return f"controlled, {' and '.join(sizes)}, {' and '.join(data)}"
    words = dict.fromkeys(_size_words(size) for size in sizes)
    return f"{' and '.join(words)}, random weights"


def _size_words(size: str) -> str:
    if size == "base":
        return "paper size"
    return f"paper size {size}" if size in PAPER or size not in SIZES else size


def because(condition: Condition, effect: Effect, state: str) -> str:
    """How interval and bounds led to the state of a condition, in one sentence."""
    unit, ends = unit_of(condition), effect.interval
    value = shown(effect.value, unit)
    low, high = condition.at_least, condition.at_most
    if state == "shown":
        return f"{value}, shown beside"
    rule = bounds(condition)
    if effect.counted:
        return f"{value} is {'' if state == 'holds' else 'not '}{rule}; it is counted, so there is no interval"
    if ends is None:
        return f"{value} comes from a single draw and has no interval, so nothing is decided ({rule} is asked for)"
    interval = f"the interval {span(*ends, unit)} ({effect.method})"
    if effect.at_least or effect.at_most:
        interval += ", of which one end is open, as not every training got there,"
    if state == "holds":
        return f"{interval} is as a whole {rule}"
    if state == "fails":
        beyond = f"below {shown(low, unit)}" if low is not None and ends[1] < low else f"above {shown(high or 0, unit)}"
        return f"{interval} is as a whole {beyond}"
    return f"{interval} reaches across or up to a bound ({rule} is asked for)"


def bounds(condition: Condition) -> str:
    """What is asked for, with units."""
    if condition.equals is not None:
        return f"equal to {condition.equals}"
    unit = unit_of(condition)
    low, high = (None if bound is None else shown(bound, unit) for bound in (condition.at_least, condition.at_most))
    if low and high:
        return f"between {low} and {high}"
    return f"at least {low}" if low else f"at most {high}"


def p_words(p: float) -> str:
    """``p = 0.012``, ``p < 0.0001``."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
