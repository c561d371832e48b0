"""The splits of the tasks that have scenes of their own: reasoning and entailment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from vlpbench.archs.registry import nearest
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.scene_table import Layout, SceneTable, stream

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
EVALUATED = ("val", "test", "comp")


class Draw(Protocol[T_co]):
    """`vlpbench.benchmarks.data.scene_reasoning.reason` and `vlpbench.benchmarks.data.scene_entailment.suppose`."""

    def __call__(
        self,
        rng: np.random.Generator,
        layout: Layout,
        samples: int,
        *,
        held: bool = False,
        seen: np.ndarray | None = None,
    ) -> tuple[SceneTable, T_co]:
        """Scenes without the ``seen`` keys, and at most so many samples about them."""
        ...


@dataclass(frozen=True, kw_only=True)
class TaskSplits:
    """How many samples of a task there are, and of what world."""

    layout: Layout
    train: int
    test: int
    """``val`` and ``comp`` have a third as many."""
    seed: int
    """Of the training set."""

    def draw(self, name: str, split: str, draw: Draw[T]) -> tuple[SceneTable, T]:
        """A split of the task of this name. Its training set holds no scene that it is evaluated on.

        Raises:
            DataError: for an unknown split.
        """
        if split == "train":
            seen = np.concatenate([self.draw(name, other, draw)[0].key for other in EVALUATED])
            return draw(stream(name, split, self.seed), self.layout, self.train, seen=seen)
        if split not in EVALUATED:
            raise DataError(nearest("split of scenes", split, ["train", *EVALUATED]))
        samples = self.test if split == "test" else -(-self.test // 3)
        return draw(stream(name, split), self.layout, samples, held=split == "comp")
