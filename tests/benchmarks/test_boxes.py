"""Cells of architectures that read regions: whose boxes, what a record says of them, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vlpbench.benchmarks import fields, worker
from vlpbench.benchmarks.data import scene_detector
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.plan import unsupported
from vlpbench.benchmarks.worker import CACHE_VARIABLE, Job
from vlpbench.results.record import Cell, Env, Status

ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={}, threads=1)
CELL = Cell(
    arch="uniter",
    size="tiny",
    measure="retrieval",
    objectives=("itm", "mlm", "wpa"),
    weights=(1.0, 1.0, 0.1),
    batch=16,
    threads=1,
    data="scenes",
    boxes="detected",
    budget=2,
)


def test_known_boxes_leave_identities_alone() -> None:
    assert Cell(arch="uniter", measure="flops").id == Cell(arch="uniter", measure="flops", boxes="known").id
    assert CELL.id != Cell.model_validate(CELL.model_dump() | {"boxes": "known"}).id


def test_boxes_are_no_matter_of_what_reads_pixels() -> None:
    values = {"measure": "retrieval", "boxes": "detected", "objectives": ("itm",)}
    assert "boxes" not in fields.normalise(values | {"arch": "vilt"})
    assert fields.normalise(values | {"arch": "vilbert"})["boxes"] == "detected"
    assert fields.reads(CELL) == "detected"
    assert fields.reads(CELL.model_copy(update={"arch": "vilt"})) == "pixels"


def test_random_inputs_hold_nothing_to_detect() -> None:
    cell = Cell(arch="uniter", size="tiny", measure="latency", boxes="detected")
    assert "take" not in (unsupported(CELL, ENV) or "")
    assert "name a source" in (unsupported(cell, ENV) or "")


@pytest.mark.parametrize("boxes", ["known", "detected"])
def test_a_record_says_whose_boxes_and_how_good(boxes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(scene_detector, "train", _quick(scene_detector.train))
    cell = CELL.model_copy(update={"boxes": boxes})
    outcome = worker.run(Job(cell=cell, measure=base.spec("retrieval"), cache=str(tmp_path)))
    assert outcome.status is Status.OK, outcome.reason
    assert (outcome.detail["input"], outcome.detail["detector"]) == ("regions", "excluded")
    assert outcome.detail["boxes"] == boxes
    said = outcome.detail["pretraining"].get("detector")
    if boxes == "known":
        assert said is None
        assert not (tmp_path / "regions").exists()
    else:
        assert 0 < said["recall"] <= 100
        assert said["seconds_per_picture"] > 0
        assert list((tmp_path / "regions").glob("*.npy"))
        assert list((tmp_path / "regions").glob("*.detector"))


def _quick(train: Any) -> Any:
    return lambda layout, how: train(layout, replace(how, pictures=256, steps=60, batch=32))
