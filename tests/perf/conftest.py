"""Goals of performance: races against named baselines, and the table of verdicts that ends a run.

    def test_counting_beats_sorting(goals):
        goals.value("G3", "memory, one-hot over ours", theirs / mine, at_least=8)
        goals.race("G3", ours, {"as ALBEF sorts": (argsorted, 4.0)})

A race takes all ways in turn, ours twice, and compares minima. Where the two minima of ours differ by more than 5 %
the verdict is "inconclusive" and the test is skipped, not failed. Without --benchmark-enable a race runs every way once
or twice and compares nothing.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest

AA_MOST = 1.05
"""Larger over smaller of the two minima of the same work, above which a race says nothing."""
ROUNDS = 7
AT_MOST = 3
"""A race whose control is off goes on for up to so many times its rounds."""

Way = Callable[[], Any]
Cost = Literal["cpu", "wall", "own"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One line of the table."""

    goal: str
    what: str
    required: str
    measured: float
    aa: float | None
    """The A/A control; None for what is counted and not timed."""
    verdict: Literal["met", "missed", "inconclusive"]


VERDICTS = pytest.StashKey[list[Verdict]]()


def cost_of(way: Way, cost: Cost) -> float:
    """Seconds of CPU or of wall time; ``own`` is for a way that returns what it cost."""
    if cost == "own":
        return way()
    clock = time.process_time_ns if cost == "cpu" else time.perf_counter_ns
    began = clock()
    way()
    return (clock() - began) / 1e9


def cheapest(ways: dict[str, Way], cost: Cost, rounds: int) -> dict[str, float]:
    """Minimum of each, taken in turn so that a slow moment of the machine meets all alike. ``again`` is the control."""
    best = dict.fromkeys(ways, float("inf"))
    for done in range(1, AT_MOST * rounds + 1):
        gc.collect()
        for name, way in ways.items():
            best[name] = min(best[name], cost_of(way, cost))
        if done >= rounds and done % rounds == 0 and control(best) <= AA_MOST:
            break
    return best


def control(best: dict[str, float]) -> float:
    """The A/A ratio, 1 or more."""
    low, high = sorted((best["ours"], best["again"]))
    return high / low


class Goals:
    """What a test of a goal calls."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        options = request.config.option
        self.timed: bool = options.benchmark_enable or not options.benchmark_disable
        """Whether times are compared at all."""

    def needs_clock(self) -> None:
        """Skips a test that is nothing but a slow comparison of times."""
        if not self.timed:
            pytest.skip("a comparison of times; run with --benchmark-enable")

    def value(
        self,
        goal: str,
        what: str,
        measured: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        aa: float | None = None,
    ) -> None:
        """A number that is counted, or that a test has timed itself: then with ``aa``, the ratio of its A/A control."""
        sign, limit = ("≥", at_least) if at_least is not None else ("≤", at_most)
        assert limit is not None, "name at_least or at_most"
        required, met = f"{sign} {limit:g}", measured >= limit if sign == "≥" else measured <= limit
        sure = aa is None or aa <= AA_MOST
        self._note(goal, what, required, measured, aa, ("met" if met else "missed") if sure else "inconclusive")
        if not sure:
            pytest.skip(f"{goal} is inconclusive: the same work took {aa:.2f} times its own time")
        assert met, f"{goal} {what}: {measured:.3g}, required {required}"

    def race(
        self,
        goal: str,
        ours: Way,
        baselines: dict[str, tuple[Way, float]],
        *,
        cost: Cost = "cpu",
        rounds: int = ROUNDS,
        always: bool = False,
    ) -> None:
        """Compares ours with each baseline, which must take at least so many times as long. One a test, at its end.

        Args:
            goal: its number.
            ours: what is claimed to be fast; returns its cost where ``cost`` is ``own``.
            baselines: what it is called, the way and the factor.
            cost: CPU time of this process, wall time, or what the ways return.
            rounds: visits of each way before minima are compared.
            always: compares without --benchmark-enable too, where ways take little and the margin is wide.
        """
        ways = {"ours": ours, **{name: way for name, (way, _) in baselines.items()}, "again": ours}
        for way in ways.values():  # also what warms up code and caches
            cost_of(way, cost)
        benchmark = self._request.getfixturevalue("benchmark")
        timed = self.timed or always
        best = cheapest(ways, cost, rounds) if timed else dict.fromkeys(ways, float("nan"))
        ratios = {name: best[name] / best["ours"] for name in ways if name != "ours"}
        benchmark.extra_info.update(goal=goal, **ratios)
        benchmark.pedantic(ours, rounds=rounds)
        if not timed:
            return
        aa, missed = control(best), []
        for name, (_, factor) in baselines.items():
            good = "met" if ratios[name] >= factor else "missed"
            self._note(goal, name, f"≥ {factor:g}", ratios[name], aa, good if aa <= AA_MOST else "inconclusive")
            if good == "missed":
                missed.append(f"{goal} {name}: {ratios[name]:.2f} times as long as ours, required {factor:g}")
        if aa > AA_MOST:
            pytest.skip(f"{goal} is inconclusive: the same work took {aa:.2f} times its own time")
        assert not missed, "; ".join(missed)

    def _note(self, goal: str, what: str, required: str, measured: float, aa: float | None, verdict: Any) -> None:
        found = Verdict(goal=goal, what=what, required=required, measured=measured, aa=aa, verdict=verdict)
        self._request.config.stash[VERDICTS].append(found)


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(VERDICTS, [])


@pytest.fixture
def goals(request: pytest.FixtureRequest) -> Goals:
    """Races and verdicts of one test."""
    request.config.stash.setdefault(VERDICTS, [])
    return Goals(request)


@pytest.fixture
def one_thread():
    """Torch on one thread, as goals are stated."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def in_order(config: pytest.Config) -> list[Verdict]:
    """G1 to G10, then what has a name."""
    return sorted(config.stash.get(VERDICTS, []), key=lambda line: (len(line.goal), line.goal))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = in_order(config)
    if not found:
        return
    heads = ("goal", "against, or what", "required", "measured", "A/A", "verdict")
    rows = [
        (v.goal, v.what, v.required, f"{v.measured:.2f}", "" if v.aa is None else f"{v.aa:.3f}", v.verdict)
        for v in found
    ]
    wide = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    terminalreporter.section("performance goals")
    for row in (heads, *rows):
        terminalreporter.write_line("  ".join(f"{part:<{w}}" for part, w in zip(row, wide, strict=True)).rstrip())


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["goals"] = [asdict(line) for line in in_order(config)]
