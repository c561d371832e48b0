"""Answers written: the measure from a cell to samples, and what cannot be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs import registry
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.loop import fit
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.vqa_decoder import Answering
from vlpbench.benchmarks.plan import unsupported
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.packed import unpacked
from vlpbench.results.record import UNITS, Cell, Env

ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={}, threads=1)
pytestmark = pytest.mark.usefixtures("shared_cache")

CELL = Cell(
    arch="blip",
    size="tiny",
    measure="vqa_decoder",
    objectives=("itm",),
    batch=16,
    threads=1,
    data="scenes",
    budget=3,
    finetune=3,
)
WRITERS = [name for name, spec in registry.specs().items() if spec.answers]


def cell_of(**changes: Any) -> Cell:
    return Cell(**(CELL.model_dump() | changes))


def measured(**changes: Any) -> Samples:
    cell = cell_of(**changes)
    return base.load(cell.measure).run(Subject.build(cell), cell)


@pytest.mark.parametrize("arch", ["albef", "blip"])
def test_the_measure_brings_back_what_it_promises(arch: str) -> None:
    brought = measured(arch=arch)
    assert set(brought.values) == set(base.spec("vqa_decoder").quantities) <= set(UNITS)
    detail = json.loads(json.dumps(brought.detail))
    assert set(detail["splits"]) == {"test", "comp"}
    answers, truth = detail["answers"], open_source("scenes", size="tiny").questions("test").batch(np.arange(300))
    for way in ("rank", "generate"):
        told = detail["splits"]["test"][way]
        given, right = unpacked(told["given"]), unpacked(told["right"])
        assert right == truth.answer.tolist()
        assert min(given) >= (0 if way == "rank" else -1)
        assert max(given) < len(answers)
        percent = 100 * sum(a == b for a, b in zip(given, right, strict=True)) / 300
        assert brought.values[f"vqa_{way}_accuracy"] == [pytest.approx(percent)]
        assert brought.values[f"vqa_{way}_binding"] == [told["binding"]]


@pytest.mark.parametrize("arch", WRITERS)
def test_learns_a_few_answers_by_heart(arch: str) -> None:
    cell = cell_of(arch=arch, objectives=(), finetune=150, text_len=12)
    subject, source = Subject.build(cell), open_source("scenes", size="tiny")
    questions: Any = source.questions("train")
    words: Any = source
    task = Answering(subject=subject, model=subject.model.train(), questions=questions, words=words)
    task.order = lambda rng: np.tile(np.arange(16), 125)  # pyright: ignore[reportAttributeAccessIssue]
    curve = fit(task, schedule.finetuning(cell), device=torch.device("cpu"), autocast=subject.autocast)
    assert curve.loss["answer"][-1] < 0.3 * curve.loss["answer"][0]
    task.module.eval()
    few = Few(questions)
    with torch.no_grad():
        judged = task.judged(few)  # pyright: ignore[reportArgumentType]
    assert judged["rank"].correct.mean() > 0.75
    assert judged["generate"].correct.mean() > 0.75
    assert (judged["generate"].answer == judged["rank"].answer).mean() > 0.75


class Few:
    """The first sixteen questions."""

    def __init__(self, questions: Any) -> None:
        self.answers, self.kinds, self.binding = questions.answers, questions.kinds, questions.binding
        self.kind, self.batch = questions.kind[:16], questions.batch

    def __len__(self) -> int:
        return 16


def test_all_answers_are_words_of_the_vocabulary() -> None:
    for size in ("tiny", "medium", "large"):
        source: Any = open_source("scenes", size=size)
        answers = source.questions("val").answers
        assert tuple(source.decode(source.encode(answers))) == answers


def test_what_cannot_be_is_refused_before_it_is_trained() -> None:
    with pytest.raises(Unsupported, match=r"coca cannot write an answer .*text_len = 12"):
        measured(arch="coca", objectives=("lm",))
    assert set(measured(arch="coca", objectives=("lm",), text_len=12).values) == set(
        base.spec("vqa_decoder").quantities
    )
    with pytest.raises(Unsupported, match="clip cannot fuse a picture with a question"):
        measured(arch="clip", objectives=("itc",))
    with pytest.raises(Unsupported, match="vilt can neither DECODE nor"):
        measured(arch="vilt")
    with pytest.raises(Unsupported, match="softens the targets of a classifier"):
        measured(finetune_momentum="distill")


def test_plans_know_who_writes_answers() -> None:
    assert unsupported(cell_of(arch="albef"), ENV) is None
    assert unsupported(cell_of(arch="pali", objectives=("lm",)), ENV) is None
    reason = "vqa_decoder needs DECODE or a decoder for answers, and vilt has neither"
    assert unsupported(cell_of(arch="vilt"), ENV) == reason
    retrieval = cell_of(arch="pali", objectives=("lm",), measure="retrieval")
    assert unsupported(retrieval, ENV) == "scorer 'match' needs the objective itm, which is not among lm"
