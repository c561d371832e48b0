"""Latency and throughput: what is inside the span, and that samples are what their unit says."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.measures import base, latency, throughput
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import UNITS, Cell

SHORT = clock.Limits(seconds=0.2, most=8, warm_seconds=0.1, warm_most=3)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "LIMITS", SHORT)
    monkeypatch.setattr(throughput, "LIMITS", SHORT)
    monkeypatch.setattr(throughput, "BURST", 0.02)


def run(measure: str, **fields) -> Samples:
    cell = Cell(**{"arch": "clip", "size": "tiny", "measure": measure, "batch": 2} | fields)
    return base.load(measure).run(Subject.build(cell), cell)


@pytest.mark.parametrize("measure", ["latency", "throughput"])
@pytest.mark.parametrize("arch", ["clip", "vilt", "albef"])
def test_samples_have_the_declared_quantities_and_can_be_stored(measure: str, arch: str) -> None:
    found = run(measure, arch=arch)
    assert set(found.values) == set(base.spec(measure).quantities) <= set(UNITS)
    assert len(found.values[measure]) >= SHORT.least
    assert all(value > 0 for values in found.values.values() for value in values)
    assert json.loads(json.dumps(found.detail)) == found.detail
    assert found.detail["warmup"]["calls"] >= 1


def test_the_first_call_is_no_sample() -> None:
    found = run("latency")
    (first,) = found.values["first_call"]
    assert found.detail["warmup"]["first"] == first
    assert first not in found.values["latency"]


class Clockwork:
    """A subject whose inference takes a known time on a scripted clock, on the CPU or on a device that runs late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, seconds: float, device: str = "cpu") -> None:
        self.at = 0
        self.seconds, self.device = seconds, torch.device(device)
        self.calls, self.waits, self.prepared = 0, 0, False
        self.debt = 0
        self.grad: list[bool] = []
        fake = SimpleNamespace(
            perf_counter_ns=lambda: self.at, perf_counter=lambda: self.at / 1e9, process_time=lambda: 0
        )
        monkeypatch.setattr(clock, "time", fake)
        monkeypatch.setattr(clock, "synchronize", self._wait)

    def prepare(self) -> None:
        self.prepared = True
        self.at += 10**12

    def settings(self):
        return Subject.settings(self)  # pyright: ignore[reportArgumentType]

    cell = Cell(arch="clip", size="tiny", measure="latency", batch=4)

    def batch(self) -> None:
        return None

    def forward(self, batch: None) -> None:
        assert self.prepared
        self.calls += 1
        self.grad.append(torch.is_grad_enabled())
        self.debt += round(self.seconds * 1e9)  # queued, and paid at the next wait

    def _wait(self, device: torch.device) -> None:
        assert device == self.device
        self.waits += 1
        self.at += self.debt
        self.debt = 0


def test_every_latency_includes_the_wait_for_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Clockwork(monkeypatch, seconds=0.05)
    found = latency.Latency().run(fake, fake.cell)  # pyright: ignore[reportArgumentType]
    assert found.values["latency"] == [0.05] * 4  # 0.2 s allowed
    assert found.values["first_call"] == [0.05]
    assert found.detail["pairs_per_call"] == 4
    assert fake.waits == fake.calls
    assert not any(fake.grad)


def test_throughput_is_pairs_per_second_of_calls_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Clockwork(monkeypatch, seconds=0.005)
    found = throughput.Throughput().run(fake, fake.cell)  # pyright: ignore[reportArgumentType]
    # 4 calls fill a burst of 0.02 s; 0.2 s hold 10 bursts, of which 8 are allowed.
    assert found.detail["calls_per_burst"] == 4
    assert found.values["throughput"] == pytest.approx([4 / 0.005] * 8)
    assert fake.waits == fake.calls - 8 * 3


def test_a_call_slower_than_a_burst_is_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Clockwork(monkeypatch, seconds=3.0)
    found = throughput.Throughput().run(fake, fake.cell)  # pyright: ignore[reportArgumentType]
    assert found.detail["calls_per_burst"] == 1
    assert found.values["throughput"] == pytest.approx([4 / 3] * 3)


def test_on_cuda_the_devices_own_time_is_a_quantity(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Clockwork(monkeypatch, seconds=0.05, device="cuda")
    monkeypatch.setattr(fake, "settings", torch.no_grad)
    monkeypatch.setattr(clock, "on_device", lambda phases, calls: [[0.04] * calls])
    found = latency.Latency().run(fake, fake.cell)  # pyright: ignore[reportArgumentType]
    assert found.values["latency"] == [0.05] * 4  # still what a user waits for
    assert found.values["device_time"] == [0.04] * 4
