"""What `scenes` generates, by the size of the models that it is made for."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlpbench.benchmarks.data.scene_table import Layout

GALLERIES = {
    "test": "one caption an image, true of that image alone; the images are independent of one another",
    "val": "as test, to choose learning rates on",
    "large": "twice the images of test, which are among them",
    "hard": "groups of four images described by the same bag of words",
    "comp": "every caption names a colour-shape pair that no training image shows",
}
"""Name of a gallery -> what it holds."""


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """What is generated."""

    layout: Layout = field(default_factory=Layout)
    train_images: int = 20_000
    captions: int = 2
    """Fixed captions of a training image."""
    train_questions: int = 40_000
    """Reasoning and entailment have half as many samples to train on."""
    siblings: float = 1 / 16
    """Share of the training images that have same-bag siblings: about one group of four in a batch of 64. With a
    quarter, a contrast alone learns to bind, and matching is still learning after 1,200 steps. Of the galleries only
    `hard` has siblings."""
    scenes: int = 1_500
    """Scenes that the ``test`` questions are about, and as many for ``comp``; ``val`` has a third as many."""
    questions: int = 3_000
    """``test`` questions, statements and hypotheses; ``val`` and ``comp`` have a third as many."""
    gallery: int = 200
    """Images of a gallery; ``large`` has twice as many."""
    foils: int = 800
    noise: float = 0.0
    """Share of training captions that are corrupted."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("noise", "siblings"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        for name in ("train_images", "captions", "train_questions", "scenes", "questions", "gallery", "foils"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.gallery % 4:
            raise ValueError(f"gallery must be a multiple of 4, the size of a sibling group, not {self.gallery}")


CONFIGS: dict[str, ScenesConfig] = {
    "tiny": ScenesConfig(train_images=1_000, train_questions=2_000, scenes=300, questions=300, gallery=40, foils=80),
    "small": ScenesConfig(),
    "medium": ScenesConfig(layout=Layout(image=64, grid=3, objects=4)),
    "large": ScenesConfig(layout=Layout(image=128, grid=4, objects=5), train_images=10_000, train_questions=20_000),
}
"""By the size of the models that they are made for."""
