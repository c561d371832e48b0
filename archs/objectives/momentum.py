"""The momentum teacher (ALBEF, sections 3.2 and 3.3): a slowly moving copy of what is trained.

The teacher wraps the student: it is no part of it, is updated by the training loop and not by a forward pass, and is
left out of evaluation altogether.

Shape letters: B batch, E joint embedding size.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from vlpbench.archs.objectives.queue import Queue


class Momentum(nn.Module):
    """``twin``, an exponential moving average of a student's parameters, and an optional queue of its embeddings."""

    def __init__(self, student: nn.Module, *, rate: float, queue: Queue | None = None, dropout: bool = False) -> None:
        """Copies the student, weights that are tied in it included.

        Args:
            student: what is trained and has a teacher.
            rate: share of itself that the teacher keeps at an update, 0.995 in the paper.
            queue: written by `enqueue`.
            dropout: whether the teacher's dropout is active in training, as in the official code by accident.
        """
        super().__init__()
        self.twin = copy.deepcopy(student).requires_grad_(False)
        self.queue = queue
        self.rate = rate
        self.dropout = dropout
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._pairs: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = None
        self.register_load_state_dict_post_hook(lambda *_: self._forget())
        self.train()

    def await_step(self, image: Tensor, text: Tensor, ids: Tensor) -> None:
        """Keeps (B, E) teacher embeddings and (B,) sample ids for the next `enqueue`.

        The loss of a step is against the queue as it was, and its gradient needs the queue unchanged.
        """
        self._waiting.append((image.detach(), text.detach(), ids))

    def enqueue(self) -> None:
        """Writes what waits into the queue."""
        if self.queue is not None:
            for image, text, ids in self._waiting:
                self.queue.enqueue(image, text, ids)
        self._waiting.clear()

    def forget_step(self) -> None:
        """Drops what waits."""
        self._waiting.clear()

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """twin = rate * twin + (1 - rate) * student, over parameters, a tied one once.

        Args:
            student: the module that this teacher was made from; its parameters are looked up at the first call.
        """
        if self._pairs is None:
            self._pairs = tuple(self.twin.parameters()), tuple(student.parameters())
        torch._foreach_lerp_(*self._pairs, 1.0 - self.rate)

    def train(self, mode: bool = True) -> Self:
        """Keeps the teacher in evaluation mode, unless it was asked to keep its dropout."""
        super().train(mode)
        self.twin.train(mode and self.dropout)
        return self

    def _forget(self) -> None:
        self._pairs = None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._forget()  # moving a module may replace its parameters
        return super()._apply(fn, recurse)
