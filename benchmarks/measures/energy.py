"""Energy of inference and of training steps, per pair, over windows long enough for the counters."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch
from vlpbench.benchmarks import clock, health, joules
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.train_step import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlpbench.benchmarks.joules import Counter
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

WINDOW = 2.0
"""Seconds that a window takes at least."""
WINDOWS = 3
LIMITS = clock.Limits(warm_seconds=1.0, warm_most=50)


class Energy:
    """Joules per pair at the cell's batch; one sample a window."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Raises `Unsupported` where nothing counts energy."""
        counter = joules.counter(subject.device)
        subject.prepare()
        idle = _idle(counter)
        with subject.settings(), health.watch() as condition:
            infer = torch.inference_mode()(lambda: subject.forward(subject.batch()))
            inference = _windows(infer, counter, subject.device)
            step = Step(subject)
            training = _windows(lambda: [phase() for phase in step.phases], counter, subject.device)
        return Samples(
            values={
                "energy_inference": [spent / (calls * cell.batch) for spent, _, calls in inference],
                "energy_training": [spent / (calls * cell.batch) for spent, _, calls in training],
            },
            detail={
                "method": counter.method,
                "idle_watts": idle,
                "watts": {
                    "inference": [spent / seconds for spent, seconds, _ in inference],
                    "training": [spent / seconds for spent, seconds, _ in training],
                },
                "window_seconds": [seconds for _, seconds, _ in (*inference, *training)],
                "calls": [calls for *_, calls in (*inference, *training)],
                "pairs_per_call": cell.batch,
                "health": condition[0].detail(),
            },
            flags=condition[0].flags(),
        )


def _idle(counter: Counter) -> float:
    """Watts drawn while nothing is asked of the device."""
    began, before = time.perf_counter(), counter.joules()
    time.sleep(WINDOW)
    return (counter.joules() - before) / (time.perf_counter() - began)


def _windows(call: Callable[[], object], counter: Counter, device: torch.device) -> list[tuple[float, float, int]]:
    """Joules, seconds and calls of each window.

    Raises:
        RuntimeError: for a window in which the counter stood still: that is no energy of 0.
    """

    def waited() -> None:
        call()
        clock.synchronize(device)

    chunk = max(1, math.ceil(WINDOW / 10 / clock.warm_up(waited, LIMITS).seconds))
    found = []
    for _ in range(WINDOWS):
        calls, before, began = 0, counter.joules(), time.perf_counter()
        while (seconds := time.perf_counter() - began) < WINDOW:
            for _ in range(chunk):
                call()
            clock.synchronize(device)
            calls += chunk
        spent = counter.joules() - before
        if spent <= 0:
            raise RuntimeError(f"the energy counter did not move in {seconds:.1f} s ({counter.method})")
        found.append((spent, seconds, calls))
    return found
