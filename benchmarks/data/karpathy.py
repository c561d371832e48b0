"""Reader of Karpathy-split JSON (Flickr8k, Flickr30k, COCO captions; arXiv:1412.2306) with the pictures beside it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from vlpbench.archs.types import Batch, Text
from vlpbench.benchmarks.data.annotations import Entry, Faults, read_annotations
from vlpbench.benchmarks.data.base import DataError, Geometry
from vlpbench.benchmarks.data.cleaning import clean_caption
from vlpbench.benchmarks.data.images import ImagePreset, decode, fit, normalise

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.benchmarks.data.base import Questions
    from vlpbench.benchmarks.data.tokens import Encoded, Tokenizer

CACHE_BYTES = 2**30
"""Decoded pictures that a source keeps; beyond it they are decoded anew each time."""
_NAMES = 5
"""Missing pictures that a message lists."""


class Photos:
    """Pictures of a list of entries, decoded when they are read."""

    def __init__(self, folder: Path, entries: list[Entry], how: ImagePreset) -> None:
        self.folder, self.entries, self.how = folder, entries, how
        self._kept: dict[int, np.ndarray] = {}

    def path(self, number: int) -> Path:
        """The file of an entry."""
        return self.folder / self.entries[number].picture

    def picture(self, number: int) -> np.ndarray:
        """(3, H, W) uint8."""
        if number in self._kept:
            return self._kept[number]
        pixels = fit(decode(self.path(number)), self.how)
        if (len(self._kept) + 1) * pixels.nbytes <= CACHE_BYTES:
            self._kept[number] = pixels
        return pixels

    def batch(self, rows: np.ndarray) -> Tensor:
        """(B, 3, H, W) float32."""
        return normalise(np.stack([self.picture(number) for number in rows.tolist()]), self.how)


class Captioned:
    """Pictures with one or more captions each: both the pairs and the gallery of a split."""

    def __init__(self, photos: Photos, encoded: Encoded, owner: np.ndarray) -> None:
        self.photos, self.encoded, self.owner = photos, encoded, owner
        self.images, self.texts = len(photos.entries), len(owner)

    def __len__(self) -> int:
        return self.texts

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """(K, 3, H, W) float32."""
        return self.photos.batch(rows)

    def text_batch(self, rows: np.ndarray) -> Text:
        """The captions of these rows."""
        import torch

        return Text(ids=torch.from_numpy(self.encoded.ids[rows]), mask=torch.from_numpy(self.encoded.mask[rows]))

    def batch(self, rows: np.ndarray) -> Batch:
        """Captions with their pictures; ``sample_id`` is the picture."""
        import torch

        owner = self.owner[rows]
        return Batch(image=self.photos.batch(owner), text=self.text_batch(rows), sample_id=torch.from_numpy(owner))

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """A random permutation."""
        return rng.permutation(len(self))


@dataclass(frozen=True, kw_only=True)
class KarpathyConfig:
    """Where the files are and how they are read."""

    annotations: Path
    images: Path
    """Folder that ``filepath`` and ``filename`` are relative to."""
    preset: ImagePreset
    text_len: int = 30
    captions: Literal["five", "all"] = "five"
    """Of a picture: the first five, or all there are (COCO has up to seven)."""
    clean: int | None = None
    """Words that a caption keeps once `clean_caption` took its punctuation; ALBEF keeps 30. None leaves captions be."""
    faulty: Literal["skip", "fail"] = "fail"
    """What to do with an entry or a picture that cannot be used. ``skip`` decodes a whole split when it is opened."""


class Karpathy:
    """A data source over a Karpathy-split file; splits ``train`` (with ``restval``), ``val`` and ``test``."""

    def __init__(self, config: KarpathyConfig, tokenizer: Tokenizer, *, name: str = "karpathy") -> None:
        """Reads the annotations; pictures are read later.

        Raises:
            DataError: see `read_annotations`.
        """
        self.name, self.config, self.tokenizer = name, config, tokenizer
        self.faults = Faults(policy=config.faulty, counts=Counter())
        """What was left out so far."""
        self._entries = read_annotations(config.annotations, captions=config.captions, faults=self.faults)
        self._splits: dict[str, Captioned] = {}
        self._hash: str | None = None
        self.geometry = Geometry(
            image=config.preset.size,
            text_len=config.text_len,
            vocab_size=tokenizer.vocab_size,
            pad=tokenizer.pad,
            cls=tokenizer.cls,
            sep=tokenizer.sep,
            mask=-1 if tokenizer.mask is None else tokenizer.mask,
        )

    def pairs(self, split: str) -> Captioned:
        """A row for every caption."""
        return self._open(split)

    def gallery(self, name: str = "test") -> Captioned:
        """All pictures and captions of a split."""
        return self._open(name)

    def galleries(self) -> Mapping[str, str]:
        """Splits that hold pictures."""
        counts = Counter(entry.split for entry in self._entries)
        which = "first five captions" if self.config.captions == "five" else "all captions"
        return {split: f"{counts[split]} pictures with the {which} of each" for split in sorted(counts)}

    def questions(self, split: str) -> Questions:
        """Raises `DataError`: a caption data set asks nothing."""
        raise DataError(f"{self.name} holds captions and no questions, so none in {split!r}: use it for retrieval")

    @property
    def hash(self) -> str:
        """SHA-256 over names, captions, preprocessing, the bytes of test pictures and the sizes of all others."""
        if self._hash is None:
            described = [
                repr(self.config.preset),
                self.config.text_len,
                self.config.captions,
                self.tokenizer.vocab_size,
                *(() if self.config.clean is None else (self.config.clean,)),
            ]
            digest = hashlib.sha256(json.dumps(described).encode())
            for split in sorted(self.galleries()):
                photos = self._open(split).photos
                for number, entry in enumerate(photos.entries):
                    path = photos.path(number)
                    content = path.read_bytes() if split == "test" else str(path.stat().st_size).encode()
                    line = json.dumps([entry.picture, split, entry.captions, hashlib.sha256(content).hexdigest()])
                    digest.update(line.encode())
            self._hash = digest.hexdigest()
        return self._hash

    def _open(self, split: str) -> Captioned:
        if split not in self._splits:
            entries = [entry for entry in self._entries if entry.split == split]
            entries = self._usable(entries)
            if not entries:
                there = ", ".join(f"{name} ({text.split()[0]})" for name, text in self.galleries().items()) or "none"
                raise DataError(
                    f"{self.config.annotations}: split {split!r} is empty; splits with pictures: {there}"
                    + (f"; left out: {dict(self.faults.counts)}" if self.faults.counts else "")
                )
            texts = [text for entry in entries for text in entry.captions]
            owner = np.repeat(np.arange(len(entries)), [len(entry.captions) for entry in entries])
            if self.config.clean is not None:
                texts = [clean_caption(text, self.config.clean) for text in texts]
            encoded = self.tokenizer.encode(texts, self.config.text_len)
            self._splits[split] = Captioned(Photos(self.config.images, entries, self.config.preset), encoded, owner)
        return self._splits[split]

    def _usable(self, entries: list[Entry]) -> list[Entry]:
        absent = {entry.picture: None for entry in entries if not (self.config.images / entry.picture).is_file()}
        if absent and self.config.faulty == "fail":
            raise DataError(
                f"{len(absent)} of {len(entries)} pictures that {self.config.annotations} names are not in "
                f"{self.config.images}, e.g. {', '.join(list(absent)[:_NAMES])}: fetch them or give the right folder, "
                "or leave such entries out with faulty='skip'"
            )
        if absent:
            self.faults.counts["no picture"] += len(absent)
        found = [entry for entry in entries if entry.picture not in absent]
        if self.config.faulty == "fail":
            return found
        return [entry for entry in found if self._decodes(entry)]

    def _decodes(self, entry: Entry) -> bool:
        try:
            decode(self.config.images / entry.picture)
        except DataError:
            self.faults.counts["unreadable picture"] += 1
            return False
        return True
