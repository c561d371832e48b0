"""What a run says: spans of time, remaining time, lines and JSON."""

from __future__ import annotations

import io
import json

import pytest
from vlpbench.benchmarks import progress as progress_module
from vlpbench.benchmarks.plan import Action, Plan, Planned
from vlpbench.benchmarks.progress import Json, Plain, Progress, duration
from vlpbench.benchmarks.suite import Suite
from vlpbench.results.record import Cell, Env, Record, Status

ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={}, threads=1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (725, "12 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_spans_of_time_are_said_as_people_do(seconds, words):
    assert duration(seconds) == words


def cell(measure: str, seed: int = 0) -> Cell:
    return Cell(arch="clip", size="tiny", measure=measure, seed=seed, data="scenes" if measure == "vqa" else "random")


def plan(*items: tuple[Cell, float], workers: int = 2, rounds: int = 2) -> Plan:
    suite = Suite(name="s", title="S", rounds=rounds, cells=tuple(cell for cell, _ in items))
    planned = tuple(Planned(cell=cell, action=Action.RUN, seconds=seconds) for cell, seconds in items)
    return Plan(suite=suite, items=planned, workers=workers)


def record(of: Cell, status: Status = Status.OK, reason: str = "") -> Record:
    return Record(id="0", cell=of, status=status, reason=reason, env=ENV, code="", suite="s", started="", seconds=1.25)


def test_the_time_left_follows_the_work_that_is_done(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    slow, timed = cell("memory"), cell("latency")
    progress = Progress(plan((slow, 60.0), (timed, 40.0)))
    assert progress.left() == 100.0
    progress.began(slow)
    now[0] += 120.0  # twice as slow as estimated
    progress.ended(record(slow))
    # 60 s of estimated work took 120 s; a tenth of the whole, 10 s, counts as if it had gone as estimated
    assert progress.left() == pytest.approx(40 * (120 + 10) / (60 + 10))
    progress.visited(timed)
    assert progress.left() == pytest.approx(20 * (120 + 10) / (80 + 10))
    progress.ended(record(timed))
    assert progress.left() is None


def test_cells_side_by_side_share_the_time():
    assert Progress(plan((cell("flops"), 6.0), (cell("params"), 4.0), workers=2)).left() == 5.0


def test_plain_lines_name_status_cell_and_reason():
    stream = io.StringIO()
    progress = Plain(plan((cell("memory"), 1.0), (cell("latency", 3), 1.0)), stream)
    progress.ended(record(cell("memory")))
    progress.ended(record(cell("latency", 3), Status.OOM, "no memory\nmore\nlines"))
    first, second = stream.getvalue().splitlines()
    assert first.startswith("[1/2] ok          memory clip tiny (1.2 s), about 1 s left")
    assert second == "[2/2] oom         latency clip tiny seed 3: no memory"


def test_json_prints_each_record_and_nothing_else(capsys):
    progress = Json(plan((cell("memory"), 1.0)))
    progress.note("silence")
    progress.began(cell("memory"))
    progress.ended(record(cell("memory")))
    out, err = capsys.readouterr()
    assert Record.model_validate(json.loads(out)) == record(cell("memory"))
    assert err == ""


def test_a_live_bar_draws_and_leaves_lines_for_failures(monkeypatch, capsys):
    live = progress_module.Live(plan((cell("memory"), 1.0)))
    with live:
        live.began(cell("memory"), 0)
        live.ended(record(cell("memory"), Status.ERROR, "ValueError: 7"))
    assert "error       memory clip tiny: ValueError: 7" in capsys.readouterr().err
