"""The runner with real processes and measures that do something known (fake_measures.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from vlpbench.benchmarks import runner
from vlpbench.benchmarks.env import code_hash
from vlpbench.benchmarks.measures.base import MEASURES
from vlpbench.benchmarks.plan import make_plan
from vlpbench.benchmarks.pool import Pool
from vlpbench.benchmarks.progress import Progress
from vlpbench.benchmarks.runner import Runner, Summary
from vlpbench.benchmarks.suite import Suite
from vlpbench.results.record import Cell, Env, Series, Status
from vlpbench.results.store import Round, Store

pytestmark = pytest.mark.slow

ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={}, threads=1)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server():
    """The server of processes, started once; pytest itself is loaded because every child imports the main script."""
    with Pool(["torch", "pytest"]):
        yield


class Lab:
    """A results folder, a log of what was really measured, and a way to run."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "results")
        self.cache = folder / "cache"
        self.log = self.cache / "log"

    def run(self, *cells: Cell, rounds: int = 2, timeout: float = 60, workers: int = 2, again: bool = False) -> Summary:
        suite = Suite(name="fakes", title="Fakes", rounds=rounds, timeout=timeout, cells=cells)
        plan = make_plan(suite, self.store.entries(), ENV, workers=workers, again=again)
        with Progress(plan) as progress:
            return Runner(plan, self.store, ENV, cache=self.cache, progress=progress).run()

    def events(self) -> list[list[str]]:
        """Event, measure, architecture, seed, process, time; in order."""
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def begun(self) -> list[tuple[str, str]]:
        return [(measure, seed) for event, measure, _, seed, *_ in self.events() if event == "begin"]

    def span(self, measure: str, seed: int) -> tuple[float, float]:
        times = {e[0]: float(e[5]) for e in self.events() if e[1] == measure and e[3] == str(seed)}
        return times["begin"], times["end"]


@pytest.fixture
def lab(tmp_path, monkeypatch, server):
    monkeypatch.syspath_prepend(str(HERE))
    import fake_measures

    for name, spec in fake_measures.SPECS.items():
        monkeypatch.setitem(MEASURES, name, spec)
    monkeypatch.setattr(runner, "SUBJECT", "fake_measures:Subject")
    return Lab(tmp_path)


def cell(measure: str, seed: int = 0, **fields) -> Cell:
    if measure == "fake_accuracy":
        fields = {"objectives": ("itc",), "data": "scenes", "budget": 5, "batch": 2} | fields
    return Cell(arch="clip", size="tiny", measure=measure, seed=seed, **fields)


STATUSES = {
    0: (Status.OK, ""),
    1: (Status.ERROR, "ValueError: the value 7 is not what it should be"),
    2: (Status.OOM, "can't allocate memory"),
    3: (Status.OOM, "ended by SIGKILL"),
    4: (Status.TIMEOUT, "stopped after 8 s, the suite's timeout"),
    5: (Status.ERROR, "sample 1 of latency is nan"),
    6: (Status.UNSUPPORTED, "this model cannot do it"),
    7: (Status.ERROR, "ended by SIGABRT\nlast words"),
    8: (Status.ERROR, "the measure brought back no samples"),
    9: (Status.ERROR, "'speed', which has no unit"),
    10: (Status.ERROR, "photo.jpg is no picture"),
    11: (Status.ERROR, "not JSON serializable"),
    12: (Status.OOM, "MemoryError: no more"),
    13: (Status.ERROR, "ended with exit code 3 and without a result"),
}


def test_every_way_to_end_is_a_record_with_its_status_and_reason(lab):
    summary = lab.run(*(cell("bad", seed) for seed in STATUSES), timeout=8)
    found = {record.cell.seed: record for record in lab.store.records()}
    assert sorted(found) == sorted(STATUSES)
    for seed, (status, reason) in STATUSES.items():
        assert (seed, found[seed].status) == (seed, status)
        assert reason in found[seed].reason
    assert "Traceback" in found[1].reason
    assert found[1].reason.count("\n") <= 13
    assert summary == Summary(done=2, skipped=0, failed=12)
    assert found[0].samples == {
        "latency": Series(unit="s", values=(1.0, 2.0)),
        "first_call": Series(unit="s", values=(float(found[0].detail["pid"]),)),
    }


def test_failed_cells_are_tried_again_and_finished_ones_are_not(lab):
    lab.run(cell("bad", 0), cell("bad", 1), cell("bad", 6))
    assert lab.run(cell("bad", 0), cell("bad", 1), cell("bad", 6)) == Summary(done=0, skipped=2, failed=1)
    assert lab.begun() == [("bad", "0"), ("bad", "1"), ("bad", "6"), ("bad", "1")]
    assert lab.run(cell("bad", 0), again=True) == Summary(done=1, skipped=0, failed=0)
    assert len(lab.store.history()) == 5
    assert len(lab.store.records()) == 3


