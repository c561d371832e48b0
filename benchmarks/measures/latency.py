"""Latency: wall time of one inference call, alone, from its start to its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.measures.base import Samples

if TYPE_CHECKING:
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

LIMITS = clock.Limits(seconds=2.0, most=200)


class Latency:
    """Seconds per call at the cell's batch, each call waited for; the first call of the process apart."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Times on the wall clock; on CUDA the device's own clock times as many calls again."""
        subject.prepare()

        def infer() -> None:
            subject.forward(subject.batch())

        def call() -> None:
            infer()
            clock.synchronize(subject.device)

        with subject.settings(), torch.inference_mode():
            timing = clock.measure((call,), limits=LIMITS)
            detail = timing.detail() | {"pairs_per_call": cell.batch}
            values = {"latency": timing.total, "first_call": [timing.warmup.first]}
            if subject.device.type == "cuda":
                values["device_time"] = clock.on_device((infer,), len(timing.total))[0]
        return Samples(
            values=values,
            detail=detail,
            flags=timing.flags(),
        )
