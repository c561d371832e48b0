"""Energy by made-up counters: joules per pair by hand, windows, and no number where there is no counter."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import clock, joules
from vlpbench.benchmarks.health import NoCounter
from vlpbench.benchmarks.joules import GpuCounter, PowerSampler, Rapl, counter
from vlpbench.benchmarks.measures import energy
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell


class Clock:
    """Time that passes when something is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 0.0
        fake = SimpleNamespace(
            perf_counter=lambda: self.at, perf_counter_ns=lambda: round(self.at * 1e9), sleep=self.pass_
        )
        monkeypatch.setattr(energy, "time", fake)
        monkeypatch.setattr(clock, "time", fake)

    def pass_(self, seconds: float) -> None:
        self.at += seconds


def test_windows_are_long_and_hold_joules_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)
    steady = SimpleNamespace(method="made up", joules=lambda: 50.0 * time.at)  # 50 W
    found = energy._windows(lambda: time.pass_(0.25), steady, torch.device("cpu"))
    assert found == [(pytest.approx(100.0), pytest.approx(2.0), 8)] * energy.WINDOWS
    assert energy._idle(steady) == pytest.approx(50.0)


def test_a_counter_that_stands_still_is_an_error_and_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)
    stuck = SimpleNamespace(method="made up", joules=lambda: 7.0)
    with pytest.raises(RuntimeError, match=r"did not move in 2.* s \(made up\)"):
        energy._windows(lambda: time.pass_(0.5), stuck, torch.device("cpu"))


def test_energy_is_per_pair_with_its_method_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell(arch="clip", size="tiny", measure="energy", batch=4, objectives=("itc",))
    monkeypatch.setattr(energy, "_windows", lambda call, *_: (call(), [(80.0, 2.0, 10)] * 3)[1])
    monkeypatch.setattr(energy, "_idle", lambda _: 12.5)
    monkeypatch.setattr(joules, "counter", lambda _: SimpleNamespace(method="made up", joules=lambda: 0.0))
    found = energy.Energy().run(Subject.build(cell), cell)
    assert found.values == {"energy_inference": [2.0] * 3, "energy_training": [2.0] * 3}  # 80 J over 10 calls of 4
    assert found.detail["watts"]["inference"] == [40.0] * 3
    assert (found.detail["method"], found.detail["idle_watts"]) == ("made up", 12.5)


def test_without_a_counter_the_cell_is_unsupported(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(joules, "_RAPL", tmp_path)
    cell = Cell(arch="clip", size="tiny", measure="energy", objectives=("itc",))
    with pytest.raises(Unsupported, match="energy is not available: the system shows no RAPL counter"):
        energy.Energy().run(Subject.build(cell), cell)


def _zone(folder, name: str, energy_uj: int, most: int = 999):
    zone = folder / name
    zone.mkdir()
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    (zone / "max_energy_range_uj").write_text(f"{most}\n")
    return zone / "energy_uj"


def test_rapl_adds_packages_and_survives_a_counter_that_begins_again(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    one, two = _zone(tmp_path, "intel-rapl:0", 900), _zone(tmp_path, "intel-rapl:1", 100)
    _zone(tmp_path, "intel-rapl:0:0", 5)  # a part of the first package, in it already
    monkeypatch.setattr(joules, "_RAPL", tmp_path)
    found = Rapl()
    one.write_text("950\n")
    assert found.joules() == pytest.approx(50e-6)
    one.write_text("49\n")  # 999 is the last value before 0
    two.write_text("300\n")
    assert found.joules() == pytest.approx((50 + 99 + 200 + 0) * 1e-6)


class FakeGpu:
    """A GPU that draws 100 W, with or without a counter of its own."""

    def __init__(self, *, counts: bool) -> None:
        self.counts = counts

    def joules(self) -> float:
        if not self.counts:
            raise NoCounter("no")
        return 5.0

    def watts(self) -> float:
        return 100.0


@pytest.mark.parametrize(("counts", "kind"), [(True, GpuCounter), (False, PowerSampler)])
def test_a_gpu_without_a_counter_is_sampled(monkeypatch: pytest.MonkeyPatch, counts: bool, kind: type) -> None:
    monkeypatch.setattr(joules, "Gpu", lambda _: FakeGpu(counts=counts))
    found = counter(torch.device("cuda"))
    assert isinstance(found, kind)
    assert "idle power included" in found.method


def test_power_times_time_is_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    at = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr(joules, "time", SimpleNamespace(perf_counter=lambda: next(at), sleep=lambda _: None))
    monkeypatch.setattr(joules.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    watts = iter([100.0, 200.0, 200.0])
    found = PowerSampler(SimpleNamespace(watts=lambda: next(watts)))  # pyright: ignore[reportArgumentType]
    assert found.joules() == 2 * 150
    assert found.joules() == 2 * 150 + 3 * 200
