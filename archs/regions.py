"""The image as a set of regions: what UNITER and ViLBERT read in place of pixels.

A detector's work is not done here: an image comes as one tensor (B, R, F + 4) of region features and boxes, so that it
is batched, moved and gathered like pixels. F is the detector's feature size, 2048 in the papers. The small,
size-matched models have no detector to take features from: they get the pixels of each box, cut out and resized to a
fixed side, and a convolutional stem learns the features.

Shape letters: B batch, R regions, F features of a region, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from vlpbench.archs.blocks import ConvStem

BOX = 4
"""Last columns of a region: left, top, right, bottom as shares of the image. All zero where there is no region."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Regions with features, before an architecture embeds them."""

    features: Tensor
    """(B, R, F)."""
    place: Tensor
    """(B, R, 7) for UNITER, (B, R, 5) for ViLBERT: the box and what is derived from it."""
    mask: Tensor
    """(B, R) bool, False where an image has fewer regions than the batch has room for."""


class RegionInput(nn.Module):
    """(B, R, F + 4) -> features (B, R, F'), boxes (B, R, 4) and which regions there are (B, R).

    Args:
        features: F.
        crop: side in pixels where F is three channels of cut-out pixels; None for features of a detector.
        width: F' of learnt features; without ``crop`` F' is F.

    Raises:
        ValueError: if F are not the pixels of a crop of this side.
    """

    def __init__(self, features: int, crop: int | None, width: int) -> None:
        super().__init__()
        if crop is not None and features != 3 * crop * crop:
            raise ValueError(f"{features} features are not the 3 * {crop} * {crop} pixels of a crop")
        self.features, self.crop = features, crop
        self.out = features if crop is None else width
        self.stem = None if crop is None else ConvStem(width, crop)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class.

        Raises:
            ValueError: for an image that is no tensor of such regions.
        """
        if image.ndim != 3 or image.shape[2] != self.features + BOX:
            raise ValueError(
                f"the model reads regions (B, R, {self.features + BOX}), features and boxes, not {tuple(image.shape)}"
            )
        features, box = image.split((self.features, BOX), dim=2)
        if self.stem is not None:
            pixels = features.reshape(-1, 3, self.crop or 0, self.crop or 0)
            features = self.stem(pixels).reshape(*box.shape[:2], -1)
        return features, box, (box != 0).any(dim=2)


def with_sides(box: Tensor) -> Tensor:
    """(..., 4) -> (..., 7): the box, its width, height and area (UNITER, section 3.1)."""
    sides = box[..., 2:] - box[..., :2]
    return torch.cat([box, sides, sides.prod(dim=-1, keepdim=True)], dim=-1)


def with_area(box: Tensor) -> Tensor:
    """(..., 4) -> (..., 5): the box and its area (ViLBERT, section 3.1)."""
    return torch.cat([box, (box[..., 2:] - box[..., :2]).prod(dim=-1, keepdim=True)], dim=-1)


class AnswerHead(nn.Sequential):
    """(B, D) -> (B, classes): linear, GELU, layer norm, linear, the head of UNITER's and ViLBERT's tasks.

    ViLT's `vlpbench.archs.heads.ClassifierHead` norms before the GELU. The layers carry the numbers 0, 2 and 3 of the
    released checkpoints.
    """

    def __init__(self, width: int, classes: int, hidden: int | None = None) -> None:
        hidden = 2 * width if hidden is None else hidden
        super().__init__(
            nn.Linear(width, hidden), nn.GELU(), nn.LayerNorm(hidden, eps=1e-12), nn.Linear(hidden, classes)
        )
