"""The detector apart and in sum: who has one, and that the sums are sums."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vlpbench.archs.detector import DetectorConfig
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.measures import base, detector
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.detector import DetectorCost
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import UNITS, Cell

SMALL = DetectorConfig(network="resnet18", classes=6, shorter=64, longer=96, proposals=20, least=1, most=5)
NARROW = (("features", 512), ("heads", 2), ("layers", 2), ("regions", 4), ("width", 32))


def run(measure: DetectorCost, **fields: Any) -> tuple[Samples, Cell]:
    cell = Cell(**{"arch": "uniter", "size": "base", "measure": "detector", "batch": 2} | fields)
    return measure.run(Subject.build(cell), cell), cell


def test_apart_and_in_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "LIMITS", clock.Limits(seconds=0.1, least=2, most=3, warm_seconds=0.1, warm_most=2))
    monkeypatch.setattr(DetectorCost, "config", SMALL)
    found, cell = run(DetectorCost(), changes=NARROW, image=(64, 96))
    values = found.values
    assert set(values) == set(base.spec("detector").quantities) <= set(UNITS)
    counted = {name: base.load(name).run(Subject.build(cell), cell).values for name in ("params", "flops")}
    sums = {"params": ("params_stored", "params"), "flops": ("flops_forward", "flops")}
    for measure, (alone, name) in sums.items():
        both, front = values[f"{name}_with_detector"][0], values[f"{name}_detector"][0]
        assert both - front == pytest.approx(counted[measure][alone][0], rel=1e-9)
        assert front > 0
    assert all(0 < a < b for a, b in zip(values["detector_latency"], values["latency_with_detector"], strict=True))
    assert 1 <= found.detail["regions_found"] <= found.detail["regions"] == 4
    assert json.loads(json.dumps(found.detail)) == found.detail


def test_who_reads_pixels_has_none() -> None:
    with pytest.raises(Unsupported, match="vilt reads pixels"):
        run(DetectorCost(), arch="vilt", size="tiny")


def test_who_is_given_boxes_has_none() -> None:
    with pytest.raises(Unsupported, match="768 numbers of a region, and the detector gives 2048"):
        run(DetectorCost(), size="tiny")
