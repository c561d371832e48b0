"""Opens a data set of the catalogue as a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlpbench.archs.inputs import HALF, Pixels
from vlpbench.archs.registry import UnknownName, nearest
from vlpbench.benchmarks.data.catalogue import SourceSpec, catalogue, folder_of, locate
from vlpbench.benchmarks.data.files import CLASSES, FileSource, cleaned
from vlpbench.benchmarks.data.images import preset_of
from vlpbench.benchmarks.data.options import DataOptions
from vlpbench.benchmarks.data.preparation import SIDES, Preparation
from vlpbench.benchmarks.data.shard_pairs import ShardSource
from vlpbench.benchmarks.data.vocabulary import KnownWords

if TYPE_CHECKING:
    from vlpbench.benchmarks.data.base import Source

DRAWN = Pixels(fit="squash", statistics=HALF)
"""Of pictures that are drawn: all of them, out of shape, to [-1, 1]."""
SIDE = 224
"""Of a drawn picture, at sizes that `SIDES` does not name."""


def open_files(
    name: str,
    *,
    folder: Path | None,
    options: DataOptions,
    prepare: Callable[[Path], Preparation],
    size: str,
    image: tuple[int, int] | None = None,
    text_len: int | None = None,
) -> Source:
    """Opens a data set in the user's files.

    Args:
        name: in the catalogue.
        folder: of the data set; None for that of its name below the data root.
        options: the user's.
        prepare: folder -> pixels and tokens of the architecture. Where the data are drawn theirs are used instead.
        size: of the model.
        image: H, W that are asked for.
        text_len: tokens that are asked for.

    Raises:
        DataError: for a folder that is not there.
    """
    spec = catalogue()[name]
    where = folder_of(spec, None) if folder is None else folder

    def of_architecture() -> Preparation:
        return cleaned(prepare(where), options.clean)

    def of_source(source: FileSource) -> Preparation:
        return _drawn(source, spec, size, image, text_len) if spec.drawn else of_architecture()

    if spec.kind == "shards":
        tested = _beside(_captions(options.tested_on), where, options, of_source) if options.tested_on else None
        return ShardSource(name, where, options, of_architecture, tested)
    other = _beside(catalogue()[spec.beside], where, options, of_source) if spec.beside else None
    return CLASSES[spec.kind](locate(spec, where), options, of_source, other)


def _captions(name: str) -> SourceSpec:
    known = [spec.name for spec in catalogue().values() if spec.kind == "captions"]
    if name not in known:
        raise UnknownName(nearest("data set with captions", name, known))
    return catalogue()[name]


def _beside(
    other: SourceSpec, folder: Path, options: DataOptions, prepare: Callable[[FileSource], Preparation]
) -> FileSource:
    return CLASSES[other.kind](locate(other, folder.parent / other.folder), options, prepare)


def _drawn(
    source: FileSource, spec: SourceSpec, size: str, image: tuple[int, int] | None, text_len: int | None
) -> Preparation:
    side = SIDES.get(size, SIDE)
    return Preparation(
        preset=preset_of(DRAWN, image or (side, side * spec.wide)),
        tokenizer=KnownWords(text for row in source.rows("train") for text in row.texts),
        text_len=min(text_len or spec.text_len, spec.text_len),
    )
