"""Fine-tuning of a pre-trained model as a classifier: what question answering, reasoning and entailment share.

A head reads pooled fused states, and everything is trained. The measures differ in what they show the model.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.heads import ClassifierHead
from vlpbench.archs.objectives.momentum import Momentum
from vlpbench.archs.types import Can, Unsupported
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.augment import augmented
from vlpbench.benchmarks.data.base import Choice, DataError, Labelled
from vlpbench.benchmarks.data.faults import left_out
from vlpbench.benchmarks.loop import fit
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.metrics import Rate, by_kind
from vlpbench.benchmarks.subject import recipe_of
from vlpbench.benchmarks.train import cache_folder, open_data, pretrain, state_file
from vlpbench.results.packed import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.curve import Curve
    from vlpbench.benchmarks.data.base import Source
    from vlpbench.benchmarks.loop import Task
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.benchmarks.train import Pretrained

BATCH = 256
SPLIT = "test"
"""The split that the samples are of."""
FURTHER = ("comp",)
"""Splits that only the detail tells of, where a source has them."""
D = TypeVar("D", bound=Labelled)
C = TypeVar("C", bound=Choice)
K = TypeVar("K", bound="Task")


class Classifying(ABC, Generic[D]):
    """A model with a classifier, a `vlpbench.benchmarks.loop.Task`.

    With ``finetune_momentum = "distill"`` a momentum copy, which starts as the pre-trained model and moves as in
    pre-training, softens the targets (ALBEF, section 3.3). With ``code = "official"`` it moves before it is asked, and
    its dropout is active.
    """

    loss = "answer"
    """What a curve calls the loss."""
    pictures = 1
    """Pooled states that the head reads."""

    def __init__(self, *, subject: Subject, model: VLModel[Any, Any], data: D, classes: int) -> None:
        """The head is drawn from the cell's seed."""
        self.subject, self.device, self.data = subject, subject.device, data
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), self.device:
            torch.manual_seed(subject.cell.seed)
            head = ClassifierHead(self.pictures * model.width, classes)
        self.student = nn.ModuleDict({"model": model, "head": head})
        self.recipe, self.config = recipe_of(subject.cell), schedule.finetuning(subject.cell)
        self.teacher = None
        if subject.cell.finetune_momentum == "distill":
            official = self.recipe.code == "official"
            self.teacher = Momentum(self.student, rate=self.recipe.momentum_rate, dropout=official)
        self.module: nn.Module = nn.ModuleDict({"student": self.student})
        if self.teacher is not None:
            self.module.add_module("teacher", self.teacher)

    @abstractmethod
    def pooled(self, model: Any, batch: Any) -> Tensor:
        """(B, ``pictures`` * D) states of a batch of the data."""

    @abstractmethod
    def target(self, batch: Any) -> Tensor:
        """(B,) int64 classes of a batch of the data."""

    @property
    def reads(self) -> D:
        """The data."""
        return self.data

    def supervised(self, logits: Tensor, batch: Any) -> Tensor:
        """The loss of (B, classes) logits against the data's own targets."""
        return F.cross_entropy(logits, self.target(batch).to(self.device))

    @property
    def rows(self) -> int:
        """What there is to train on."""
        return len(self.data)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """At random."""
        return rng.permutation(self.rows)

    def logits(self, batch: Any, modules: Any = None) -> Tensor:
        """(B, classes), of the student or of other ``modules`` like it."""
        modules = self.student if modules is None else modules
        return modules["head"](self.pooled(modules["model"], batch)).float()

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy over the classes, to a share of alpha against the teacher's where there is one."""
        batch, config = self.data.batch(rows), self.config
        if self.teacher is not None and self.recipe.code == "official":
            self.teacher.update(self.student)
        logits = self.logits(batch)
        loss = self.supervised(logits, batch)
        if self.teacher is not None:
            epoch = self.rows // config.batch
            alpha = schedule.alpha_at(step, self.recipe.alpha, epoch=epoch, steps=config.steps)
            soft = self.logits(batch, self.teacher.twin).softmax(dim=1)
            loss = torch.lerp(loss, F.cross_entropy(logits, soft), alpha)
        return {self.loss: loss}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one loss there is."""
        return losses[self.loss]

    def after_step(self) -> None:
        """Moves the teacher."""
        if self.teacher is not None and self.recipe.code == "clean":
            self.teacher.update(self.student)


@dataclass(frozen=True, kw_only=True)
class Judged(Generic[D]):
    """What a model said of a split."""

    answer: np.ndarray
    truth: np.ndarray
    """Both (rows,) int64."""
    data: D

    @property
    def correct(self) -> np.ndarray:
        """(rows,) bool."""
        return self.answer == self.truth

    @property
    def accuracy(self) -> Rate:
        """Over all kinds."""
        return Rate(hits=int(self.correct.sum()), total=len(self.correct))

    @property
    def kinds(self) -> dict[str, Rate]:
        """By kind."""
        return by_kind(self.correct, self.data.kind, self.data.kinds)

    def classes(self, names: tuple[str, ...]) -> dict[str, Rate]:
        """By right class."""
        return by_kind(self.correct, self.truth, names)

    @property
    def majority(self) -> float:
        """Accuracy in percent of the most frequent class of each kind: what no look at image or words achieves."""
        known = self.truth >= 0  # where no class is right, none can be hit
        kinds = np.unique(self.data.kind[known])
        hits = sum(np.bincount(self.truth[known & (self.data.kind == kind)]).max() for kind in kinds)
        return 100 * float(hits) / len(self.truth)

    def detail(self) -> dict[str, Any]:
        """For a record; ``correct`` has a bit a row, padded to whole bytes; ``given`` and ``right`` are packed."""
        low, high = self.accuracy.interval()
        return {
            "accuracy": {"percent": self.accuracy.percent, "total": len(self.correct), "low": low, "high": high},
            "majority": self.majority,
            "kinds": described(self.kinds),
            "correct": np.packbits(self.correct).tobytes().hex(),
        } | {"given": packed(self.answer.tolist()), "right": packed(self.truth.tolist())}

    def flags(self) -> list[str]:
        """An accuracy that knowing the kind explains."""
        low, base = self.accuracy.interval()[0], self.majority
        text = f"answers are not above chance: at least {low:.1f} % are right, the commonest answers {base:.1f} %"
        return [text] * (low <= base)


@dataclass(frozen=True, kw_only=True)
class Trial(Generic[D]):
    """A fine-tuned model's answers by split, and how it came to them."""

    found: dict[str, Judged[D]]
    detail: dict[str, Any]

    @property
    def main(self) -> Judged[D]:
        """Those that the samples are of."""
        return self.found[SPLIT]


