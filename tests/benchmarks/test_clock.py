"""The clock against scripted clocks: every duration, window and flag is known beforehand."""

from __future__ import annotations

import gc
import time
from types import SimpleNamespace

import pytest
import torch
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.clock import Limits, Load, Timing, Warmup

CPU = torch.device("cpu")
IDLE = Load(seconds=1.0, own_cores=1.0, foreign_cores=0.0, waited=0.0)
WARM = Warmup(first=1.0, calls=3, steady=True, seconds=1.0)


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until a test moves it; ``hand.at`` is in nanoseconds."""
    state = SimpleNamespace(at=0)
    fake = SimpleNamespace(
        perf_counter_ns=lambda: state.at,
        perf_counter=lambda: state.at / 1e9,
        process_time=lambda: state.at / 1e9,
    )
    monkeypatch.setattr(clock, "time", fake)
    return state


def takes(hand: SimpleNamespace, *seconds: float):
    """A call that moves the clock by these seconds, one after another, the last one for ever."""
    left = list(seconds)

    def call() -> None:
        hand.at += round(1e9 * (left.pop(0) if len(left) > 1 else left[0]))

    return call


def test_wall_gives_every_phase_of_every_call_its_own_time(hand: SimpleNamespace) -> None:
    phases = (takes(hand, 0.5, 0.25), takes(hand, 2.0))
    assert clock.wall(phases, 3) == [[0.5, 0.25, 0.25], [2.0, 2.0, 2.0]]


def test_time_between_calls_is_nobodys(hand: SimpleNamespace) -> None:
    ticks = iter([0, 100, 7000, 7300])
    clock.time.perf_counter_ns = lambda: next(ticks)
    assert clock.wall((lambda: None,), 2) == [[100e-9, 300e-9]]


def test_warm_up_goes_on_until_two_windows_agree(hand: SimpleNamespace) -> None:
    # first 1.0, then windows (0.5 0.5 0.5) and (0.3 0.3 0.3) differ by 40 %; agreement needs six equal calls in a row.
    call = takes(hand, 1.0, 0.5, 0.5, 0.5, 0.3)
    found = clock.warm_up(call, Limits(warm_seconds=1000, warm_most=1000))
    assert found.first == 1.0
    assert found.steady
    assert found.seconds == 0.3
    # The medians of calls 4-6 (0.5 0.3 0.3) and 7-9 (0.3 0.3 0.3) are equal: the ninth call ends it.
    assert found.calls == 9


def test_the_first_call_never_counts_as_steady(hand: SimpleNamespace) -> None:
    found = clock.warm_up(takes(hand, 1.0), Limits(warm_seconds=1000, warm_most=1000))
    assert found.calls == 1 + 2 * clock.WINDOW


@pytest.mark.parametrize(("share", "steady"), [(0.019, True), (0.021, False)])
def test_windows_agree_within_two_percent(hand: SimpleNamespace, share: float, steady: bool) -> None:
    found = clock.warm_up(takes(hand, 9.0, 1, 1, 1, 1 + share), Limits(warm_seconds=1000, warm_most=7))
    assert found.steady is steady


def test_warm_up_is_capped_by_calls_and_by_seconds(hand: SimpleNamespace) -> None:
    growing = [1.1**n for n in range(100)]
    assert clock.warm_up(takes(hand, *growing), Limits(warm_seconds=1e9, warm_most=12)).calls == 12
    found = clock.warm_up(takes(hand, 2.0, 4.0), Limits(warm_seconds=5.0, warm_most=100))
    assert (found.calls, found.steady, found.seconds) == (2, False, 4.0)


def test_a_call_slower_than_every_limit_is_made_once_to_warm_and_three_times_to_sample(hand: SimpleNamespace) -> None:
    timing = clock.measure((takes(hand, 30.0, 20.0),), limits=Limits(seconds=2.0, warm_seconds=1.0, least=3))
    assert timing.warmup.first == 30.0
    assert timing.warmup.calls == 1
    assert timing.total == [20.0, 20.0, 20.0]


def test_the_number_of_samples_follows_the_seconds_allowed(hand: SimpleNamespace) -> None:
    limits = Limits(seconds=2.0, most=200, warm_seconds=1000)
    assert len(clock.measure((takes(hand, 1.0, 0.1),), limits=limits).total) == 20
    assert len(clock.measure((takes(hand, 1.0, 0.001),), limits=limits).total) == 200


def test_garbage_is_not_collected_within_the_samples_and_is_after() -> None:
    seen = []
    clock.sample((lambda: seen.append(gc.isenabled()),), 3, warmup=WARM)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_cuda_calls_are_timed_by_events_and_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = SimpleNamespace(now=0.0, waits=[])

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = state.now

        def elapsed_time(self, end: Event) -> float:
            return 1e3 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: state.waits.append(state.now))

    def work(seconds: float) -> None:
        state.now += seconds

    taken = clock.on_device((lambda: work(1.0), lambda: work(0.5)), 4)
    assert taken == [[1.0] * 4, [0.5] * 4]
    assert state.waits == [0.0, 6.0]  # before the first call and after the last, never between


def test_the_device_clock_is_used_on_cuda_and_the_wall_clock_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "on_device", lambda phases, calls: [[42.0] * calls])
    assert clock.sample((lambda: None,), 2, warmup=WARM, device=torch.device("cuda")).total == [42.0, 42.0]
    assert clock.sample((lambda: None,), 2, warmup=WARM, device=CPU).total[0] < 1
    assert clock.sample((lambda: None,), 2, warmup=WARM).total[0] < 1


def test_quality_by_hand() -> None:
    found = clock.quality([1.0, 3.0])
    assert found.cv == pytest.approx(2**0.5 / 2)  # sd sqrt(2), mean 2
    assert (found.drift, found.aa) == (None, None)
    found = clock.quality([2, 2, 4, 4, 3, 3])
    assert found.drift == pytest.approx(0.5)  # thirds (2, 2) and (3, 3)
    assert found.aa == pytest.approx(0.5)  # halves' minima 2 and 3
    assert clock.quality([1.0]).cv is None


@pytest.mark.parametrize(
    ("seconds", "word"),
    [
        ([1, 1, 1, 1, 1, 1], None),
        ([1, 2, 1, 2, 1, 2], "scattered"),
        ([1.0, 1.0, 1.1, 1.1, 1.12, 1.12], "drifting"),
        ([1, 1, 1, 1.06, 1.06, 1.06], "A/A"),
        ([1, 1, 1, 1.04, 1.04, 1.04], None),
    ],
)
def test_flags_of_samples(seconds: list[float], word: str | None) -> None:
    flags = Timing(warmup=WARM, phases=(tuple(seconds),), load=IDLE).flags()
    assert (word is None and not flags) or any(flag.startswith(str(word)) for flag in flags)


@pytest.mark.parametrize(
    ("load", "recompiles", "word"),
    [
        (Load(seconds=1, own_cores=1, foreign_cores=0.3, waited=0.0), 0, "foreign load"),
        (Load(seconds=1, own_cores=1, foreign_cores=0.2, waited=0.0), 0, None),
        (Load(seconds=1, own_cores=1, foreign_cores=0.0, waited=0.06), 0, "contended"),
        (Load(seconds=1, own_cores=1, foreign_cores=0.0, waited=None), 0, None),
        (IDLE, 2, "recompiled"),
    ],
)
def test_flags_of_circumstances(load: Load, recompiles: int, word: str | None) -> None:
    flags = Timing(warmup=WARM, phases=((1.0,) * 6,), load=load, recompiles=recompiles).flags()
    assert [flag.split(":")[0] for flag in flags] == ([] if word is None else [word])


def test_load_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2 s pass: this process uses 1.5 CPU seconds of the 2.52 that all use, and waits 0.5 s for a core.
    usage = iter([(10.0, 5.0, 100.0, 1.0), (12.0, 6.5, 102.52, 1.5)])
    monkeypatch.setattr(clock, "_usage", lambda: next(usage))
    with clock.watch_load() as found:
        pass
    assert (found[0].seconds, found[0].own_cores) == (2.0, 0.75)
    assert found[0].foreign_cores == pytest.approx((1.02 - clock.TICKS) / 2)
    assert found[0].waited in (0.25, None)


def test_own_work_is_told_from_foreign() -> None:
    with clock.watch_load() as found:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    load = found[0]
    assert load.own_cores * load.seconds == pytest.approx(0.2, abs=0.05)
    assert load.foreign_cores >= 0


def test_detail_is_what_a_record_can_store() -> None:
    detail = Timing(warmup=WARM, phases=((1.0, 2.0),), load=IDLE).detail()
    assert detail["warmup"] == {"first": 1.0, "calls": 3, "steady": True, "seconds": 1.0}
    assert set(detail) == {"warmup", "quality", "load", "recompiles", "health"}
