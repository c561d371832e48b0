"""Accuracy against cost, gaps to new compositions, and crossovers of searches, against what can be said by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vlpbench.reports import gap, scatter, stats
from vlpbench.reports.board import Board, boards
from vlpbench.reports.components import work
from vlpbench.reports.crossings import crossover_table
from vlpbench.reports.figures import latency
from vlpbench.reports.measured import measure_all
from vlpbench.reports.summary import findings
from vlpbench.reports.svg import style
from vlpbench.reports.table import comparison
from vlpbench.results.record import Cell, Record


@pytest.fixture(scope="module")
def board(records: list[Record]) -> Board:
    return boards(measure_all(records))[0]


def test_the_front_is_what_nothing_beats_on_one_side_without_losing_on_the_other():
    # (3, 50) loses to (2, 60); (5, 60) costs more than (2, 60) for no more; equal points stand together.
    assert scatter.front([(3, 50), (2, 60), (5, 60), (1, 40), (9, 70), (1, 40)]) == [3, 5, 1, 4]


def test_accuracy_stands_against_work_latency_and_the_training_itself(board: Board):
    with style():
        figure = scatter.accuracy_against_cost("recall_mean")(board, "")
        none = scatter.accuracy_against_cost("entailment_accuracy")(board, "")
    assert none is None
    assert figure is not None
    heads = [head.title for head in figure.table.heads]
    assert heads == ["Variant", "accuracy, %", "FLOPs, GFLOP", "latency, ms", "training time, s"]
    rows = {row[0].text: row for row in figure.table.rows}
    # CLIP does the least work; ALBEF without distillation has the best recall; ViLT is beaten on both.
    assert rows["CLIP"][2].note == rows["ALBEF (off)"][2].note == "front"
    assert rows["ViLT"][2].note == ""
    assert rows["CLIP"][2].value == pytest.approx(14.78e9)
    assert "against FLOPs CLIP" in figure.alt


def test_processor_time_of_the_training_is_a_cost_where_the_record_has_it(records: list[Record]):
    timed = []
    for record in records:
        if record.cell.measure == "retrieval":
            curve = record.detail["pretraining"]["curve"] | {"cpu_seconds": [1.0, 60.0]}
            pretraining = record.detail["pretraining"] | {"curve": curve}
            timed.append(record.model_copy(update={"detail": record.detail | {"pretraining": pretraining}}))
        else:
            timed.append(record)
    with style():
        figure = scatter.accuracy_against_cost("recall_mean")(boards(measure_all(timed))[0], "")
    assert figure is not None
    assert {row[-1].value for row in figure.table.rows} == {60.0}


def test_a_detector_is_part_of_the_cost_of_who_reads_regions(records: list[Record], make_record):
    found = {
        "params_detector": [6e7],
        "flops_detector": [5e11],
        "flops_with_detector": [51.77e9 + 5e11],
        "detector_latency": [2.0],
        "latency_with_detector": [2.5],
    }
    detector = make_record(Cell(arch="vilt", measure="detector"), found)
    (one,) = boards(measure_all([*records, detector]))
    with style():
        counted, timed = work(one, ""), latency(one, "")
    assert counted is not None
    assert timed is not None
    whole = {row[0].text: row[1].value for row in counted.table.rows}
    assert whole["ViLT"] == pytest.approx(51.77e9 + 5e11)
    assert whole["CLIP"] == pytest.approx(14.78e9)
    assert [row[1].by for row in timed.table.rows if row[0].text == "ViLT"] == ["2,500 ms with detector"]
    table = comparison(one, "t", "")
    place = [head.title for head in table.heads].index("FLOPs")
    cell = next(row[place] for row in table.rows if row[0].text == "ViLT")
    assert (cell.by, cell.best) == ("552 GFLOP with detector", False)
    said = {finding.lead: finding.text for finding in findings(one)}
    assert "ViLT with its detector 37.3×" in said["FLOPs"]


def test_a_gap_of_one_seed_has_newcombes_interval_and_of_several_students(
    records: list[Record], three_seeds: list[Record], board: Board
):
    found = {one.row.title: one for one in gap.gaps(board, "vqa_accuracy")}
    one = found["ViLT"]
    inside, outside = stats.rate(one.inside.value, 3000), stats.rate(0.9 * one.inside.value, 1000)
    assert one.lost == stats.rate_difference(outside, inside)
    assert one.lost.value == pytest.approx(-0.1 * one.inside.value)
    (seeded,) = boards(measure_all(three_seeds))
    clip = next(one for one in gap.gaps(seeded, "recall_mean") if one.row.arch == "clip")
    assert clip.lost.method == "t over 3 seeds"
    assert clip.lost.value == pytest.approx(-10)
    assert not gap.gaps(board, "vqa_binding")  # the held-out questions of these records are not told by type
    (said,) = [finding for finding in gap.findings(board) if "VQA" in finding.text]
    assert "CLIP + late" in said.text


def test_every_pair_of_searches_has_its_crossover(board: Board):
    table = crossover_table(board)
    assert table is not None
    rows = {(row[0].text, row[1].text): row[2:5] for row in table.rows}
    assert len(rows) == 10  # five searches
    at, _, above = rows["ALBEF, rerank", "ALBEF, exhaustive"]
    assert at.value == pytest.approx(153.6, rel=1e-2)
    assert above.text == "ALBEF, rerank"
    never, first, last = rows["CLIP, dual", "ALBEF, dual"]
    assert (never.text, first.text, last.text) == ("never", "CLIP, dual", "CLIP, dual")
    assert crossover_table(replace(board, rows=board.rows[:1], everything=())) is None
