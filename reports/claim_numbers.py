"""From the records of a condition to its effect: the estimate, its interval, and the p of both ways to be decided.

A side is a mean over cells, or a sum of terms, of one number for every draw. A draw is a seed of trained cells, or a
round of timed ones; sides are paired by draw where both have it: seeds always, rounds where one run visited all cells
in every round. Ratios are taken of logarithms. So everything ends as a mean with Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance
from typing import Any

from vlpbench.reports.board import quantity as meaning_of
from vlpbench.reports.claim_cells import Picked, Slot, trained
from vlpbench.reports.claim_types import Condition, Term
from vlpbench.reports.names import family_key
from vlpbench.results.record import Record

COUNTED = ("1", "FLOP", "%")
"""Units of what is counted in a cell that trains nothing, so that one sample says it all."""
DETAIL = "detail."


class Absent(ValueError):
    """A record without the number that a condition reads. The message says which."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a condition is about, as a mean with its standard error; of a ratio in logarithms."""

    mean: float
    error: float | None
    """Standard error; 0 for what is counted, None where a single draw says nothing of it."""
    freedom: float = math.inf
    """Degrees of freedom of the error."""
    log: bool = False
    draws: int = 1
    method: str = "counted"
    at_least: bool = False
    """Whether the value is only a lower bound: a number above the line was not reached."""
    at_most: bool = False
    """Likewise an upper bound."""

    @property
    def counted(self) -> bool:
        """Whether there is nothing to test."""
        return self.method == "counted"

    @property
    def value(self) -> float:
        """As it is shown."""
        return self._out(self.mean)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %; None without an error. Of what is counted both ends are the value."""
        if self.error is None:
            return None
        if self.counted or self.error == 0:
            return self.value, self.value
        from scipy.special import stdtrit

        half = float(stdtrit(self.freedom, 0.975)) * self.error
        return self._out(self.mean - half), self._out(self.mean + half)

    def p_above(self, bound: float) -> float:
        """Two-sided p against an effect that is no more than this bound; small where it is above."""
        return self._p(self.mean - self._in(bound))

    def p_below(self, bound: float) -> float:
        """Two-sided p against an effect that is no less than this bound; small where it is below."""
        return self._p(self._in(bound) - self.mean)

    def _p(self, distance: float) -> float:
        if self.error is None:
            return 1.0
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        from scipy.special import stdtr

        return min(1.0, 2 * float(stdtr(self.freedom, -distance / self.error)))

    def _in(self, bound: float) -> float:
        return math.log(bound) if self.log else bound

    def _out(self, mean: float) -> float:
        return math.exp(mean) if self.log else mean


@dataclass(frozen=True, kw_only=True)
class Series:
    """The numbers of one cell by draw."""

    draws: Mapping[int, float]
    counted: bool
    visits: tuple[Any, ...] | None
    """Of a timed cell, how it was visited; equal for cells that were visited in turn. None for any other."""
    seeded: bool = False
    """Whether a draw is a seed."""
    short: bool = False
    """Whether any is a lower bound, because what is timed was not reached."""


def series(slot: Slot, quantity: str) -> Series:
    """A quantity of one cell.

    Raises:
        Absent: where a record lacks it.
    """
    records = slot.records
    if trained(slot.cell):
        found = {seed: _of_training(record, quantity) for seed, record in records.items()}
        short = any(not reached for _, reached in found.values())
        return Series(
            draws={seed: value for seed, (value, _) in found.items()},
            counted=False,
            visits=None,
            seeded=True,
            short=short,
        )
    record = next(iter(records.values()))
    if quantity.startswith(DETAIL):
        return Series(draws={0: _in_detail(record, quantity)}, counted=True, visits=None)
    values = _samples(record, quantity)
    unit, visits = record.samples[quantity].unit, record.detail.get("visits")
    once = visits and len(values) == 1 and unit != "FLOP"  # of a timed cell one sample may be a fit to times
    if unit in COUNTED and len(set(values)) == 1 and not once:
        return Series(draws={0: values[0]}, counted=True, visits=None)
    visited = tuple((v.get("round"), v.get("seed"), v.get("of")) for v in visits) if visits else None
    return Series(draws=dict(enumerate(_rounds(record, values))), counted=False, visits=visited)


def effect(condition: Condition, picked: Picked) -> Effect:
    """The effect of a condition that is no exact one.

    Raises:
        Absent: where a record lacks the quantity.
        ValueError: for a ratio of numbers that are not above 0.
    """
    log = condition.statistic == "ratio"
    sides = [_weighted(condition, side, picked) for side in (condition.a, condition.b)]
    if condition.rank_of:
        return _of_places(condition, sides)
    parts = [(sign * weight, one) for sign, side in zip((1, -1), sides, strict=True) for _, weight, one in side]
    number = math.log if log else float
    if log and any(value <= 0 for _, one in parts for value in one.draws.values()):
        raise ValueError("a ratio needs numbers above 0")
    short = {sign: any(one.short for _, _, one in side) for sign, side in zip("ab", sides, strict=True)}
    found = _mean(parts, number)
    if found.counted and log:  # a ratio of what is counted is exact, as a bound that it equals to the bit needs
        whole = [math.prod(next(iter(one.draws.values())) ** weight for _, weight, one in side) for side in sides]
        return Effect(mean=whole[0] / whole[1], error=0.0)
    return Effect(
        mean=found.mean,
        error=found.error,
        freedom=found.freedom,
        log=log,
        draws=found.draws,
        method=found.method,
        at_least=short["a"],
        at_most=short["b"],
    )


def _weighted(condition: Condition, side: Sequence[Term], picked: Picked) -> list[tuple[Slot, float, Series]]:
    """The cells of a side, each with its weight in the mean, or in the sum of the means of the terms."""
    slots = [(slot, term, len(picked.terms[term])) for term in side for slot in picked.terms[term]]
    total = len(slots)
    return [
        (slot, 1 / of if condition.combine == "sum" else 1 / total, series(slot, term.quantity))
        for slot, term, of in slots
    ]


def _mean(parts: Sequence[tuple[float, Series]], number: Callable[[float], float]) -> Effect:
    """Weighted sum of the cells' means, with the error that pairing leaves."""
    if all(one.counted for _, one in parts):
        return Effect(mean=sum(w * number(next(iter(one.draws.values()))) for w, one in parts), error=0.0)
    free = [(w, one) for w, one in parts if not one.counted]
    fixed = sum(w * number(next(iter(one.draws.values()))) for w, one in parts if one.counted)
    seeded = all(one.seeded for _, one in free)
    shared = sorted(set.intersection(*(set(one.draws) for _, one in free)))
    in_turn = len({one.visits for _, one in free}) == 1 and len({len(one.draws) for _, one in free}) == 1
    if (seeded and len(shared) > 1) or (in_turn and not seeded) or len(free) == 1:
        values = [fixed + sum(w * number(one.draws[draw]) for w, one in free) for draw in shared]
        what = "seeds" if seeded else "rounds"
        return _student(values, f"t over {len(values)} {what}" + (", paired" if len(free) > 1 else ""))
    return _welch(fixed, free, number)


