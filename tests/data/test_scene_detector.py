"""Detected regions of scenes: what the detector learns, finds and keeps, and what models read of it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs.small_detector import SmallDetector, SmallDetectorConfig, _boxes, _targets
from vlpbench.benchmarks.data import region_cache, scene_detector
from vlpbench.benchmarks.data.region_cache import RegionCache, regions_key
from vlpbench.benchmarks.data.scene_detector import DetectorTraining, SceneDetector, drawn, overlaps
from vlpbench.benchmarks.data.scene_table import Layout
from vlpbench.benchmarks.data.sources import open_source

SHORT = DetectorTraining(pictures=512, steps=150, batch=32)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> SceneDetector:
    return SceneDetector(layout=Layout(), training=SHORT, folder=tmp_path_factory.mktemp("regions"))


def test_targets_and_boxes_are_inverse() -> None:
    boxes = torch.tensor([[[2, 3, 12, 11], [-1, -1, -1, -1], [16, 16, 32, 32]]])
    middle, sides = _targets(boxes, 8, 8)
    # The middle (7, 7) lies between the places of pixels 6 and 10, next to (6, 6); (24, 24) between 22 and 26.
    assert middle[0, 1, 1].item() == pytest.approx(np.exp(-(2 / 16) / (2 * 0.49)), abs=1e-6)
    assert middle[0, 5, 5].item() == pytest.approx(np.exp(-(8 / 16) / (2 * 0.49)), abs=1e-6)
    found = _boxes(sides.flatten(2).transpose(1, 2), 8, 8).view(1, 8, 8, 4)
    assert found[0, 1, 1].tolist() == [2, 3, 12, 11]
    assert found[0, 5, 6].tolist() == [16, 16, 32, 32]


def test_peaks_become_boxes_the_best_first_and_no_more_than_asked_for() -> None:
    net = SmallDetector(SmallDetectorConfig()).eval()
    map_ = torch.full((2, 5, 8, 8), -9.0)
    map_[:, 1:] = 1.5
    map_[0, 0, 1, 1], map_[0, 0, 5, 6], map_[0, 0, 1, 2] = 1.0, 3.0, 0.5  # the last is no peak
    net.forward = lambda image: map_  # pyright: ignore[reportAttributeAccessIssue]
    found = net.find(torch.zeros(2, 3, 32, 32), 3)
    assert found.dtype == torch.int16
    assert found[0].tolist() == [[20, 16, 32, 28], [0, 0, 12, 12], [-1] * 4]
    assert (found[1] == -1).all()
    assert net.find(torch.zeros(2, 3, 32, 32), 1)[0].tolist() == [[20, 16, 32, 28]]


def test_shares_of_the_union() -> None:
    left, right = np.array([[[0, 0, 4, 4], [-1] * 4]]), np.array([[[2, 0, 6, 4], [0, 0, 4, 4], [-1] * 4]])
    expected = [[[8 / 24, 1.0, 0.0], [0.0, 0.0, 0.0]]]
    np.testing.assert_allclose(overlaps(left, right), expected)


def test_a_short_training_finds_most_objects_and_curtains(detector: SceneDetector) -> None:
    pictures, boxes = drawn(Layout(), 300, "others")
    said = detector.described(pictures, boxes)
    assert said["recall"] > 80
    assert said["precision"] > 80
    assert said["weights"] == detector.hash
    assert said["seconds_per_picture"] > 0


def test_weights_are_read_from_the_cache_and_are_the_same_without_it(
    detector: SceneDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = detector.hash
    few = DetectorTraining(pictures=64, steps=3, batch=8)
    assert (
        len({SceneDetector(layout=Layout(), training=few).hash for _ in range(2)} | {first}) == 2
    )  # repeatable, and of its training
    monkeypatch.setattr(scene_detector, "train", lambda *_: pytest.fail("trained again"))
    again = SceneDetector(layout=Layout(), training=SHORT, folder=detector.folder)
    assert again.hash == first


def test_what_was_found_is_kept_by_detector_and_pixels(tmp_path: Path) -> None:
    pictures = np.arange(600 * 3 * 2 * 2, dtype=np.int64).reshape(600, 3, 2, 2).astype(np.uint8)
    calls: list[int] = []

    def find(some: np.ndarray) -> np.ndarray:
        calls.append(len(some))
        return some[:, :1, :, 0].astype(np.int16)

    cache = RegionCache(folder=tmp_path)
    first = cache.regions("a", pictures, find, (1, 2))
    assert calls == [256, 256, 88]
    np.testing.assert_array_equal(first, pictures[:, :1, :, 0])
    second = cache.regions("a", pictures, find, (1, 2))
    assert isinstance(second, np.memmap)
    np.testing.assert_array_equal(first, second)
    assert len(calls) == 3
    cache.regions("b", pictures, find, (1, 2))
    other = pictures.copy()
    other[5, 0, 0, 0] ^= 1
    cache.regions("a", other, find, (1, 2))
    assert len(calls) == 9
    alone = RegionCache(folder=None).regions("a", pictures, find, (1, 2))
    np.testing.assert_array_equal(alone, first)


def test_a_killed_or_broken_file_is_found_anew(tmp_path: Path) -> None:
    pictures = np.ones((4, 3, 2, 2), np.uint8)
    path = tmp_path / f"{regions_key('a', pictures, (1, 4))}.npy"
    path.write_bytes(b"cut short")
    left = path.with_name(f"{path.name}.1.draft")
    left.write_bytes(b"of a process that is no more")
    found = RegionCache(folder=tmp_path).regions("a", pictures, lambda x: np.full((len(x), 1, 4), 7), (1, 4))
    assert (found == 7).all()
    assert not left.exists()
    assert (np.load(path) == 7).all()

    def fail(_: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RegionCache(folder=tmp_path).regions("b", pictures, fail, (1, 4))
    assert not list(tmp_path.glob("*.draft"))


def _one(folder: Path, told: Any) -> None:
    def find(some: np.ndarray) -> np.ndarray:
        told.put(len(some))
        return np.full((len(some), 1, 4), 3)

    found = RegionCache(folder=folder).regions("a", np.zeros((300, 3, 2, 2), np.uint8), find, (1, 4))
    told.put(-int((found == 3).all()))


def test_of_several_processes_one_finds_and_all_read(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    processes = [context.Process(target=_one, args=(tmp_path, told)) for _ in range(4)]
    for process in processes:
        process.start()
    said = [told.get(timeout=60) for _ in range(2 + 4)]
    for process in processes:
        process.join(60)
    assert sorted(said) == [-1, -1, -1, -1, 44, 256]
    assert region_cache.ROWS == 256


def test_models_read_what_was_found_in_the_same_pictures(
    detector: SceneDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_detector.SceneDetector, "_net", detector._net)
    known, detected = (open_source("scenes", size="tiny", reads=reads) for reads in ("regions", "detected"))
    assert (known.geometry.regions, detected.geometry.regions) == (3, 4)
    rows = np.arange(40)
    a, b = known.pairs("val").batch(rows), detected.pairs("val").batch(rows)
    assert torch.equal(a.text.ids, b.text.ids)
    assert b.image.shape == (40, 4, 3 * 16 * 16 + 4)
    boxes = [(batch.image[..., -4:] * 32).round().numpy().astype(int) for batch in (a, b)]
    best = overlaps(*boxes).max(axis=2)[boxes[0][..., 2] > 0]
    assert best.mean() > 0.6
    assert known.hash == detected.hash
    assert known.detector() == {}  # pyright: ignore[reportAttributeAccessIssue]
    assert detected.detector()["weights"] == detector.hash  # pyright: ignore[reportAttributeAccessIssue]
