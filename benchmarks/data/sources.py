"""Data sources by name. Listing the names imports neither torch nor numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlpbench.archs.registry import UnknownName, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from vlpbench.benchmarks.data.base import Source

SOURCES: dict[str, str] = {
    "scenes": "generated pictures of coloured shapes: captions, questions, galleries, foils; no download",
    "scenes-few": "scenes with 6,000 training images and one caption each: many epochs, in which noise is memorised",
}
"""Name -> what it is."""
FEW = 6_000


def names() -> list[str]:
    """All registered sources."""
    return list(SOURCES)


def open_source(
    name: str, *, size: str = "small", noise: float = 0.0, seed: int = 0, root: Path | None = None
) -> Source:
    """Opens a data source.

    Args:
        name: one of `names`.
        size: which size of the data, named after the size of the models that it suits.
        noise: share of training captions that are corrupted.
        seed: of the training set; what is evaluated on does not depend on it.
        root: folder of the files of a source that has files.

    Raises:
        UnknownName: for an unknown source or size, with the nearest one.
    """
    if name not in SOURCES:
        raise UnknownName(nearest("data source", name, names()))
    return _open_scenes(name, size, noise, seed)


def _open_scenes(name: str, size: str, noise: float, seed: int) -> Source:
    from dataclasses import replace

    from vlpbench.benchmarks.data.scenes import CONFIGS, Scenes

    if size not in CONFIGS:
        raise UnknownName(nearest(f"size of {name}", size, list(CONFIGS)))
    config = replace(CONFIGS[size], noise=noise, seed=seed)
    if name == "scenes-few":
        few = min(FEW, config.train_images)
        config = replace(config, train_images=few, captions=1)
    return Scenes(config, name=name)
