"""What happens in the process of one cell: build, measure, say how it ended. Importing this module imports no torch."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlpbench.archs import registry
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.data.base import DataError
from vlpbench.results.record import UNITS, Series, Status

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from vlpbench.benchmarks.measures.base import MeasureSpec, Samples
    from vlpbench.results.record import Cell

CACHE_VARIABLE = "VLPBENCH_CACHE"
"""Environment variable by which a measure learns the folder of shared pre-trainings."""
BOARD_VARIABLE = "VLPBENCH_TENSORBOARD"
"""Environment variable with the folder in which pre-trainings write events; empty where none are asked for."""
SCORES_VARIABLE = "VLPBENCH_SCORE_MEMORY"
"""Environment variable with the bytes of pair scores that may be held at once; empty for the default."""
CHECKPOINTS_VARIABLE = "VLPBENCH_CHECKPOINTS"
"""Environment variable by which a cell's process learns where weights lie, as JSON."""
SUBJECT = "vlpbench.benchmarks.subject:Subject"
TAIL = 12
"""Lines of a traceback that a record keeps."""
NO_MEMORY = ("DefaultCPUAllocator", "Cannot allocate memory", "CUDA out of memory")
"""How torch says on a CPU that memory is short: a plain RuntimeError with one of these in it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One visit to a cell, as it is sent to its process."""

    cell: Cell
    measure: MeasureSpec
    subject: str = SUBJECT
    """``module:class`` that builds what is measured."""
    threads: int | None = None
    """Threads of torch; None leaves its choice."""
    cache: str = ""
    """Folder of shared pre-trainings."""
    tensorboard: str = ""
    """Folder in which pre-trainings write events; empty for none."""
    score_memory: int | None = None
    """Bytes of pair scores that may be held at once; None for the default."""
    checkpoints: str = ""
    """Where the weights lie that cells name, as `vlpbench.benchmarks.weights.places` tells it."""
    log: str = os.devnull
    """File that takes what the process and its libraries print."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a visit ended."""

    status: Status
    reason: str = ""
    samples: dict[str, Series] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    threads: int = 0
    seconds: float = 0.0


def main(connection: Connection, job: Job) -> None:
    """Runs a job and sends its `Outcome`. The entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what ends
    _end_with_parent()
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ[CACHE_VARIABLE] = job.cache
    os.environ[BOARD_VARIABLE] = job.tensorboard
    os.environ[SCORES_VARIABLE] = str(job.score_memory or "")
    os.environ[CHECKPOINTS_VARIABLE] = job.checkpoints
    connection.send(run(job))
    connection.close()


def run(job: Job) -> Outcome:
    """Builds the subject, runs the measure, and turns whatever happens into an outcome."""
    started = time.perf_counter()
    threads = 0
    try:
        threads = _threads(job)
        brought = _measure(job)
        problem = _problem(brought)
        if problem:
            return Outcome(status=Status.ERROR, reason=problem, threads=threads, seconds=time.perf_counter() - started)
        return Outcome(
            status=Status.OK,
            samples=brought.series(),
            detail=json.loads(json.dumps(brought.detail | _left_out(job))),
            flags=tuple(brought.flags),
            threads=threads,
            seconds=time.perf_counter() - started,
        )
    except Exception as error:  # whatever it is, it becomes a row and not a gap
        status, reason = classify(error)
        return Outcome(status=status, reason=reason, threads=threads, seconds=time.perf_counter() - started)


def classify(error: BaseException) -> tuple[Status, str]:
    """The status that an exception stands for, and the reason that a record shows."""
    import torch

    sentence = f"{type(error).__name__}: {error}".strip()
    if isinstance(error, Unsupported):
        return Status.UNSUPPORTED, str(error)
    from vlpbench.archs.pretrained import CheckpointError

    if isinstance(error, (DataError, CheckpointError)):
        return Status.ERROR, str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return Status.OOM, sentence
    if isinstance(error, (RuntimeError, OSError)) and any(mark in str(error) for mark in NO_MEMORY):
        return Status.OOM, sentence
    tail = "".join(traceback.format_exception(error)).strip().splitlines()[-TAIL:]
    return Status.ERROR, "\n".join([sentence.splitlines()[0], *tail])


def _measure(job: Job) -> Samples:
    measure, subject = _load(job.measure.target)(), _load(job.subject)
    meta = job.measure.kind == "count" or job.measure.bare
    return measure.run(subject.build(job.cell, meta=meta), job.cell)


def _left_out(job: Job) -> dict[str, str]:
    """What a record must say of an architecture that reads what another model found in the pixels."""
    reads = registry.get(job.cell.arch).input
    if reads == "pixels":
        return {}
    # Regions of data are found, or known, before a training or an evaluation begins: no time of theirs is in a record.
    boxes = {} if job.cell.data == "random" else {"boxes": job.cell.boxes}
    return {"input": reads, "detector": "excluded"} | boxes


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _threads(job: Job) -> int:
    import torch

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    return job.cell.threads or torch.get_num_threads()


def _problem(brought: Samples) -> str | None:
    """What is wrong with samples that a measure brought back, in one sentence."""
    if not any(brought.values.values()):
        return "the measure brought back no samples"
    for name, values in brought.values.items():
        if name not in UNITS:
            return f"the measure brought back {name!r}, which has no unit; add it to UNITS in results/record.py"
        for place, value in enumerate(values):
            if not math.isfinite(value):
                return f"sample {place} of {name} is {value}, which is no measurement"
    return None


def _end_with_parent() -> None:
    """Ends this process when the one that runs the suite is gone: it would disturb the next run's timings."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
