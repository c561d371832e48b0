"""Training throughput with the data loader and without, and how long a step waits for its batch."""

from __future__ import annotations

import math
import time
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from vlpbench.archs.types import Batch, Text, Unsupported
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.data import ahead
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.train_step import Step
from vlpbench.benchmarks.train import open_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor
    from vlpbench.archs.learner import Draws
    from vlpbench.benchmarks.data.base import Pairs
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

LIMITS = clock.Limits(seconds=4.0, least=3, most=10, warm_most=20)
"""Of bursts of both kinds together."""
BURST = 0.3
"""Seconds that a burst takes at least; a single step, where that is slower."""


class TrainThroughput:
    """Pairs per second of whole training steps; bursts with and without the loader take turns."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Raises `Unsupported` for random inputs: there is nothing to load."""
        if cell.data == "random":
            raise Unsupported("train_throughput reads data; name a source, such as data = 'scenes'")
        source = open_data(cell)
        pairs = source.pairs("train")
        processes = ahead.workers() if isinstance(pairs, ahead.Readable) else 0
        queued = processes * ahead.AHEAD
        with subject.settings(), ahead.expecting(pairs, _rows(pairs, cell)):
            feed = Feed(subject, Step(subject), pairs, queued=queued)
            warmup = clock.warm_up(feed.loaded, LIMITS)
            clock.warm_up(feed.ready, LIMITS)
            steps = max(math.ceil(BURST / warmup.seconds), 4 * queued)
            bursts = max(LIMITS.least, min(LIMITS.most, int(LIMITS.seconds / (2 * steps * warmup.seconds))))
            feed.waits.clear()
            timing = clock.sample(
                (lambda: feed.burst(steps, feed.loaded), lambda: feed.burst(steps, feed.ready)), bursts, warmup=warmup
            )
            waits = feed.waits
        loaded, ready = ([steps * cell.batch / seconds for seconds in phase] for phase in timing.phases)
        return Samples(
            values={"train_throughput": loaded, "train_throughput_model": ready, "loader_wait": waits},
            detail=timing.detail()
            | {
                "pairs_per_step": cell.batch,
                "steps_per_burst": steps,
                "loader": f"{processes} processes ahead of the training" if processes else "in the training thread",
                "loader_queued": queued,
                "loader_share": fmean(waits) / (fmean(timing.phases[0]) / steps),
                "data_hash": source.hash,
            },
            flags=timing.flags(),
        )


class Feed:
    """Gives a training step its batches, from a data source or from what lies on the device."""

    def __init__(self, subject: Subject, step: Step, pairs: Pairs, *, queued: int = 0) -> None:
        """The first batch is kept for `ready`.

        Args:
            subject: whose step it is.
            step: takes the batches.
            pairs: what is read.
            queued: batches that other processes may have made while none was asked for.
        """
        self.subject, self.step, self.pairs, self.queued = subject, step, pairs, queued
        self.waits: list[float] = []
        """Seconds by step of `loaded`, without the first ``queued`` of a burst, which were made before it."""
        self._place = 0
        self._rows = _rows(pairs, subject.cell)
        self._kept = self._load()

    def loaded(self) -> None:
        """A step on the next rows of the data."""
        began = time.perf_counter()
        inputs = self._load()
        waited = time.perf_counter() - began
        if self._place >= self.queued:
            self.waits.append(waited)
        self._place += 1
        self._run(inputs)

    def ready(self) -> None:
        """A step on the batch that was kept."""
        self._run(self._kept)

    def burst(self, steps: int, one: Callable[[], None]) -> None:
        """Steps that are waited for together."""
        self._place = 0
        for _ in range(steps):
            one()
        clock.synchronize(self.subject.device)

    def _run(self, inputs: tuple[Batch, Draws]) -> None:
        self.step.feed(*inputs)
        for phase in self.step.phases:
            phase()

    def _load(self) -> tuple[Batch, Draws]:
        batch = self.pairs.batch(next(self._rows))
        draws = self.subject.draws(self.step.learner, batch)  # before the batch is moved, which nobody waits for
        return _moved(batch, self.subject.device), draws


def _rows(pairs: Pairs, cell: Cell) -> Iterator[np.ndarray]:
    """Batches of row numbers, epoch after epoch."""
    if len(pairs) < cell.batch:
        raise Unsupported(f"{len(pairs)} training pairs of {cell.data} fill no batch of {cell.batch}")
    epoch = 0
    while True:
        order = pairs.order(np.random.default_rng([cell.seed, epoch]))
        yield from (order[start : start + cell.batch] for start in range(0, len(order) - cell.batch + 1, cell.batch))
        epoch += 1


def _moved(batch: Batch, device: torch.device) -> Batch:
    """On the device; to a GPU from pinned memory, so that the thread does not wait for the step before."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    text = Text(ids=move(batch.text.ids), mask=move(batch.text.mask))
    return Batch(image=move(batch.image), text=text, sample_id=move(batch.sample_id))
