"""The cost of ranking a gallery against costs worked out by hand."""

from __future__ import annotations

import math

import pytest
from vlpbench.benchmarks.measures import retrieval_cost
from vlpbench.benchmarks.measures.retrieval_cost import RetrievalCost, Units, count_units, exponent
from vlpbench.benchmarks.scoring import fusions
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell

PARTS = Units(image=100.0, text=10.0, compare=0.5, fuse=7.0)


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        ("embed", 3 * 100 + 4 * 10 + 12 * 0.5),
        ("match", 3 * 100 + 4 * 10 + 12 * 7),
        ("rerank", 3 * 100 + 4 * 10 + 12 * 0.5 + 7 * 7),  # 3 images x 1 text and 4 texts x 1 image
    ],
)
def test_cost_of_a_gallery_by_hand(scorer: str, expected: float) -> None:
    assert PARTS.total(scorer, 3, 4, 1) == expected


def test_pairs_that_are_fused() -> None:
    assert fusions("rerank", 1000, 5000, 128) == 128 * 6000
    assert fusions("rerank", 10, 10, 128) == 100  # all there are
    assert fusions("match", 1000, 5000, 128) == 5_000_000
    assert fusions("embed", 1000, 5000, 128) == 0


def test_exponent_and_its_interval() -> None:
    assert exponent([2, 4, 8, 16], [4.0, 16.0, 64.0, 256.0]) == pytest.approx((2.0, 2.0, 2.0))
    slope, low, high = exponent([1, 2, 4], [1.0, 2.0 * math.e**0.3, 4.0])
    # Residuals of 0.3 in the middle: -0.1, 0.2, -0.1; spread 2 ln(2)^2; t with one degree of freedom 12.706.
    assert slope == pytest.approx(1.0)
    assert high - slope == pytest.approx(12.706 * math.sqrt(0.06 / (2 * math.log(2) ** 2)), rel=1e-4)
    assert slope - low == pytest.approx(high - slope)
    with pytest.raises(ValueError, match="three sizes, not 2"):
        exponent([1, 2], [1.0, 2.0])


def test_flops_of_the_parts_are_those_of_the_model() -> None:
    cell = Cell(arch="clip", size="tiny", measure="retrieval_cost", objectives=("itc",), batch=2)
    subject = Subject.build(cell, meta=True)
    parts = count_units(subject, "embed")
    assert parts.compare == 2 * subject.model.embed_dim
    assert parts.fuse == 0
    assert parts.image > 0
    assert parts.text > 0


@pytest.mark.parametrize(("arch", "scorer"), [("vilt", "match"), ("albef", "rerank")])
def test_measured_on_galleries_that_double(arch: str, scorer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_cost, "SECONDS", 0.0)  # no more than are needed
    objectives = ("itm",) if arch == "vilt" else ("itc", "itm")
    fields = {"arch": arch, "size": "tiny", "measure": "retrieval_cost", "scorer": scorer, "objectives": objectives}
    cell = Cell(**fields, k=2, threads=1)  # pyright: ignore[reportArgumentType]
    found = RetrievalCost().run(Subject.build(cell), cell)
    points = found.detail["measured"]
    assert [p["images"] for p in points] == [2, 4, 8, 16]
    if scorer == "match":
        assert [p["fused"] for p in points] == [4, 16, 64, 256]
        parts = found.detail["units"]["flops"]
        coco = 5000 * parts["image"] + 25010 * parts["text"] + 5000 * 25010 * parts["fuse"]
        assert found.detail["extrapolated"]["coco"]["flops"] == pytest.approx(coco)
    else:
        assert all(p["fused"] <= 4 * p["images"] for p in points)
    assert set(found.values) == {"search_exponent", "search_flickr", "search_coco", "search_million"}
    assert found.values["search_million"][0] > found.values["search_coco"][0] > found.values["search_flickr"][0] > 0
