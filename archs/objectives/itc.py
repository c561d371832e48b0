"""Image-text contrast (ALBEF, section 3.2, equations 1 and 2; with a queue and soft targets, equation 6).

Shape letters: B batch, E joint embedding size, Q queue, C = B + Q candidates (B without a queue).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.objectives.base import Objective, Recipe, TeacherView, at_least_float32, no_autocast

if TYPE_CHECKING:
    from vlpbench.archs.model import Pass, VLModel

CLAMP = (0.001, 0.5)
"""Bounds of the learnt temperature in the official code."""


class ITC(Objective):
    """Cross-entropy of each image over candidate texts and of each text over candidate images, averaged.

    Without a teacher the candidates are the batch. With one they are the teacher's embeddings of the batch, then those
    of its queue; only the query carries a gradient. All candidates that show the same image (equal ``sample_id``) are
    positives and share the target equally, as in ALBEF's retrieval fine-tuning, unless the recipe's ``positives`` say
    that a pair is its own only one.
    """

    name: ClassVar[str] = "itc"

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self.temperature = nn.Parameter(torch.tensor(recipe.temperature))
        self.alone = recipe.positives == "pair"

    def logits(self, view: Pass[Any, Any], teacher: TeacherView | None) -> tuple[Tensor, Tensor]:
        """Image-to-text and text-to-image similarities over temperature, (B, C) each; computed once per pass."""
        return view.once("itc.logits", lambda: self._logits(view, teacher))

    def similarity(self, view: Pass[Any, Any], teacher: TeacherView | None) -> tuple[Tensor, Tensor]:
        """The in-batch part of `logits`."""
        image, text = self.logits(view, teacher)
        return image[:, : view.size], text[:, : view.size]

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class; soft targets are the teacher's own softmax over the same candidates."""
        image, text = self.logits(view, teacher)
        positive = self._positive(view, teacher).to(image.dtype)
        if teacher is None or alpha == 0:
            return (F.cross_entropy(image, positive) + F.cross_entropy(text, positive)) / 2
        soft_image, soft_text = (
            torch.lerp(positive, soft.softmax(dim=1), alpha) for soft in self._compare(teacher.view, teacher)
        )
        return (F.cross_entropy(image, soft_image) + F.cross_entropy(text, soft_text)) / 2

    def _logits(self, view: Pass[Any, Any], teacher: TeacherView | None) -> tuple[Tensor, Tensor]:
        if self.training:
            # Not seen by autograd: clamping twice is clamping once, so an earlier pass may still be differentiated.
            self.temperature.data.clamp_(*CLAMP)
        if teacher is not None:
            return self._compare(view, teacher, self.temperature)
        image, text = at_least_float32(view.image_embed), at_least_float32(view.text_embed)
        with no_autocast(image.device):
            logits = image @ text.T / self.temperature
        return logits, logits.T

    def _compare(
        self, queries: Pass[Any, Any], teacher: TeacherView, temperature: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, C) each: queries against the teacher's candidates; without ``temperature``, the learnt one, detached."""
        temperature = self.temperature.detach() if temperature is None else temperature
        image, text = at_least_float32(queries.image_embed), at_least_float32(queries.text_embed)
        candidate_image = at_least_float32(teacher.view.image_embed)
        candidate_text = at_least_float32(teacher.view.text_embed)
        with no_autocast(image.device):
            to_text, to_image = [image @ candidate_text.T], [text @ candidate_image.T]
            if teacher.queue is not None:
                # Concatenating products instead of candidates leaves the queue, 128 MB at paper size, where it is.
                to_text.append(image @ teacher.queue.text)
                to_image.append(text @ teacher.queue.image)
            return torch.cat(to_text, dim=1) / temperature, torch.cat(to_image, dim=1) / temperature

    def _positive(self, view: Pass[Any, Any], teacher: TeacherView | None) -> Tensor:
        own = view.batch.sample_id[:, None]
        known = own.T if teacher is None or teacher.queue is None else torch.cat([own.T, teacher.queue.ids], dim=1)
        if self.alone:
            return torch.eye(len(own), known.shape[1], device=own.device)
        positive = (own == known).float()
        return positive / positive.sum(dim=1, keepdim=True)
