"""A small detector for generated pictures: where objects are, and not what they are.

Faster R-CNN (`vlpbench.archs.detector`) has anchors of 64 pixels and more, a stride of 16, and many times the weights
of the size-matched models; it does not learn from random weights in minutes. This is an object as a point (Zhou et al.,
arXiv:1904.07850): a map of middles at a stride of four, the distances from there to the four sides, and peaks of the
map as what was found. Regions are then cut out of the picture, as boxes that the data knows are.

Shape letters: B batch, H W pixels, h w places of the map, R boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

STRIDE = 4
SPREAD = 0.7
"""Standard deviation of a middle on the map, in places."""
NEAR = 0.5
"""Places with at least this much of a middle learn its sides."""


@dataclass(frozen=True, kw_only=True)
class SmallDetectorConfig:
    """Size of the network, and what counts as found."""

    width: int = 32
    layers: int = 3
    """Convolutions behind the stem, each after the first with a dilation of two."""
    confidence: float = 0.3
    overlap: float = 0.3
    """Of two boxes that share more of their union than this, the better one stays."""


class SmallDetector(nn.Module):
    """(B, 3, H, W) pixels in [-1, 1] -> (B, 5, h, w): logits of a middle, and distances left, up, right, down."""

    def __init__(self, config: SmallDetectorConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        parts = [*_conv(3, width // 2, stride=2), *_conv(width // 2, width, stride=2)]
        for layer in range(config.layers):
            parts += _conv(width, width, dilation=min(layer, 1) + 1)
        self.body = nn.Sequential(*parts)
        self.head = nn.Conv2d(width, 5, kernel_size=1)
        self.head.get_parameter("bias").data[0] = -2.0  # most places hold no middle

    def forward(self, image: Tensor) -> Tensor:
        """See the class; distances are in places, softened to be positive."""
        found = self.head(self.body(image))
        return torch.cat([found[:, :1], F.softplus(found[:, 1:])], dim=1)

    def loss(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Cross-entropy of the map of middles and the mean error of the sides, in places.

        Args:
            image: (B, 3, H, W).
            boxes: (B, R, 4) pixels left, top, right, bottom; -1 where absent.
        """
        found = self(image)
        middle, sides = _targets(boxes, *found.shape[2:])
        near = (middle >= NEAR).float()
        error = (found[:, 1:] - sides).abs().mean(dim=1)
        heat = F.binary_cross_entropy_with_logits(found[:, 0], middle, reduction="sum")
        return (heat + (error * near).sum()) / near.sum().clamp(min=1)

    @torch.no_grad()
    def find(self, image: Tensor, most: int) -> Tensor:
        """(B, ``most``, 4) int16 pixels as in `loss`, the most confident first, -1 where there are fewer."""
        found = self(image)
        score, height, width = found[:, 0].sigmoid(), *found.shape[2:]
        peak = score == F.max_pool2d(score[:, None], kernel_size=3, stride=1, padding=1)[:, 0]
        score = (score * peak * (score >= self.config.confidence)).flatten(1)
        limit = torch.tensor([image.shape[3], image.shape[2]] * 2, device=image.device)
        boxes = _boxes(found[:, 1:].flatten(2).transpose(1, 2), height, width).round().clamp(min=0).minimum(limit)
        score = score * (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
        row, place = score.nonzero(as_tuple=True)
        kept = batched_nms(boxes[row, place], score[row, place], row, self.config.overlap)
        return _packed(row[kept], boxes[row[kept], place[kept]], len(image), most)


def _packed(row: Tensor, boxes: Tensor, size: int, most: int) -> Tensor:
    """Boxes (K, 4) of pictures (K,), the best first -> (B, ``most``, 4)."""
    order = row.argsort(stable=True)
    row, boxes = row[order], boxes[order]
    count = row.bincount(minlength=size)
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    out = torch.full((size, most, 4), -1, dtype=torch.int16, device=row.device)
    fits = place < most
    out[row[fits], place[fits]] = boxes[fits].to(torch.int16)
    return out


def _conv(before: int, after: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=dilation, dilation=dilation, bias=False)
    return [conv, nn.GroupNorm(4, after), nn.GELU()]


def _points(height: int, width: int, like: Tensor) -> Tensor:
    """(h * w, 2) pixels right and down of the middles of places."""
    down, right = (torch.arange(side, device=like.device) for side in (height, width))
    return (torch.stack(torch.meshgrid(right, down, indexing="xy"), dim=-1).flatten(0, 1) + 0.5) * STRIDE


def _boxes(sides: Tensor, height: int, width: int) -> Tensor:
    """Distances (B, h * w, 4) in places -> boxes in pixels."""
    point = _points(height, width, sides)
    return torch.cat([point - sides[..., :2] * STRIDE, point + sides[..., 2:] * STRIDE], dim=2)


def _targets(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Middles (B, h, w) in [0, 1], and distances (B, 4, h, w) to the sides of the box whose middle is nearest."""
    boxes = boxes.float()
    point, middle = _points(height, width, boxes), (boxes[..., :2] + boxes[..., 2:]) / 2
    off = (point - middle[:, :, None]).square().sum(dim=3) / STRIDE**2
    heat = torch.exp(-off / (2 * SPREAD**2)) * (boxes[..., 2:3] > boxes[..., :1])  # (B, R, h * w)
    heat, owner = heat.max(dim=1)
    mine = boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    sides = torch.cat([point - mine[..., :2], mine[..., 2:] - point], dim=2) / STRIDE
    return heat.unflatten(1, (height, width)), sides.transpose(1, 2).unflatten(2, (height, width))
