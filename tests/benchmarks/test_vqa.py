"""Question answering: rates by hand, a task that can be learnt, and the measure from a cell to samples."""

from __future__ import annotations

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
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.vqa import Answering, binding
from vlpbench.benchmarks.metrics import Rate
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.packed import unpacked
from vlpbench.results.record import UNITS, Cell

pytestmark = pytest.mark.usefixtures("shared_cache")
CELL = Cell(
    arch="albef",
    size="tiny",
    measure="vqa",
    objectives=("itc",),
    batch=16,
    threads=1,
    data="scenes",
    budget=3,
    finetune=3,
)


def measured(**changes: Any) -> Samples:
    cell = Cell(**(CELL.model_dump() | changes))
    return base.load("vqa").run(Subject.build(cell), cell)


class Asked:
    """Seven questions of three types."""

    kinds = ("colour", "count", "shape")
    binding = frozenset({"colour", "shape"})
    kind = np.array([0, 0, 0, 1, 1, 2, 2])


def test_rates_by_hand() -> None:
    questions: Any = Asked()
    correct = np.array([True, True, False, False, True, False, False])
    truth = np.array([4, 4, 5, 9, 9, 1, 2])
    answered = Judged(answer=np.where(correct, truth, 3), truth=truth, data=questions)
    assert answered.accuracy == Rate(hits=3, total=7)
    assert answered.kinds == {
        "colour": Rate(hits=2, total=3),
        "count": Rate(hits=1, total=2),
        "shape": Rate(hits=0, total=2),
    }
    assert binding(answered) == pytest.approx((200 / 3 + 0) / 2)  # by type, not by question
    assert answered.majority == pytest.approx(100 * (2 + 2 + 1) / 7)
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(answered.detail()["correct"]), np.uint8))
    assert bits[:7].astype(bool).tolist() == correct.tolist()
    (flag,) = answered.flags()
    assert "not above chance" in flag
    assert unpacked(answered.detail()["given"]) == [4, 4, 3, 3, 9, 3, 3]
    assert unpacked(answered.detail()["right"]) == truth.tolist()
    right = Judged(answer=np.arange(700) % 7, truth=np.arange(700) % 7, data=questions)
    questions.kind = np.zeros(700, np.int64)
    assert right.flags() == []


def test_the_measure_brings_back_what_it_promises() -> None:
    brought = measured()
    assert set(brought.values) == set(base.spec("vqa").quantities) <= set(UNITS)
    detail = json.loads(json.dumps(brought.detail))
    test = detail["splits"]["test"]
    assert brought.values["vqa_accuracy"] == [test["accuracy"]["percent"]]
    assert brought.values["vqa_binding"] == [test["binding"]]
    assert sum(kind["total"] for kind in test["kinds"].values()) == test["accuracy"]["total"] == 300
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(test["correct"]), np.uint8))[:300]
    assert 100 * bits.mean() == pytest.approx(test["accuracy"]["percent"])
    assert "comp" in detail["splits"]
    assert detail["finetuning"]["steps"] == 3
    assert detail["finetuning"]["curve"]["step"] == [3]
    assert measured().values == brought.values


def test_a_model_that_cannot_fuse_is_refused() -> None:
    with pytest.raises(Unsupported, match="clip cannot fuse a picture with a question"):
        measured(arch="clip")
    assert set(measured(arch="clip+late").values) == {"vqa_accuracy", "vqa_binding"}


@pytest.mark.parametrize("momentum", ["off", "distill"])
def test_learns_a_few_questions_by_heart(momentum: str) -> None:
    cell = Cell(**(CELL.model_dump() | {"finetune": 60, "finetune_momentum": momentum}))
    subject, source = Subject.build(cell), open_source("scenes", size="tiny")
    questions = source.questions("train")
    answering = Answering(subject=subject, model=subject.model.train(), questions=questions)
    before = {name: value.clone() for name, value in answering.module.state_dict().items()}
    config = schedule.finetuning(cell)
    answering.order = lambda rng: np.tile(np.arange(16), 125)  # pyright: ignore[reportAttributeAccessIssue]
    curve = fit(answering, config, device=torch.device("cpu"), autocast=subject.autocast)
    assert curve.loss["answer"][-1] < 0.7 * curve.loss["answer"][0]
    moved = {name for name, value in answering.module.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("student.model") for name in moved)  # all of it is trained, not the head alone
    assert any(name.startswith("student.head") for name in moved)
    assert any(name.startswith("teacher") for name in moved) == (momentum == "distill")
