"""What it takes to start: a command (goal G1), a cell's process (G7), a finished suite and 2,000 records (G10).

CPU time is compared where one process does the work, wall time where it is spread.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from vlpbench.benchmarks import env as environment
from vlpbench.benchmarks.measures.base import MEASURES
from vlpbench.benchmarks.pool import Pool
from vlpbench.benchmarks.suite import load_suite
from vlpbench.benchmarks.worker import Job
from vlpbench.results.record import Cell, Env, Record, Series
from vlpbench.results.store import Store

pytestmark = pytest.mark.slow
ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={"torch": "2"}, threads=1)
CLI = ("-m", "vlpbench.benchmarks.cli")
FORKS = 5


def cpu(*arguments: str, cwd: Path | None = None) -> float:
    """CPU seconds of a new interpreter from its start to its end, those of its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)  # in microseconds; os.times counts hundredths
    subprocess.run([sys.executable, "-W", "ignore", *arguments], check=True, capture_output=True, cwd=cwd)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall(way: Callable[[], object]) -> float:
    """Seconds on the clock."""
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def record(cell: Cell, number: int = 0, env: Env = ENV, code: str = "c") -> Record:
    samples = {"latency": Series(unit="s", values=tuple(0.001 * n for n in range(1, 31)))}
    words = {"id": f"{number:016x}", "status": "ok", "suite": "s", "started": "2026", "seconds": 1.0}
    return Record(cell=cell, samples=samples, env=env, code=code, **words)


@pytest.mark.parametrize(("command", "factor"), [("--help", 15.0), ("report", 4.0)])
def test_a_command_takes_a_fraction_of_importing_open_clip(tmp_path, goals, command, factor):
    goals.needs_clock()
    store = Store(tmp_path / "results")
    for number, arch in enumerate(("clip", "vilt", "albef")):
        store.append(record(Cell(arch=arch, size="tiny", measure="latency"), number))
    line = [*CLI, command, *(("--results", "results") if command == "report" else ())]
    baseline = {f"import open_clip, to {command}": (lambda: cpu("-c", "import open_clip"), factor)}
    goals.race("G1", lambda: cpu(*line, cwd=tmp_path), baseline, cost="own", rounds=5)


def test_a_cell_starts_in_a_twentieth_of_the_time_of_a_fresh_interpreter(tmp_path, monkeypatch, goals):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import fake_measures

    spec = fake_measures.SPECS["fake_memory"]
    monkeypatch.setitem(MEASURES, spec.name, spec)
    cell = Cell(arch="clip", size="tiny", measure=spec.name)
    job = Job(cell=cell, measure=spec, subject="fake_measures:Subject", cache=str(tmp_path))

    def cell_starts() -> None:
        pool.start(job, limit=60)
        ((_, outcome),) = pool.wait()
        assert outcome.status == "ok", outcome.reason

    def forked() -> float:
        """The quickest of a few: one takes so little that the machine's other doings would be most of a control."""
        return min(wall(cell_starts) for _ in range(FORKS))

    def fresh() -> float:
        return wall(lambda: cpu("-c", "import torch, timm"))

    with Pool(["torch", "timm", "pytest"]) as pool:
        goals.race("G7", forked, {"fresh interpreter with torch and timm": (fresh, 20.0)}, cost="own", rounds=5)


def test_a_finished_sweep_runs_again_without_building_a_model(tmp_path, goals):
    """The sweep is run once, and its repetition a few times; wall time, as both are spread over processes."""
    goals.needs_clock()

    def sweep() -> None:
        cpu(*CLI, "run", "smoke", "--device", "cpu", "--out", "results", cwd=tmp_path)

    first, *again = [wall(sweep) for _ in range(4)]
    goals.value("G10", "sweep of smoke, over running it again", first / min(again), at_least=50)


def test_what_finds_nothing_to_do_loads_no_torch(tmp_path):
    store, here = Store(tmp_path / "results"), environment.capture()
    with store.writing():
        for number, cell in enumerate(load_suite("smoke", device="cpu").cells):
            store.append(record(cell, number, here, environment.code_hash()))
    (tmp_path / "results" / "report").mkdir()
    (tmp_path / "results" / "report" / "index.html").write_text("there")
    code = "import sys; from vlpbench.benchmarks.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    line = [sys.executable, "-W", "ignore", "-c", code, "run", "smoke", "--device", "cpu", "--out", "results"]
    done = subprocess.run(line, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "nothing to do: all" in done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def realistic(folder: Path, count: int = 2000) -> None:
    """So many records, each of 5 kB: 200 samples and as much detail as a timed one has."""
    detail = {"rounds": [67, 67, 66], "visits": [{"id": f"{n:016x}", "seed": n, "load": [0.1] * 40} for n in range(3)]}
    series = {name: Series(unit="s", values=tuple(0.1 + n / 7e3 for n in range(67))) for name in ("step", "latency")}
    first = record(Cell(arch="clip", measure="latency")).model_copy(update={"samples": series, "detail": detail})
    rows = [
        first.model_copy(update={"id": f"{n:016x}", "cell": Cell(arch="clip", measure="latency", seed=n, batch=8)})
        for n in range(count)
    ]
    store = Store(folder)
    store.path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    with store.writing():
        pass  # whoever writes keeps the index


def test_what_a_plan_needs_of_two_thousand_records_is_read_without_parsing_them(tmp_path, goals):
    realistic(tmp_path)
    path = Store(tmp_path).path

    def line_by_line() -> list[tuple[str, str, str]]:
        rows = [Record.model_validate_json(line) for line in path.read_bytes().splitlines()]
        return [(row.cell.id, row.env.id, row.status) for row in rows]

    def ours() -> list[tuple[str, str, str]]:
        return [(entry.cell_id, entry.env_id, entry.status) for entry in Store(tmp_path).entries()]

    assert ours() == line_by_line()
    milliseconds = []
    for _ in range(7):
        began = time.process_time()
        ours()
        milliseconds.append(1e3 * (time.process_time() - began))
    if goals.timed:
        goals.value("G10", "ms to load 2,000 records for a plan", min(milliseconds), at_most=50)
    goals.race("G10", ours, {"2,000 records, pydantic line by line": (line_by_line, 4.0)})
