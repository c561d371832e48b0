"""Where energy is read: the GPU's own counter, samples of its power, or RAPL. Never a guess from a data sheet."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.health import Gpu, NoCounter

if TYPE_CHECKING:
    import torch

PERIOD = 0.1
"""Seconds between two samples of power: devices average over about as long, and refuse to be asked much more often."""
_RAPL = Path("/sys/class/powercap")


class Counter(Protocol):
    """Energy that only grows."""

    method: str

    def joules(self) -> float:
        """Since some moment in the past."""
        ...


class GpuCounter:
    """What the device itself adds up."""

    method = "the device's own energy counter, by NVML; idle power included"

    def __init__(self, gpu: Gpu) -> None:
        """Raises `NoCounter` where the device has none."""
        gpu.joules()
        self.joules = gpu.joules


class PowerSampler:
    """Power times time, sampled in a thread, by the trapezoidal rule."""

    method = f"power of the device, sampled every {PERIOD:g} s by NVML; idle power included"

    def __init__(self, gpu: Gpu) -> None:
        """Raises `NoCounter` where the device does not tell its power."""
        self._gpu, self._sum = gpu, 0.0
        self._lock = threading.Lock()
        self._last = time.perf_counter(), gpu.watts()
        threading.Thread(target=self._sample, name="power", daemon=True).start()

    def joules(self) -> float:
        """Up to now."""
        with self._lock:
            now, watts = time.perf_counter(), self._gpu.watts()
            self._sum += (now - self._last[0]) * (watts + self._last[1]) / 2
            self._last = now, watts
            return self._sum

    def _sample(self) -> None:
        while True:
            time.sleep(PERIOD)
            try:
                self.joules()
            except NoCounter:
                return


class Rapl:
    """The packages of the processor, memory left out; of everything that runs on them."""

    method = "RAPL counters of the processor's packages; idle power and other processes included"

    def __init__(self) -> None:
        """Raises `NoCounter` where the system shows none, or not to this user."""
        self._zones = sorted(_RAPL.glob("intel-rapl:[0-9]"))
        if not self._zones:
            raise NoCounter("the system shows no RAPL counter")
        try:
            self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
            self._last = self._read()
        except OSError as error:
            raise NoCounter(f"RAPL counters cannot be read: {error.strerror}") from error
        self._sum = 0

    def joules(self) -> float:
        """Up to now; a counter that began again is taken to have done so once."""
        now = self._read()
        self._sum += sum((b - a) % (most + 1) for a, b, most in zip(self._last, now, self._ranges, strict=True))
        self._last = now
        return self._sum / 1e6

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]


def counter(device: torch.device) -> Counter:
    """The best there is for a device.

    Raises:
        Unsupported: without any, saying what is missing.
    """
    try:
        if device.type != "cuda":
            return Rapl()
        gpu = Gpu(device)
        try:
            return GpuCounter(gpu)
        except NoCounter:
            return PowerSampler(gpu)
    except NoCounter as error:
        raise Unsupported(f"energy is not available: {error}") from error
