"""Triplet loss: a hinge over the cosine similarities of a batch (VSE++, Faghri et al. 2018, arXiv:1707.05612).

Shape letters: B batch, E joint embedding size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from vlpbench.archs.objectives.base import Objective, Recipe, TeacherView, at_least_float32, no_autocast

if TYPE_CHECKING:
    from vlpbench.archs.model import Pass, VLModel

MARGIN = 0.2
"""The paper's alpha (section 4)."""


class Triplet(Objective):
    """[margin + s(i, t') - s(i, t)]+ for the hardest text t', plus the same for the hardest image (equation 6).

    The mean over the pairs of a batch; rows with an equal ``sample_id`` are not negatives of one another.

    In the first ``hinge_warmup`` steps of the recipe the hinges of all negatives are summed instead: from random
    weights the hardest alone draw all embeddings to one point, where the loss stays at twice the margin.
    """

    name: ClassVar[str] = "triplet"

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self.temperature = recipe.temperature
        """Only scales the similarities that hard negatives are drawn by; the loss has none."""
        self.warmup = recipe.hinge_warmup
        if self.warmup:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def after_step(self) -> None:
        """Counts the steps of the warm-up."""
        if self.warmup:
            self.get_buffer("steps").add_(1)

    def hinges(self, view: Pass[Any, Any]) -> tuple[Tensor, Tensor]:
        """(B, B) each, [image, text]: against each wrong text of an image, and against each wrong image of a text."""
        similarity = self._cosine(view)
        own = similarity.diagonal()
        same = view.batch.sample_id[:, None] == view.batch.sample_id
        texts = (MARGIN + similarity - own[:, None]).clamp(min=0).masked_fill(same, 0.0)
        images = (MARGIN + similarity - own).clamp(min=0).masked_fill(same, 0.0)
        return texts, images

    def similarity(self, view: Pass[Any, Any], teacher: TeacherView | None) -> tuple[Tensor, Tensor]:
        """Cosines over the recipe's temperature."""
        logits = self._cosine(view) / self.temperature
        return logits, logits.T

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class; a hinge has no soft targets."""
        texts, images = self.hinges(view)
        hardest = texts.amax(dim=1).mean() + images.amax(dim=0).mean()
        if not self.warmup or not self.training:
            return hardest
        return torch.where(self.get_buffer("steps") < self.warmup, _every(texts, images), hardest)

    def _cosine(self, view: Pass[Any, Any]) -> Tensor:
        def compute() -> Tensor:
            image, text = at_least_float32(view.image_embed), at_least_float32(view.text_embed)
            with no_autocast(image.device):
                return image @ text.T

        return view.once("triplet.cosine", compute)


class TripletSum(Triplet):
    """The same, summed over all wrong texts and all wrong images instead of the hardest (equation 5, VSE0)."""

    name: ClassVar[str] = "triplet_sum"

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class."""
        return _every(*self.hinges(view))


def _every(texts: Tensor, images: Tensor) -> Tensor:
    return texts.sum(dim=1).mean() + images.sum(dim=0).mean()
