"""Visual question answering: everything is fine-tuned with a classifier over a closed list of answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.heads import ClassifierHead
from vlpbench.archs.objectives.momentum import Momentum
from vlpbench.archs.types import Can, Unsupported
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.loop import fit
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.metrics import Rate, by_kind
from vlpbench.benchmarks.subject import recipe_of
from vlpbench.benchmarks.train import cache_folder, open_data, pretrain, state_file, text_to

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.data.base import QuestionBatch, Questions, Source
    from vlpbench.benchmarks.loop import Curve
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.benchmarks.train import Pretrained
    from vlpbench.results.record import Cell

BATCH = 256
SPLIT = "test"
"""The split that the samples are of."""
FURTHER = ("comp",)
"""Splits that only the detail tells of, where a source has them."""


class VQA:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Samples are percent, one each. ``vqa_binding`` is the mean over the types that need binding.

        Raises:
            Unsupported: for a model that cannot fuse, before it is trained.
        """
        if Can.FUSE not in subject.model.can:
            raise Unsupported(f"{cell.arch} cannot fuse a picture with a question; {cell.arch}+late can")
        source = open_data(cell)
        with subject.settings(), cache_folder() as cache:
            trained = pretrain(subject, source, cache=cache)
            answering = Answering(subject=subject, model=trained.learner.model, questions=source.questions("train"))
            curve = _finetune(answering, trained, source, cache)
            start = time.process_time(), time.perf_counter()
            found = {name: _evaluate(answering, questions) for name, questions in _splits(source).items()}
            spent = {"cpu_seconds": time.process_time() - start[0], "wall_seconds": time.perf_counter() - start[1]}
        config = schedule.finetuning(cell)
        main = found[SPLIT]
        detail: dict[str, Any] = {
            "data_hash": source.hash,
            "protocol": "classifier over a closed list of answers, all weights fine-tuned",
            "answers": list(source.questions(SPLIT).answers),
            "pretraining": trained.detail(),
            "finetuning": {"steps": config.steps, "batch": config.batch, "lr": config.lr, "curve": curve.as_dict()},
            "evaluation": spent,
            "splits": {name: answered.detail() for name, answered in found.items()},
        }
        values = {"vqa_accuracy": [main.accuracy.percent]}
        if main.binding is not None:
            values["vqa_binding"] = [main.binding]
        return Samples(values=values, detail=detail, flags=main.flags())


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a model answered to a split."""

    correct: np.ndarray
    """(rows,) bool."""
    truth: np.ndarray
    """(rows,) int64."""
    questions: Questions

    @property
    def accuracy(self) -> Rate:
        """Over all types."""
        return Rate(hits=int(self.correct.sum()), total=len(self.correct))

    @property
    def kinds(self) -> dict[str, Rate]:
        """By type of question."""
        return by_kind(self.correct, self.questions.kind, self.questions.kinds)

    @property
    def binding(self) -> float | None:
        """Mean accuracy in percent of the types that need binding; None where there is none."""
        chosen = [rate.percent for kind, rate in self.kinds.items() if kind in self.questions.binding]
        return sum(chosen) / len(chosen) if chosen else None

    @property
    def majority(self) -> float:
        """Accuracy in percent of the most frequent answer to each type: what no look at image or words achieves."""
        hits = sum(
            np.bincount(self.truth[self.questions.kind == kind]).max() for kind in np.unique(self.questions.kind)
        )
        return 100 * float(hits) / len(self.truth)

    def detail(self) -> dict[str, Any]:
        """For a record; ``correct`` has a bit for each question, in order, padded to whole bytes."""
        low, high = self.accuracy.interval()
        return {
            "accuracy": {"percent": self.accuracy.percent, "total": len(self.correct), "low": low, "high": high},
            "binding": self.binding,
            "binding_kinds": sorted(self.questions.binding),
            "majority": self.majority,
            "kinds": {kind: {"percent": rate.percent, "total": rate.total} for kind, rate in self.kinds.items()},
            "correct": np.packbits(self.correct).tobytes().hex(),
        }

    def flags(self) -> list[str]:
        """An accuracy that knowing the type of question explains."""
        low = self.accuracy.interval()[0]
        if low > self.majority:
            return []
        return [
            f"answers are not above chance: at least {low:.1f} % are right, the commonest answers {self.majority:.1f} %"
        ]


class Answering:
    """A model with a classifier over answers, a `vlpbench.benchmarks.loop.Task`.

    With ``finetune_momentum = "distill"`` a momentum copy, which starts as the pre-trained model and moves as in
    pre-training, softens the answers (ALBEF, section 3.3).
    """

    def __init__(self, *, subject: Subject, model: VLModel[Any, Any], questions: Questions) -> None:
        """The head is drawn from the cell's seed."""
        self.subject, self.device, self.questions = subject, subject.device, questions
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), self.device:
            torch.manual_seed(subject.cell.seed)
            head = ClassifierHead(model.width, len(questions.answers))
        self.student = nn.ModuleDict({"model": model, "head": head})
        self.recipe, self.config = recipe_of(subject.cell), schedule.finetuning(subject.cell)
        self.teacher = None
        if subject.cell.finetune_momentum == "distill":
            self.teacher = Momentum(self.student, rate=self.recipe.momentum_rate)
        self.module: nn.Module = nn.ModuleDict({"student": self.student})
        if self.teacher is not None:
            self.module.add_module("teacher", self.teacher)

    @property
    def rows(self) -> int:
        """Questions to train on."""
        return len(self.questions)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """At random."""
        return rng.permutation(self.rows)

    def logits(self, batch: QuestionBatch, modules: Any = None) -> Tensor:
        """(B, answers), of the student or of other ``modules`` like it."""
        modules = self.student if modules is None else modules
        model = modules["model"]
        image = model.encode_image(batch.image.to(self.device))
        text = model.encode_text(text_to(batch.question, self.device))
        return modules["head"](model.fuse(image, text).pooled).float()

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy over the answers, to a share of alpha against the teacher's where there is one."""
        batch, config = self.questions.batch(rows), self.config
        logits = self.logits(batch)
        loss = F.cross_entropy(logits, batch.answer.to(self.device))
        if self.teacher is not None:
            epoch = self.rows // config.batch
            alpha = schedule.alpha_at(step, self.recipe.alpha, epoch=epoch, steps=config.steps)
            soft = self.logits(batch, self.teacher.twin).softmax(dim=1)
            loss = torch.lerp(loss, F.cross_entropy(logits, soft), alpha)
        return {"answer": loss}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one loss there is."""
        return losses["answer"]

    def after_step(self) -> None:
        """Moves the teacher."""
        if self.teacher is not None:
            self.teacher.update(self.student)


def _finetune(answering: Answering, trained: Pretrained, source: Source, cache: Path) -> Curve:
    subject = answering.subject
    config = schedule.finetuning(subject.cell)
    checkpoint = state_file(cache, f"{trained.key}-{subject.cell.id}", source, "checkpoint")
    answering.module.train()
    curve = fit(answering, config, device=subject.device, autocast=subject.autocast, checkpoint=checkpoint)
    checkpoint.remove()
    return curve


def _splits(source: Source) -> dict[str, Questions]:
    found = {SPLIT: source.questions(SPLIT)}
    for name in FURTHER:
        try:
            found[name] = source.questions(name)
        except DataError:  # this source has no such questions, and need not have
            continue
    return found


def _evaluate(answering: Answering, questions: Questions) -> Answered:
    answering.module.eval()
    right, truth = [], []
    with torch.no_grad():
        for start in range(0, len(questions), BATCH):
            batch = questions.batch(np.arange(start, min(start + BATCH, len(questions))))
            with answering.subject.autocast():
                answer = answering.logits(batch).argmax(1).cpu()
            right.append((answer == batch.answer).numpy())
            truth.append(batch.answer.numpy())
    return Answered(correct=np.concatenate(right), truth=np.concatenate(truth), questions=questions)
