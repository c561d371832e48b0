"""Scenes as pictures with labels: which coloured shapes each shows. What an image tower can learn without any text."""

from __future__ import annotations

import numpy as np
from vlpbench.benchmarks.data.labels import LabelBatch
from vlpbench.benchmarks.data.scene_sets import Pictures, shown
from vlpbench.benchmarks.data.scene_table import COLOURS, PAIRS, SHAPES, SceneTable


class SceneLabels:
    """Pictures of which each shows some of all coloured shapes, in any size and place."""

    names = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

    def __init__(self, pictures: Pictures, scenes: SceneTable) -> None:
        """Takes (N, 3, H, W) uint8 pictures and what they show."""
        self.pictures = pictures
        self.label = (scenes.pair[:, :, None] == np.arange(PAIRS)).any(1)
        """(N, coloured shapes) bool."""

    def __len__(self) -> int:
        return len(self.label)

    def batch(self, rows: np.ndarray) -> LabelBatch:
        """The pictures of these rows (K,) int64."""
        import torch

        label = torch.from_numpy(self.label[rows]).float()
        return LabelBatch(image=shown(self.pictures, rows), label=label)
