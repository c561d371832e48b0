"""Two models on the same test items: is one right where the other is wrong more often than chance would have it?

An interval of each rate, and even their distance, forgets that both met the same items. These tests do not. They speak
of test items alone: of two trained models, not of their architectures, which other seeds may turn round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from vlpbench.reports import details, stats
from vlpbench.reports.ablation_words import SUITE
from vlpbench.reports.measured import Measured
from vlpbench.reports.stats import Estimate
from vlpbench.results.record import Record

if TYPE_CHECKING:
    import numpy as np

EXACT_BELOW = 1000
"""Discordant items up to which the binomial sum is taken; beyond, its normal limit differs in no printed digit."""
KS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two records over the same items."""

    a: Measured
    b: Measured
    seed: int
    what: str
    """The rate, such as ``IR R@1`` or ``VQA accuracy``."""
    only_a: int
    """Items that only ``a`` has right."""
    only_b: int
    p: float
    """Two-sided, by McNemar's test."""
    difference: Estimate
    """In points, with the paired bootstrap's interval over items."""
    records: tuple[Record, Record]

    @property
    def verdict(self) -> str:
        """In words, at the level of 5 %."""
        if self.p >= 0.05:
            return "no difference shown"
        return "A is better" if self.difference.value > 0 else "B is better"


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p of as uneven a split of the items that just one of two models has right (McNemar, 1947).

    Exact: twice the binomial tail, at most 1. From `EXACT_BELOW` items on the continuity-corrected normal limit.

    Raises:
        ValueError: for a negative count.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"items are counted from 0, not {min(only_a, only_b)}")
    total, fewer = only_a + only_b, min(only_a, only_b)
    if total == 0:
        return 1.0
    if total < EXACT_BELOW:
        tail = sum(math.comb(total, i) for i in range(fewer + 1))
        return min(1.0, 2 * tail / 2**total)
    z = max(0.0, abs(only_a - only_b) - 1) / math.sqrt(total)
    return math.erfc(z / math.sqrt(2))


def paired_difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Mean of ``a`` minus mean of ``b`` in points, with an interval from drawing items anew, each with both outcomes.

    Args:
        a: (items,) outcomes, such as 0 and 1.
        b: those of the other model on the same items.

    Raises:
        ValueError: for different numbers of items, or none.
    """
    import numpy as np

    if a.shape != b.shape or not a.size:
        raise ValueError(f"paired outcomes are of the same items, not of {a.size} and {b.size}")
    apart = 100 * (a.astype(np.float64) - b.astype(np.float64))
    values, counts = np.unique(apart, return_counts=True)
    # Items with the same outcome are alike, so it is enough to draw how many of each kind there are.
    rng = np.random.default_rng([int(v * 1000) & 0xFFFFFFFF for v in values] + [int(c) for c in counts])
    drawn = rng.multinomial(apart.size, counts / apart.size, size=stats.DRAWS) @ values / apart.size
    low, high = (float(end) for end in np.quantile(drawn, (0.025, 0.975)))
    return Estimate(
        value=float(apart.mean()), low=low, high=high, n=apart.size, method="paired bootstrap over test items"
    )


def outcomes(record: Record) -> dict[str, np.ndarray]:
    """Rate -> (items,) bool, which items of the main gallery or split it holds for; empty where none were kept."""
    ranks = details.ranks(record.detail)
    found = {f"{way} R@{k}": of <= k for way, of in ranks.items() for k in KS}
    correct = details.correct(record.detail)
    if correct is not None:
        found["accuracy"] = correct
    return found


def comparisons(everything: Sequence[Measured]) -> list[Comparison]:
    """Every two variants that met the same items: data, seed, measure and setting agree, and items were kept.

    Of retrieval, R@1 in both directions, of two variants by the same scorer or of one variant by two. Studies of one
    architecture's parts have tables of their own, with intervals over seeds.
    """
    found: list[Comparison] = []
    kept = [m for m in everything if m.ok and m.first.suite != SUITE and outcomes(m.first)]
    for a, b in combinations(kept, 2):
        alike = (a.scorer, a.k) == (b.scorer, b.k)
        if (a.measure, a.setting) != (b.measure, b.setting) or alike == (a.row == b.row):
            continue
        for one in a.records:
            for other in b.records:
                if one.data and (one.data, one.cell.seed) == (other.data, other.cell.seed):
                    found += _compared(a, b, one, other)
    return found


def _compared(a: Measured, b: Measured, one: Record, other: Record) -> list[Comparison]:
    left, right = outcomes(one), outcomes(other)
    found: list[Comparison] = []
    for what in ("TR R@1", "IR R@1", "accuracy"):
        if what not in left or what not in right or len(left[what]) != len(right[what]):
            continue
        x, y = left[what], right[what]
        only_a, only_b = int((x & ~y).sum()), int((y & ~x).sum())
        found.append(
            Comparison(
                a=a,
                b=b,
                seed=one.cell.seed,
                what=what,
                only_a=only_a,
                only_b=only_b,
                p=mcnemar(only_a, only_b),
                difference=paired_difference(x, y),
                records=(one, other),
            )
        )
    return found
