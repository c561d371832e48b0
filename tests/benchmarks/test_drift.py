"""Drift of a queue: which entries are encoded again, against which embeddings, and that a still teacher has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import drift, plan, scoring
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.env import capture
from vlpbench.benchmarks.loop import Rows
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.measures.drift import QueueDrift
from vlpbench.benchmarks.schedule import pretraining
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import Pretraining, pretrain_key
from vlpbench.benchmarks.worker import CACHE_VARIABLE
from vlpbench.results.record import Cell

CELL = Cell(
    arch="albef",
    size="tiny",
    measure="drift",
    objectives=("itc", "itm"),
    momentum="queue",
    queue_size=40,
    batch=16,
    threads=1,
    data="scenes",
    budget=60,
)


def test_entries_are_what_the_queue_still_holds() -> None:
    assert drift.entries(1, batch=4, queue=10).tolist() == [0, 1, 2, 3]
    assert drift.entries(5, batch=4, queue=10).tolist() == list(range(10, 20))
    many = drift.entries(1000, batch=64, queue=512)
    assert (len(many), many[0], many[-1]) == (64, 64_000 - 512, 63_999)


def stepped(steps: int, **changes: Any) -> tuple[drift.Drift, Any]:
    """A learner after so many steps of its loop, with the weights left as they are but for the teacher's update."""
    cell = CELL.model_copy(update=changes)
    subject, source, config = Subject.build(cell), open_source("scenes", size="tiny"), pretraining(cell)
    learner = subject.learner()
    task = Pretraining(module=learner.train(), pairs=source.pairs("train"), device=subject.device, config=config)
    rows = Rows(task, config)
    for step in range(steps):
        with torch.no_grad():
            task.losses(rows.at(step), step, torch.Generator())
            learner.after_step()
    engine = scoring.Engine(learner=learner, device=subject.device, autocast=subject.autocast)
    found = drift.Drift.of(engine, task.pairs, task, config)
    assert found is not None
    return found, learner


def test_a_teacher_that_stands_still_does_not_drift_wherever_the_queue_wraps() -> None:
    for steps in (1, 2, 7):  # 16, 32 and 112 pairs in a queue of 40
        found, learner = stepped(steps)
        with scoring.evaluating(learner):
            assert all(abs(value) < 1e-5 for value in found.seen(steps).values()), steps


def test_a_teacher_that_moved_drifts_by_one_less_the_cosine() -> None:
    found, learner = stepped(2)
    model = learner.momentum.twin["model"]
    with torch.no_grad():
        model.vision_proj.weight.neg_()
        model.vision_proj.bias.neg_()
    with scoring.evaluating(learner):
        seen = found.seen(2)
    assert seen["drift_image"] == pytest.approx(2, abs=1e-5)  # the opposite direction
    assert seen["drift_text"] == pytest.approx(0, abs=1e-5)
    assert seen["drift_oldest"] == pytest.approx(1, abs=1e-5)


def test_another_pair_is_another_embedding() -> None:
    found, learner = stepped(3)
    with scoring.evaluating(learner):
        assert found.seen(2)["drift_image"] > 1e-3  # one step off: other rows


def test_the_measure_reads_the_looks_of_the_shared_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    found = QueueDrift().run(Subject.build(CELL), CELL)
    spec = base.spec("drift")
    assert set(found.values) == set(spec.quantities)
    assert found.detail["step"] == [25, 50, 60]
    assert len(found.values["queue_drift"]) == len(found.values["queue_drift_oldest"]) == 3
    assert 1e-6 < max(found.values["queue_drift"]) < 2
    assert found.detail["steps_held"] == 2.5
    still = CELL.model_copy(update={"momentum_rate": 1.0})
    assert all(abs(value) < 1e-5 for value in QueueDrift().run(Subject.build(still), still).values["queue_drift"])
    assert pretrain_key(CELL) == pretrain_key(CELL.model_copy(update={"measure": "retrieval"}))


def test_without_a_queue_there_is_nothing_to_look_at(tmp_path, monkeypatch) -> None:
    off = CELL.model_copy(update={"momentum": "off"})
    assert "has none" in (plan.unsupported(off, capture()) or "")
    mlm = CELL.model_copy(update={"momentum": "distill", "objectives": ("mlm",)})
    assert "has none" in (plan.unsupported(mlm, capture()) or "")
    assert plan.unsupported(CELL, capture()) is None
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(Unsupported, match="was not looked at"):
        QueueDrift().run(Subject.build(off), off)


def test_rows_of_a_step_follow_from_its_number() -> None:
    found, _ = stepped(1)
    first = found.rows.at(0).copy()
    found.rows.at(130)  # another epoch: 2,000 captions are 125 steps
    assert np.array_equal(found.rows.at(0), first)
