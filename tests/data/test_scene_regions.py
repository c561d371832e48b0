"""Regions of scenes: the right pixels of the right box, absent objects empty, and nothing of what a curtain hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.data.scene_regions import Cutouts, visible_boxes
from vlpbench.benchmarks.data.scene_table import Layout, SceneTable
from vlpbench.benchmarks.data.sources import open_source


def test_a_cutout_is_the_pixels_of_its_box_and_the_box() -> None:
    pictures = np.arange(3 * 4 * 8, dtype=np.uint8).reshape(1, 3, 4, 8)
    boxes = np.array([[[2, 1, 4, 3], [0, 0, 8, 4], [-1, -1, -1, -1]]])
    found = Cutouts(pictures, boxes, side=2).batch(np.array([0, 0]))
    assert found.shape == (2, 3, 3 * 4 + 4)
    assert found.dtype == torch.float32
    assert torch.equal(found[0], found[1])
    pixels = torch.from_numpy(pictures[0]).float() * (2 / 255) - 1
    torch.testing.assert_close(found[0, 0, :12], pixels[:, 1:3, 2:4].flatten())
    torch.testing.assert_close(found[0, 1, :12], pixels[:, 1::2, 2::4].flatten())  # the nearest of 4 x 2 pixels each
    assert found[0, 0, 12:].tolist() == [0.25, 0.25, 0.5, 0.75]
    assert not found[0, 2].any()


def test_a_small_box_is_enlarged() -> None:
    pictures = np.zeros((1, 3, 2, 2), np.uint8)
    pictures[0, :, 0, 1] = 255
    found = Cutouts(pictures, np.array([[[0, 0, 2, 2]]]), side=4).batch(np.array([0]))
    plane = found[0, 0, :16].view(4, 4)
    assert torch.equal(plane > 0, torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]).bool())


def test_a_curtain_has_a_box_and_what_it_hides_has_none() -> None:
    scenes = SceneTable(
        layout=Layout(image=20, grid=2, objects=2),
        kind=np.array([[0, 5], [0, -1]]),
        cell=np.array([[0, 3], [1, -1]]),
        offset=np.zeros((2, 2, 2), np.int64),
        group=np.array([-1, -1]),
    )
    found = visible_boxes(scenes, np.array([3, -1]))
    plain = visible_boxes(scenes)
    absent = [-1, -1, -1, -1]
    assert np.array_equal(found[:, 0], plain[:, 0])
    assert found[0, 1:].tolist() == [absent, [10, 10, 20, 20]]
    assert found[1, 1:].tolist() == [absent, absent]
    assert plain[0, 1].tolist() != absent


@pytest.mark.parametrize("view", ["pairs", "gallery", "questions", "reasoning", "entailment", "foils"])
def test_every_view_gives_regions_of_the_same_pictures(view: str) -> None:
    rows = np.array([3, 0])
    given: tuple[str, ...] = {"gallery": ("test",), "foils": ()}.get(view, ("val",))
    plain, regions = (
        getattr(open_source("scenes", size="tiny", reads=reads), view)(*given) for reads in ("pixels", "regions")
    )
    assert plain.hash == regions.hash if hasattr(plain, "hash") else True
    if view == "gallery":
        pixels, found = plain.image_batch(rows), regions.image_batch(rows)
        texts = plain.text_batch(rows).ids, regions.text_batch(rows).ids
    else:
        a, b = plain.batch(rows), regions.batch(rows)
        name = "left" if view == "reasoning" else "image"
        pixels, found = getattr(a, name), getattr(b, name)
        said = {"pairs": "text", "questions": "question", "reasoning": "statement", "entailment": "hypothesis"}
        texts = tuple(getattr(batch, said.get(view, "true")).ids for batch in (a, b))
    assert torch.equal(*texts)
    assert found.shape == (2, 4 if view == "entailment" else 3, 3 * 16 * 16 + 4)
    # A pixel in the middle of a region is that of the picture in the middle of its box.
    box = (found[..., -4:] * pixels.shape[-1]).round().long()
    present = box.any(dim=-1)
    assert present.any()
    for row, region in present.nonzero().tolist():
        left, top, right, bottom = box[row, region].tolist()
        y, x = top + (bottom - top) * 17 // 32, left + (right - left) * 17 // 32
        middle = found[row, region, :-4].view(3, 16, 16)[:, 8, 8]
        torch.testing.assert_close(middle, pixels[row, :, y, x])


def test_what_models_read_changes_no_hash() -> None:
    plain, regions = (open_source("scenes", size="tiny", reads=reads) for reads in ("pixels", "regions"))
    assert plain.hash == regions.hash
    assert (plain.geometry.regions, regions.geometry.regions) == (None, 3)


def test_photos_have_no_boxes() -> None:
    with pytest.raises(Unsupported, match="no boxes"):
        open_source("coco", reads="regions")
