"""Clocks, throttling and energy by a made-up NVML: what is flagged, and that nothing is made up where it is absent."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from vlpbench.benchmarks import clock, health
from vlpbench.benchmarks.health import Gpu, Health, NoCounter, Reading

CUDA = torch.device("cuda", 0)


class NVMLError(Exception):
    """As the bindings raise it."""


class FakeNVML:
    """One GPU whose counters follow a script."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0
    NVMLError = NVMLError

    def __init__(self, *, clocks: list[int] | None = None, reasons: list[int] | None = None) -> None:
        self.clocks, self.reasons = iter(clocks or [1980] * 9), iter(reasons or [0] * 9)
        self.millijoules, self.milliwatts = 5_000, 300_000
        self.counts = True
        self.asked: str | None = None

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def __getattr__(self, name: str):
        answers = {
            "nvmlDeviceGetHandleByUUID": self._handle,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: next(self.reasons),
            "nvmlDeviceGetClockInfo": lambda _, kind: next(self.clocks),
            "nvmlDeviceGetMaxClockInfo": lambda _, kind: 1980,
            "nvmlDeviceGetTemperature": lambda _, kind: 55,
            "nvmlDeviceGetPowerUsage": lambda _: self.milliwatts,
            "nvmlDeviceGetTotalEnergyConsumption": self._energy,
        }
        return answers[name]

    def _handle(self, uuid: str) -> str:
        self.asked = uuid
        return "handle"

    def _energy(self, _: str) -> int:
        if not self.counts:
            raise NVMLError("not supported")
        return self.millijoules


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch):
    def install(**script) -> FakeNVML:
        fake = FakeNVML(**script)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="abc-1"))
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        return fake

    return install


def test_the_gpu_is_found_by_its_identity_and_read_in_si_units(nvml) -> None:
    fake = nvml(reasons=[0x04 | 0x01])
    gpu = Gpu(CUDA)
    assert fake.asked == "GPU-abc-1"
    assert gpu.joules() == 5.0
    assert gpu.reading() == Reading(clock=1980, fastest=1980, celsius=55, watts=300.0, throttled=("power cap",))


def test_a_throttled_device_flags_the_samples(nvml) -> None:
    nvml(reasons=[0, 0x40])
    with health.watch() as found:
        pass
    assert found[0].flags() == ["throttled: the device was held down by heat, by the hardware"]


def test_a_clock_that_moved_flags_the_samples(nvml) -> None:
    nvml(clocks=[1980, 1600])
    with health.watch() as found:
        pass
    assert found[0].flags() == ["clocks: 1980 MHz before and 1600 MHz after (-19%)"]


def test_idling_and_a_steady_clock_are_no_reason_for_a_flag(nvml) -> None:
    nvml(clocks=[1980, 1965], reasons=[0x01, 0x02])
    with health.watch() as found:
        pass
    assert found[0].flags() == []


def test_every_timing_is_watched(nvml) -> None:
    nvml(reasons=[0x80, 0x80])
    timing = clock.measure((lambda: None,), limits=clock.Limits(seconds=0.01, most=6))
    assert any("power brake" in flag for flag in timing.flags())
    assert timing.detail()["health"]["after"]["celsius"] == 55


def test_a_processor_that_slowed_down_is_flagged(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    count = tmp_path / "cpu0" / "thermal_throttle" / "core_throttle_count"
    count.parent.mkdir(parents=True)
    count.write_text("7\n")
    monkeypatch.setattr(health, "_CPUS", tmp_path)
    with health.watch() as found:
        count.write_text("9\n")
    assert found[0].flags() == ["throttled: the processor slowed down for heat 2 times"]


def test_without_nvml_nothing_is_known_and_nothing_claimed(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(health, "_CPUS", tmp_path)
    with health.watch() as found:
        pass
    assert found[0] == Health()
    assert found[0].flags() == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoCounter, match="vlpbench"):
        Gpu(CUDA)


def test_a_device_that_counts_no_energy_says_so(nvml) -> None:
    nvml().counts = False
    with pytest.raises(NoCounter, match="not supported"):
        Gpu(CUDA).joules()
