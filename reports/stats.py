"""Medians, intervals and ratios, derived from raw samples. Every interval covers 95 % and says by what method.

Random draws are seeded from the data itself, so the same records show the same intervals wherever they are rendered.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Z = 1.959963984540054
"""97.5 % point of the standard normal distribution."""
DRAWS = 1000
"""Bootstrap draws; the ends of an interval then wander by well under its own width."""
ENOUGH_ROUNDS = 3
"""Fewer rounds than this cannot be resampled; the samples themselves are."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with what is known about its spread."""

    value: float
    low: float | None = None
    """Ends of the 95 % interval; None where there is nothing to base one on."""
    high: float | None = None
    q1: float | None = None
    q3: float | None = None
    """Quartiles of the raw samples."""
    n: int = 1
    """Samples; test items for a rate."""
    method: str = "single value"
    """How the interval was made, in words."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def timing(values: Sequence[float], rounds: Sequence[int] = ()) -> Estimate:
    """Median of timed samples, with quartiles and a bootstrap interval.

    Samples of one round share the state of the machine, so whole rounds are drawn where there are three or more.

    Args:
        values: raw samples in the order they were taken.
        rounds: number of samples in each round, in order; ignored unless it adds up to the samples.

    Raises:
        ValueError: without a sample.
    """
    import numpy as np

    if not values:
        raise ValueError("a median needs at least one sample, and there is none")
    data = np.asarray(values, dtype=np.float64)
    value, q1, q3 = (float(x) for x in np.quantile(data, (0.5, 0.25, 0.75)))
    if len(data) == 1:
        return Estimate(value=value)
    groups, method = _groups(data, rounds)
    medians = _resampled_medians(data, groups, _draw(_seed(data), int(groups[-1]) + 1))
    low, high = _ends(medians)
    return Estimate(value=value, low=low, high=high, q1=q1, q3=q3, n=len(data), method=method)


def ratio(
    over: Sequence[float],
    under: Sequence[float],
    over_rounds: Sequence[int] = (),
    under_rounds: Sequence[int] = (),
    *,
    interleaved: bool = True,
) -> Estimate:
    """Ratio of two medians with a bootstrap interval.

    Interleaved rounds are drawn as pairs, so that what the machine did to both cancels.

    Args:
        over: raw samples above the line.
        under: raw samples below it.
        over_rounds: samples in each round, as for `timing`.
        under_rounds: likewise.
        interleaved: whether rounds of equal number were visited together; those of separate runs were not.

    Raises:
        ValueError: without samples, or where the lower median is zero.
    """
    import numpy as np

    if not over or not under:
        raise ValueError("a ratio needs samples on both sides")
    a, b = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)
    bottom = float(np.median(b))
    if bottom == 0:
        raise ValueError("the ratio has a median of zero below the line")
    value = float(np.median(a)) / bottom
    if len(a) == 1 or len(b) == 1:
        return Estimate(value=value)
    a_groups, a_method = _groups(a, over_rounds)
    b_groups, b_method = _groups(b, under_rounds)
    seed, many_a, many_b = _seed(a) ^ _seed(b), int(a_groups[-1]) + 1, int(b_groups[-1]) + 1
    paired = interleaved and a_method == b_method and a_method.endswith("rounds")
    drawn_a = _draw(seed, many_a)
    drawn_b = drawn_a if paired else _draw(seed + 1, many_b)
    low, high = _ends(_resampled_medians(a, a_groups, drawn_a) / _resampled_medians(b, b_groups, drawn_b))
    method = f"{a_method}, paired" if paired else a_method
    return Estimate(value=value, low=low, high=high, n=min(len(a), len(b)), method=method)


def rate(percent: float, n: int) -> Estimate:
    """Wilson's score interval for a share given in percent of ``n`` independent trials.

    Raises:
        ValueError: for a share outside 0 to 100 or without a trial.
    """
    if not 0 <= percent <= 100 or n < 1:
        raise ValueError(f"a rate needs 0 to 100 percent of at least one trial, not {percent} of {n}")
    p, z2 = percent / 100, Z * Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(value=percent, low=100 * low, high=100 * high, n=n, method="Wilson over test items")


def rate_difference(over: Estimate, under: Estimate) -> Estimate:
    """Difference of two rates in points, with Newcombe's interval from their two Wilson intervals."""
    value = over.value - under.value
    if over.interval is None or under.interval is None:
        return Estimate(value=value)
    (a_low, a_high), (b_low, b_high) = over.interval, under.interval
    low = value - math.hypot(over.value - a_low, b_high - under.value)
    high = value + math.hypot(a_high - over.value, under.value - b_low)
    return Estimate(value=value, low=low, high=high, n=min(over.n, under.n), method="Newcombe over test items")


