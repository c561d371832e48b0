"""Masked patch prediction: the mean colour of hidden patches (ViLT, section 4.4, an ablation).

Shape letters: B batch, N patches, K patches that the model keeps, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.blocks import BertTransform, init_bert
from vlpbench.archs.objectives.base import Objective, Recipe, TeacherView, at_least_float32
from vlpbench.archs.types import HiddenPatches, Unsupported

if TYPE_CHECKING:
    from vlpbench.archs.model import Pass, VLModel

LEVELS = 256
"""Classes of each of the three channels."""
PROBABILITY = 0.15
REPLACED = 0.8
"""Share of the chosen patches that are not seen; the rest is predicted as it stands."""
IGNORED = -100


class PatchHead(nn.Module):
    """(..., D) -> (..., 3, `LEVELS`), BERT's dense layer and a decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform, self.decoder = BertTransform(width, eps=1e-12), nn.Linear(width, 3 * LEVELS)
        init_bert(self)

    def forward(self, hidden: Tensor) -> Tensor:
        """See the class."""
        return self.decoder(self.transform(hidden)).unflatten(-1, (3, LEVELS))


class MPP(Objective):
    """Cross-entropy of each channel's mean over a chosen patch, with the text as context; a mean over patches.

    Zero for a batch in which no patch was chosen. Pixels are taken to lie in [-1, 1], as ViLT's do.
    """

    name: ClassVar[str] = "mpp"
    hides: ClassVar[bool] = True

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        """Raises `Unsupported` for a model that reads no patches which could be hidden."""
        super().__init__(model, recipe)
        if not hasattr(model, "predict_patches"):
            raise Unsupported(f"mpp hides patches behind a learnt vector, and {type(model).__name__} cannot")
        self.mask_token = nn.Parameter(torch.zeros(model.width))
        self.head = PatchHead(model.width)

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class; it is not distilled."""
        model: Any = view.model
        hidden = view.hidden
        if hidden is None:
            raise ValueError("this pass was given no hidden patches; set `hidden` to use masked patch prediction")
        states, place, seen = model.predict_patches(view.batch.image, view.text, hidden, self.mask_token)
        label = colours(view.batch.image, model.patch).masked_fill(~hidden.chosen[..., None], IGNORED)
        if place is not None:
            label = label.gather(1, place[..., None].expand(-1, -1, 3))
        label = label.masked_fill(~seen[..., None], IGNORED)
        logits = at_least_float32(self.head(states))
        loss = F.cross_entropy(logits.flatten(0, 2), label.flatten(), ignore_index=IGNORED, reduction="sum")
        return loss / (label != IGNORED).sum().clamp(min=1)


def colours(image: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, N, 3) int64, the mean of each patch and channel as a level."""
    mean = F.avg_pool2d(at_least_float32(image), patch)
    return ((mean + 1) / 2 * (LEVELS - 1)).long().clamp(0, LEVELS - 1).flatten(2).transpose(1, 2)


def draw_patches(model: VLModel[Any, Any], image: Tensor, generator: torch.Generator | None = None) -> HiddenPatches:
    """Chooses patches with `PROBABILITY`; of those `REPLACED` are hidden. Draws on the generator's device."""
    patch: int = model.patch  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]
    size = len(image), (image.shape[2] // patch) * (image.shape[3] // patch)
    source = image.device if generator is None else generator.device
    chosen, replaced = torch.rand(2, *size, generator=generator, device=source).to(image.device, non_blocking=True)
    chosen = chosen < PROBABILITY
    return HiddenPatches(chosen=chosen, replaced=chosen & (replaced < REPLACED))
