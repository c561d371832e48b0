"""The largest batch whose inference and whose training step fit in memory. Every trial is a process of its own."""

from __future__ import annotations

import resource
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import psutil
import torch
from vlpbench.archs import registry
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import batchsearch
from vlpbench.benchmarks.measures.base import MeasureSpec, Samples
from vlpbench.benchmarks.measures.memory import CpuMeter, CudaMeter, second
from vlpbench.benchmarks.measures.train_step import Step
from vlpbench.benchmarks.pool import Pool
from vlpbench.benchmarks.worker import SUBJECT, Job
from vlpbench.results.record import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlpbench.benchmarks.subject import Subject
    from vlpbench.benchmarks.worker import Outcome
    from vlpbench.results.record import Cell

UNITS = {"MiB": 2**20, "GiB": 2**30}
SECONDS = 3600.0
"""That one trial may take; the limit of the cell as a whole is the suite's."""
SLACK = 2**29
"""Bytes of address space above the limit that a process on a CPU gets: code and stacks reserve what they never fill."""
PRELOAD = ("torch._dynamo", "vlpbench.archs.learner", SUBJECT.partition(":")[0], __name__)
"""What every trial would import again, an optimiser's first step included."""


class MaxBatch:
    """Pairs in the largest batch that was seen to fit, whatever the batch of the cell."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Raises `Unsupported` on a CPU without a limit, and `torch.OutOfMemoryError` where nothing fits."""
        limit_bytes(cell)
        found = Samples()
        with Pool((*PRELOAD, registry.get(cell.arch).target.partition(":")[0])) as pool:
            for what, trial in TRIALS.items():
                report = _search(pool, cell, trial)
                found.values[f"max_batch_{what}"] = [float(report["batch"])]
                found.detail[what] = report
                found.flags += _flags(what, report)
        return found


def limit_bytes(cell: Cell) -> int | None:
    """The cell's own limit; None is the whole of a GPU.

    Raises:
        Unsupported: on a CPU without one.
    """
    if cell.memory_limit is None:
        if cell.device == "cpu":
            raise Unsupported("a CPU's memory is everybody's: say how much of it may be filled, memory_limit = '8GiB'")
        return None
    return int(float(cell.memory_limit[:-3]) * UNITS[cell.memory_limit[-3:]])


class Trial:
    """One batch, twice, in a process of its own. Brings back what it took beside what it had."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """The peak may be above the room on a CPU; what torch cannot allocate it raises."""
        room = _room(subject, limit_bytes(cell))
        meter = CudaMeter(subject.device) if subject.device.type == "cuda" else CpuMeter(subject.baseline)
        subject.prepare()
        with subject.settings():
            read = second(self.call(subject), meter)
        return Samples(values={"memory_inference": [float(read["peak"])]}, detail={"room": room, "read": read})

    def call(self, subject: Subject) -> Callable[[], object]:
        """What is run."""
        return torch.inference_mode()(lambda: subject.forward(subject.batch()))


class TrainingTrial(Trial):
    """A training step."""

    def call(self, subject: Subject) -> Callable[[], object]:
        """All its phases; the second time with the optimiser's state."""
        step = Step(subject)
        return lambda: [phase() for phase in step.phases]


TRIALS = {
    what: MeasureSpec(name="memory", target=f"{__name__}:{name}", kind="memory", quantities=(), trains=True)
    for what, name in (("inference", "Trial"), ("training", "TrainingTrial"))
}


def _room(subject: Subject, limit: int | None) -> int:
    """Bytes that the model and its calls may take."""
    if subject.device.type == "cuda":
        held = torch.cuda.memory_allocated(subject.device)
        free, total = torch.cuda.mem_get_info(subject.device)
        room = held + free
        if limit is not None:
            room = min(room, limit)
            torch.cuda.set_per_process_memory_fraction(min(1.0, room / total), subject.device)
        return room
    if limit is None:
        raise Unsupported("a CPU has no limit of its own")
    used = psutil.Process().memory_info()
    # Above the limit, for the machine's sake; whether a batch fitted is decided by what it filled.
    most = used.vms + max(0, limit - used.rss) + limit // 4 + SLACK
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    if limit <= subject.baseline:
        raise torch.OutOfMemoryError(
            f"{subject.baseline:,} B of the {limit:,} B are taken by the interpreter and its libraries"
        )
    return limit - subject.baseline


def _search(pool: Pool, cell: Cell, spec: MeasureSpec) -> dict[str, Any]:
    outcomes: list[Outcome] = []

    def attempt(batch: int) -> Outcome:
        pool.start(Job(cell=cell.model_copy(update={"batch": batch}), measure=spec, threads=cell.threads), SECONDS)
        ((_, outcome),) = pool.wait()
        if outcome.status not in (Status.OK, Status.OOM):
            raise RuntimeError(f"batch {batch} ended in {outcome.status.value}: {outcome.reason}")
        outcomes.append(outcome)
        return outcome

    first = attempt(SMALLEST)
    if first.status is Status.OOM:
        raise torch.OutOfMemoryError(f"not even batch {SMALLEST} fits: {first.reason}")
    room = int(first.detail["room"])
    if (peak := first.detail["read"]["peak"]) > room:
        raise torch.OutOfMemoryError(f"not even batch {SMALLEST} fits: it takes {peak:,} B of {room:,} B")

    def trial(batch: int) -> int | None:
        outcome = first if batch == SMALLEST else attempt(batch)
        return int(outcome.detail["read"]["peak"]) if outcome.status is Status.OK else None

    found = batchsearch.search(trial, room, first=SMALLEST)
    reasons = [outcome.reason.splitlines()[0] for outcome in outcomes if outcome.status is Status.OOM]
    return asdict(found) | {"room": room, "reached": found.peak / room, "out_of_memory": reasons}


SMALLEST = 2
"""The first probe: a batch of one has no negative to train with."""


def _flags(what: str, report: dict[str, Any]) -> list[str]:
    batch, expected = report["batch"], report["expected"]
    if batch >= batchsearch.ENOUGH * expected:
        return []
    return [f"short: {what} was seen to fit at batch {batch}, and {expected} is expected to; {batchsearch.MOST} trials"]
