"""Scenes as a detector without fault would give them: the box of every object that can be seen, and what is in it.

Shape letters: N pictures, B rows of a batch, R regions, C side of a cut-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vlpbench.archs.registry import CROP

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.benchmarks.data.scene_table import SceneTable


class Cutouts:
    """Pictures with boxes; a batch of them is a batch of regions, each cut out and resized to one side."""

    def __init__(self, pictures: np.ndarray, boxes: np.ndarray, side: int = CROP) -> None:
        """Takes (N, 3, H, W) uint8 pictures, (N, R, 4) boxes as in `SceneTable.boxes`, and C."""
        self.pictures, self.boxes, self.side = pictures, boxes, side

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, rows: np.ndarray) -> Tensor:
        """(B, R, 3 * C * C + 4) float32: pixels in [-1, 1], and the box in shares of the picture; zero where absent.

        Each pixel of a cut-out is the nearest one of the box.
        """
        import torch

        boxes = self.boxes[rows]
        height, width = self.pictures.shape[2:]
        left, top, right, bottom = np.moveaxis(boxes, -1, 0)[..., None]
        at = 2 * np.arange(self.side) + 1
        x, y = (np.maximum(a + (b - a) * at // (2 * self.side), 0) for a, b in ((left, right), (top, bottom)))
        row = rows[:, None, None, None]
        pixels = self.pictures[row, :, y[..., :, None], x[..., None, :]].astype(np.float32) * (2 / 255) - 1
        features = np.moveaxis(pixels, -1, 2).reshape(*boxes.shape[:2], -1)
        shares = boxes / np.array([width, height, width, height])
        found = np.concatenate([features, shares], axis=-1) * (right > left)
        return torch.from_numpy(found.astype(np.float32))


def visible_boxes(scenes: SceneTable, cover: np.ndarray | None = None) -> np.ndarray:
    """(N, R, 4) boxes of the objects, -1 where absent.

    Args:
        scenes: what is shown.
        cover: (N,) cell that a curtain hides, -1 for none. What stands there has no box; the curtain has one, in the
            last place.
    """
    if cover is None:
        return scenes.boxes
    side = scenes.layout.cell
    row, column = np.divmod(cover, scenes.layout.grid)
    corner = np.stack([column, row], -1) * side
    curtain = np.where(cover[:, None] >= 0, np.concatenate([corner, corner + side], -1), -1)
    seen = np.where((scenes.cell == cover[:, None])[..., None], -1, scenes.boxes)
    return np.concatenate([seen, curtain[:, None]], axis=1)


def cut(pictures: np.ndarray, scenes: SceneTable, cover: np.ndarray | None = None) -> Cutouts:
    """Pictures of these scenes, with the boxes of what can be seen."""
    return Cutouts(pictures, visible_boxes(scenes, cover))