def rate_ratio(over: Estimate, under: Estimate) -> Estimate:
    """Ratio of two independent rates, with the interval that follows from theirs (Donner and Zou's MOVER-R, 2012).

    Raises:
        ValueError: where the lower rate is zero.
    """
    if under.value == 0:
        raise ValueError("the ratio has a rate of zero below the line")
    value = over.value / under.value
    if over.interval is None or under.interval is None:
        return Estimate(value=value)
    (low_a, high_a), (low_b, high_b) = over.interval, under.interval
    a, b = over.value, under.value
    if low_b <= 0 or high_b >= 2 * b:
        return Estimate(value=value)  # the lower rate may as well be zero, and the ratio anything
    below = math.sqrt(max(0.0, (a * b) ** 2 - low_a * high_b * (2 * a - low_a) * (2 * b - high_b)))
    above = math.sqrt(max(0.0, (a * b) ** 2 - high_a * low_b * (2 * a - high_a) * (2 * b - low_b)))
    low = (a * b - below) / (high_b * (2 * b - high_b))
    high = (a * b + above) / (low_b * (2 * b - low_b))
    return Estimate(value=value, low=low, high=high, n=min(over.n, under.n), method="MOVER-R over test items")


def mean_of_rates(parts: Sequence[Estimate]) -> Estimate:
    """Plain mean of independent rates; their Wilson half-widths add up as squares (Zou and Donner's MOVER, 2008).

    Raises:
        ValueError: without a rate, or for one without an interval.
    """
    ends = [part.interval for part in parts]
    if not parts or None in ends:
        raise ValueError("a mean of rates needs rates with intervals")
    value = sum(part.value for part in parts) / len(parts)
    below = math.hypot(*(part.value - end[0] for part, end in zip(parts, ends, strict=True) if end)) / len(parts)
    above = math.hypot(*(end[1] - part.value for part, end in zip(parts, ends, strict=True) if end)) / len(parts)
    n = sum(part.n for part in parts)
    return Estimate(value=value, low=value - below, high=value + above, n=n, method="mean of Wilson intervals")


def seeds(values: Sequence[float]) -> Estimate:
    """Mean over training seeds with Student's t interval: what another seed would bring, not other test items.

    Raises:
        ValueError: for fewer than two values.
    """
    from statistics import fmean, stdev

    from scipy.special import stdtrit

    if len(values) < 2:
        raise ValueError(f"a spread over seeds needs two of them, not {len(values)}")
    mean, spread = fmean(values), stdev(values) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.975)) * spread
    return Estimate(value=mean, low=mean - half, high=mean + half, n=len(values), method=f"t over {len(values)} seeds")


def apart(estimate: Estimate, neutral: float) -> bool:
    """Whether the interval of a ratio (neutral 1) or a difference (neutral 0) leaves the neutral value out."""
    return estimate.interval is not None and not estimate.interval[0] <= neutral <= estimate.interval[1]


def _groups(data: np.ndarray, rounds: Sequence[int]) -> tuple[np.ndarray, str]:
    """Group number of every sample, and what the groups are."""
    import numpy as np

    kept = [count for count in rounds if count > 0]
    if len(kept) >= ENOUGH_ROUNDS and sum(kept) == len(data):
        return np.repeat(np.arange(len(kept)), kept), f"bootstrap over {len(kept)} rounds"
    return np.arange(len(data)), "bootstrap over samples"


def _seed(data: np.ndarray) -> int:
    """The same data, in any order, gives the same seed."""
    import numpy as np

    return int.from_bytes(hashlib.sha256(np.sort(data).tobytes()).digest()[:8], "big")


def _draw(seed: int, groups: int) -> np.ndarray:
    """(DRAWS, groups) how often each group occurs in each draw with replacement."""
    import numpy as np

    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=DRAWS)


def _resampled_medians(data: np.ndarray, groups: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(DRAWS,) median of the pooled samples of each draw; sorted samples are walked by weight, none is copied out."""
    import numpy as np

    order = np.argsort(data, kind="stable")
    reached = np.cumsum(drawn[:, groups[order]], axis=1, dtype=np.int32)
    total = reached[:, -1:]
    lower = (reached > (total - 1) // 2).argmax(axis=1)
    upper = (reached > total // 2).argmax(axis=1)
    ordered = data[order]
    return (ordered[lower] + ordered[upper]) / 2


def _ends(statistics: np.ndarray) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(statistics, (0.025, 0.975))
    return float(low), float(high)
