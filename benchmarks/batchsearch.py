"""The largest batch that fits, in four trials at most: two probes, a straight line through them, a verification.

Peak memory grows with the batch in nearly a straight line above what is there at any batch (weights, optimiser).
Halving after a failure stops anywhere between half of what fits and all of it; a line knows where the limit is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

MOST = 4
"""Trials."""
FAR = 8
"""The second probe is at least so large: nearer to the first, noise would hide the growth."""
LEAP = 16
"""The third trial is at most so many times the second: further out two probes know nothing."""
SURE = 0.91
"""Share of what a line lets expect that a trial far out on it asks for: it may bend."""
CLOSE = 0.97
"""The same where the line was looked at beyond its middle."""
BEND = 0.15
"""Growth that is not straight, as a share of the straight one at the limit: more is taken for noise."""
ENOUGH = 0.90
"""A batch that is this share of what is expected to fit is the answer."""
OVER = 1.04
"""What a batch that did not fit is taken to have needed, in limits, since nothing tells."""

Trial = Callable[[int], int | None]
"""Peak bytes of a batch; above the limit, or None where nobody can say, if it did not fit."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """How a search ended."""

    batch: int
    """The largest batch that was seen to fit; 0 if none did."""
    peak: int
    """Bytes it took."""
    trials: tuple[tuple[int, int | None], ...]
    """Every batch that was tried, in order, with its peak."""
    failures: int
    """How many of them did not fit."""
    expected: int
    """What should fit by the last line; what was not tried is not answered."""


def search(trial: Trial, limit: int, *, first: int = 2) -> Found:
    """Looks for the largest batch whose peak is at most ``limit`` bytes.

    Args:
        trial: runs one batch and says what it took.
        limit: bytes.
        first: the smallest batch that makes sense.

    The second probe is as many times the first as the limit is of the first's peak: if memory is a line with
    anything at all at batch 0, that fits for certain, and it is as far away as can be, so that noise matters least.
    """
    tried: dict[int, int | None] = {}
    batch = first
    while batch not in tried and len(tried) < MOST:
        tried[batch] = trial(batch)
        batch = _next(tried, limit)
    fitting = dict(_fitting(tried, limit))
    best = max(fitting, default=0)
    return Found(
        batch=best,
        peak=fitting.get(best, 0),
        trials=tuple(tried.items()),
        failures=len(tried) - len(fitting),
        expected=max(best, batch),
    )


def _fitting(tried: dict[int, int | None], limit: int) -> list[tuple[int, int]]:
    return sorted((batch, peak) for batch, peak in tried.items() if peak is not None and peak <= limit)


def _next(tried: dict[int, int | None], limit: int) -> int:
    """The batch to try next; one that was tried already ends the search."""
    fitting = _fitting(tried, limit)
    failed = min(tried.keys() - dict(fitting).keys(), default=None)
    if not fitting:
        return failed or 0
    best, peak = fitting[-1]
    if failed is not None and (needed := tried[failed] or (OVER * limit if len(fitting) > 1 else 0)):
        whole = best + (limit - peak) * (failed - best) / (needed - peak)
        return max(best, min(failed - 1, _share(whole, CLOSE)))
    if len(fitting) == 1:
        return (best + failed) // 2 if failed else max(FAR, int(best * limit / max(1, peak)))
    before, below = fitting[-2]
    slope = (peak - below) / (best - before)
    if slope <= 0:
        return FAR * best  # noise hides the growth; further out it will not
    if len(fitting) == 2:
        whole = best + max(0.0, limit - peak) / slope
        enough, target = best >= ENOUGH * int(whole), min(_share(whole, SURE), LEAP * best)
    else:
        whole = best + _room(fitting[-3:], limit)
        enough, target = best >= ENOUGH * int(whole), _share(whole, CLOSE if best > whole / 2 else SURE)
    return best if enough else max(best + 1, target)


def _room(fitting: list[tuple[int, int]], limit: int) -> float:
    """Rows that fit beyond the last of three points: on the line through the last two, bent upwards as the three are.

    What a process takes anyhow hides the growth near the first point, which looks like a bend: `BEND` of it counts.
    """
    (a, low), (b, middle), (c, high) = fitting
    room, slope = max(0, limit - high), (high - middle) / (c - b)
    bend = (slope - (middle - low) / (b - a)) / (c - a)
    bend = max(0.0, min(bend, BEND * slope / (c + room / slope)))
    slope += bend * (c - b)  # at the last point
    return 2 * room / (slope + math.sqrt(slope * slope + 4 * bend * room))


def _share(whole: float, share: float) -> int:
    """A share of a batch, a small one rounded to itself: of ten or fewer there is nothing to spare."""
    return int(whole) if whole < 10 else int(share * whole)
