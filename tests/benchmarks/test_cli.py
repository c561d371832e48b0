"""The command line as a user meets it: exit codes, messages, JSON, interruption, kill and resumption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest
from vlpbench.archs import registry
from vlpbench.benchmarks import cli, cli_archs
from vlpbench.results.record import Cell, Env, Record, Series, Status
from vlpbench.results.store import Round, Store

HERE = Path(__file__).parent
FAKES = str(HERE / "fake_measures.py")
ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={}, threads=1)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Every test has a folder of its own that is no checkout."""
    monkeypatch.chdir(tmp_path)


def suite(text: str, name: str = "fakes") -> str:
    head = f'title = "Fakes"\ndescription = "known"\nrounds = 3\n[defaults]\nsize = "tiny"\n{dedent(text)}'
    Path(f"{name}.toml").write_text(head)
    return f"{name}.toml"


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, FAKES, *arguments]
    pipe = subprocess.PIPE
    # A shell's background job ignores Ctrl-C and so would its children; a command at a terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def vlpbench(*arguments: str) -> tuple[int, str, str]:
    return finish(start(*arguments))


def log(results: str) -> list[list[str]]:
    """Event, measure, architecture, seed, process and time of what was really measured."""
    path = Path(results) / ".cache" / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def record(cell: Cell, status: Status = Status.OK, **fields) -> Record:
    samples = {"latency": Series(unit="s", values=(0.1, 0.2))} if status is Status.OK else {}
    whole = {"id": cell.id, "samples": samples, "env": ENV, "code": "c", "suite": "fakes", "started": "2026"}
    return Record(cell=cell, status=status, seconds=1.0, **(whole | fields))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_help_says_what_the_command_does_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"example: vlpbench {command}" in out
    assert len(out.split("example:")[0].split("\n\n", 1)[1]) > 150


def test_without_a_command_it_says_how_to_use_it(capsys):
    assert cli.main([]) == 2
    assert "vlpbench run quick" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.count(".") == 2


MATRIX = '[[matrix]]\narch = "clip"\nmeasure = "latency"\n'

