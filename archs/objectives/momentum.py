"""The momentum teacher (ALBEF, sections 3.2 and 3.3).

The teacher wraps the model: it is no part of it, is updated by the training loop and not by a forward pass, and is left
out of evaluation altogether.

Shape letters: B batch, E joint embedding size.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from vlpbench.archs.model import Pass
from vlpbench.archs.objectives.base import Objective, Recipe, TeacherView
from vlpbench.archs.objectives.queue import Queue
from vlpbench.archs.objectives.table import spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlpbench.archs.model import VLModel
    from vlpbench.archs.types import Batch, Masked


class Momentum(nn.Module):
    """A slowly moving copy of a model and of the heads whose targets it softens, with a queue of its embeddings."""

    def __init__(self, model: VLModel[Any, Any], objectives: Mapping[str, Objective], recipe: Recipe) -> None:
        super().__init__()
        heads = {name: twin for name, o in objectives.items() if (twin := o.twin()) is not None}
        if recipe.momentum != "distill":
            heads = {}
        # One deep copy of both keeps a head's weights tied to the model's.
        self.model, self.heads = copy.deepcopy((model, nn.ModuleDict(heads)))
        self.requires_grad_(False)
        self.queue = Queue(recipe.queue_size, model.embed_dim) if _queued(objectives) else None
        self.rate = recipe.momentum_rate
        self.dropout = recipe.code == "official"
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None
        self.register_load_state_dict_post_hook(lambda *_: self._forget())
        self.train()

    def view(self, batch: Batch, masked: Masked | None) -> TeacherView:
        """The teacher over a batch. The batch's embeddings enter the queue at the next `enqueue`."""
        seen = Pass(self.model, batch, masked=masked)
        if self.queue is not None:
            self._pending.append((seen.image_embed.detach(), seen.text_embed.detach(), batch.sample_id))
        return TeacherView(view=seen, heads=dict(self.heads.items()), queue=self.queue)

    def enqueue(self) -> None:
        """Writes the embeddings of the views since the last call, after their gradients were taken."""
        if self.queue is not None:
            for image, text, ids in self._pending:
                self.queue.enqueue(image, text, ids)
        self._pending.clear()

    @torch.no_grad()
    def update(self, model: nn.Module, objectives: Mapping[str, Objective]) -> None:
        """teacher = rate * teacher + (1 - rate) * student, over parameters, each tied tensor once."""
        if self._pairs is None:
            self._pairs = self._match(model, objectives)
        teacher, student = self._pairs
        torch._foreach_lerp_(teacher, student, 1.0 - self.rate)

    def train(self, mode: bool = True) -> Self:
        """Keeps the teacher's dropout off: noisy targets are the official code's accident, not the paper's method."""
        super().train(mode)
        if not self.dropout:
            self.model.eval()
            self.heads.eval()
        return self

    def _match(self, model: nn.Module, objectives: Mapping[str, Objective]) -> tuple[list[Tensor], list[Tensor]]:
        teacher: list[Tensor] = [*self.model.parameters()]
        student: list[Tensor] = [*model.parameters()]
        known = {id(p) for p in teacher}
        for name, head in self.heads.items():
            twin = objectives[name].twin()
            own = [] if twin is None else list(twin.parameters())
            for mine, theirs in zip(head.parameters(), own, strict=True):
                if id(mine) not in known:
                    teacher.append(mine)
                    student.append(theirs)
        return teacher, student

    def _forget(self) -> None:
        self._pairs = None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._forget()  # moving a module may replace its parameters
        return super()._apply(fn, recurse)


def _queued(objectives: Mapping[str, Objective]) -> bool:
    return any(spec(name).queued for name in objectives)
