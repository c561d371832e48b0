"""A model, its objectives and an optional momentum teacher, as one module that turns a batch into losses."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from vlpbench.archs.model import Pass, VLModel
from vlpbench.archs.objectives.base import Objective, Recipe, SpecialTokens, TeacherView, build
from vlpbench.archs.objectives.itm import ITM, draw_negatives
from vlpbench.archs.objectives.mlm import draw_masked
from vlpbench.archs.objectives.momentum import Momentum
from vlpbench.archs.objectives.mpp import draw_patches
from vlpbench.archs.objectives.queue import Queue
from vlpbench.archs.objectives.table import spec, undistilled
from vlpbench.archs.types import Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlpbench.archs.types import Batch, HiddenPatches, Masked, Negatives, Text

M = TypeVar("M", bound=nn.Module)

__all__ = ["Draws", "Learner", "Recipe", "SpecialTokens", "decay_groups", "draw_masked"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random choices of a step that are given instead of drawn."""

    masked: Masked | None = None
    negatives: Negatives | None = None
    hidden: HiddenPatches | None = None


class Learner(nn.Module):
    """What is trained. `forward` gives losses; the training loop then steps its optimiser and calls `after_step`.

    The teacher and the queue take part in training only: in evaluation mode they are neither run nor changed, and
    contrast is against the batch.
    """

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe, tokens: SpecialTokens) -> None:
        """Builds heads, teacher and queue on the model's device.

        What is drawn follows from torch's seed and from each head's own name, so that a head starts from the same
        weights whatever is trained beside it.

        Raises:
            UnknownName: for an unknown objective.
            Unsupported: for an objective or momentum state that the model or the objectives cannot serve.
            ValueError: if there is not one weight for each objective.
        """
        super().__init__()
        if not recipe.objectives:
            raise Unsupported("no objective is named, so there is nothing to train")
        if recipe.weights and len(recipe.weights) != len(recipe.objectives):
            raise ValueError(f"{len(recipe.weights)} weights {recipe.weights} for objectives {recipe.objectives}")
        if reason := undistilled(recipe.objectives, recipe.momentum, recipe.distilled):
            raise Unsupported(reason)
        self.model, self.recipe, self.tokens = model, recipe, tokens
        with next(model.parameters()).device:
            built = {name: _seeded(name, lambda name=name: build(name, model, recipe)) for name in recipe.objectives}
            self.objectives = nn.ModuleDict(built)
            self.momentum = None if recipe.momentum == "off" else self._momentum()

    def forward(
        self,
        batch: Batch,
        *,
        alpha: float | None = None,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Unweighted float32 loss of every objective.

        Args:
            batch: matching pairs.
            alpha: weight of soft targets; None is the recipe's.
            draws: random choices to replay.
            generator: draws what is not given: on its own device, the CPU for reproducible runs.
        """
        draws = draws or Draws()
        alpha = self.recipe.alpha if alpha is None else alpha
        soft = {name: alpha if self._softens(name) else 0.0 for name in self._objectives}
        masked = draws.masked
        if not any(o.masks for o in self._objectives.values()):
            masked = None  # a masked text in the pass would be encoded, for nobody
        elif masked is None:
            masked = self.mask(batch.text, generator)
        if self.momentum is not None and self.training and self.recipe.code == "official":
            self.momentum.update(self.student())
        softened = any(o.masks and soft[name] > 0 for name, o in self._objectives.items())
        teacher = self.teacher(batch, masked if softened else None)
        if self.momentum is not None and teacher is not None and teacher.queue is not None:
            self.momentum.await_step(teacher.view.image_embed, teacher.view.text_embed, batch.sample_id)
        view = Pass(self.model, batch, masked=masked, negatives=draws.negatives)
        if view.negatives is None and any(o.matches for o in self._objectives.values()):
            view.negatives = self._draw_negatives(view, teacher, generator)
        if any(o.hides for o in self._objectives.values()):
            view.hidden = draws.hidden or draw_patches(self.model, batch.image, generator)
        for objective in self._objectives.values():
            objective.prepare(view)
        return {name: o(view, teacher=teacher, alpha=soft[name]) for name, o in self._objectives.items()}

    def mask(self, text: Text, generator: torch.Generator | None = None) -> Masked:
        """Draws what masked language modelling predicts of a text."""
        recipe = self.recipe
        return draw_masked(text, self.tokens, recipe.mlm_probability, generator, whole_words=recipe.whole_words)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum."""
        weights = self.recipe.weights or (1.0,) * len(losses)
        return torch.stack([w * losses[name] for name, w in zip(self.recipe.objectives, weights, strict=True)]).sum()

    def after_step(self) -> None:
        """Writes the queue and moves the teacher towards the student; call it after the optimiser's step."""
        for objective in self._objectives.values():
            objective.after_step()
        if self.momentum is not None:
            self.momentum.enqueue()
            if self.recipe.code == "clean":
                self.momentum.update(self.student())

    def skip_step(self) -> None:
        """Forgets the step: call it instead of `after_step` where the optimiser did not move the weights."""
        if self.momentum is not None:
            self.momentum.forget_step()

    def match_logits(self, pooled: Tensor) -> Tensor:
        """(B,) matching score of fused pairs, larger is better, from what `VLModel.fuse_pooled` gives: (B, D).

        Raises:
            Unsupported: without a matching objective.
        """
        for objective in self._objectives.values():
            if isinstance(objective, ITM):
                return objective.match_logits(pooled)
        raise Unsupported(f"pairs are scored by the matching head, and {self.recipe.objectives} trains none")

    @property
    def _objectives(self) -> dict[str, Objective]:
        return dict(self.objectives.items())  # pyright: ignore[reportReturnType]

    def student(self) -> nn.Module:
        """What has a momentum copy: ``model``, and ``heads`` of objectives whose targets are softened."""
        twins = {name: o.twin() for name, o in self._objectives.items() if self._softens(name)}
        heads = nn.ModuleDict({name: twin for name, twin in twins.items() if twin is not None})
        return nn.ModuleDict({"model": self.model.taught(), "heads": heads})

    def teacher(self, batch: Batch, masked: Masked | None = None) -> TeacherView | None:
        """The momentum teacher over a batch; None where there is none or nothing is trained."""
        if self.momentum is None or not self.training:
            return None
        twin: Any = self.momentum.twin
        view = Pass(twin["model"], batch, masked=masked)
        return TeacherView(view=view, heads=dict(twin["heads"].items()), queue=self.momentum.queue)

    def _softens(self, name: str) -> bool:
        """Whether an objective is to have soft targets."""
        recipe = self.recipe
        return recipe.momentum == "distill" and spec(name).distillable and name in (recipe.distilled or (name,))

    def _momentum(self) -> Momentum:
        queued = any(spec(name).queued for name in self.recipe.objectives)
        size, width = self.recipe.queue_size, self.model.embed_dim
        return Momentum(
            self.student(),
            rate=self.recipe.momentum_rate,
            queue=_seeded("queue", lambda: Queue(size, width)) if queued else None,
            dropout=self.recipe.code == "official",
        )

    def _draw_negatives(
        self, view: Pass[Any, Any], teacher: TeacherView | None, generator: torch.Generator | None
    ) -> Negatives:
        ids = view.batch.sample_id
        if self.recipe.positives == "pair":
            ids = torch.arange(view.size, device=ids.device)
        replace = self.recipe.negatives == "replace"
        return draw_negatives(ids, self._similarity(view, teacher), generator, replace=replace)

    def _similarity(self, view: Pass[Any, Any], teacher: TeacherView | None) -> tuple[Tensor, Tensor] | None:
        if self.recipe.negatives != "hard":
            return None
        found = (o.similarity(view, teacher) for o in self._objectives.values())
        return next((similarity for similarity in found if similarity is not None), None)


def _seeded(name: str, build: Callable[[], M]) -> M:
    """What ``build`` makes with torch's seed moved on by a name; the seed is put back."""
    device = torch.get_default_device()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed((torch.initial_seed() + zlib.crc32(name.encode())) % 2**63)
        return build()


def decay_groups(
    module: nn.Module, weight_decay: float, *, code: Literal["clean", "official"] = "clean"
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: what does not decay, and what does; frozen parameters are left out.

    Biases and one-dimensional parameters never decay. The official code decays a temperature, which has no dimension,
    and tables of biases such as ``position_bias``; ours decays neither, since shrinking them is no regularisation.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if code == "official":
        spared = {name for name, p in trained if p.ndim == 1 or name.endswith(".bias")}
    else:
        spared = {name for name, p in trained if p.ndim <= 1 or name.endswith("bias")}
    return [
        {"params": [p for name, p in trained if name in spared], "weight_decay": 0.0},
        {"params": [p for name, p in trained if name not in spared], "weight_decay": weight_decay},
    ]
