"""Time to accuracy in a report: medians that count those who never arrived, and words for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vlpbench.reports.assemble import assemble
from vlpbench.reports.learning import arrival, learning_table
from vlpbench.reports.measured import Measured, measure_all
from vlpbench.reports.table import Item
from vlpbench.results.record import Cell, Record, Status

Make = Callable[..., Record]


def told(make_record: Make, *steps: int | None) -> Measured:
    """One measurement over as many seeds as there are steps."""
    records = []
    for seed, step in enumerate(steps):
        cell = Cell(arch="albef", size="small", measure="learning", objectives=("itc",), budget=1000, seed=seed)
        found = {"threshold": 50.0, "within": 1000, "step": step, "after": None, "cpu_seconds": None}
        values: dict[str, Any] = {"learning_recall": [10.0, 30.0]}
        if step is not None:
            found |= {"after": step - 100, "cpu_seconds": step / 10}
            values |= {"steps_to_recall": [step]}
        records.append(make_record(cell, values, detail={"reached": {"recall": found}}))
    (m,) = measure_all(records)
    return m


def shown(item: Item) -> tuple[str, str, float | None]:
    return item.text, item.note, item.value


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((400,), ("400", "not yet after 300", 400.0)),
        ((None,), ("> 1,000 steps", "not reached", None)),
        ((400, 600, 500), ("500", "3 of 3 seeds", 500.0)),
        ((400, None, 500), ("500", "2 of 3 seeds", 500.0)),  # the one that never came is the slowest
        ((400, None, None), ("> 1,000 steps", "1 of 3 seeds", None)),
        ((400, None), ("> 1,000 steps", "1 of 2 seeds", None)),
    ],
)
def test_a_seed_that_never_arrived_is_later_than_all_that_did(make_record: Make, steps: Any, expected: Any) -> None:
    m = told(make_record, *steps)
    assert shown(arrival(m, "recall", "step")) == expected
    assert arrival(m, "binding", "step").text == "–"
    # Elsewhere a mean over those that arrived would flatter.
    assert ("steps_to_recall" in m.estimates) == (None not in steps)


def test_time_is_shown_in_a_unit(make_record: Make) -> None:
    assert shown(arrival(told(make_record, 400), "recall", "cpu_seconds")) == ("40.0 s", "", 40.0)


def test_the_table_has_what_the_records_say(records: list[Record]) -> None:
    table = learning_table(measure_all(records))
    assert table is not None
    heads = [(head.title, head.note, head.unit) for head in table.heads]
    assert heads[4:7] == [
        ("Steps to recall", "50 %", "step"),
        ("Processor time to recall", "50 %", "s"),
        ("Steps to binding", "90 %", "step"),
    ]
    rows = {row[0].text: [item.text for item in row[4:]] for row in table.rows}
    # 95 (1 - 2^(-s / 400)) first reaches 50 at s = 431, so at the look after 480 steps; at 0.11 s a step.
    assert rows["CLIP"][:2] == ["480", "52.8 s"]
    assert rows["ViLT"][:3] == ["> 1,200 steps"] * 3
    assert table.csv().splitlines()[0].count("Steps to recall [step]") == 4
    assert "time-to-accuracy" in [t.name for t in assemble(records, title="t").all_tables]


def test_curves_are_drawn_against_steps_time_and_work(records: list[Record]) -> None:
    figure = next(f for f in assemble(records, title="t").all_figures if f.name == "accuracy-curves")
    for words in ("training step", "processor time, s", "training FLOPs, TFLOP", "guessing", "ALBEF (queue)"):
        assert words in figure.drawing
    clip = [row for row in figure.table.rows if row[0].text == "CLIP"]
    assert [row[1].value for row in clip] == [120.0 * (i + 1) for i in range(10)]
    assert clip[-1][2].value == pytest.approx(0.11 * 1200)


def test_seeds_are_drawn_with_their_mean(three_seeds: list[Record]) -> None:
    figure = next(f for f in assemble(three_seeds, title="t").all_figures if f.name == "accuracy-curves")
    assert "3 seeds, their mean bold" in figure.caption
    (first, *_) = [row for row in figure.table.rows if row[0].text == "CLIP"]
    each = [95 * (1 - 2 ** (-120 / (400 * (1 + 0.05 * seed)))) for seed in range(3)]
    assert first[3].value == pytest.approx(sum(each) / 3)


def test_a_training_that_diverged_is_a_failure_and_no_row(records: list[Record], make_record: Make) -> None:
    cell = Cell(arch="clip", size="small", measure="learning", objectives=("itc",), budget=1000, data="scenes", lr=9.0)
    reason = "Diverged: training diverged before step 50: itc nan, total nan (began at 4.1); lower lr 9\nTraceback: ..."
    report = assemble([*records, make_record(cell, status=Status.ERROR, reason=reason)], title="t")
    assert report.failures is not None
    told = [row for row in report.failures.rows if any("diverged before step 50" in item.text for item in row)]
    assert len(told) == 1
    assert any(item.text == "failed" for item in told[0])
    rows = next(t for t in report.all_tables if t.name == "time-to-accuracy").rows
    assert sum(row[0].family == "clip" for row in rows) == 1
    one = make_record(cell, status=Status.ERROR, reason=reason)
    assert all(t.name != "time-to-accuracy" for t in assemble([one], title="t").all_tables)
