"""The comparison says what the records say, and nothing else."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from statistics import median

import pytest
from vlpbench.reports.accuracy import (
    hypothesis_table,
    question_table,
    scorer_table,
    statement_table,
    swap_table,
)
from vlpbench.reports.board import Board, boards
from vlpbench.reports.measured import latest, measure_all
from vlpbench.reports.table import Item, comparison
from vlpbench.results.record import Cell, Record, Series, Status

Make = Callable[..., Record]


def board(records: Sequence[Record]) -> Board:
    (found,) = boards(measure_all(latest(records)))
    return found


def items(records: Sequence[Record]) -> dict[tuple[str, str], Item]:
    """(row, column) -> cell of the comparison."""
    table = comparison(board(records), "comparison", "")
    return {
        (row[0].text, head.title): item
        for row in table.rows
        for head, item in zip(table.heads[1:], row[1:], strict=True)
    }


def test_one_row_a_variant_in_the_order_of_families(records: list[Record]):
    rows = [row.title for row in board(records).rows]
    assert rows == ["CLIP", "ViLT", "ALBEF (off)", "ALBEF (queue)", "ALBEF (distill)", "toy<i>"]


def test_a_cell_holds_the_median_its_interval_and_its_record(records: list[Record]):
    (record,) = [r for r in records if r.cell.arch == "clip" and r.cell.measure == "latency"]
    item = items(records)["CLIP", "Latency"]
    assert item.value == median(record.samples["latency"].values)
    assert item.record == record.id
    assert (item.low or 9) <= (item.value or 0) <= (item.high or 0)


def test_a_mutated_record_changes_its_cell_and_no_other(records: list[Record]):
    (place,) = [i for i, r in enumerate(records) if r.cell.arch == "vilt" and r.cell.measure == "latency"]
    halved = Series(unit="s", values=tuple(v / 2 for v in records[place].samples["latency"].values))
    samples = records[place].samples | {"latency": halved}
    changed = [*records[:place], records[place].model_copy(update={"samples": samples}), *records[place + 1 :]]
    before, after = items(records), items(changed)
    was, now = before["ViLT", "Latency"], after["ViLT", "Latency"]
    assert was.value is not None
    assert now.value == was.value / 2
    assert {key for key in before if before[key] != after[key]} == {("ViLT", "Latency")}


def test_inference_is_shared_by_momentum_states_and_training_is_not(records: list[Record]):
    found = items(records)
    assert found["ALBEF (distill)", "Latency"].record == found["ALBEF (off)", "Latency"].record
    assert found["ALBEF (distill)", "Train step"].record != found["ALBEF (off)", "Train step"].record


def test_late_fusion_fills_in_where_the_base_has_no_number(records: list[Record]):
    item = items(records)["CLIP", "VQA"]
    assert item.by == "+late"
    assert item.text == "62.6"


def test_late_fusion_has_a_row_of_its_own_once_both_have_a_number(records: list[Record], make_record: Make):
    more = [*records, make_record(Cell(arch="clip+late", measure="latency"), {"latency": [0.2]})]
    found = items(more)
    assert found["CLIP + late", "Latency"].value == 0.2
    assert found["CLIP", "VQA"].text == "not supported"


def test_failures_are_words_that_link_to_their_record(records: list[Record]):
    item = items(records)["ALBEF (distill)", "Memory, train"]
    assert (item.text, item.kind, item.value) == ("out of memory", "failed", None)
    assert item.record in {r.id for r in records if r.status is Status.OOM}
    assert items(records)["toy<i>", "Latency"].text == "failed"
    assert items(records)["toy<i>", "FLOPs"].text == "not run"


def test_flags_go_with_the_number(records: list[Record]):
    found = items(records)
    assert found["ViLT", "Latency"].flags == ("drift 6 % between the first and the last round",)
    assert not found["CLIP", "Latency"].flags


def test_the_best_scorer_is_shown_and_named(records: list[Record]):
    found = items(records)
    assert found["ALBEF (off)", "TR R@1"].by == "rerank k=16"
    assert found["ALBEF (off)", "TR R@1"].text == "80.0"
    assert found["ViLT", "TR R@1"].by == "match"
    table = scorer_table(measure_all(records))
    assert table is not None
    assert len(table.rows) == 33  # eleven on each of three galleries
    hard = next(row for row in table.rows if row[3].text == "hard")
    assert (hard[0].text, hard[5].text) == ("CLIP", "49.6")


def test_swaps_and_questions_have_tables(records: list[Record]):
    everything = measure_all(records)
    swaps, questions = swap_table(everything), question_table(everything)
    assert swaps is not None
    assert questions is not None
    assert [head.title for head in swaps.heads[3:]] == ["Swapped colour", "Swapped shape", "Swapped relation"]
    assert (swaps.rows[0][5].text, round(swaps.rows[0][5].low or 0, 1)) == ("50.0", 46.5)
    test, held_out = questions.rows[0], questions.rows[1]
    assert [item.text for item in test[:4]] == ["CLIP + late", "small, scenes", "test", "62.6"]
    assert [item.text for item in held_out[2:5]] == ["comp", "56.3", "–"]
    assert test[-1].text == "38.2"


def test_reasoning_and_entailment_have_tables_of_their_own(records: list[Record], make_record: Make):
    made = []
    for measure, labels in (("reasoning", ("false", "true")), ("entailment", ("neutral",))):
        cell = Cell(arch="albef", size="small", measure=measure, objectives=("itc", "itm"), data="scenes")
        split = {
            "accuracy": {"percent": 60.0, "total": 100},
            "majority": 50.0,
            "kinds": {"one": {"percent": 60.0, "total": 100}},
            "classes": {label: {"percent": 70.0, "total": 100 // len(labels)} for label in labels},
        }
        made.append(
            make_record(cell, {f"{measure}_accuracy": [60.0]}, detail={"splits": {"comp": split, "test": split}})
        )
    everything = measure_all([*records, *made])
    statements, hypotheses, questions = (
        table(everything) for table in (statement_table, hypothesis_table, question_table)
    )
    assert statements is not None
    assert hypotheses is not None
    assert questions is not None
    assert [head.title for head in statements.heads[3:]] == ["All", "one", "false", "true", "Commonest answers"]
    assert [head.title for head in hypotheses.heads[3:]] == ["All", "one", "neutral", "Commonest answers"]
    assert [[item.text for item in row[2:]] for row in statements.rows] == [
        [split, "60.0", "60.0", "70.0", "70.0", "50.0"] for split in ("test", "comp")
    ]
    assert round(statements.rows[0][3].low or 0, 1) == 50.2  # Wilson's interval of 60 in 100
    assert questions == question_table(measure_all(records))
    assert statement_table(measure_all(records)) is None
    assert {"Reasoning", "Entailment"} <= {
        head.title for board in boards(everything) for head in comparison(board, "c", "").heads
    }


def test_binding_is_a_mean_of_types_with_an_interval_from_theirs(records: list[Record]):
    item = items(records)["ViLT", "VQA binding"]
    assert item.value is not None
    assert item.low is not None
    assert item.text == "49.8"
    # Half-widths of Wilson's intervals at 44.0 % of 900, 47.0 % of 600, 58.5 % of 600, added as squares, over three.
    assert item.value - item.low == pytest.approx((3.20**2 + 3.96**2 + 3.98**2) ** 0.5 / 3, abs=0.02)


def test_recall_intervals_count_images_one_way_and_texts_the_other(make_record: Make):
    cell = Cell(arch="clip", measure="retrieval", scorer="embed", objectives=("itc",))
    values = {"tr_r1": [50.0], "ir_r1": [50.0]}
    recalls = {"tr_r1": {"percent": 50.0, "total": 100}, "ir_r1": {"percent": 50.0, "total": 10_000}}
    found = items([make_record(cell, values, detail={"galleries": {"test": {"recalls": recalls}}})])
    tr, ir = found["CLIP", "TR R@1"], found["CLIP", "IR R@1"]
    assert (round(tr.low or 0, 2), round(ir.low or 0, 2)) == (40.38, 49.02)


def test_groups_say_the_size_of_cost_and_of_accuracy(records: list[Record]):
    table = comparison(board(records), "comparison", "")
    assert table.groups == [("", 1), ("cost at base", 7), ("accuracy at small", 5)]


def test_best_is_marked_with_all_that_its_interval_reaches(records: list[Record]):
    found = items(records)
    assert found["CLIP", "Latency"].best
    assert not found["ALBEF (off)", "Latency"].best
    assert found["ALBEF (off)", "Mean recall"].best
    assert found["ALBEF (distill)", "Mean recall"].best
    assert not found["CLIP", "Mean recall"].best


def test_ablated_recipes_are_rows_and_costs_join_the_recipe_they_share(make_record: Make):
    def accuracy(*objectives: str) -> Record:
        cell = Cell(arch="albef", size="small", measure="vqa", objectives=objectives, data="scenes")
        return make_record(cell, {"vqa_accuracy": [50.0 + 10 * len(objectives)]})

    step = Cell(arch="albef", measure="train_step", objectives=("itc", "itm", "mlm"))
    latency = Cell(arch="albef", measure="latency")
    found = items(
        [
            accuracy("itm"),
            accuracy("itc", "itm"),
            accuracy("itc", "itm", "mlm"),
            make_record(step, {"step": [3.0]}),
            make_record(latency, {"latency": [0.3]}),
        ]
    )
    full, less = "ALBEF, objectives itc+itm+mlm", "ALBEF, objectives itc+itm"
    assert {row for row, _ in found} == {full, less, "ALBEF, objectives itm"}
    assert found[full, "Train step"].value == 3.0
    assert found[less, "Train step"].text == "not run"
    assert found[less, "Latency"].value == 0.3


def test_another_setting_is_never_put_in_the_column(make_record: Make):
    def timed(arch: str, batch: int) -> Record:
        return make_record(Cell(arch=arch, measure="latency", batch=batch), {"latency": [0.1 * batch]})

    found = items([timed("clip", 1), timed("albef", 1), timed("vilt", 8)])
    assert found["ViLT", "Latency"].text == "not run"
    assert found["ViLT", "Latency"].note == "only at batch 8"


def test_a_model_with_a_size_of_its_own_is_a_row(make_record: Make):
    cells = [Cell(arch="clip", measure="latency"), Cell(arch="clip", size="l14", measure="latency")]
    found = items([make_record(cell, {"latency": [0.1]}) for cell in cells])
    assert {row for row, _ in found} == {"CLIP", "CLIP l14"}


def test_seeds_are_pooled_into_a_mean_with_an_interval_over_seeds(three_seeds: list[Record]):
    found = measure_all(three_seeds)
    (one,) = [m for m in found if m.row.arch == "clip" and m.scorer == "embed"]
    assert one.estimates["tr_r1"].value == 63.0
    assert one.estimates["tr_r1"].method == "t over 3 seeds"


def test_a_cell_measured_again_counts_once_and_last(make_record: Make):
    cell = Cell(arch="clip", measure="latency")
    old = make_record(cell, {"latency": [9.0]}).model_copy(update={"started": "2026-11-19T00:00:00Z"})
    new = make_record(cell, {"latency": [1.0]})
    assert latest([new, old]) == [new]


def test_an_unknown_quantity_gets_a_column_under_its_own_name(make_record: Make):
    record = make_record(Cell(arch="clip", measure="energy"), {"latency": [1.0]})
    record = record.model_copy(update={"samples": {"joules": Series(unit="J", values=(3.0,))}})
    assert items([record])["CLIP", "joules"].value == 3.0


def test_csv_has_stored_units_interval_ends_and_records(records: list[Record]):
    lines = list(csv.DictReader(comparison(board(records), "comparison", "").csv().splitlines()))
    item, name = items(records)["CLIP", "Latency"], "Latency [s] cost at base"
    assert lines[0]["Variant"] == "CLIP"
    assert float(lines[0][name]) == item.value
    assert float(lines[0][f"{name} low"]) == item.low
    assert lines[0][f"{name} record"] == item.record
    assert lines[5][name] == "failed"
