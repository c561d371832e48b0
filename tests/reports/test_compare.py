"""Two sets of records compared: ratios by hand, differing environments, cells without a partner, gates and ties."""

from __future__ import annotations

import json

import pytest
from vlpbench.benchmarks import cli
from vlpbench.reports.compare import compare
from vlpbench.reports.gate import GateError, judge, parse
from vlpbench.reports.stats import Estimate, rate, rate_ratio, ratio
from vlpbench.results.record import UNITS, Cell, Env, Record, Series, Status

HERE = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={"torch": "2.14"}, threads=1)
THERE = HERE.model_copy(update={"cpu": "two", "versions": {"torch": "2.15", "timm": "1"}})
LATENCY = Cell(arch="clip", measure="latency")
STEADY = (1.0, 1.0, 1.0, 1.0)


def record(cell: Cell, env: Env = HERE, status: Status = Status.OK, detail=None, flags=(), **values) -> Record:
    samples = {name: Series(unit=UNITS[name].unit, values=tuple(found)) for name, found in values.items()}
    words = {"id": "0", "code": "c", "suite": "s", "started": "2026", "seconds": 1.0}
    return Record(cell=cell, status=status, samples=samples, env=env, detail=detail or {}, flags=flags, **words)


def name_of(cell: Cell) -> str:
    return f"{cell.measure} {cell.arch}"


def changes(a: list[Record], b: list[Record]):
    return compare(a, b, name_of).changes


def test_a_ratio_is_of_medians_and_its_interval_reaches_from_the_smallest_to_the_largest():
    (change,) = changes([record(LATENCY, latency=(2.0, 2.0, 2.0))], [record(LATENCY, latency=(2.0, 3.0, 4.0))])
    assert change.ratio.value == 1.5
    assert change.ratio.interval == (1.0, 2.0)  # 3 of 27 and more draws of three have their median at each end
    assert change.verdict == "same"
    (slower,) = changes([record(LATENCY, latency=STEADY)], [record(LATENCY, latency=(1.5, 1.5))])
    assert (slower.ratio.interval, slower.verdict) == ((1.5, 1.5), "worse")
    (faster,) = changes([record(LATENCY, throughput=STEADY)], [record(LATENCY, throughput=(1.5, 1.5))])
    assert faster.verdict == "better"


def test_rounds_of_separate_runs_are_not_drawn_as_pairs():
    one, other = (1.0, 2.0, 4.0), (2.0, 4.0, 8.0)  # pairs would cancel to exactly 2
    assert ratio(other, one, (1, 1, 1), (1, 1, 1)).interval == (2.0, 2.0)
    detail = {"rounds": [1, 1, 1]}
    (change,) = changes([record(LATENCY, detail=detail, latency=one)], [record(LATENCY, detail=detail, latency=other)])
    low, high = change.ratio.interval
    assert low < 1 < 4 < high


def test_a_ratio_of_rates_agrees_with_the_logarithmic_interval_for_many_items():
    found = rate_ratio(rate(60, 10_000), rate(50, 10_000))
    # by the delta method: exp(ln 1.2 +- 1.96 sqrt(0.4/6000 + 0.5/5000))
    assert found.value == pytest.approx(1.2)
    assert found.interval == pytest.approx((1.17002, 1.23075), abs=1e-4)
    assert rate_ratio(rate(60, 100), Estimate(value=50)).interval is None
    with pytest.raises(ValueError, match="zero"):
        rate_ratio(rate(60, 100), rate(0, 100))


def test_one_noisy_sample_has_no_interval_and_a_count_needs_none():
    memory, params = Cell(arch="clip", measure="memory"), Cell(arch="clip", measure="params")
    found = changes(
        [record(memory, memory_inference=(1e6,)), record(params, params_stored=(100.0,))],
        [record(memory, memory_inference=(9e6,)), record(params, params_stored=(110.0,))],
    )
    assert [change.verdict for change in found] == ["undecided", "worse"]
    assert found[1].ratio.interval == (1.1, 1.1)


def test_a_zero_below_the_line_has_no_ratio():
    (change,) = changes([record(LATENCY, loader_wait=(0.0, 0.0))], [record(LATENCY, loader_wait=(1.0, 1.0))])
    assert (change.ratio, change.verdict) == (None, "undecided")


