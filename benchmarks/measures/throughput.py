"""Throughput: pairs per second of inference calls that follow one another without waiting for the device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.measures.base import Samples

if TYPE_CHECKING:
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

LIMITS = clock.Limits(seconds=2.0, most=10)
BURST = 0.2
"""Seconds that the calls between two waits take at least; a single call, where that is slower."""


class Throughput:
    """Pairs per second of bursts of calls, one sample a burst; the device is waited for at the end of each."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """A burst is timed on the wall clock, so that gaps between kernels count."""
        subject.prepare()

        def infer(calls: int) -> None:
            for _ in range(calls):
                subject.forward(subject.batch())
            clock.synchronize(subject.device)

        with subject.settings(), torch.inference_mode():
            warmup = clock.warm_up(lambda: infer(1), LIMITS)
            calls = math.ceil(BURST / warmup.seconds)
            bursts = max(LIMITS.least, min(LIMITS.most, int(LIMITS.seconds / (calls * warmup.seconds))))
            timing = clock.sample((lambda: infer(calls),), bursts, warmup=warmup)
        return Samples(
            values={"throughput": [calls * cell.batch / seconds for seconds in timing.total]},
            detail=timing.detail() | {"pairs_per_call": cell.batch, "calls_per_burst": calls},
            flags=timing.flags(),
        )
