"""Stopwatches, and how far to trust what they say.

One call is a sequence of phases. The wall stopwatch stamps between phases; the device stopwatch lays a CUDA event
between them and waits once, after the last call, so that measuring does not change what is measured.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from vlpbench.benchmarks.health import Health, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Phase = Callable[[], object]

AGREE = 0.02
"""Warm-up ends when the medians of two consecutive windows differ by no more than this share."""
WINDOW = 3
"""Calls in a window of the warm-up."""

CV_MOST = 0.15
"""Standard deviation over mean above which samples are flagged as scattered."""
DRIFT_MOST = 0.10
"""Change from the first third's median to the last third's above which samples are flagged as drifting."""
AA_MOST = 0.05
"""Difference of the two halves' minima, which measure the same thing, above which samples are flagged."""
FOREIGN_MOST = 0.25
"""Cores kept busy by other processes above which samples are flagged."""
WAITED_MOST = 0.05
"""Share of the time that the timing thread was ready to run and had no core, above which samples are flagged."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a measurement may take. A call that is slower than all of them is still made ``1 + least`` times."""

    seconds: float = 2.0
    """Of sampled calls."""
    least: int = 3
    most: int = 200
    warm_seconds: float = 1.0
    warm_most: int = 100


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """What happened before the samples."""

    first: float
    """Seconds of the first call: allocation, kernel choice, compilation."""
    calls: int
    """The first one included."""
    steady: bool
    """Whether two windows agreed; False means that a limit ended the warm-up."""
    seconds: float
    """Median of the last window: what one call is expected to take."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Who else was using the machine, over one span of ``seconds``."""

    seconds: float
    own_cores: float
    """CPU time of this process over wall time."""
    foreign_cores: float
    """CPU time of everybody else over wall time, time stolen by a hypervisor included."""
    waited: float | None
    """Share of the span that this thread was ready and not running; None where the kernel does not tell."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Samples and the circumstances they were taken in."""

    warmup: Warmup
    phases: tuple[tuple[float, ...], ...]
    """Phase -> seconds by call."""
    load: Load
    recompiles: int = 0
    """Graphs that torch.compile made during the samples."""
    health: Health = field(default_factory=Health)

    @property
    def total(self) -> list[float]:
        """Seconds by call over all phases."""
        return [sum(call) for call in zip(*self.phases, strict=True)]

    def detail(self) -> dict[str, Any]:
        """What a record keeps beside the samples, JSON-serialisable."""
        return {
            "warmup": asdict(self.warmup),
            "quality": asdict(quality(self.total)),
            "load": asdict(self.load),
            "recompiles": self.recompiles,
            "health": self.health.detail(),
        }

    def flags(self) -> list[str]:
        """Why these samples should not be trusted blindly; empty if nothing speaks against them."""
        found = quality(self.total).flags()
        if self.load.foreign_cores > FOREIGN_MOST:
            found.append(f"foreign load: other processes kept {self.load.foreign_cores:.2f} cores busy")
        if self.load.waited is not None and self.load.waited > WAITED_MOST:
            found.append(f"contended: the timing thread waited for a core {self.load.waited:.0%} of the time")
        found += self.health.flags()
        if self.recompiles:
            found.append(f"recompiled: torch.compile made {self.recompiles} graphs during the samples")
        return found


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well repeated measurements of one thing agree. None where there are too few samples to say."""

    cv: float | None
    """Standard deviation over mean."""
    drift: float | None
    """Median of the last third over that of the first, minus 1."""
    aa: float | None
    """Larger over smaller of the two halves' minima, minus 1."""

    def flags(self) -> list[str]:
        """What exceeds its limit."""
        found = []
        if self.cv is not None and self.cv > CV_MOST:
            found.append(f"scattered: standard deviation is {self.cv:.0%} of the mean")
        if self.drift is not None and abs(self.drift) > DRIFT_MOST:
            found.append(f"drifting: the last third is {self.drift:+.0%} off the first")
        if self.aa is not None and self.aa > AA_MOST:
            found.append(f"A/A: the minima of the two halves differ by {self.aa:.0%}")
        return found


def quality(seconds: Sequence[float]) -> Quality:
    """Scatter, drift and A/A ratio of samples in the order they were taken; the last two need six of them."""
    count = len(seconds)
    cv = statistics.stdev(seconds) / statistics.fmean(seconds) if count > 1 else None
    if count < 6:
        return Quality(cv=cv, drift=None, aa=None)
    third, half = count // 3, count // 2
    drift = statistics.median(seconds[-third:]) / statistics.median(seconds[:third]) - 1
    low, high = sorted((min(seconds[:half]), min(seconds[half:])))
    return Quality(cv=cv, drift=drift, aa=high / low - 1)