def require_fusion(subject: Subject, what: str) -> None:
    """Raises `Unsupported` for a model that cannot fuse, before it is trained; ``what`` is fused with a picture."""
    if Can.FUSE not in subject.model.can:
        arch = subject.cell.arch
        raise Unsupported(f"{arch} cannot fuse a picture with {what}; {arch}+late can")


@contextmanager
def tuning(
    subject: Subject, *, sets: Callable[[Source, str], Any], task: Callable[[VLModel[Any, Any], Any], K]
) -> Iterator[tuple[K, dict[str, Any], dict[str, Any]]]:
    """Pre-trains and fine-tunes as the subject's cell says; settings and cache hold until the context ends.

    Args:
        subject: built for the cell; its model is trained in place.
        sets: the rows of a split of a source; raises `DataError` for a further split that the source lacks.
        task: what to train the pre-trained model for, on the rows of ``train``.

    Returns:
        The task, in evaluation mode; the rows of every split to evaluate on; the detail, complete once it ends.
    """
    source = open_data(subject.cell)
    rows = augmented(sets(source, "train"), subject.cell, source.geometry)
    with subject.settings(), cache_folder() as cache:
        trained = pretrain(subject, source, cache=cache)
        tuned = task(trained.learner.model, rows)
        curve = _train(tuned, subject, trained, source, cache)
        config = schedule.finetuning(subject.cell)
        how = {"steps": config.steps, "batch": config.batch, "lr": config.lr, "curve": curve.as_dict()}
        detail = {"data_hash": source.hash, "pretraining": trained.detail(), "finetuning": how}
        tuned.module.eval()
        start = time.process_time(), time.perf_counter()
        with torch.no_grad():
            yield tuned, _splits(source, sets), detail
        detail |= left_out(source)
        spent = {"cpu_seconds": time.process_time() - start[0], "wall_seconds": time.perf_counter() - start[1]}
        detail["evaluation"] = spent


def finetuned(
    subject: Subject, *, sets: Callable[[Source, str], D], task: Callable[[VLModel[Any, Any], D], Classifying[D]]
) -> Trial[D]:
    """Fine-tunes and evaluates a classifier, see `tuning`."""
    with tuning(subject, sets=sets, task=task) as (classifying, splits, detail):
        found = {name: _evaluate(classifying, data) for name, data in splits.items()}
    return Trial(found=found, detail=detail)


def chosen(trial: Trial[C], quantity: str, protocol: str) -> Samples:
    """One accuracy in percent, by kind and by right label in the detail, of the data that all splits make up."""
    main, names = trial.main, trial.main.data.labels
    parts = [trial.detail["data_hash"], *(judged.data.hash for judged in trial.found.values())]
    detail = trial.detail | {
        "data_hash": hashlib.sha256(" ".join(parts).encode()).hexdigest(),
        "protocol": protocol,
        "answers": list(names),
        "splits": {
            name: judged.detail() | {"classes": described(judged.classes(names))}
            for name, judged in trial.found.items()
        },
    }
    return Samples(values={quantity: [main.accuracy.percent]}, detail=detail, flags=main.flags())


def described(rates: Mapping[str, Rate]) -> dict[str, Any]:
    """Rates by name, for a record."""
    return {name: {"percent": rate.percent, "total": rate.total} for name, rate in rates.items()}


def _train(task: Task, subject: Subject, trained: Pretrained, source: Source, cache: Path) -> Curve:
    config = schedule.finetuning(subject.cell)
    checkpoint = state_file(cache, f"{trained.key}-{subject.cell.id}", source, "checkpoint")
    task.module.train()
    curve = fit(task, config, device=subject.device, autocast=subject.autocast, checkpoint=checkpoint)
    checkpoint.remove()
    return curve


def _splits(source: Source, sets: Callable[[Source, str], D]) -> dict[str, D]:
    found = {SPLIT: sets(source, SPLIT)}
    for name in FURTHER:
        try:
            found[name] = sets(source, name)
        except DataError:  # this source has no such split, and need not have
            continue
    return found


def _evaluate(classifying: Classifying[D], data: D) -> Judged[D]:
    answer, truth = [], []
    for start in range(0, len(data), BATCH):
        batch = data.batch(np.arange(start, min(start + BATCH, len(data))))
        with classifying.subject.autocast():
            answer.append(classifying.logits(batch).argmax(1).cpu().numpy())
        truth.append(classifying.target(batch).numpy())
    return Judged(answer=np.concatenate(answer), truth=np.concatenate(truth), data=data)