def test_times_of_two_environments_are_marked_and_counts_are_not():
    flops = Cell(arch="clip", measure="flops")
    a = [record(LATENCY, latency=STEADY), record(flops, flops_forward=(8.0,))]
    b = [record(LATENCY, THERE, latency=STEADY), record(flops, THERE, flops_forward=(8.0,))]
    found = compare(a, b, name_of)
    assert [change.elsewhere for change in found.changes] == [True, False]
    assert {(d.field, d.before, d.after) for d in found.differences} == {
        ("cpu", "one", "two"),
        ("torch", "2.14", "2.15"),
        ("timm", "absent", "1"),
    }
    more_threads = HERE.model_copy(update={"threads": 8})  # of one environment id, and still not the same machine
    assert changes(a[:1], [record(LATENCY, more_threads, latency=STEADY)])[0].elsewhere
    fixed = LATENCY.model_copy(update={"threads": 1})
    assert not changes([record(fixed, latency=STEADY)], [record(fixed, more_threads, latency=STEADY)])[0].elsewhere


def test_equal_environments_are_paired_first_and_what_is_left_is_named():
    lone, new = Cell(arch="vilt", measure="latency"), Cell(arch="albef", measure="latency")
    a = [record(LATENCY, latency=(1.0, 1.0)), record(LATENCY, THERE, latency=(5.0, 5.0)), record(lone, latency=STEADY)]
    b = [record(LATENCY, latency=(2.0, 2.0)), record(new, latency=STEADY)]
    found = compare(a, b, name_of)
    assert [(change.ratio.value, change.elsewhere) for change in found.changes] == [(2.0, False)]
    assert (found.only_before, found.only_after) == (("latency clip", "latency vilt"), ("latency albef",))


@pytest.mark.parametrize(
    ("gate", "factor", "arch"),
    [
        ("latency>1.1x", 1.1, None),
        (" latency > 10% ", 1.1, None),
        ("latency@albef+late>+10%", 1.1, "albef+late"),
        ("recall_mean<-2%", 0.98, None),
        ("any<0.9x", 0.9, None),
    ],
)
def test_gates_are_read(gate, factor, arch):
    found = parse(gate)
    assert (found.factor, found.arch) == (pytest.approx(factor), arch)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("latency>1.1", "is no gate: write QUANTITY"),
        ("latency=1.1x", "is no gate"),
        ("latency>>1.1x", "is no gate"),
        ("", "is no gate"),
        ("latncy>1.1x", "did you mean 'latency'"),
        ("vqa_accuracy<2%", "write vqa_accuracy<-2%"),
        ("latency>+1.1x", "a factor has no sign"),
        ("latency<-100%", "write a factor above 0"),
    ],
)
def test_a_malformed_gate_is_refused_with_the_reason(gate, message):
    with pytest.raises(GateError, match=message):
        parse(gate)


@pytest.mark.parametrize(
    ("gate", "after", "passed", "undecided"),
    [
        ("latency>1.5x", (1.5, 1.5), True, 0),  # the whole interval is at the gate: not beyond
        ("latency>1.49x", (1.5, 1.5), False, 0),
        ("latency<1.5x", (1.5, 1.5), True, 0),
        ("latency<1.51x", (1.5, 1.5), False, 0),
        ("latency>1.1x", (1.0, 1.5, 2.0), True, 1),  # the interval reaches back over the gate
        ("latency>0.9x", (1.0, 1.5, 2.0), False, 0),
        ("latency>1.0x", (1.0, 1.5, 2.0), True, 1),  # its lower end is just at the gate
        ("latency>1.1x", (3.0,), True, 1),  # one sample
        ("latency>1.1x", (1.05,), True, 0),
    ],
)
def test_a_gate_fails_where_the_whole_interval_is_beyond(gate, after, passed, undecided):
    found = judge(parse(gate), changes([record(LATENCY, latency=STEADY)], [record(LATENCY, latency=after)]))
    assert (found.passed, len(found.undecided), found.judged) == (passed, undecided, 1)