REFUSED = {
    "suite": (["run", "smok"], "unknown suite 'smok': did you mean 'smoke'?"),
    "file": (["plan", "none.toml"], "cannot read suite none.toml: No such file or directory"),
    "device": (["run", "my.toml", "--device", "gpu"], "--device: unknown device 'gpu'"),
    "filter": (["plan", "my.toml", "--only", "arch=klip"], "--only: unknown arch 'klip': did you mean 'clip'?"),
    "architecture": (["archs", "vlit"], "unknown architecture 'vlit': did you mean 'vilt'?"),
    "size": (["archs", "vilt", "--size", "huge"], "unknown size of vilt 'huge'"),
    "late": (["archs", "albef+late"], "albef+late: late fusion is for architectures that embed and do not fuse"),
    "results": (["check", "nowhere"], "no results in nowhere: there is no records.jsonl"),
    "no results": (["report"], "no results in vlpbench-results; run `vlpbench run`"),
    "a file for a folder": (["run", "my.toml", "--out", "my.toml"], "cannot"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_usage_is_one_clear_message_and_code_2(case, capsys):
    suite(MATRIX, "my")
    arguments, message = REFUSED[case]
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith(f"vlpbench: {message}")
    assert "Traceback" not in err
    assert out == ""


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="unknown suite"):
        cli.main(["run", "smok", "--debug"])


def test_an_unexpected_error_is_not_hidden(monkeypatch):
    suite(MATRIX, "my")
    monkeypatch.setattr("vlpbench.benchmarks.cli_run.load_suite", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["plan", "my.toml"])


def test_a_plan_lists_cells_reasons_and_time_and_writes_nothing(capsys):
    name = suite(MATRIX + '[[matrix]]\narch = "clip"\nmeasure = "train_step"\nobjectives = "mlm"\n')
    assert cli.main(["plan", name]) == 0
    out = capsys.readouterr().out
    assert "run         latency clip tiny" in out
    assert "impossible  train_step clip tiny mlm" in out
    assert "mlm needs FUSE and MASK, which clip lacks" in out
    assert "1 to run, 1 impossible; about" in out
    assert sorted(os.listdir()) == [name]


def test_a_plan_as_json_can_be_read_by_machines(capsys):
    assert cli.main(["plan", suite(MATRIX), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (cell,) = plan["cells"]
    assert cell["cell"] == {"arch": "clip", "size": "tiny", "measure": "latency"}
    assert Cell(**cell["cell"]).id == cell["id"]
    assert (cell["action"], plan["seconds"]) == ("run", cell["seconds"])


def test_the_list_of_architectures_is_a_contract(capsys):
    assert cli.main(["archs", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {"clip", "vilt", "albef"} <= set(listed)
    assert listed["albef"]["can"] == ["EMBED", "FUSE", "MASK"]
    assert "tiny" in listed["vilt"]["sizes"]
    assert cli.main(["archs"]) == 0
    assert "clip" in capsys.readouterr().out


def test_differences_from_released_code_are_printed_for_one_or_for_all(capsys):
    assert cli.main(["archs", "albef", "--explain", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert set(found[0]) == {"name", "official", "ours", "why", "switch", "adr"}
    assert cli.main(["archs", "albef", "--explain"]) == 0
    out = capsys.readouterr().out
    assert all(one["name"] in out for one in found)
    assert 'switch    code = "official"' in out
    assert max(map(len, out.splitlines())) <= 100
    assert cli.main(["archs", "--explain"]) == 0
    out = capsys.readouterr().out
    assert all(spec.title in out for spec in registry.specs().values())


@pytest.mark.parametrize(
    ("line", "named"),
    [(["--diagram", "x.svg"], "one architecture"), (["clip", "--explain", "--diagram", "x.svg"], "--explain")],
)
def test_only_a_named_architecture_is_drawn(line, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["archs", *line]) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_drawing_is_of_the_model_that_is_built(tmp_path, capsys):
    file = tmp_path / "not" / "yet" / "tiny.svg"
    assert cli.main(["archs", "albef", "--size", "tiny", "--diagram", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["diagram"] == str(file)
    words = " ".join(ElementTree.parse(file).getroot().itertext())
    assert "cross-attention in" in words
    assert "dot product" in words
    assert "text attends to the image" in said["alt"]
    assert "momentum copy" in said["caption"]


@pytest.mark.slow
def test_an_architecture_taken_apart_is_a_contract(capsys):
    assert cli.main(["archs", "albef", "--size", "tiny", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert {"name", "size", "can", "tokens", "width", "layers", "params", "flops"} <= set(parts)
    assert set(parts["tokens"]) == {"image", "text"}
    assert set(parts["layers"]) == {"image", "text", "fusion"}
    assert set(parts["params"]) == {"stored", "trainable", "touched", "by_component"}
    assert sum(parts["params"]["by_component"].values()) == parts["params"]["stored"]
    assert set(parts["flops"]) == {"forward", "forward_backward", "image", "text", "fusion", "head"}
    assert sum(parts["flops"][name] for name in ("image", "text", "fusion", "head")) == parts["flops"]["forward"]
    off, queue, distill = (parts["momentum"][state] for state in ("off", "queue", "distill"))
    assert off["stored"] == off["trainable"] == queue["trainable"] == distill["trainable"]
    assert off["stored"] < queue["stored"] <= distill["stored"]
    assert off["flops_step"] < queue["flops_step"] <= distill["flops_step"]
    assert queue["flops_step"] - queue["flops_momentum"] == off["flops_step"]
    text = cli_archs.parts_text(registry.get("albef"), parts)
    assert f"{parts['tokens']['image']} image tokens" in text
    assert "of which for momentum" in text


@pytest.mark.slow
def test_a_run_as_json_is_records_and_a_summary_and_again_does_nothing():
    name = suite("""
        [[matrix]]
        arch = "clip"
        measure = ["fake_count", "fake_cost", "bad"]
        seed = [0, 1]
    """)
    code, out, err = vlpbench("run", name, "--json")
    assert (code, err) == (1, "")
    *records, summary = [json.loads(line) for line in out.splitlines()]
    assert len(records) == 6
    assert [Record.model_validate(one) for one in records] == Store(Path("vlpbench-results/fakes")).history()
    page = Path("vlpbench-results/fakes/report/index.html")
    assert summary == {"done": 5, "skipped": 0, "failed": 1, "report": str(page)}
    assert page.is_file()
    assert (Path("vlpbench-results/fakes/.cache/.gitignore")).read_text() == "*\n"

    measured = len(log("vlpbench-results/fakes"))
    code, out, err = vlpbench("run", name, "--only", "measure=fake_count|fake_cost")
    assert code == 0
    assert "nothing to do: all 4 cells are done" in err
    assert "0 done, 4 skipped, 0 failed" in out
    assert len(log("vlpbench-results/fakes")) == measured

    code, out, err = vlpbench("run", name)
    assert code == 1
    assert "failed: bad clip tiny seed 1: error: ValueError: the value 7" in out
    assert "[1/1] error       bad clip tiny seed 1: ValueError" in err
    assert "Traceback" not in err + out


IDLE = """
import sys, time
started = time.process_time()
from vlpbench.benchmarks.cli import main
code = main(["run", "smoke", "--out", "results"])
print(code, time.process_time() - started, {"torch", "matplotlib", "pandas"} & set(sys.modules) or "light")
"""


def test_a_finished_suite_is_found_so_in_a_second_without_torch():
    from vlpbench.benchmarks import env
    from vlpbench.benchmarks.suite import load_suite

    store, here = Store(Path("results")), env.capture()
    with store.writing():
        for cell in load_suite("smoke").cells:
            store.append(record(cell, env=here, code=env.code_hash()))
    page = Path("results/report/index.html")
    page.parent.mkdir()
    page.write_text("done")
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, check=True)
    code, seconds, modules = done.stdout.splitlines()[-1].split()
    assert (code, modules) == ("0", "light")
    assert float(seconds) < 1.0
    assert "nothing to do" in done.stderr


KILLED = """
    [[matrix]]
    arch = "clip"
    measure = ["fake_memory", "fake_cost"]
    seed = [40, 41, 42]

    [[matrix]]
    arch = "clip"
    measure = "fake_accuracy"
    seed = [40, 41]
    objectives = "itc"
    data = "scenes"
    budget = 5
    batch = 2
"""


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill_after(visits: int, name: str) -> None:
    """Runs the suite until so many visits have begun in all, kills the run, and waits until its children are gone."""
    process = start("run", name, "--out", "results")
    wait_for(lambda: sum(event[0] == "begin" for event in log("results")) >= visits, process)
    process.kill()
    process.communicate()
    events = log("results")
    in_flight = {e[4] for e in events if e[0] == "begin"} - {e[4] for e in events if e[0] == "end"}
    deadline = time.monotonic() + 10
    while not all(gone(int(pid)) for pid in in_flight):
        assert time.monotonic() < deadline, "a child outlived the run and would disturb the next"
        time.sleep(0.02)


def on_disk(store: Store) -> Counter[tuple[str, int]]:
    """Visits that need not be made again."""
    done = [(r.cell, len(r.detail["visits"]) if "visits" in r.detail else 1) for r in store.records()]
    found = Counter({(cell.measure, cell.seed): visits for cell, visits in done})
    found.update((part.cell.measure, part.cell.seed) for part in store.rounds())
    return found


def visited(event: str, *, since: int = 0) -> Counter[tuple[str, int]]:
    return Counter((e[1], int(e[3])) for e in log("results")[since:] if e[0] == event)


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_and_nothing_measured_twice():
    name, store = suite(KILLED), Store(Path("results"))
    needed = Counter({("fake_memory", seed): 1 for seed in (40, 41, 42)})
    needed += Counter({("fake_cost", seed): 3 for seed in (40, 41, 42)})
    needed += Counter({("fake_accuracy", seed): 1 for seed in (40, 41)})
    for visits in (2, 8, 14):  # among memory cells, in the second round of timed ones, at the accuracy cells
        safe, since = on_disk(store), len(log("results"))
        kill_after(visits, name)
        assert not visited("begin", since=since) - (needed - safe), "something that was there was measured once more"
        # An end is logged a moment before its result is on the disk, so the kill may fall in between.
        assert (visited("end") - on_disk(store)).total() <= 1 + visits // 8, "what was measured is not on the disk"

    safe, since = on_disk(store), len(log("results"))
    assert 8 < safe.total() < needed.total()
    code, _, err = vlpbench("run", name, "--out", "results")
    assert code == 0, err
    assert visited("begin", since=since) == needed - safe
    records = store.records()
    assert len(store.history()) == len(records) == 8
    assert all(r.status is Status.OK for r in records)
    assert all(r.detail["rounds"] == [2, 2, 2] for r in records if r.cell.measure == "fake_cost")
    assert (store.rounds(), store.problems()) == ([], [])


@pytest.mark.slow
def test_one_writer_at_a_time_and_ctrl_c_says_what_is_kept():
    name = suite(KILLED)
    process = start("run", name, "--out", "results")
    wait_for(lambda: len(log("results")) >= 3, process)
    code, _, err = vlpbench("run", name, "--out", "results")
    assert code == 2
    assert err.splitlines()[-1].startswith("vlpbench: another run is writing to results; wait until it ends")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the children as well
    code, _, err = finish(process)
    assert code == 130
    kept = len(Store(Path("results")).records())
    assert f"stopped; {kept} of 8 cells are kept in results; the same command goes on from there" in err
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_written_ends_the_run_before_it_measures():
    Path("file").write_text("")
    code, out, err = vlpbench("run", suite(KILLED), "--out", "file/results")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("vlpbench: cannot write results in file/results: Not a directory")


def test_check_lists_what_is_wrong(capsys):
    name = suite("""
        [[matrix]]
        arch = "clip"
        measure = ["latency", "throughput", "flops", "params"]
        objectives = "itc"
    """)
    store = Store(Path("results"))
    cells = {m: Cell(arch="clip", size="tiny", measure=m) for m in ("latency", "throughput")}
    cells["flops"] = Cell(arch="clip", size="tiny", measure="flops", objectives=("itc",))
    # measured on another device than this machine would choose: the same cell for completeness
    on_gpu = cells["latency"].model_copy(update={"device": "cuda"})
    store.append(record(on_gpu, detail={"rounds": [1, 1]}, flags=("drifts",)))
    store.append(record(cells["throughput"], Status.TIMEOUT, reason="stopped after 8 s\ntail"))
    store.append(record(cells["flops"], samples={"flops_forward": Series(unit="MAC", values=(1.0,))}, code="d"))
    store.append_round(
        Round(
            id="r",
            cell=cells["latency"],
            env_id="e",
            code="c",
            round=1,
            seed=1,
            position=0,
            of=1,
            samples={},
            detail={},
            threads=1,
            started="2026",
            seconds=1.0,
        )
    )
    with store.path.open("a") as file:
        file.write('{"torn')
    assert cli.main(["check", "results", "--suite", name, "--json"]) == 1
    found = {(f["level"], f["code"], f["message"]) for f in json.loads(capsys.readouterr().out)}
    assert {(level, code) for level, code, _ in found} == {
        ("warning", "torn"),
        ("warning", "flagged"),
        ("warning", "few-rounds"),
        ("warning", "mixed-code"),
        ("warning", "unfinished"),
        ("error", "failed"),
        ("error", "unit"),
        ("error", "missing"),
    }
    messages = {code: message for _, code, message in found}
    assert messages["missing"] == "params clip tiny of suite fakes is missing: run it"
    assert messages["failed"] == "throughput clip tiny: timeout: stopped after 8 s"
    assert messages["unit"] == "flops clip tiny: flops_forward is in 'MAC', and should be in 'FLOP'"


def test_check_of_a_whole_folder_finds_nothing(capsys):
    name = suite(MATRIX)
    Store(Path("results")).append(
        record(Cell(arch="clip", size="tiny", measure="latency"), detail={"rounds": [1, 1, 1]})
    )
    assert cli.main(["check", "results", "--suite", name]) == 0
    assert "results: 0 errors, 0 warnings" in capsys.readouterr().out


def test_records_of_another_folder_count_as_done_where_they_were_measured_here(capsys):
    from vlpbench.benchmarks import env

    here, cells = env.capture(), [Cell(arch=arch, size="tiny", measure="latency") for arch in ("clip", "vilt")]
    Path("mine.toml").write_text('[[matrix]]\narch = ["clip", "vilt"]\nsize = "tiny"\nmeasure = "latency"\n')
    other, foreign = Store(Path("other")), Store(Path("foreign"))
    for cell in (*cells, Cell(arch="albef", size="tiny", measure="latency")):
        other.append(record(cell, suite="other").model_copy(update={"env": here}))
        foreign.append(record(cell, suite="foreign").model_copy(update={"env": ENV}))

    assert cli.main(["plan", "mine.toml", "--reuse", "foreign"]) == 0
    assert "2 to run" in capsys.readouterr().out
    assert cli.main(["plan", "mine.toml", "--reuse", "other"]) == 0
    assert "nothing to do: all 2 cells are done" in capsys.readouterr().out
    assert not Path("vlpbench-results").exists()

    assert cli.main(["run", "mine.toml", "--reuse", "other"]) == 0
    assert "2 cells taken over from other" in capsys.readouterr().err
    kept = Store(Path("vlpbench-results/mine")).history()
    assert [one.cell for one in kept] == cells
    assert {one.suite for one in kept} == {"other"}
    assert cli.main(["run", "mine.toml", "--reuse", "other"]) == 0
    assert "taken over" not in capsys.readouterr().err
    assert cli.main(["plan", "mine.toml", "--reuse", "nowhere"]) == 2
    assert "no results in nowhere" in capsys.readouterr().err


def test_check_of_a_foreign_schema_is_an_error_with_its_version(capsys):
    Path("results").mkdir()
    content = record(Cell(arch="clip", measure="latency")).model_dump(mode="json") | {"schema_version": 9}
    Path("results/records.jsonl").write_text(json.dumps(content) + "\n")
    assert cli.main(["check", "results"]) == 1
    assert "schema version 9" in capsys.readouterr().out


def test_a_report_of_an_empty_folder_is_refused(capsys):
    Path("results").mkdir()
    Path("results/records.jsonl").write_text("")
    assert cli.main(["report", "--results", "results"]) == 2
    assert "holds no record, so there is nothing to report" in capsys.readouterr().err


def test_the_latest_results_are_reported_where_results_lie(capsys):
    for number, name in enumerate(("old", "new")):
        store = Store(Path("vlpbench-results") / name)
        store.append(record(Cell(arch="clip", size="tiny", measure="latency"), suite=name))
        os.utime(store.path, (number, number))
    assert cli.main(["report"]) == 0
    assert capsys.readouterr().out.strip() == "vlpbench-results/new/report/index.html"
    assert cli.main(["report", "--results", "old", "--out", "page"]) == 0
    assert Path("page/index.html").is_file()


def test_one_page_holds_several_results(capsys):
    for name, arch in (("one", "clip"), ("two", "vilt")):
        cell = Cell(arch=arch, size="tiny", measure="latency")
        Store(Path("vlpbench-results") / name).append(record(cell, suite=name))
    assert cli.main(["report", "--results", "one", "--results", "vlpbench-results/two"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == Path("vlpbench-results/one+two-report/index.html")
    html = page.read_text(encoding="utf-8")
    assert "<h1>one and two</h1>" in html
    assert "vlpbench run one --only id=" in html
    assert "vlpbench run two --only id=" in html


def test_in_a_checkout_results_and_reports_have_folders_of_their_own(capsys):
    for path in ("results/record.py", "archs/registry.py"):
        Path(path).parent.mkdir()
        Path(path).write_text("")
    Store(Path("results/data/mine")).append(record(Cell(arch="clip", size="tiny", measure="latency"), suite="mine"))
    assert cli.main(["report", "--results", "mine"]) == 0
    assert capsys.readouterr().out.strip() == "reports/out/mine/index.html"
