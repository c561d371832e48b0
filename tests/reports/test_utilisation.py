"""Achieved FLOP/s, MFU and percentiles, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vlpbench.reports import utilisation
from vlpbench.reports.measured import Measured, measure_all
from vlpbench.reports.utilisation import machine_tables, percentile, tail_table, utilisation_table
from vlpbench.results.record import Cell, Record

WORK = {"flops": 8e9, "bytes": 4e8, "intensity": 20.0}
DETAIL = {"work": WORK, "pairs_per_call": 4, "peak": {"flops_per_second": 1e11, "samples": [1e11]}}


@pytest.fixture
def measured(make_record: Callable[..., Record]) -> Callable[..., list[Measured]]:
    """One measurement of CLIP, four pairs a call."""

    def make(measure: str, values: dict[str, list[float]], **detail) -> list[Measured]:
        return measure_all([make_record(Cell(arch="clip", measure=measure, batch=4), values, detail=DETAIL | detail)])

    return make


@pytest.mark.parametrize(
    ("measure", "values"),
    [
        ("latency", {"latency": [0.2]}),  # 8 GFLOP in 0.2 s
        ("throughput", {"throughput": [20.0]}),  # 2 GFLOP a pair, 20 pairs a second
        ("train_step", {"step": [0.2]}),
    ],
)
def test_achieved_and_its_share_of_the_peak(measured, measure: str, values: dict[str, list[float]]) -> None:
    everything = measured(measure, values)
    assert utilisation.achieved(everything[0]) == pytest.approx(40e9)
    table = utilisation_table(everything)
    assert table is not None
    (row,) = table.rows
    shown = {head.title: item for head, item in zip(table.heads, row, strict=True)}
    assert shown["Achieved"].text == "40.0 GFLOP/s"
    assert shown["Peak"].text == "100 GFLOP/s"
    assert shown["MFU"].text == "40.0 %"
    assert shown["FLOPs a call"].text == "8.00 GFLOP"
    assert shown["FLOP per byte"].text == "20.0"


def test_a_peak_that_could_not_be_measured_leaves_mfu_open(measured) -> None:
    table = utilisation_table(measured("latency", {"latency": [0.2]}, peak={"reason": "no"}))
    assert table is not None
    assert [item.text for item in table.rows[0][4:6]] == ["–", "–"]


def test_peaks_of_several_runs_count_by_their_median(measured) -> None:
    visits = [{"detail": {}}, {"detail": {"peak": {"flops_per_second": 3e11}}}]
    (one,) = measured("latency", {"latency": [0.2]}, visits=visits)
    assert utilisation.peak(one) == 2e11


def test_without_counted_work_there_is_no_table(measured) -> None:
    assert utilisation_table(measured("latency", {"latency": [0.2]}, work={"reason": "no"})) is None
    assert machine_tables(measured("params", {"params_stored": [1.0]})) == []


def test_percentiles_by_hand_and_only_of_enough_samples() -> None:
    values = [float(n) for n in range(1, 202)]
    assert [percentile(values, p) for p in (50, 90, 95, 99)] == [101.0, 181.0, 191.0, 199.0]
    assert percentile(values[:199], 99) is None
    assert percentile(values[:40], 95) == pytest.approx(1 + 39 * 0.95)
    assert percentile(values[:39], 95) is None
    assert percentile(values[:3], 50) is None
    assert percentile(values[:4], 50) == 2.5


def test_the_table_of_tails_leaves_out_what_is_not_known(measured) -> None:
    table = tail_table(measured("latency", {"latency": [0.001 * n for n in range(1, 42)], "first_call": [9.0]}))
    assert table is not None
    (row,) = table.rows
    assert [item.text for item in row[1:8]] == ["Latency", "ms", "21.0", "37.0", "39.0", "–", "41"]
