"""The detector: what it chooses by either rule, what it hands to models that read regions, what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import nms
from vlpbench.archs.detector import Detector, DetectorConfig, choose
from vlpbench.archs.model import parameter_count
from vlpbench.archs.uniter import build

SMALL = DetectorConfig(
    network="resnet18", classes=6, shorter=64, longer=96, proposals=20, least=3, most=5, confidence=0.5
)
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [50, 50, 60, 60]])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_per_class_keeps_one_region_for_each_of_two_classes() -> None:
    """Rows 0 and 1 overlap. Of class 1 row 0 is better, of class 2 row 1: for each class one of them stays."""
    scores = torch.tensor([[0.1, 0.8, 0.1], [0.2, 0.1, 0.7], [0.1, 0.6, 0.3], [0.95, 0.04, 0.01]])
    config = replace(SMALL, classes=3, least=1)
    assert choose(BOXES, scores, config).tolist() == [0, 1, 2]
    assert choose(BOXES, scores, replace(config, nms="agnostic")).tolist() == [0, 2]


def test_the_background_makes_no_region_confident() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [0.6, 0.4]])
    assert choose(BOXES, scores, replace(SMALL, classes=2, least=1)).tolist() == [1]


@pytest.mark.parametrize(("least", "most", "expected"), [(3, 5, [1, 3, 2]), (1, 5, [1]), (2, 2, [1, 3])])
def test_how_many_regions(least: int, most: int, expected: list[int]) -> None:
    scores = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [0.6, 0.4]])
    assert choose(BOXES, scores, replace(SMALL, classes=2, least=least, most=most)).tolist() == expected


def test_confidence_per_class_is_that_of_a_loop_over_classes() -> None:
    corner = torch.rand(30, 2) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(30, 2) * 10], dim=1)
    scores = torch.rand(30, 7).softmax(dim=1)
    best = torch.zeros(30)
    for kind in range(1, 7):
        kept = nms(boxes, scores[:, kind], SMALL.overlap)
        best[kept] = torch.maximum(best[kept], scores[kept, kind])
    config = replace(SMALL, least=30, most=30, proposals=30)
    assert best[choose(boxes, scores, config)].tolist() == best.sort(descending=True).values.tolist()


@pytest.mark.parametrize("rule", ["per_class", "agnostic"])
def test_pixels_to_a_pair(rule: str) -> None:
    detector = Detector(replace(SMALL, nms=rule)).eval()
    with torch.no_grad():
        found = detector(torch.rand(2, 3, 48, 60))
    assert found.shape == (2, 5, 512 + 4)
    box = found[..., -4:]
    present = box.any(dim=2)
    assert (present.sum(dim=1) >= 3).all()
    assert ((box >= 0) & (box <= 1)).all()
    assert (box[present][:, 2:] > box[present][:, :2]).all()
    model = build("tiny", {"regions": 5, "features": 512, "crop": None})
    assert torch.equal(model.encode_image(found).mask, present)


def test_numbers_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="not 10, 5, 300"):
        DetectorConfig(most=5)


def test_cost_at_paper_size() -> None:
    """ResNet-101 at 608 x 1008 by hand: stages 1 to 4 cost what torchvision states for 224 x 224, by area; the fifth
    stage runs for 300 proposals of 14 x 14, which is what it costs in a 224 x 224 image."""
    with torch.device("meta"):
        detector = Detector(DetectorConfig()).eval()
        with FlopCounterMode(display=False) as counter:
            assert detector.dense(torch.empty(1, 3, 608, 1008)).shape == (300, 1601)
    fifth = 2 * (
        3 * 9 * 512 * 512 * 49 + 1024 * 512 * 196 + 2 * 2048 * 512 * 49 + 3 * 512 * 2048 * 49 + 1024 * 2048 * 49
    )
    lower = (2 * 7.801e9 - fifth) * 608 * 1008 / 224**2
    heads = 2 * (38 * 63 * (9 * 1024 * 1024 + 1024 * 12 * 5) + 300 * 2048 * 1601 * 5)
    assert counter.get_total_flops() == pytest.approx(lower + 300 * fifth + heads, rel=2e-3)
    assert 50e6 < parameter_count(detector) < 70e6
