"""How a machine felt while it was timed: clocks, heat and throttling, read before and after, never in between."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

CLOCK_MOST = 0.05
"""Change of the device's clock from before to after above which samples are flagged."""
REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat, by the driver",
    0x40: "heat, by the hardware",
    0x80: "power brake",
}
"""Bits by which NVML says why a clock is held down; idling and clocks that a user set are no reason for doubt."""
_CPUS = Path("/sys/devices/system/cpu")


class NoCounter(Exception):
    """The machine does not say what is asked; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A GPU at one moment."""

    clock: int
    """MHz of the multiprocessors."""
    fastest: int
    """MHz that they may reach."""
    celsius: int
    watts: float
    throttled: tuple[str, ...]


class Gpu:
    """One GPU, by NVML."""

    def __init__(self, device: torch.device) -> None:
        """Raises `NoCounter` where NVML or its bindings are absent."""
        import torch

        try:
            import pynvml  # pyright: ignore[reportMissingImports]  # optional
        except ImportError as error:
            raise NoCounter("NVML's bindings are not installed: pip install 'vlpbench[nvml]'") from error
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            # By its identity: numbers of NVML ignore which devices are visible.
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        except pynvml.NVMLError as error:
            raise NoCounter(f"NVML does not answer: {error}") from error

    def reading(self) -> Reading:
        """Raises `NoCounter` where the device does not tell."""
        nvml, handle = self._nvml, self._handle
        try:
            bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            return Reading(
                clock=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                fastest=nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
                celsius=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                watts=self.watts(),
                throttled=tuple(words for bit, words in REASONS.items() if bits & bit),
            )
        except nvml.NVMLError as error:
            raise NoCounter(f"NVML does not tell: {error}") from error

    def joules(self) -> float:
        """Energy since the driver was loaded. Raises `NoCounter` where the device does not count it."""
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
        except self._nvml.NVMLError as error:
            raise NoCounter(f"the device does not count its energy: {error}") from error

    def watts(self) -> float:
        """Power drawn now, as averaged by the device. Raises `NoCounter` where it does not tell."""
        try:
            return self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3
        except self._nvml.NVMLError as error:
            raise NoCounter(f"the device does not tell its power: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Health:
    """Before and after a span. What is None was not to be had."""

    before: Reading | None = None
    after: Reading | None = None
    cpu_throttles: int | None = None
    """Times that a core was slowed down for heat during the span."""

    def detail(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)

    def flags(self) -> list[str]:
        """What the device or the processor said against the samples."""
        found = []
        if self.cpu_throttles:
            found.append(f"throttled: the processor slowed down for heat {self.cpu_throttles} times")
        if self.before is None or self.after is None:
            return found
        if reasons := dict.fromkeys((*self.before.throttled, *self.after.throttled)):
            found.append(f"throttled: the device was held down by {', '.join(reasons)}")
        change = self.after.clock / self.before.clock - 1 if self.before.clock else 0.0
        if abs(change) > CLOCK_MOST:
            found.append(f"clocks: {self.before.clock} MHz before and {self.after.clock} MHz after ({change:+.0%})")
        return found


@contextmanager
def watch() -> Iterator[list[Health]]:
    """Looks at the processor, and at the GPU where this process uses one; the list holds one `Health` afterwards."""
    found: list[Health] = []
    gpu, throttles = _gpu_in_use(), _cpu_throttles()
    before = _reading(gpu)
    yield found
    after, now = _reading(gpu), _cpu_throttles()
    more = None if throttles is None or now is None else now - throttles
    found.append(Health(before=before, after=after, cpu_throttles=more))


def _gpu_in_use() -> Gpu | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        return Gpu(torch.device("cuda", torch.cuda.current_device()))
    except NoCounter:
        return None


def _reading(gpu: Gpu | None) -> Reading | None:
    try:
        return None if gpu is None else gpu.reading()
    except NoCounter:
        return None


def _cpu_throttles() -> int | None:
    counts = [path.read_text() for path in _CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    return sum(map(int, counts)) if counts else None
