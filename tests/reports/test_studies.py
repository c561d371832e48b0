"""Which records stand for an architecture beside others, and which only vary it."""

from __future__ import annotations

from typing import Any

from vlpbench.reports.studies import compared_records
from vlpbench.results.record import Cell, Record


def of(make: Any, suite: str, **fields: Any) -> Record:
    recipe = {"arch": "albef", "measure": "vqa", "objectives": ("itc", "itm", "mlm")} | fields
    return make(Cell.model_validate(recipe)).model_copy(update={"suite": suite})


def test_ablations_and_what_claims_vary_do_not_compare_architectures(make_record: Any):
    quick = of(make_record, "quick", queue_size=64)
    whole = [of(make_record, "notes", seed=seed) for seed in (0, 1)]
    varied = [
        of(make_record, "notes", objectives=("itc",)),
        of(make_record, "notes", noise=0.25),
        of(make_record, "notes", changes=(("depth", 3),)),
        of(make_record, "notes", negatives="uniform"),
    ]
    ablated = of(make_record, "ablation")
    assert compared_records([quick, *varied, *whole, ablated]) == [quick, *whole]
    assert compared_records([ablated]) == [ablated]  # better a long table than none
