"""Visual reasoning and entailment: from a cell to samples, the pair scheme, what cannot be, and what can be learnt."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.finetune import Judged
from vlpbench.benchmarks.loop import fit
from vlpbench.benchmarks.measures import base, entailment, reasoning
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.entailment import Entailing
from vlpbench.benchmarks.measures.reasoning import Pairing
from vlpbench.benchmarks.metrics import Rate
from vlpbench.benchmarks.plan import _accuracy_guess
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import UNITS, Cell

pytestmark = pytest.mark.usefixtures("shared_cache")
TASKS = ("reasoning", "entailment")
CELL = Cell(
    arch="albef",
    size="tiny",
    measure="reasoning",
    objectives=("itc",),
    batch=16,
    threads=1,
    data="scenes",
    budget=3,
    finetune=3,
)


def cell_of(**changes: Any) -> Cell:
    return Cell(**(CELL.model_dump() | changes))


def measured(**changes: Any) -> Samples:
    cell = cell_of(**changes)
    return base.load(cell.measure).run(Subject.build(cell), cell)


@pytest.mark.parametrize(
    ("task", "labels", "majority"),
    [("reasoning", ["false", "true"], 50.0), ("entailment", ["entailment", "neutral", "contradiction"], 100 / 3)],
)
def test_the_measure_brings_back_what_it_promises(task: str, labels: list[str], majority: float) -> None:
    brought = measured(measure=task)
    assert tuple(brought.values) == base.spec(task).quantities == (f"{task}_accuracy",)
    assert UNITS[f"{task}_accuracy"].unit == "%"
    detail = json.loads(json.dumps(brought.detail))
    test = detail["splits"]["test"]
    assert brought.values[f"{task}_accuracy"] == [test["accuracy"]["percent"]]
    assert detail["answers"] == list(test["classes"]) == labels
    assert test["majority"] == pytest.approx(majority)
    for part in ("kinds", "classes"):
        assert len({rate["total"] for rate in test[part].values()}) == 1
        assert sum(rate["total"] for rate in test[part].values()) == test["accuracy"]["total"]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(test["correct"]), np.uint8))[: test["accuracy"]["total"]]
    assert 100 * bits.mean() == pytest.approx(test["accuracy"]["percent"])
    assert set(detail["splits"]) == {"test", "comp"}
    assert detail["finetuning"]["curve"]["step"] == [3]
    assert set(detail["finetuning"]["curve"]["loss"]) == {task, "total"}
    again = measured(measure=task, finetune_momentum="distill")
    assert again.detail["pretraining"]["cached"]  # what is measured afterwards needs no training of its own
    assert again.detail["data_hash"] == detail["data_hash"]


def test_the_hash_covers_the_source_and_the_splits_of_the_task() -> None:
    source: Any = open_source("scenes", size="tiny")
    parts = [source.hash, source.reasoning("test").hash, source.reasoning("comp").hash]
    expected = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    assert measured().detail["data_hash"] == expected
    assert measured(measure="entailment").detail["data_hash"] not in (expected, source.hash)


def test_a_model_that_cannot_fuse_is_refused() -> None:
    with pytest.raises(Unsupported, match="clip cannot fuse a picture with a statement"):
        measured(arch="clip")
    with pytest.raises(Unsupported, match="clip cannot fuse a picture with a hypothesis"):
        measured(arch="clip", measure="entailment")
    assert set(measured(arch="clip+late").values) == {"reasoning_accuracy"}


class Plain:
    """A source of neither."""

    name = "plain"


def test_data_without_the_task_is_refused() -> None:
    plain: Any = Plain()
    with pytest.raises(Unsupported, match="plain has no statements about two pictures"):
        reasoning._statements(plain, "test")
    with pytest.raises(Unsupported, match="plain has no hypotheses about pictures"):
        entailment._hypotheses(plain, "test")


def pairing(**changes: Any) -> tuple[Pairing, Subject]:
    subject, source = Subject.build(cell_of(**changes)), open_source("scenes", size="tiny")
    statements: Any = source.reasoning("train")  # pyright: ignore[reportAttributeAccessIssue]
    return Pairing(subject=subject, model=subject.model, statements=statements), subject


@pytest.mark.parametrize("arch", ["albef", "vilt", "clip+late"])
def test_a_pair_is_each_picture_fused_with_the_statement(arch: str) -> None:
    task, subject = pairing(arch=arch, objectives=())
    model, batch = subject.model.eval(), task.data.batch(np.arange(5))
    with torch.no_grad():
        found = task.pooled(model, batch)
        text = model.encode_text(batch.statement)
        each = [model.fuse(model.encode_image(side), text).pooled for side in (batch.left, batch.right)]
    torch.testing.assert_close(found, torch.cat(each, dim=1))
    assert task.logits(batch).shape == (5, 2)


@pytest.mark.parametrize("momentum", ["off", "distill"])
@pytest.mark.parametrize("name", TASKS)
def test_learns_a_few_samples_by_heart(name: str, momentum: str) -> None:
    changes: dict[str, Any] = {"measure": name, "finetune": 60, "finetune_momentum": momentum}
    cell = cell_of(**changes)
    subject, source = Subject.build(cell), open_source("scenes", size="tiny")
    rows: Any = getattr(source, name)("train")
    model = subject.model.train()
    task = (
        Pairing(subject=subject, model=model, statements=rows)
        if name == "reasoning"
        else Entailing(subject=subject, model=model, hypotheses=rows)
    )
    before = {key: value.clone() for key, value in task.module.state_dict().items()}
    task.order = lambda rng: np.tile(np.arange(16), len(rows) // 16)
    curve = fit(task, schedule.finetuning(cell), device=torch.device("cpu"), autocast=subject.autocast)
    assert curve.loss[name][-1] < 0.7 * curve.loss[name][0]
    moved = {key for key, value in task.module.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.startswith("student.model") for key in moved)
    assert any(key.startswith("teacher") for key in moved) == (momentum == "distill")


class Five:
    """Five rows of two kinds."""

    kinds = ("one", "same")
    kind = np.array([0, 0, 0, 1, 1])


def test_rates_by_right_label_by_hand() -> None:
    rows: Any = Five()
    judged = Judged(answer=np.array([0, 1, 1, 2, 0]), truth=np.array([0, 0, 1, 2, 2]), data=rows)
    assert judged.classes(("a", "b", "c")) == {
        "a": Rate(hits=1, total=2),
        "b": Rate(hits=1, total=1),
        "c": Rate(hits=1, total=2),
    }
    assert judged.majority == pytest.approx(100 * (2 + 2) / 5)


def test_a_step_on_two_pictures_is_planned_to_take_twice_as_long() -> None:
    guess = {name: _accuracy_guess(cell_of(measure=name, finetune=100), pretrain=False) for name in ("vqa", *TASKS)}
    assert guess["entailment"] == guess["vqa"]
    assert guess["reasoning"] - guess["vqa"] == pytest.approx(100 * 0.02)
