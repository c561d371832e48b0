"""Goal G9: looking for the largest batch, against decaying and halving after a failure, on made-up memory.

The baselines are reimplementations of the named ways: timm's script decays a batch, accelerate halves it. What
a search costs is its trials, so trials are counted and nothing is timed but our own arithmetic.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
from vlpbench.benchmarks.batchsearch import search

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

LIMIT = 8 * 2**30
BATCHES = range(2, 257)
FIXED = (0.05, 0.2, 0.5, 0.8)
"""Shares of the limit that are taken at any batch."""


def peak(batch: int, most: int, fixed: float, bend: float) -> int:
    x = batch / (most + 0.5)
    return int(LIMIT * (fixed + (1 - fixed) * (x + bend * x * x) / (1 + bend)))


def decayed(batch: int) -> int:
    """timm's next batch: by a quarter of the power of two at or below it."""
    return batch - max(1, 2 ** (batch.bit_length() - 1) // 4)


def by_failures(following: Callable[[int], int], most: int) -> tuple[int, int]:
    """Batch and failures of a way that begins at 256 and gives way."""
    batch, failures = 256, 0
    while batch > most:
        batch, failures = following(batch), failures + 1
    return batch, failures


@pytest.mark.parametrize("bend", [0.0, 0.1, -0.1])
def test_four_trials_find_more_with_fewer_failures_than_halving(
    bend: float, benchmark: BenchmarkFixture, goals: Any
) -> None:
    ours = [
        (search(lambda b: peak(b, most, fixed, bend) if b <= most else None, LIMIT), most)  # noqa: B023
        for most in BATCHES
        for fixed in FIXED
    ]
    halved = [by_failures(lambda batch: batch // 2, most) for most in BATCHES]
    timm = [by_failures(decayed, most) for most in BATCHES]
    share = fmean(found.batch / most for found, most in ours)
    failures = fmean(found.failures for found, _ in ours)
    theirs = fmean(failures for _, failures in halved)
    benchmark.extra_info.update(
        goal="G9",
        trials=fmean(len(found.trials) for found, _ in ours),
        most_trials=max(len(found.trials) for found, _ in ours),
        share=share,
        share_halved=fmean(batch / most for (batch, _), most in zip(halved, BATCHES, strict=True)),
        share_timm=fmean(batch / most for (batch, _), most in zip(timm, BATCHES, strict=True)),
        failures=failures,
        failures_halved=theirs,
    )
    benchmark.pedantic(search, args=(lambda b: peak(b, 100, 0.2, bend) if b <= 100 else None, LIMIT), rounds=5)
    how = f"peaks bent by {bend:g}"
    goals.value("G9", f"trials at most, {how}", max(len(found.trials) for found, _ in ours), at_most=4)
    goals.value("G9", f"share of the largest batch, {how}", share, at_least=0.90)
    goals.value("G9", f"failures, of a fifth of halving's, {how}", failures / (theirs / 5), at_most=1)
