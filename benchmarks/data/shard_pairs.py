"""Pairs in tar shards as a source to train on. The order of an epoch goes shard by shard, both at random.

Which samples a batch holds follows from (seed, epoch) alone, so a training that was killed goes on at its very sample,
and opens no shard before the one that it stopped in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from vlpbench.archs.types import Batch, Text
from vlpbench.benchmarks.data.ahead import Ahead
from vlpbench.benchmarks.data.base import DataError, Geometry
from vlpbench.benchmarks.data.faults import Faults
from vlpbench.benchmarks.data.images import decode, fit, normalise
from vlpbench.benchmarks.data.readers.shards import Shard, shards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vlpbench.benchmarks.data.base import Gallery, Questions
    from vlpbench.benchmarks.data.files import FileSource
    from vlpbench.benchmarks.data.options import DataOptions
    from vlpbench.benchmarks.data.preparation import Preparation


class ShardPairs:
    """All samples of all shards, numbered shard after shard."""

    def __init__(self, found: list[Shard], preparation: Preparation, faults: Faults) -> None:
        """Takes shards that hold one sample or more each."""
        self.shards, self.preparation, self.faults = found, preparation, faults
        self.ends = np.cumsum([len(shard.keys) for shard in found])
        self._ahead: Ahead | None = None

    def __len__(self) -> int:
        return int(self.ends[-1])

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Shards in random order, and the samples of each in random order."""
        parts = [
            rng.permutation(np.arange(end - len(s.keys), end)) for s, end in zip(self.shards, self.ends, strict=True)
        ]
        return np.concatenate([parts[place] for place in rng.permutation(len(parts))])

    def batch(self, rows: np.ndarray) -> Batch:
        """``sample_id`` is the sample."""
        import torch

        pixels, extents, captions = self.read(rows) if self._ahead is None else self._ahead.take(rows)
        encoded = self.preparation.captions(captions)
        return Batch(
            image=normalise(pixels, self.preparation.preset, extents),
            text=Text(ids=torch.from_numpy(encoded.ids), mask=torch.from_numpy(encoded.mask)),
            sample_id=torch.from_numpy(np.asarray(rows, np.int64)),
        )

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(B, 3, H, W) uint8, the (B, 2) rows and columns of it that each picture fills, and the captions."""
        canvas = np.zeros((len(rows), 3, *self.preparation.preset.size), np.uint8)
        extents, captions = np.zeros((len(rows), 2), np.int64), [""] * len(rows)
        number = np.searchsorted(self.ends, rows, side="right")
        for shard in np.unique(number).tolist():
            with self.shards[shard].path.open("rb") as file:
                for place in np.flatnonzero(number == shard).tolist():
                    pixels, captions[place] = self._sample(shard, int(rows[place]), file)
                    extents[place] = pixels.shape[1:]
                    canvas[place, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        return canvas, extents, captions

    def expecting(self, rows: Iterable[np.ndarray], workers: int) -> AbstractContextManager[None]:
        """See `vlpbench.benchmarks.data.ahead.Readable`."""
        return self._expecting(rows, workers)

    @contextmanager
    def _expecting(self, rows: Iterable[np.ndarray], workers: int) -> Iterator[None]:
        if workers == 0 or self._ahead is not None:
            yield
            return
        with Ahead(self.read, rows, workers) as ahead:
            self._ahead = ahead
            try:
                yield
            finally:
                self._ahead = None

    def _sample(self, shard: int, row: int, file: Any) -> tuple[np.ndarray, str]:
        """A sample; where its picture is broken and faults are skipped, the next of the shard that is not."""
        found = self.shards[shard]
        count = len(found.keys)
        first = row - (int(self.ends[shard]) - count)
        for place in ((first + step) % count for step in range(count)):
            name = found.path / found.keys[place]
            try:
                image = decode(name, content=found.picture(file, place))
            except DataError as error:
                self.faults.found("unreadable picture", str(name), f"has no picture that can be used ({error})")
            else:
                return fit(image, self.preparation.preset), found.caption(file, place)
        raise DataError(f"{found.path} holds no picture that can be read: fetch the shard again")


class ShardSource:
    """A folder of shards: one split, ``train``. Galleries are those of the data set that it is tested on, if any."""

    def __init__(
        self,
        name: str,
        folder: Path,
        options: DataOptions,
        prepare: Callable[[], Preparation],
        tested: FileSource | None = None,
    ) -> None:
        """Nothing is read yet; what it is ``tested`` on is prepared alike."""
        self.name, self.folder, self.tested = name, folder, tested
        self.faults = Faults(policy=options.faulty)
        self._prepare = prepare

    @cached_property
    def preparation(self) -> Preparation:
        """How texts and pictures are read."""
        return self._prepare()

    @property
    def geometry(self) -> Geometry:
        """What a model must be built with."""
        return self.preparation.geometry()

    @cached_property
    def _shards(self) -> list[Shard]:
        found = [shard for shard in shards(self.folder, self.faults) if shard.keys]
        if not found:
            raise DataError(f"no shard of {self.folder} holds a sample; left out: {dict(self.faults.counts)}")
        return found

    @property
    def hash(self) -> str:
        """SHA-256 over names and sizes of shards, and over which samples of them are used and where they lie."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        found = hashlib.sha256((self.tested.hash if self.tested else "").encode())
        for shard in self._shards:
            found.update(f"{shard.path.name} {shard.path.stat().st_size}".encode())
            found.update(repr((shard.keys, shard.pictures, shard.captions)).encode("utf-8", "surrogateescape"))
        return found.hexdigest()

    @cached_property
    def _pairs(self) -> ShardPairs:
        return ShardPairs(self._shards, self.preparation, self.faults)

    def pairs(self, split: str) -> ShardPairs:
        """A row for every sample."""
        if split != "train":
            raise DataError(f"{self.name} has no split {split!r}: shards are there to train on")
        return self._pairs

    def gallery(self, name: str = "test") -> Gallery:
        """Raises `DataError` where it is tested on nothing."""
        if self.tested is None:
            raise DataError(
                f"{self.name} has no gallery {name!r}: shards are there to train on; name a data set to test on, as in "
                "data_options = { tested_on = 'coco' }"
            )
        return self.tested.gallery(name)

    def galleries(self) -> Mapping[str, str]:
        """Those of the data set that it is tested on."""
        return {} if self.tested is None else self.tested.galleries()

    def questions(self, split: str) -> Questions:
        """Raises `DataError`."""
        raise DataError(f"{self.name} has no questions {split!r}: shards are there to train on")

    def left_out(self) -> Mapping[str, Any]:
        """See `vlpbench.benchmarks.data.faults.Sifted`; of what was read so far, here and not in processes ahead."""
        return dict(self.tested.left_out() if self.tested else {}) | self.faults.left_out()
