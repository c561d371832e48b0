"""Data sources by name. Listing the names imports neither torch nor numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from vlpbench.archs.inputs import DEFAULT, Inputs
from vlpbench.archs.registry import UnknownName, nearest
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.data.catalogue import FOLDER_VARIABLE, catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vlpbench.benchmarks.data.base import Source

    Options = Mapping[str, str | int] | tuple[tuple[str, Any], ...]

__all__ = ["FOLDER_VARIABLE", "REGIONS", "SOURCES", "names", "open_source"]

SOURCES: dict[str, str] = {
    "scenes": "generated pictures of coloured shapes: captions, questions, galleries, foils; no download",
    "scenes-few": "scenes with 6,000 training images and one caption each: many epochs, in which noise is memorised",
}
"""Name -> what it is, of those that are generated."""
FEW = 6_000
REGIONS: dict[str, Literal["", "known", "detected"]] = {"pixels": "", "regions": "known", "detected": "detected"}
"""What models read of an image -> whose boxes it comes in."""


def names() -> list[str]:
    """All registered sources: those that are generated, then those of the catalogue."""
    return [*SOURCES, *catalogue()]


def open_source(
    name: str,
    *,
    size: str = "small",
    noise: float = 0.0,
    seed: int = 0,
    root: Path | None = None,
    reads: str = "pixels",
    inputs: Inputs = DEFAULT,
    image: tuple[int, int] | None = None,
    text_len: int | None = None,
    options: Options = (),
) -> Source:
    """Opens a data source.

    Args:
        name: one of `names`.
        size: which size of the data, named after the size of the models that it suits.
        noise: share of training captions that are corrupted; of generated data only.
        seed: of a generated training set; what is evaluated on does not depend on it.
        root: folder of the files of a data set that the user brings; that of its name below the data root where None.
            See docs/data.md and `vlpbench.benchmarks.data.preparation`.
        reads: what models read of an image, see `REGIONS`.
        inputs: how files become pixels and tokens: `ArchSpec.inputs` of the architecture.
        image: H, W of what is read from files; None for the size's own.
        text_len: tokens of a text that is read from files; None for the architecture's own.
        options: how files are read: fields of `vlpbench.benchmarks.data.options.DataOptions` and their values.

    Raises:
        UnknownName: for an unknown source or size, with the nearest one.
        DataError: for files that are absent or of no use.
        Unsupported: for regions of a source that knows no boxes.
    """
    if name not in names():
        raise UnknownName(nearest("data source", name, names()))
    if name in SOURCES:
        if options:
            raise Unsupported(f"{name} is generated and has no files, so data_options have no meaning: leave them out")
        return _open_scenes(name, size, noise, seed, reads)
    if reads != "pixels":
        raise Unsupported(f"{name} has pixels and no boxes, and the architecture reads {reads}; take data = 'scenes'")
    return _open_files(name, noise, root, options, size, inputs, image, text_len)


def _open_scenes(name: str, size: str, noise: float, seed: int, reads: str) -> Source:
    from dataclasses import replace

    from vlpbench.benchmarks.data.scenes import CONFIGS, Scenes

    if size not in CONFIGS:
        raise UnknownName(nearest(f"size of {name}", size, list(CONFIGS)))
    config = replace(CONFIGS[size], noise=noise, seed=seed)
    if name == "scenes-few":
        config = replace(config, train_images=min(FEW, config.train_images), captions=1)
    return Scenes(config, name=name, regions=REGIONS[reads])


def _open_files(
    name: str,
    noise: float,
    folder: Path | None,
    options: Options,
    size: str,
    inputs: Inputs,
    image: tuple[int, int] | None,
    text_len: int | None,
) -> Source:
    from vlpbench.benchmarks.data.base import DataError
    from vlpbench.benchmarks.data.opening import open_files
    from vlpbench.benchmarks.data.options import options_of
    from vlpbench.benchmarks.data.preparation import prepare

    if noise:
        raise DataError(f"{name} is not generated, so its captions cannot be corrupted: noise must be 0, not {noise}")
    return open_files(
        name,
        folder=folder,
        options=options_of(options),
        prepare=lambda where: prepare(inputs, size=size, folder=where, image=image, text_len=text_len),
        size=size,
        image=image,
        text_len=text_len,
    )
