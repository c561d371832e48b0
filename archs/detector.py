"""The front end of models that read regions: Faster R-CNN on ResNet-101, as bottom-up attention uses it.

Anderson et al., CVPR 2018, arXiv:1707.07998: the network cut behind its fourth stage ("C4"), the fifth run over every
proposal, 1600 classes of Visual Genome and a background, features the mean over the fifth stage's 7 x 7 places. UNITER
and ViLBERT take 10 to 100 regions of it, or 36. The parts are torchvision's; how regions are chosen is ours.

Shape letters: B batch, H W pixels, P proposals of an image, R regions, F features, K classes with the background.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign, batched_nms, nms
from vlpbench.archs.regions import BOX

_STRIDE = 16
_POOL = 14


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Sizes of the detector and how it chooses; the defaults are bottom-up attention's."""

    network: Literal["resnet18", "resnet50", "resnet101"] = "resnet101"
    classes: int = 1601
    """The background, class 0, included."""
    shorter: int = 600
    longer: int = 1000
    """Pixels: an image is resized until its shorter side has as many, but its longer side no more than these."""
    proposals: int = 300
    """P, of which 6000 candidates are thinned."""
    nms: Literal["per_class", "agnostic"] = "per_class"
    """How overlapping proposals are thinned: for each of the classes anew, as the papers did, or once by the best class
    of each, as VinVL does (Zhang et al., CVPR 2021, section 2.2)."""
    overlap: float = 0.3
    confidence: float = 0.2
    least: int = 10
    most: int = 100
    """Regions of an image: those of at least ``confidence``, but no fewer than ``least`` and no more than ``most``.
    Equal numbers, such as 36, fix how many."""

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most <= self.proposals:
            raise ValueError(
                f"least, most and proposals must rise from 1, not {self.least}, {self.most}, {self.proposals}"
            )


class Fifth(nn.Module):
    """The fifth stage over pooled proposals, and the mean over its places: (P, C, 14, 14) -> (P, F)."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.layer4 = stage

    def forward(self, pooled: Tensor) -> Tensor:
        """See the class."""
        return self.layer4(pooled).mean(dim=(2, 3))


class Detector(nn.Module):
    """Pixels -> regions. ``net`` is a whole torchvision `FasterRCNN`, which is how it is trained and loaded."""

    def __init__(self, config: DetectorConfig) -> None:
        """Random weights; evaluation mode is what `forward` is for."""
        super().__init__()
        self.config = config
        # Frozen norms do not tame random weights: without it every block doubles what flows, and boxes lose all sense.
        resnet: Any = getattr(torchvision.models, config.network)(
            weights=None, norm_layer=FrozenBatchNorm2d, zero_init_residual=True
        )
        stem = (resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        backbone: Any = nn.Sequential(*stem, resnet.layer1, resnet.layer2, resnet.layer3)
        self.features: int = resnet.fc.in_features
        backbone.out_channels = self.features // 2
        self.net = FasterRCNN(
            backbone,
            min_size=config.shorter,
            max_size=config.longer,
            rpn_anchor_generator=AnchorGenerator(
                sizes=((4 * _STRIDE, 8 * _STRIDE, 16 * _STRIDE, 32 * _STRIDE),), aspect_ratios=((0.5, 1.0, 2.0),)
            ),
            rpn_pre_nms_top_n_test=6000,
            rpn_post_nms_top_n_test=config.proposals,
            box_roi_pool=MultiScaleRoIAlign(["0"], output_size=_POOL, sampling_ratio=2),
            box_head=Fifth(resnet.layer4),
            box_predictor=FastRCNNPredictor(self.features, config.classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) pixels in [0, 1] -> (B, R, F + 4), R is ``most``; rows of zeros where there are fewer."""
        given, _ = self.net.transform(list(image))
        maps = OrderedDict([("0", self.net.backbone(given.tensors))])
        proposals, _ = self.net.rpn(given, maps)
        heads: Any = self.net.roi_heads
        features = heads.box_head(heads.box_roi_pool(maps, proposals, given.image_sizes))
        share = heads.box_predictor(features)[0].softmax(dim=1)
        counts = [len(boxes) for boxes in proposals]
        found = image.new_zeros(len(image), self.config.most, self.features + BOX)
        rows = zip(proposals, features.split(counts), share.split(counts), given.image_sizes, strict=True)
        for row, (boxes, mine, scores, (height, width)) in enumerate(rows):
            kept = choose(boxes, scores, self.config)
            places = boxes[kept] / boxes.new_tensor([width, height, width, height])
            found[row, : len(kept)] = torch.cat([mine[kept], places], dim=1)
        return found

    def dense(self, pixels: Tensor) -> Tensor:
        """All products of `forward` and none of its choices, for P proposals an image: what can be counted on meta.

        Left out are resizing, pooling of proposals and their thinning, in which no weight takes part.

        Args:
            pixels: (B, 3, H, W), already of the detector's size.

        Returns:
            (B * P, K) scores.
        """
        found = self.net.backbone(pixels)
        heads: Any = self.net.roi_heads
        rpn: Any = self.net.rpn
        rpn.head([found])
        pooled = found.new_empty(len(pixels) * self.config.proposals, found.shape[1], _POOL, _POOL)
        return heads.box_predictor(heads.box_head(pooled))[0]


def choose(boxes: Tensor, scores: Tensor, config: DetectorConfig) -> Tensor:
    """Rows of the regions that are kept, the most confident first.

    A region's confidence is the largest score of a class, background aside, for which no better region overlaps it by
    more than ``overlap``.

    Args:
        boxes: (P, 4) left, top, right, bottom.
        scores: (P, K) shares of the classes.
        config: the rule, the numbers it needs, and how many.
    """
    confidence = _per_class(boxes, scores, config) if config.nms == "per_class" else _agnostic(boxes, scores, config)
    order = confidence.argsort(descending=True, stable=True)
    confident = int((confidence >= config.confidence).sum())
    return order[: min(max(confident, config.least), config.most)]


def _agnostic(boxes: Tensor, scores: Tensor, config: DetectorConfig) -> Tensor:
    best = scores[:, 1:].amax(dim=1)
    kept = nms(boxes, best, config.overlap)
    return torch.zeros_like(best).index_copy(0, kept, best[kept])


def _per_class(boxes: Tensor, scores: Tensor, config: DetectorConfig) -> Tensor:
    """All classes in one call: boxes of different classes are moved apart, so that none hides another's."""
    count, classes = scores[:, 1:].shape
    region = torch.arange(count, device=boxes.device).repeat_interleave(classes)
    kind = torch.arange(classes, device=boxes.device).repeat(count)
    flat = scores[:, 1:].flatten()
    kept = batched_nms(boxes[region], flat, kind, config.overlap)
    alone = torch.zeros_like(flat).index_copy(0, kept, flat[kept])
    return alone.view(count, classes).amax(dim=1)