def _student(values: Sequence[float], method: str) -> Effect:
    if len(values) < 2:
        return Effect(mean=values[0], error=None, method="a single draw")
    error = math.sqrt(variance(values) / len(values))
    return Effect(mean=fmean(values), error=error, freedom=len(values) - 1, draws=len(values), method=method)


def _welch(fixed: float, free: Sequence[tuple[float, Series]], number: Callable[[float], float]) -> Effect:
    """Of cells that were not visited in turn: errors add up as squares, with Welch and Satterthwaite's freedom."""
    columns = [(w, [number(value) for value in one.draws.values()]) for w, one in free]
    mean = fixed + sum(w * fmean(values) for w, values in columns)
    if any(len(values) < 2 for _, values in columns):
        return Effect(mean=mean, error=None, method="a single draw")
    shares = [(w * w * variance(values) / len(values), len(values) - 1) for w, values in columns]
    total = sum(share for share, _ in shares)
    below = sum(share * share / freedom for share, freedom in shares)
    freedom = total * total / below if below else math.inf
    draws = min(len(values) for _, values in columns)
    return Effect(
        mean=mean, error=math.sqrt(total), freedom=freedom, draws=draws, method=f"t over {draws} rounds, not paired"
    )


def _of_places(condition: Condition, sides: Sequence[Sequence[tuple[Slot, float, Series]]]) -> Effect:
    """Difference of the places that one architecture takes among the cells of either side, 1 the best, seed by seed."""
    higher = [meaning_of(side[0].quantity).better == "higher" for side in (condition.a, condition.b)]
    seeds = sorted(set.intersection(*(set(one.draws) for side in sides for _, _, one in side)))
    places = []
    for seed in seeds:
        taken = []
        for side, up in zip(sides, higher, strict=True):
            values = [(family_key(slot.cell.arch), one.draws[seed] * (1 if up else -1)) for slot, _, one in side]
            own = next((value for arch, value in values if arch == condition.rank_of), None)
            if own is None:
                raise Absent(f"{condition.rank_of} is not among the cells whose places are compared")
            taken.append(1 + sum(value > own for _, value in values) + (sum(v == own for _, v in values) - 1) / 2)
        places.append(taken[0] - taken[1])
    return _student(places, f"t over {len(places)} seeds, paired")


def _of_training(record: Record, quantity: str) -> tuple[float, bool]:
    """The number, and whether it is one; else it is the length of the training, which was too short to reach it."""
    if quantity.startswith(DETAIL):
        return _in_detail(record, quantity), True
    found = record.samples.get(quantity)
    if found is not None and found.values:
        return fmean(found.values), True
    measured, _, name = quantity.partition("_to_")
    reached = record.detail.get("reached", {})
    if name and isinstance(reached, dict) and name in reached:
        if measured == "steps":
            return float(reached[name]["within"]), False
        return float(record.detail["pretraining"]["curve"]["cpu_seconds"][-1]), False
    raise Absent(f"record {record.id} has no {quantity}")


def _in_detail(record: Record, quantity: str) -> float:
    found: Any = record.detail
    for key in quantity.removeprefix(DETAIL).split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise Absent(f"record {record.id} has no number {quantity}")
    return float(found)


def _samples(record: Record, quantity: str) -> tuple[float, ...]:
    found = record.samples.get(quantity)
    if found is None or not found.values:
        raise Absent(f"record {record.id} has no {quantity}")
    return found.values


def _rounds(record: Record, values: Sequence[float]) -> list[float]:
    """The median of each round; every sample by itself where it is not known which round it is of."""
    counts = record.detail.get("rounds")
    if not isinstance(counts, list) or not counts:
        return list(values)
    if sum(counts) != len(values):  # they are counts of the measure's first quantity; of others a round has as many
        each, rest = divmod(len(values), len(counts))
        if rest:
            return list(values)
        counts = [each] * len(counts)
    ends = [sum(counts[: place + 1]) for place in range(len(counts))]
    return [median(values[end - count : end]) for count, end in zip(counts, ends, strict=True) if count]