def test_a_count_that_is_just_at_the_gate_passes():
    cell = Cell(arch="clip", measure="params")
    found = changes([record(cell, params_stored=(100.0,))], [record(cell, params_stored=(110.0,))])
    assert judge(parse("params_stored>1.1x"), found).passed
    assert judge(parse("params_stored>10%"), found).passed
    assert not judge(parse("params_stored>1.09x"), found).passed


def test_any_looks_at_what_gets_worse_in_that_direction():
    a = [record(LATENCY, latency=STEADY, throughput=STEADY, peak_flops=STEADY)]
    b = [record(LATENCY, latency=(0.5, 0.5), throughput=(2.0, 2.0), peak_flops=(9.0, 9.0))]
    assert judge(parse("any>1.1x"), changes(a, b)).judged == 1
    assert judge(parse("any>1.1x"), changes(a, b)).passed
    assert judge(parse("any<0.9x"), changes(a, b)).passed
    assert [change.quantity for change in judge(parse("any<0.9x"), changes(b, a)).failed] == ["throughput"]


def test_a_gate_of_one_architecture_leaves_others_alone_and_cannot_pass_on_nothing():
    vilt = Cell(arch="vilt", measure="latency")
    a, b = ([record(cell, latency=(s, s)) for cell, s in ((LATENCY, 1.0), (vilt, s))] for s in (1.0, 2.0))
    found = changes(a, b)
    assert judge(parse("latency@clip>1.1x"), found).passed
    assert not judge(parse("latency@vilt>1.1x"), found).passed
    nothing = judge(parse("latency@albef>1.1x"), found)
    assert (nothing.judged, nothing.passed, nothing.failed) == (0, False, ())


def test_a_number_that_is_lost_fails_its_gate():
    (change,) = changes([record(LATENCY, latency=STEADY)], [record(LATENCY, status=Status.OOM)])
    assert change.verdict == "lost"
    assert not judge(parse("latency>2x"), [change]).passed
    assert changes([record(LATENCY, status=Status.OOM)], [record(LATENCY, latency=STEADY)]) == ()


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """A folder and a file, of two environments; the file's latency is twice the folder's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "records.jsonl").write_text(record(LATENCY, latency=STEADY).model_dump_json() + "\n")
    new = record(LATENCY, THERE, flags=("drifting",), latency=(2.0, 2.0))
    (tmp_path / "new.jsonl").write_text(new.model_dump_json() + "\n")
    return tmp_path


def test_the_command_says_that_environments_differ_and_marks_the_rows(sets, capsys):
    assert cli.main(["compare", "old", "new.jsonl", "--out", "pages/page.md"]) == 0
    out = capsys.readouterr().out
    assert "DIFFERENT ENVIRONMENTS: 1 of 1 rows" in out
    assert "worse, other environment, flagged" in out
    assert "| torch | 2.14 | 2.15 |" in (sets / "pages" / "page.md").read_text()
    assert cli.main(["compare", "old", "old"]) == 0
    assert "measured in the same environment" in capsys.readouterr().out


def test_the_command_ends_with_one_and_the_line_that_failed(sets, capsys):
    command = ["compare", "old", "new.jsonl", "--fail-if", "latency>3x", "--fail-if", "latency>1.5x"]
    assert cli.main(command) == 1
    *_, passed, failed = capsys.readouterr().out.splitlines()
    assert passed == "passed latency>3x: 1 judged"
    assert failed.startswith("FAILED latency>1.5x: latency clip base: Latency 2.00×, 95 % 2–2 (other environment)")
    assert cli.main([*command[:3], "--fail-if", "latency>3x"]) == 0
    capsys.readouterr()
    assert cli.main([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [gate["passed"] for gate in found["gates"]] == [True, False]
    assert (found["changes"][0]["ratio"], found["changes"][0]["other_environment"]) == (2.0, True)


def test_the_command_refuses_a_malformed_gate_and_an_absent_set(sets, capsys):
    assert cli.main(["compare", "old", "new.jsonl", "--fail-if", "latency>fast"]) == 2
    assert capsys.readouterr().err.startswith("vlpbench: --fail-if 'latency>fast' is no gate: write QUANTITY")
    assert cli.main(["compare", "old", "nowhere"]) == 2
    assert "no results in nowhere" in capsys.readouterr().err
