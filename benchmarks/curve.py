"""What a training leaves behind beside its weights: losses by window, what was seen on the way, and the time spent."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

WINDOW = 25
"""Steps between two looks at the losses: each look waits for the device."""
EXPLODED = 10.0
"""A mean loss this many times that of the first window has diverged."""


class Diverged(RuntimeError):
    """The loss is not finite or has exploded: the weights are worth nothing."""


class Watch(Protocol):
    """Looks at what is trained, and leaves it as it is."""

    @property
    def steps(self) -> frozenset[int]:
        """Numbers of steps done after which to look; only ends of windows count, where the losses are known."""
        ...

    @property
    def what(self) -> dict[str, Any]:
        """What is looked at, or why nothing is; for a record."""
        ...

    def look(self, done: int) -> dict[str, float]:
        """Values by name, after so many steps."""
        ...


@dataclass(kw_only=True)
class Looks:
    """What a `Watch` saw, one entry for each look."""

    what: dict[str, Any] = field(default_factory=dict)
    step: list[int] = field(default_factory=list)
    """Steps done."""
    cpu_seconds: list[float] = field(default_factory=list)
    """Processor time of the training until then, without any look."""
    wall_seconds: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    spent_cpu_seconds: list[float] = field(default_factory=list)
    """Of the look itself."""
    spent_wall_seconds: list[float] = field(default_factory=list)


@dataclass(kw_only=True)
class Curve:
    """Learning curve: one entry for each `WINDOW` of steps."""

    step: list[int] = field(default_factory=list)
    """Steps done at the end of the window."""
    loss: dict[str, list[float]] = field(default_factory=dict)
    """Mean over the window of each loss, unweighted, and of their weighted ``total``."""
    cpu_seconds: list[float] = field(default_factory=list)
    """Processor time of the process since the first step, over all threads and resumptions, without looks."""
    wall_seconds: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    """Steps of the window whose gradients overflowed in fp16, so that they moved nothing."""
    looks: Looks = field(default_factory=Looks)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
        return cls(**{**found, "looks": Looks(**found["looks"])})

    def as_dict(self) -> dict[str, Any]:
        """For a record's detail."""
        return asdict(self)


class _Stopwatch:
    """Processor and wall time of a training over all its resumptions; what happens in a pause is not in it."""

    def __init__(self, before: tuple[float, float]) -> None:
        cpu, wall = _now()
        self._origin = cpu - before[0], wall - before[1]

    def read(self) -> tuple[float, float]:
        cpu, wall = _now()
        return cpu - self._origin[0], wall - self._origin[1]

    @contextmanager
    def paused(self) -> Iterator[None]:
        cpu, wall = self.read()
        try:
            yield
        finally:
            now = _now()
            self._origin = now[0] - cpu, now[1] - wall


class Meter:
    """Sums losses on the device and looks at them once a window."""

    def __init__(self, curve: Curve, state: Mapping[str, Any] | None) -> None:
        self.curve = curve
        self.sums: dict[str, Tensor] = dict(state["sums"]) if state else {}
        self.count: int = state["count"] if state else 0
        self.skipped: int = state["skipped"] if state else 0
        self.clock = _Stopwatch(tuple(state["spent"]) if state else (0.0, 0.0))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"sums": self.sums, "count": self.count, "skipped": self.skipped, "spent": self.clock.read()}

    def add(self, losses: Mapping[str, Tensor], *, moved: bool) -> None:
        """Takes the losses of a step, and whether it moved the weights."""
        for name, loss in losses.items():
            self.sums[name] = self.sums[name].to(loss.device) + loss if name in self.sums else loss
        self.count += 1
        self.skipped += not moved

    def look(self, step: int, lr: float) -> dict[str, float]:
        """Closes the window.

        Raises:
            Diverged: naming the losses and what to do.
        """
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        if self.skipped == self.count >= WINDOW:
            raise Diverged(f"fp16 overflowed in all of the {self.count} steps before step {step}; use bf16 or fp32")
        curve = self.curve
        curve.skipped.append(self.skipped)
        self.sums, self.count, self.skipped = {}, 0, 0
        first = curve.loss.get("total", [means["total"]])[0]
        if not all(map(isfinite, means.values())) or means["total"] > EXPLODED * max(first, 1.0):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            raise Diverged(f"training diverged before step {step}: {shown} (began at {first:.4g}); lower lr {lr:.3g}")
        curve.step.append(step)
        for name, value in means.items():
            curve.loss.setdefault(name, []).append(value)
        cpu, wall = self.clock.read()
        curve.cpu_seconds.append(cpu)
        curve.wall_seconds.append(wall)
        return means

    def watched(self, step: int, watch: Watch) -> dict[str, float]:
        """What a watch sees, noted with the time of the training and with its own."""
        looks = self.curve.looks
        cpu, wall = self.clock.read()
        start = _now()
        with self.clock.paused():
            seen = watch.look(step)
        looks.step.append(step)
        looks.cpu_seconds.append(cpu)
        looks.wall_seconds.append(wall)
        for name, value in seen.items():
            looks.metrics.setdefault(name, []).append(value)
        end = _now()
        looks.spent_cpu_seconds.append(end[0] - start[0])
        looks.spent_wall_seconds.append(end[1] - start[1])
        return seen


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()
