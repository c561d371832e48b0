"""Fine-tuning of a pre-trained model as a classifier: what question answering, reasoning and entailment share.

A head reads pooled fused states, and everything is trained. The measures differ in what they show the model.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

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
from vlpbench.benchmarks.train import cache_folder, open_data, pretrain, state_file
from vlpbench.results.packed import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.curve import Curve
    from vlpbench.benchmarks.data.base import Source
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.benchmarks.train import Pretrained

BATCH = 256
SPLIT = "test"
"""The split that the samples are of."""
FURTHER = ("comp",)
"""Splits that only the detail tells of, where a source has them."""


class Labelled(Protocol):
    """What is classified: rows of several kinds."""

    kinds: tuple[str, ...]
    kind: np.ndarray
    """(rows,) int64 index into ``kinds``."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> Any:
        """The rows (K,) int64, as the classifier takes them."""
        ...


class Choice(Labelled, Protocol):
    """What is classified by labels of its own, and has a hash of its own."""

    labels: tuple[str, ...]

    @property
    def hash(self) -> str:
        """SHA-256 over the content."""
        ...


D = TypeVar("D", bound=Labelled)
C = TypeVar("C", bound=Choice)


class Classifying(ABC, Generic[D]):
    """A model with a classifier, a `vlpbench.benchmarks.loop.Task`.

    With ``finetune_momentum = "distill"`` a momentum copy, which starts as the pre-trained model and moves as in
    pre-training, softens the targets (ALBEF, section 3.3).
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
            self.teacher = Momentum(self.student, rate=self.recipe.momentum_rate)
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
        logits = self.logits(batch)
        loss = F.cross_entropy(logits, self.target(batch).to(self.device))
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
        if self.teacher is not None:
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
        hits = sum(np.bincount(self.truth[self.data.kind == kind]).max() for kind in np.unique(self.data.kind))
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


def finetuned(
    subject: Subject, *, sets: Callable[[Source, str], D], task: Callable[[VLModel[Any, Any], D], Classifying[D]]
) -> Trial[D]:
    """Pre-trains, fine-tunes and evaluates as the subject's cell says.

    Args:
        subject: built for the cell; its model is trained in place.
        sets: the rows of a split of a source; raises `DataError` for a further split that the source lacks.
        task: puts a classifier on the pre-trained model.
    """
    source = open_data(subject.cell)
    rows = sets(source, "train")
    with subject.settings(), cache_folder() as cache:
        trained = pretrain(subject, source, cache=cache)
        classifying = task(trained.learner.model, rows)
        curve = _train(classifying, trained, source, cache)
        start = time.process_time(), time.perf_counter()
        found = {name: _evaluate(classifying, data) for name, data in _splits(source, sets).items()}
        spent = {"cpu_seconds": time.process_time() - start[0], "wall_seconds": time.perf_counter() - start[1]}
    config = classifying.config
    detail = {
        "data_hash": source.hash,
        "pretraining": trained.detail(),
        "finetuning": {"steps": config.steps, "batch": config.batch, "lr": config.lr, "curve": curve.as_dict()},
        "evaluation": spent,
    }
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


def _train(classifying: Classifying[Any], trained: Pretrained, source: Source, cache: Path) -> Curve:
    subject = classifying.subject
    checkpoint = state_file(cache, f"{trained.key}-{subject.cell.id}", source, "checkpoint")
    classifying.module.train()
    autocast: Callable[[], AbstractContextManager[Any]] = subject.autocast
    curve = fit(classifying, classifying.config, device=subject.device, autocast=autocast, checkpoint=checkpoint)
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
    classifying.module.eval()
    answer, truth = [], []
    with torch.no_grad():
        for start in range(0, len(data), BATCH):
            batch = data.batch(np.arange(start, min(start + BATCH, len(data))))
            with classifying.subject.autocast():
                answer.append(classifying.logits(batch).argmax(1).cpu().numpy())
            truth.append(classifying.target(batch).numpy())
    return Judged(answer=np.concatenate(answer), truth=np.concatenate(truth), data=data)
