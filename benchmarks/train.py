"""Pre-training of a cell: found in the cache, resumed, or done. Importing this module imports no torch.

Cells that differ only in what is measured afterwards share one pre-training; `pretrain_key` says which do, from the
cell and the source code alone.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlpbench.benchmarks import events, schedule, weights
from vlpbench.benchmarks.trainkey import pretrain_key
from vlpbench.benchmarks.worker import CACHE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import torch
    from torch import Tensor
    from vlpbench.archs.learner import Learner
    from vlpbench.archs.types import Batch, Text
    from vlpbench.benchmarks.checkpoint import StateFile
    from vlpbench.benchmarks.curve import Curve
    from vlpbench.benchmarks.data.base import Pairs, Source
    from vlpbench.benchmarks.loop import Progress
    from vlpbench.benchmarks.schedule import TrainConfig
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell


@dataclass(kw_only=True)
class Pretrained:
    """A finished pre-training."""

    learner: Learner
    """On the subject's device, in evaluation mode."""
    curve: Curve
    config: TrainConfig
    key: str
    cached: bool
    """Whether it was found finished."""
    vision: dict[str, Any]
    """How the image side began, see `vlpbench.benchmarks.vision.begin`; empty where it is random."""
    captions: dict[str, Any]
    """What became of the data's captions; empty where they are trained on as they are."""
    detector: dict[str, Any]
    """What found the regions that the model reads; empty where the data knows them, or for pixels."""
    weights: dict[str, Any]
    """What became of the weights that the cell names; empty for random ones."""

    def detail(self) -> dict[str, Any]:
        """For a record."""
        return {
            "key": self.key,
            "cached": self.cached,
            "steps": self.config.steps,
            "batch": self.config.batch,
            "lr": self.config.lr,
            "curve": self.curve.as_dict(),
        } | {name: found for name in ("vision", "captions", "detector", "weights") if (found := getattr(self, name))}


def pretrain(subject: Subject, source: Source, *, cache: Path, progress: Progress | None = None) -> Pretrained:
    """Trains the subject's model as its cell says, or takes the weights that an equal training left in ``cache``.

    Without a budget a cell is taken as it is: with the weights that it names, or, where it names steps of fine-tuning,
    with random ones, so that a task is learnt from nothing.

    A training that was killed goes on from its last checkpoint, on a CPU to the same bits. Only one process trains a
    key at a time; others wait for its result. The subject's settings are the caller's to enter.

    Args:
        subject: built for the cell; its model is trained in place.
        source: opened as the cell says.
        cache: folder of finished weights and of checkpoints.
        progress: called with steps done, steps in all and mean losses.

    Raises:
        Diverged: for a loss that is not finite or has exploded.
        Unsupported: for objectives that the architecture cannot train.
        CheckpointError: for weights of the cell that do not fit, or are no whole model where nothing is trained.
        ValueError: for a cell that names no budget, or a batch that cannot be filled.
    """
    from vlpbench.benchmarks.checkpoint import locked
    from vlpbench.benchmarks.curve import Curve
    from vlpbench.benchmarks.data.base import Detecting
    from vlpbench.benchmarks.vision import begin

    cell = subject.cell
    if cell.budget is None and (cell.checkpoint is not None or cell.finetune is not None):
        return _as_it_is(subject)
    config = schedule.pretraining(cell)
    key = pretrain_key(cell)
    vision = begin(subject, source, cache=cache)
    learner = subject.learner()
    with locked(cache / f"{key}.lock"):
        finished, checkpoint = (state_file(cache, key, source, kind) for kind in ("weights", "checkpoint"))
        state = finished.load()
        if state is not None:
            learner.load_state_dict(state["learner"])
            curve, captions = Curve.of(state["curve"]), state["captions"]
            events.replayed(cell, key, config, curve)
        else:
            pairs, captions = _pairs(subject, source, cache, progress)
            with events.written(cell, key, config, learner.recipe.objectives, progress) as told:
                curve = _train(subject, learner, source, pairs, config, checkpoint, told)
            finished.save({"learner": learner.state_dict(), "curve": curve.as_dict(), "captions": captions})
            checkpoint.remove()
    return Pretrained(
        learner=learner.eval(),
        curve=curve,
        config=config,
        key=key,
        cached=state is not None,
        vision=vision,
        captions=captions,
        detector=dict(source.detector()) if isinstance(source, Detecting) else {},
        weights=subject.loaded or {},
    )


