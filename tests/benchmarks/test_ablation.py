"""Rows of an ablation: which cells they are, what is shared, what is refused; fine-tuning with a teacher."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.measures.vqa import Answering
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell

ALL = ("itc", "itm", "mlm")


def answering(**fields) -> Answering:
    cell = Cell(
        arch="albef",
        size="tiny",
        measure="vqa",
        objectives=ALL,
        data="scenes",
        batch=16,
        budget=4,
        finetune=10,
        **fields,
    )
    subject = Subject.build(cell)
    questions = open_source("scenes", size="tiny").questions("train")
    return Answering(subject=subject, model=subject.model, questions=questions)


def test_fine_tuning_with_a_teacher_mixes_in_its_answers_and_moves_it():
    task = answering(finetune_momentum="distill", momentum_rate=0.9, alpha=0.4)
    assert task.teacher is not None
    rows, generator = np.arange(8), torch.Generator()
    batch = task.questions.batch(rows)
    with torch.no_grad():
        for parameter in task.student.parameters():
            parameter.add_(0.3)  # away from the teacher, which is a copy of the start
        own, other = task.logits(batch), task.logits(batch, task.teacher.twin)
    hard, soft = F.cross_entropy(own, batch.answer), F.cross_entropy(own, other.softmax(1))
    assert not torch.isclose(hard, soft)
    # 10 steps of fine-tuning, so alpha is ramped over 4 of them.
    for step, alpha in ((0, 0.0), (2, 0.2), (9, 0.4)):
        loss = task.losses(rows, step, generator)["answer"]
        torch.testing.assert_close(loss, (1 - alpha) * hard + alpha * soft)

    before = [parameter.clone() for parameter in task.teacher.twin.parameters()]
    task.after_step()
    for old, new, student in zip(before, task.teacher.twin.parameters(), task.student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)
    assert not any(parameter.requires_grad for parameter in task.teacher.parameters())


def test_fine_tuning_without_a_teacher_is_plain_cross_entropy_from_the_same_start():
    plain, taught = answering(), answering(finetune_momentum="distill")
    assert plain.teacher is None
    rows = np.arange(8)
    batch = plain.questions.batch(rows)
    loss = plain.losses(rows, 9, torch.Generator())["answer"]
    torch.testing.assert_close(loss, F.cross_entropy(plain.logits(batch), batch.answer))
    for a, b in zip(plain.student.parameters(), taught.student.parameters(), strict=True):
        assert torch.equal(a, b)
    assert schedule.finetuning(plain.subject.cell) == schedule.finetuning(taught.subject.cell)
