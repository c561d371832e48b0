"""Picture files of a data set, decoded when they are read, ahead of it where that pays, and never from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from vlpbench.benchmarks.data.ahead import Ahead
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.faults import Fault
from vlpbench.benchmarks.data.images import ImagePreset, decode, fit, normalise
from vlpbench.benchmarks.data.readers.reading import inside

if TYPE_CHECKING:
    from torch import Tensor

    Cut = Callable[[Image.Image], Image.Image]
    """What is done to a decoded picture before it is brought to size."""

CACHE_BYTES = 2**30
"""Decoded pictures that a source keeps; beyond it they are decoded anew each time."""


class Photos:
    """Pictures of a folder by number."""

    def __init__(self, folder: Path, pictures: Sequence[str], how: ImagePreset, cut: Cut | None = None) -> None:
        """Takes the names of the pictures below the folder; nothing is read yet."""
        self.folder, self.pictures, self.how, self.cut = folder, tuple(pictures), how, cut
        self._kept: dict[int, np.ndarray] = {}
        self._ahead: Ahead | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def path(self, number: int) -> Path:
        """The file of a picture.

        Raises:
            DataError: for one that leads out of the folder.
        """
        try:
            return inside(self.folder, self.pictures[number])
        except Fault as fault:
            raise DataError(f"{self.folder} {fault}") from None

    def picture(self, number: int) -> np.ndarray:
        """(3, h, w) uint8, as `fit` makes it."""
        if number in self._kept:
            return self._kept[number]
        image = decode(self.path(number))
        pixels = fit(image if self.cut is None else self.cut(image), self.how)
        if (len(self._kept) + 1) * pixels.nbytes <= CACHE_BYTES:
            self._kept[number] = pixels
        return pixels

    def batch(self, rows: np.ndarray) -> Tensor:
        """(B, 3, H, W) float32, 0 where a picture does not fill the canvas."""
        pixels, extents = self.pixels(rows) if self._ahead is None else self._ahead.take(rows)
        return normalise(pixels, self.how, extents)

    def pixels(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) uint8 and the (B, 2) rows and columns of it that each picture fills."""
        found = [self.picture(number) for number in rows.tolist()]
        canvas = np.zeros((len(found), 3, *self.how.size), np.uint8)
        for place, pixels in zip(canvas, found, strict=True):
            place[:, : pixels.shape[1], : pixels.shape[2]] = pixels
        return canvas, np.array([pixels.shape[1:] for pixels in found], np.int64).reshape(-1, 2)

    @contextmanager
    def expecting(self, rows: Iterable[np.ndarray], workers: int) -> Iterator[None]:
        """See `vlpbench.benchmarks.data.ahead.Readable`. Pictures that are all kept are not read ahead."""
        if workers == 0 or len(self._kept) == len(self) or self._ahead is not None:
            yield
            return
        with Ahead(self.pixels, rows, workers) as ahead:
            self._ahead = ahead
            try:
                yield
            finally:
                self._ahead = None


def boxes(image: Image.Image) -> Image.Image:
    """A picture of NLVR, 400 x 100, without the two grey bars of 50 between its boxes; others stay as they are."""
    if image.size != (400, 100):
        return image
    whole = Image.new("RGB", (300, 100))
    for place in range(3):
        whole.paste(image.crop((150 * place, 0, 150 * place + 100, 100)), (100 * place, 0))
    return whole
