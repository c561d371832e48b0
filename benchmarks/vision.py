"""An image side that begins trained: a classifier over what pictures show hands its weights over to pre-training.

As architectures begin with a ViT that was trained to classify photos; here at the same size, on the pictures that
pre-training shows as well, so that what differs is the beginning alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.checkpoint import locked
from vlpbench.benchmarks.curve import Curve
from vlpbench.benchmarks.data.labels import Labels
from vlpbench.benchmarks.fields import TRAINING
from vlpbench.benchmarks.loop import fit
from vlpbench.benchmarks.train import pretrain_key, state_file
from vlpbench.results.record import Cell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from torch import Tensor
    from vlpbench.archs.model import VLModel
    from vlpbench.benchmarks.checkpoint import StateFile
    from vlpbench.benchmarks.data.base import Source
    from vlpbench.benchmarks.data.labels import LabelledPictures
    from vlpbench.benchmarks.schedule import TrainConfig
    from vlpbench.benchmarks.subject import Subject

LEFT = ("projection", "head")
"""Components that are drawn anew: they serve the joint space, and no image alone."""


@dataclass(kw_only=True)
class Classification:
    """A model's image side with a linear classifier of several labels, a `vlpbench.benchmarks.loop.Task`."""

    model: VLModel[Any, Any]
    head: nn.Module
    data: LabelledPictures
    device: torch.device

    @property
    def module(self) -> nn.Module:
        """Both."""
        return nn.ModuleDict({"model": self.model, "head": self.head})

    @property
    def rows(self) -> int:
        """Pictures."""
        return len(self.data)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """At random."""
        return rng.permutation(self.rows)

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Binary cross-entropy, mean over labels."""
        batch = self.data.batch(rows)
        logits = self.head(self.model.image_features(batch.image.to(self.device))).float()
        return {"labels": F.binary_cross_entropy_with_logits(logits, batch.label.to(self.device))}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one loss there is."""
        return losses["labels"]

    def after_step(self) -> None:
        """Nothing."""


def begin(subject: Subject, source: Source, *, cache: Path) -> dict[str, Any]:
    """Gives the subject's model the image side that its cell says, found in the cache or trained.

    Everything that the image side does not read keeps its random weights, as does what projects into the joint space.

    Returns:
        For a record: ``steps``, names and number of the parameters that were ``copied``, and the training's curve;
        empty for a random beginning.

    Raises:
        Unsupported: for a model whose image side does not run alone, or data without labels.
        Diverged: for a loss that is not finite or has exploded.
    """
    cell = subject.cell
    if cell.vision_init == "random":
        return {}
    if not isinstance(source, Labels):
        raise Unsupported(f"{source.name} has no labels of what a picture shows; take data = 'scenes'")
    key, config = _key(cell), schedule.seeing(cell)
    with locked(cache / f"{key}.lock"):
        finished, checkpoint = (state_file(cache, key, source, kind) for kind in ("vision", "vision-checkpoint"))
        state = finished.load()
        if state is None:
            state = _trained(subject, source.labelled("train"), config, checkpoint)
            finished.save(state)
            checkpoint.remove()
    named = dict(subject.model.named_parameters())
    with torch.no_grad():
        for name, weight in state["weights"].items():
            named[name].copy_(weight)
    return {
        "steps": config.steps,
        "copied": list(state["weights"]),
        "parameters": sum(named[name].numel() for name in state["weights"]),
        "curve": state["curve"],
    }


def _trained(subject: Subject, data: LabelledPictures, config: TrainConfig, checkpoint: StateFile) -> dict[str, Any]:
    """Weights by name and the curve. The subject's model is put back to what it was."""
    model, device = subject.model, subject.device
    before = {name: x.detach().clone() for name, x in model.state_dict().items()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(subject.cell.seed)
        with torch.no_grad():
            width = model.image_features(torch.zeros(1, *model.image_shape, device=device)).shape[1]
        head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(data.names)))
    task = Classification(model=model.train(), head=head, data=data, device=device)
    curve: Curve = fit(task, config, device=device, autocast=subject.autocast, checkpoint=checkpoint)
    weights = {name: x.detach().clone() for name, x in model.named_parameters() if _kept(model, name, before[name])}
    model.load_state_dict(before)
    model.eval()
    return {"weights": weights, "curve": curve.as_dict()}


def _kept(model: VLModel[Any, Any], name: str, before: Tensor) -> bool:
    """Whether a parameter is handed over: the optimiser leaves those alone that the image side does not read."""
    return model.component(name) not in LEFT and not torch.equal(before, model.get_parameter(name))


def _key(cell: Cell) -> str:
    """Equal for cells that begin with the same training, whatever follows it."""
    same = {name: Cell.model_fields[name].default for name in (*TRAINING, "noise", "vision_steps")}
    return pretrain_key(cell.model_copy(update=same | {"budget": schedule.vision_steps(cell)}))