def test_records_say_where_with_what_code_and_threads(lab):
    lab.run(cell("fake_memory"), cell("fake_count"))
    memory, count = sorted(lab.store.records(), key=lambda r: r.cell.measure, reverse=True)
    assert (memory.suite, memory.code, memory.flags) == ("fakes", code_hash(), ("scattered",))
    assert memory.env.id == ENV.id
    assert memory.env.threads == memory.detail["torch_threads"]
    assert count.detail["torch_threads"] == 1
    assert memory.seconds >= 0.01
    assert memory.id != count.id


def test_counting_runs_side_by_side_and_memory_alone(lab):
    lab.run(*(cell(kind, seed) for kind in ("fake_count", "fake_memory") for seed in (41, 42)))
    (a, b), (c, d) = (sorted(lab.span(kind, seed) for seed in (41, 42)) for kind in ("fake_count", "fake_memory"))
    assert b[0] < a[1], "the two counting cells did not overlap"
    assert c[1] <= d[0], "the two memory cells did overlap"
    assert max(a[1], b[1]) <= c[0], "memory began while counting ran"


def test_timed_cells_are_visited_in_rounds_of_random_order_each_in_a_fresh_process(lab):
    seeds = list(range(6))
    lab.run(*(cell("fake_cost", seed) for seed in seeds), rounds=3)
    order = [int(seed) for _, seed in lab.begun()]
    rounds = [order[:6], order[6:12], order[12:]]
    assert [sorted(one) for one in rounds] == [seeds] * 3
    assert len({tuple(one) for one in rounds}) > 1, "three rounds in one order: the chance is 1 in 518,400"
    assert len({event[4] for event in lab.events()}) == 18
    for record in lab.store.records():
        assert record.samples["latency"].values == (1.0, 2.0) * 3
        assert record.detail["rounds"] == [2, 2, 2]
        visits = record.detail["visits"]
        places = [one.index(record.cell.seed) for one in rounds]
        assert [visit["position"] for visit in visits] == places
        assert [visit["of"] for visit in visits] == [6] * 3
        assert len({visit["seed"] for visit in visits}) == 1
        assert [visit["detail"].get("pid", record.detail["pid"]) for visit in visits] == [
            int(pid) for pid in record.samples["first_call"].values
        ]
        assert record.detail["fixed"] == "same"
        assert "fixed" not in visits[1]["detail"]
        assert record.started == visits[0]["started"]
        assert record.flags == ("scattered",)
    assert not (lab.store.folder / "rounds.jsonl").exists()


def test_rounds_that_are_in_are_not_repeated(lab):
    def known(seed: int, number: int, code: str) -> Round:
        return Round(
            id=f"{seed}-{number}-{code}",
            cell=cell("fake_cost", seed),
            env_id=ENV.id,
            code=code,
            round=number,
            seed=5,
            position=0,
            of=1,
            samples={"latency": Series(unit="s", values=(9.0,))},
            detail={},
            threads=1,
            started="2026-01-01T00:00:00+00:00",
            seconds=1.0,
        )

    for part in (known(0, 0, code_hash()), known(0, 1, code_hash()), known(1, 1, code_hash()), known(2, 0, "older")):
        lab.store.append_round(part)
    lab.run(*(cell("fake_cost", seed) for seed in range(3)))
    assert sorted(lab.begun()) == [("fake_cost", "1"), ("fake_cost", "2"), ("fake_cost", "2")]
    found = {record.cell.seed: record for record in lab.store.records()}
    assert found[0].samples["latency"].values == (9.0, 9.0)
    assert found[1].samples["latency"].values == (1.0, 2.0, 9.0)
    assert found[2].samples["latency"].values == (1.0, 2.0, 1.0, 2.0)
    assert [part.id for part in lab.store.rounds()] == ["2-0-older"]


def test_a_timed_cell_that_fails_ends_at_once_and_the_others_go_on(lab):
    assert lab.run(cell("bad_cost", 1), cell("bad_cost", 0), rounds=3) == Summary(done=1, skipped=0, failed=1)
    assert sorted(lab.begun()) == [("bad_cost", "0")] * 3 + [("bad_cost", "1")]


def test_a_shared_pretraining_is_waited_for_and_others_run_beside_it(lab):
    cells = [cell("fake_accuracy", 41, scorer="embed", finetune=n) for n in (1, 2, 3)] + [cell("fake_accuracy", 42)]
    lab.run(*cells, workers=3)
    events = [e for e in lab.events() if e[3] == "41"]
    assert [e[0] for e in events][:2] == ["begin", "end"], "a second cell began before the shared training was there"
    assert {e[0] for e in events[2:4]} == {"begin"}, "with the training there, the others did not run side by side"
    first_end, (other_begin, _) = float(events[1][5]), lab.span("fake_accuracy", 42)
    assert other_begin < first_end, "the cell with its own training waited"


def test_the_impossible_is_recorded_without_a_process(lab):
    assert lab.run(cell("fake_memory", device="cuda")) == Summary(done=1, skipped=0, failed=0)
    (record,) = lab.store.records()
    assert (record.status, record.reason) == (Status.UNSUPPORTED, "device 'cuda' is not there: no GPU is visible")
    assert lab.begun() == []
