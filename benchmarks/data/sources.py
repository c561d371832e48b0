"""Data sources by name. Listing the names imports neither torch nor numpy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vlpbench.archs.registry import UnknownName, nearest
from vlpbench.archs.types import Unsupported

if TYPE_CHECKING:
    from pathlib import Path

    from vlpbench.benchmarks.data.base import Source

SOURCES: dict[str, str] = {
    "scenes": "generated pictures of coloured shapes: captions, questions, galleries, foils; no download",
    "scenes-few": "scenes with 6,000 training images and one caption each: many epochs, in which noise is memorised",
    "flickr8k": "photos with five captions each; Karpathy split, your files",
    "flickr30k": "photos with five captions each; Karpathy split, your files",
    "coco": "photos, the first five captions of each; Karpathy split, your files",
}
"""Name -> what it is."""
FEW = 6_000
FOLDER_VARIABLE = "VLPBENCH_DATA"
"""Environment variable with the folder in which a source that has files has a folder of its name."""
_SIDES = {"tiny": 32, "small": 64, "medium": 128}
"""Side of photos by size of the models; 224 for all others."""


def names() -> list[str]:
    """All registered sources."""
    return list(SOURCES)


def open_source(
    name: str,
    *,
    size: str = "small",
    noise: float = 0.0,
    seed: int = 0,
    root: Path | None = None,
    reads: str = "pixels",
) -> Source:
    """Opens a data source.

    Args:
        name: one of `names`.
        size: which size of the data, named after the size of the models that it suits.
        noise: share of training captions that are corrupted; of generated data only.
        seed: of a generated training set; what is evaluated on does not depend on it.
        root: folder of the files of a source that has files; ``$VLPBENCH_DATA/<name>`` where None. It holds
            ``dataset_<name>.json`` (or has it in ``annotations/``), the pictures in ``images/`` (or in itself), and
            ``vocab.txt`` of BERT; without the latter texts are tokenized with CLIP's byte pairs.
        reads: what models read of an image, ``pixels`` or ``regions``: `ArchSpec.input` of the architecture.

    Raises:
        UnknownName: for an unknown source or size, with the nearest one.
        DataError: for files that are absent or of no use.
        Unsupported: for regions of a source that knows no boxes.
    """
    if name not in SOURCES:
        raise UnknownName(nearest("data source", name, names()))
    if name.startswith("scenes"):
        return _open_scenes(name, size, noise, seed, regions=reads == "regions")
    if reads != "pixels":
        raise Unsupported(f"{name} has pixels and no boxes, and the architecture reads {reads}; take data = 'scenes'")
    return _open_karpathy(name, size, noise, root)


def _open_scenes(name: str, size: str, noise: float, seed: int, *, regions: bool) -> Source:
    from dataclasses import replace

    from vlpbench.benchmarks.data.scenes import CONFIGS, Scenes

    if size not in CONFIGS:
        raise UnknownName(nearest(f"size of {name}", size, list(CONFIGS)))
    config = replace(CONFIGS[size], noise=noise, seed=seed)
    if name == "scenes-few":
        config = replace(config, train_images=min(FEW, config.train_images), captions=1)
    return Scenes(config, name=name, regions=regions)


def _open_karpathy(name: str, size: str, noise: float, root: Path | None) -> Source:
    from pathlib import Path

    from vlpbench.benchmarks.data.base import DataError
    from vlpbench.benchmarks.data.images import preset
    from vlpbench.benchmarks.data.karpathy import Karpathy, KarpathyConfig
    from vlpbench.benchmarks.data.tokens import BertTokenizer, ClipTokenizer

    if noise:
        raise DataError(f"{name} is not generated, so its captions cannot be corrupted: noise must be 0, not {noise}")
    if root is None:
        if not os.environ.get(FOLDER_VARIABLE):
            raise DataError(f"{name} needs its files: set {FOLDER_VARIABLE} to the folder that has them in {name}/")
        root = Path(os.environ[FOLDER_VARIABLE]) / name
    file = f"dataset_{name}.json"
    annotations = next((path for path in (root / file, root / "annotations" / file) if path.is_file()), root / file)
    images = root / "images"
    bert = (root / "vocab.txt").is_file()
    config = KarpathyConfig(
        annotations=annotations,
        images=images if images.is_dir() else root,
        preset=preset("squash" if bert else "crop", _SIDES.get(size, 224)),
        text_len=30 if bert else 77,
    )
    return Karpathy(config, BertTokenizer(root / "vocab.txt") if bert else ClipTokenizer(), name=name)
