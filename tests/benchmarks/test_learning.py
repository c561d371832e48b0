"""Time to accuracy: when a threshold counts as reached, and what a record says of one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import worker
from vlpbench.benchmarks.curve import Looks
from vlpbench.benchmarks.measures import base, learning
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.learning import reached
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import Pretraining
from vlpbench.benchmarks.worker import Job
from vlpbench.results.record import UNITS, Cell, Status

pytestmark = pytest.mark.usefixtures("shared_cache")
CELL = Cell(
    arch="clip",
    size="tiny",
    measure="learning",
    objectives=("itc",),
    batch=16,
    threads=1,
    data="scenes",
    budget=125,
)


def measured(**changes: Any) -> Samples:
    cell = Cell(**(CELL.model_dump() | changes))
    return base.load(cell.measure).run(Subject.build(cell), cell)


def seen(*recalls: float) -> Looks:
    steps = [100 * (place + 1) for place in range(len(recalls))]
    return Looks(step=steps, cpu_seconds=[0.5 * step for step in steps], metrics={"recall": list(recalls)})


@pytest.mark.parametrize(
    ("recalls", "step", "after"),
    [
        ((10.0, 49.9, 50.0, 50.0), 300, 200),
        ((10.0, 60.0, 40.0, 70.0, 80.0), 400, 300),  # a single high look is not enough
        ((80.0, 90.0), 100, 0),
        ((10.0, 20.0, 60.0), None, None),  # nothing confirms the last look
        ((60.0, 40.0, 60.0, 40.0), None, None),
        ((), None, None),
    ],
)
def test_a_threshold_counts_from_the_look_that_the_next_confirms(recalls: Any, step: Any, after: Any) -> None:
    found = reached(seen(*recalls), "recall", 50.0, 900)
    seconds = None if step is None else 0.5 * step
    assert found == {"threshold": 50.0, "within": 900, "step": step, "after": after, "cpu_seconds": seconds}
    assert reached(seen(*recalls), "binding", 90.0, 900)["step"] is None


def test_what_was_not_reached_has_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "RECALL", 5.0)
    brought = measured()
    looks = brought.detail["pretraining"]["curve"]["looks"]
    assert brought.values["learning_recall"] == looks["metrics"]["recall"]
    assert brought.values["learning_binding"] == looks["metrics"]["binding"]
    assert len(looks["step"]) == len(brought.values["learning_recall"]) >= 3
    assert brought.values["steps_to_recall"] == [brought.detail["reached"]["recall"]["step"]]
    assert brought.values["cpu_seconds_to_recall"] == [brought.detail["reached"]["recall"]["cpu_seconds"]]
    assert "steps_to_binding" not in brought.values
    assert brought.detail["reached"]["binding"] == {
        "threshold": 90.0,
        "within": 125,
        "step": None,
        "after": None,
        "cpu_seconds": None,
    }
    assert set(brought.values) <= set(base.spec("learning").quantities) <= set(UNITS)
    assert 0 < brought.detail["looks_share"] < 1
    work = measured(measure="flops").values["flops_forward_backward"]
    assert brought.detail["flops_per_step"] == 16 * work[0]
    json.dumps(brought.detail)


def test_shares_the_pretraining_of_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    step = Pretraining.after_step
    monkeypatch.setattr(Pretraining, "after_step", lambda self: (steps.append(1), step(self))[1])
    first = measured(measure="retrieval", seed=1, budget=100)
    assert len(steps) == 100
    second = measured(seed=1, budget=100)
    assert len(steps) == 100
    assert second.detail["pretraining"]["cached"]
    assert second.detail["pretraining"]["curve"] == first.detail["pretraining"]["curve"]


def test_a_training_too_short_to_be_looked_at_says_so() -> None:
    with pytest.raises(Unsupported, match=r"not looked at: one look is a tenth of the work of .* there are 8"):
        measured(budget=8)


def test_a_training_that_diverges_ends_its_cell_without_a_number(tmp_path: Path) -> None:
    cell = CELL.model_copy(update={"lr": 1e8, "budget": 50})
    outcome = worker.run(Job(cell=cell, measure=base.spec("learning"), cache=str(tmp_path)))
    assert (outcome.status, outcome.samples) == (Status.ERROR, {})
    assert outcome.reason.startswith("Diverged: training diverged ")
    assert "lower lr" in outcome.reason.splitlines()[0]