def measure(phases: Sequence[Phase], *, limits: Limits, device: torch.device | None = None) -> Timing:
    """Warms up, then samples calls made of these phases.

    Args:
        phases: what one call consists of. On the wall clock the last one waits for the device's work.
        limits: how long it may take.
        device: whose own clock to use, which a CUDA device has; None is the wall clock.
    """

    def call() -> None:
        for phase in phases:
            phase()
        if device is not None:
            synchronize(device)

    warmup = warm_up(call, limits)
    calls = max(limits.least, min(limits.most, int(limits.seconds / warmup.seconds)))
    return sample(phases, calls, warmup=warmup, device=device)


def warm_up(call: Phase, limits: Limits) -> Warmup:
    """Calls until two consecutive windows agree within `AGREE`, or a limit is reached. ``call`` waits for its work."""
    began, steady = time.perf_counter(), False
    took = wall((call,), 1)[0]
    while not steady and time.perf_counter() - began < limits.warm_seconds and len(took) < limits.warm_most:
        took += wall((call,), 1)[0]
        if len(took) > 2 * WINDOW:
            before, after = statistics.median(took[-2 * WINDOW : -WINDOW]), statistics.median(took[-WINDOW:])
            steady = abs(after - before) <= AGREE * before
    seconds = statistics.median(took[1:][-WINDOW:] or took)
    return Warmup(first=took[0], calls=len(took), steady=steady, seconds=seconds)


def sample(phases: Sequence[Phase], calls: int, *, warmup: Warmup, device: torch.device | None = None) -> Timing:
    """Times ``calls`` calls after a warm-up: by CUDA events on a CUDA device, by the wall clock otherwise."""
    stopwatch = on_device if device is not None and device.type == "cuda" else wall
    graphs = _compiled_graphs()
    with watch() as health, _no_garbage_collection(), watch_load() as load:
        taken = stopwatch(phases, calls)
    return Timing(
        warmup=warmup,
        phases=tuple(tuple(phase) for phase in taken),
        load=load[0],
        recompiles=_compiled_graphs() - graphs,
        health=health[0],
    )


def wall(phases: Sequence[Phase], calls: int) -> list[list[float]]:
    """Phase -> seconds by call, by `time.perf_counter_ns`; about 0.1 microseconds of its own per phase."""
    width = len(phases) + 1
    stamps = [0] * (calls * width)
    now, position = time.perf_counter_ns, 0
    for _ in range(calls):
        stamps[position] = now()
        for phase in phases:
            phase()
            position += 1
            stamps[position] = now()
        position += 1
    marks = [stamps[mark::width] for mark in range(width)]
    return [[(end - begin) / 1e9 for begin, end in zip(*pair, strict=True)] for pair in pairwise(marks)]


def on_device(phases: Sequence[Phase], calls: int) -> list[list[float]]:
    """Phase -> seconds by call on the current CUDA stream: an event between phases, one wait at the very end."""
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(len(phases) + 1)] for _ in range(calls)]
    torch.cuda.synchronize()
    for row in marks:
        row[0].record()
        for phase, mark in zip(phases, row[1:], strict=True):
            phase()
            mark.record()
    torch.cuda.synchronize()
    milliseconds = [[begin.elapsed_time(end) for begin, end in pairwise(row)] for row in marks]
    return [[call[phase] / 1e3 for call in milliseconds] for phase in range(len(phases))]


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def watch_load() -> Iterator[list[Load]]:
    """Watches the machine over the body; the list holds one `Load` afterwards."""
    found: list[Load] = []
    begin = _usage()
    yield found
    seconds, own, everybody, waited = (after - before for before, after in zip(begin, _usage(), strict=True))
    found.append(
        Load(
            seconds=seconds,
            own_cores=own / seconds,
            foreign_cores=max(0.0, everybody - own - TICKS) / seconds,
            waited=waited / seconds if _SCHEDSTAT.exists() else None,
        )
    )


_SCHEDSTAT = Path("/proc/thread-self/schedstat")
TICKS = 0.02
"""Seconds of foreign work that are let pass: the kernel counts everybody's time in hundredths."""


def _usage() -> tuple[float, float, float, float]:
    """Seconds so far: wall clock, CPU of this process, CPU of all, this thread's wait for a core."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)  # a guest's time is in user's too
    waited = int(_SCHEDSTAT.read_text().split()[1]) / 1e9 if _SCHEDSTAT.exists() else 0.0
    return time.perf_counter(), time.process_time(), sum(times) - idle, waited


def _compiled_graphs() -> int:
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in mid-span would be charged to whichever call it hits."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
