"""What it takes to start: a command (goal G1), a cell's process (G7), a finished suite and 2,000 records (G10).

Comparisons are interleaved and of minima: of CPU time where one process does the work, of wall time where it is spread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from vlpbench.benchmarks import env as environment
from vlpbench.benchmarks.measures.base import MEASURES
from vlpbench.benchmarks.pool import Pool
from vlpbench.benchmarks.suite import load_suite
from vlpbench.benchmarks.worker import Job
from vlpbench.results.record import Cell, Env, Record, Series
from vlpbench.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow
ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={"torch": "2"}, threads=1)
CLI = ("-m", "vlpbench.benchmarks.cli")


def cpu(*arguments: str, cwd: Path | None = None) -> float:
    """CPU seconds of a new interpreter from its start to its end."""
    before = os.times()
    subprocess.run([sys.executable, "-W", "ignore", *arguments], check=True, capture_output=True, cwd=cwd)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def least(*calls: Callable[[], float], rounds: int = 2) -> list[float]:
    """Minimum of each over interleaved rounds."""
    taken = [[call() for call in calls] for _ in range(rounds)]
    return [min(column) for column in zip(*taken, strict=True)]


def record(cell: Cell, number: int = 0, env: Env = ENV, code: str = "c") -> Record:
    samples = {"latency": Series(unit="s", values=tuple(0.001 * n for n in range(1, 31)))}
    words = {"id": f"{number:016x}", "status": "ok", "suite": "s", "started": "2026", "seconds": 1.0}
    return Record(cell=cell, samples=samples, env=env, code=code, **words)


def test_help_and_a_report_take_a_fraction_of_importing_open_clip(tmp_path):
    store = Store(tmp_path / "results")
    for number, arch in enumerate(("clip", "vilt", "albef")):
        store.append(record(Cell(arch=arch, size="tiny", measure="latency"), number))
    report_line = (*CLI, "report", "--results", "results")
    asked, report, theirs = least(
        lambda: cpu(*CLI, "--help"),
        lambda: cpu(*report_line, cwd=tmp_path),
        lambda: cpu("-c", "import open_clip"),
    )
    assert asked * 15 <= theirs, f"help {asked:.3f} against {theirs:.3f} s of CPU"
    assert report * 4 <= theirs, f"report {report:.3f} against {theirs:.3f} s of CPU"


def test_a_cell_starts_in_a_twentieth_of_the_time_of_a_fresh_interpreter(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import fake_measures

    spec = fake_measures.SPECS["fake_memory"]
    monkeypatch.setitem(MEASURES, spec.name, spec)
    cell = Cell(arch="clip", size="tiny", measure=spec.name)
    job = Job(cell=cell, measure=spec, subject="fake_measures:Subject", cache=str(tmp_path))

    def forked() -> float:
        began = time.perf_counter()
        pool.start(job, limit=60)
        ((_, outcome),) = pool.wait()
        assert outcome.status == "ok", outcome.reason
        return time.perf_counter() - began

    def fresh() -> float:
        began = time.perf_counter()
        cpu("-c", "import torch, timm")
        return time.perf_counter() - began

    with Pool(["torch", "timm", "pytest"]) as pool:
        ours, theirs = least(forked, fresh)
    assert ours * 20 <= theirs, f"{ours:.3f} against {theirs:.3f} s"


def test_a_finished_suite_takes_a_third_of_importing_torch(tmp_path):
    """The sweep itself takes fifty times as long as that import, and cannot do without it."""
    store, here = Store(tmp_path / "results"), environment.capture()
    with store.writing():
        for number, cell in enumerate(load_suite("smoke").cells):
            store.append(record(cell, number, here, environment.code_hash()))
    (tmp_path / "results" / "report").mkdir()
    (tmp_path / "results" / "report" / "index.html").write_text("there")
    again = (*CLI, "run", "smoke", "--out", "results")
    ours, torch = least(lambda: cpu(*again, cwd=tmp_path), lambda: cpu("-c", "import torch"))
    assert ours * 3 <= torch, f"{ours:.3f} against {torch:.3f} s of CPU"


def test_two_thousand_records_are_read_faster_than_files_of_one_record(tmp_path):
    """The same records, validated both ways: one file of lines against one file a run."""
    rows = [record(Cell(arch="clip", measure="latency", seed=seed), seed) for seed in range(2000)]
    folder = tmp_path / "files"
    folder.mkdir()
    for row in rows:
        (folder / f"{row.id}.json").write_text(row.model_dump_json())
    (tmp_path / "records.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))

    def lines() -> float:
        began = time.process_time()
        assert len(Store(tmp_path).records()) == 2000
        return time.process_time() - began

    def files() -> float:
        began = time.process_time()
        found = [Record.model_validate(json.loads(path.read_text())) for path in folder.glob("*.json")]
        assert len({(row.cell.id, row.env.id) for row in found}) == 2000
        return time.process_time() - began

    ours, theirs = least(lines, files, rounds=5)
    assert ours < 0.2
    assert ours * 2 <= theirs, f"{ours:.3f} against {theirs:.3f} s of CPU"
