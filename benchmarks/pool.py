"""Processes for cells, forked from a server that has torch loaded: fresh for every cell, and there in milliseconds.

The server never touches CUDA, so each child starts its own context and gives all its memory back when it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vlpbench.benchmarks import worker
from vlpbench.benchmarks.worker import Job, Outcome
from vlpbench.results.record import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

    from vlpbench.results.record import Cell

PATIENCE = 5.0
"""Seconds that a process gets to end after its result came."""
TAIL = 2000
"""Characters of a dead process's output that a record keeps."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A process under way."""

    job: Job
    process: ForkServerProcess
    connection: Connection
    started: float
    deadline: float
    limit: float


class Pool:
    """Starts processes and collects how they end. Leaving it ends those that still run."""

    def __init__(self, preload: Sequence[str]) -> None:
        """Only the first pool of a program decides what is loaded: the server stays."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([worker.__name__, *preload])
        self.running: list[Running] = []
        self._logs = tempfile.TemporaryDirectory(prefix="vlpbench-")
        self._count = 0

    def __enter__(self) -> Self:
        """Returns when the server has loaded everything, so that no cell's time limit pays for it."""
        with _quiet():
            forkserver.ensure_running()
        first = self._context.Process(target=_nothing)
        first.start()
        first.join()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._logs.cleanup()

    def __len__(self) -> int:
        return len(self.running)

    def start(self, job: Job, limit: float) -> Running:
        """Starts a process for a job, which ends in ``limit`` seconds at the latest."""
        self._count += 1
        job = replace(job, log=str(Path(self._logs.name) / f"{self._count}.log"))
        ours, theirs = self._context.Pipe(duplex=False)
        # No daemon, since those may not have processes of their own; it ends with this one all the same, see worker.
        process = self._context.Process(target=worker.main, args=(theirs, job), daemon=False)
        with _uninterrupted():
            process.start()
            now = time.monotonic()
            running = Running(job=job, process=process, connection=ours, started=now, deadline=now + limit, limit=limit)
            self.running.append(running)
        theirs.close()
        return running

    def wait(self) -> list[tuple[Running, Outcome]]:
        """Waits until one process or more has ended or used up its time, and says how."""
        if not self.running:
            return []
        soonest = min(running.deadline for running in self.running)
        ready = connection.wait([r.connection for r in self.running], max(0.0, soonest - time.monotonic()))
        now = time.monotonic()
        ended = [r for r in self.running if r.connection in ready or r.deadline <= now]
        return [(running, self._collect(running, running.connection in ready)) for running in ended]

    def keep_busy(
        self,
        cells: Iterable[Cell],
        width: int,
        start: Callable[[Cell], object],
        blocked: Callable[[Cell], bool] = lambda _: False,
    ) -> Iterator[tuple[Running, Outcome]]:
        """Keeps ``width`` processes running until no cell is left, and gives each as it ends.

        Args:
            cells: in the order in which they are to start.
            width: processes at once.
            start: starts a cell's process in this pool.
            blocked: whether a cell must wait for one that runs.
        """
        waiting = list(cells)
        while waiting or len(self):
            startable = (cell for cell in waiting if not blocked(cell))
            if len(self) < width and (cell := next(startable, None)):
                waiting.remove(cell)
                start(cell)
            else:
                yield from self.wait()

    def stop(self) -> None:
        """Ends every process that still runs."""
        for running in self.running:
            running.process.kill()
        for running in self.running:
            running.process.join(PATIENCE)
            running.connection.close()
        self.running.clear()

    def _collect(self, running: Running, ready: bool) -> Outcome:
        outcome = None
        if ready:
            try:
                outcome = running.connection.recv()
            except EOFError:
                running.process.join(PATIENCE)
                outcome = _died(running)
        running.process.join(PATIENCE if ready else 0)
        if running.process.is_alive():
            running.process.kill()
            running.process.join(PATIENCE)
        running.connection.close()
        self.running.remove(running)
        seconds = time.monotonic() - running.started
        if outcome is None:
            reason = f"stopped after {running.limit:.0f} s, the suite's timeout for one cell"
            return Outcome(status=Status.TIMEOUT, reason=reason, seconds=seconds)
        return outcome if outcome.seconds else replace(outcome, seconds=seconds)


def _died(running: Running) -> Outcome:
    """The outcome of a process that ended without a result."""
    code = running.process.exitcode
    log = Path(running.job.log)
    said = log.read_text(encoding="utf-8", errors="replace")[-TAIL:].strip() if log.exists() else ""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL:
            return Outcome(
                status=Status.OOM, reason=f"ended by {name}, which is how the system ends who takes its memory"
            )
        return Outcome(status=Status.ERROR, reason=f"ended by {name}\n{said}".strip())
    return Outcome(status=Status.ERROR, reason=f"ended with exit code {code} and without a result\n{said}".strip())


@contextmanager
def _quiet() -> Iterator[None]:
    """What is started in here, and its children, leave Ctrl-C to this process, and keep to themselves what libraries
    complain of one another as they load."""
    before = os.environ.get("PYTHONWARNINGS")
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        os.environ.pop("PYTHONWARNINGS")
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end of the body: between its start and its entry in the list, a process would be lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing() -> None:
    """The first process: it ends at once."""
