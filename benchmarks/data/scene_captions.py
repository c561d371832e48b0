"""Scenes to be described: pictures with several true captions each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from vlpbench.benchmarks.data.scene_sets import Pictures, digest, painted, shown
from vlpbench.benchmarks.data.scene_text import VERDICTS, WORDS, judge, statement_ids
from vlpbench.benchmarks.data.tokens import WordTokenizer

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.benchmarks.data.scene_table import SceneTable

REFERENCES = 5
"""Captions of a picture at most, as in COCO."""


class SceneCaptions:
    """Pictures and what is true of them: ordered pairs of objects, as many as there are, up to `REFERENCES`."""

    verdicts = VERDICTS

    def __init__(self, pictures: Pictures, statement: np.ndarray, scenes: SceneTable) -> None:
        """Takes (N, 3, H, W) uint8 pictures, (N, R, 3) statements, possibly repeated, and the N scenes."""
        self.pictures, self.scenes = pictures, scenes
        self.ids = statement_ids(statement.reshape(-1, 3)).reshape(*statement.shape[:2], -1)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def hash(self) -> str:
        """Over pictures and captions."""
        return digest(painted(self.pictures), self.ids)

    @property
    def references(self) -> list[list[str]]:
        """Different captions of each picture, in words."""
        words = WordTokenizer(WORDS)
        return [list(dict.fromkeys(words.decode(ids) for ids in texts)) for texts in self.ids.tolist()]

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """(K, 3, H, W) float32, or regions."""
        return shown(self.pictures, rows)

    def judge(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """(K,) verdicts on token ids (K, L) as captions of these pictures."""
        return judge(self.scenes.rows(rows), ids)