def _as_it_is(subject: Subject) -> Pretrained:
    """The subject's own weights, brought or random, of which nothing is trained."""
    from vlpbench.archs.pretrained import CheckpointError
    from vlpbench.benchmarks.curve import Curve
    from vlpbench.benchmarks.plan import PRETRAINED

    cell, learner = subject.cell, subject.learner().eval()
    found = subject.loaded or {}
    if cell.checkpoint is None and cell.measure in PRETRAINED:
        raise ValueError(f"cell {cell.id} ({cell.arch}, {cell.measure}) names no budget; set budget = STEPS")
    if "part" in found and cell.measure in PRETRAINED:
        raise CheckpointError(
            f"{cell.checkpoint} holds {found['part']} alone: it is where a training starts; give the cell a budget"
        )
    return Pretrained(
        learner=learner,
        curve=Curve(),
        config=replace(schedule.finetuning(cell), steps=0, lr=0.0),
        key=pretrain_key(cell),
        cached=False,
        vision={},
        captions={},
        detector={},
        weights=found,
    )


def open_data(cell: Cell) -> Source:
    """The cell's data; the seed of a cell is that of its training set as well.

    Raises:
        UnknownName: for an unknown source, or one that has no data for the cell's size.
        DataError: for data that cannot be used.
    """
    from vlpbench.benchmarks.data.sources import open_source
    from vlpbench.benchmarks.fields import reads

    how = weights.reads(cell)
    return open_source(cell.data, size=cell.size, noise=cell.noise, seed=cell.seed, reads=reads(cell), **how)


@contextmanager
def cache_folder() -> Iterator[Path]:
    """The folder of shared pre-trainings that the worker names; without one, a temporary folder."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        yield Path(given)
    else:
        with tempfile.TemporaryDirectory(prefix="vlpbench-") as folder:
            yield Path(folder)


def state_file(cache: Path, key: str, source: Source, kind: str) -> StateFile:
    """The file of a training in a cache folder; it is only used with the data it was made from."""
    from vlpbench.benchmarks.checkpoint import StateFile

    return StateFile(path=cache / f"{key}.{kind}", key=f"{key} {source.hash} {source.geometry.vocabulary}".strip())


@dataclass(kw_only=True)
class Pretraining:
    """Objectives over image-text pairs, a `vlpbench.benchmarks.loop.Task`."""

    module: Learner
    pairs: Pairs
    device: torch.device
    config: TrainConfig

    @property
    def reads(self) -> Pairs:
        """The pairs."""
        return self.pairs

    @property
    def rows(self) -> int:
        """Pairs."""
        return len(self.pairs)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The pairs' own."""
        return self.pairs.order(rng)

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One loss for each objective. Masks are drawn before the batch is moved, so no step waits for a device."""
        from vlpbench.archs.learner import Draws

        learner, recipe = self.module, self.module.recipe
        batch = self.pairs.batch(rows)
        masked = None
        if any(objective.masks for objective in learner.objectives.values()):
            masked = learner.mask(batch.text, generator)
            masked = replace(
                masked,
                text=text_to(masked.text, self.device),
                position=masked.position.to(self.device),
                label=masked.label.to(self.device),
            )
        epoch = self.rows // self.config.batch
        alpha = schedule.alpha_at(step, recipe.alpha, epoch=epoch, steps=self.config.steps)
        return learner(batch_to(batch, self.device), alpha=alpha, draws=Draws(masked=masked), generator=generator)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted as the recipe says."""
        return self.module.total(losses)

    def after_step(self) -> None:
        """Moves teacher and queue."""
        self.module.after_step()

    def skip_step(self) -> None:
        """Leaves teacher and queue: what overflowed must not become a negative."""
        self.module.skip_step()


def text_to(text: Text, device: torch.device) -> Text:
    """The text on a device."""
    return replace(text, ids=text.ids.to(device), mask=text.mask.to(device))


def batch_to(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return replace(
        batch,
        image=batch.image.to(device),
        text=text_to(batch.text, device),
        sample_id=batch.sample_id.to(device),
    )


def _pairs(subject: Subject, source: Source, cache: Path, progress: Progress | None) -> tuple[Pairs, dict[str, Any]]:
    """What is trained on, and how it came to be."""
    if subject.cell.captions == "given":
        return source.pairs("train"), {}
    from vlpbench.benchmarks.capfilt import bootstrapped

    return bootstrapped(subject, source, cache=cache, progress=progress)


def _train(
    subject: Subject,
    learner: Learner,
    source: Source,
    pairs: Pairs,
    config: TrainConfig,
    checkpoint: StateFile,
    progress: Progress | None,
) -> Curve:
    from vlpbench.benchmarks.loop import fit
    from vlpbench.benchmarks.validation import watch

    task = Pretraining(module=learner.train(), pairs=pairs, device=subject.device, config=config)
    return fit(
        task,
        config,
        device=subject.device,
        autocast=subject.autocast,
        checkpoint=checkpoint,
        progress=progress,
        watch=watch(subject, task, source, config),
    )
