"""Rows of files as models read them: pictures that are decoded when asked for, texts that are tokens already.

Shape letters: B batch, K rows asked for, A answers, S pictures of a statement (1 or 2).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from vlpbench.archs.types import Batch, Text
from vlpbench.benchmarks.data.base import HypothesisBatch, QuestionBatch, StatementBatch
from vlpbench.benchmarks.data.rows import Asked, Claim, Entry, Row
from vlpbench.benchmarks.vqa_score import normaliser

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.benchmarks.data.photos import Photos
    from vlpbench.benchmarks.data.tokens import Encoded

    Encode = Callable[[Sequence[str]], Encoded]

WORTH = (0.0, 0.3, 0.6, 0.9, 1.0)
"""Of an answer that so many of ten people gave, four and more alike: what the official accuracy gives it on average."""


class FileRows:
    """What all sets share: texts, the pictures of each row, and reading them ahead."""

    def __init__(self, photos: Photos, rows: Sequence[Row], encoded: Encoded) -> None:
        """Takes rows of one text each; ``photos`` holds the pictures of all, in the order of `pictures_of`."""
        self.photos, self.rows, self.encoded = photos, rows, encoded
        place = {picture: number for number, picture in enumerate(photos.pictures)}
        self.shown = np.array([[place[name] for name in row.pictures] for row in rows], np.int64)
        """(rows, S) numbers of photos."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def hash(self) -> str:
        """SHA-256 over names, words and labels; those of the pictures' bytes are in the source's."""
        return digest_rows(self.rows)

    def text(self, rows: np.ndarray) -> Text:
        """The texts of these rows."""
        import torch

        return Text(ids=torch.from_numpy(self.encoded.ids[rows]), mask=torch.from_numpy(self.encoded.mask[rows]))

    def images(self, rows: np.ndarray) -> Tensor:
        """(S * K, 3, H, W) float32: the first pictures of all rows, then the second ones."""
        return self.photos.batch(self._pictures(rows))

    def expecting(self, rows: Iterable[np.ndarray], workers: int) -> AbstractContextManager[None]:
        """See `vlpbench.benchmarks.data.ahead.Readable`."""
        return self.photos.expecting((self._pictures(some) for some in rows), workers)

    def _pictures(self, rows: np.ndarray) -> np.ndarray:
        return self.shown[rows].T.ravel()


class FileCaptions:
    """Pictures with one or more captions each: both the pairs and the gallery of a split."""

    def __init__(self, photos: Photos, entries: Sequence[Entry], encode: Encode) -> None:
        """Takes one entry a picture."""
        self.photos, self.entries = photos, entries
        self.encoded = encode([text for entry in entries for text in entry.captions])
        self.owner = np.repeat(np.arange(len(entries)), [len(entry.captions) for entry in entries])
        self.images, self.texts = len(entries), len(self.owner)

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

    def expecting(self, rows: Iterable[np.ndarray], workers: int) -> AbstractContextManager[None]:
        """See `vlpbench.benchmarks.data.ahead.Readable`."""
        return self.photos.expecting((self.owner[some] for some in rows), workers)

    def expecting_images(self, rows: Iterable[np.ndarray], workers: int) -> AbstractContextManager[None]:
        """The same for `image_batch`."""
        return self.photos.expecting(rows, workers)


class Fold:
    """Consecutive pictures of a gallery with their texts."""

    def __init__(self, whole: FileCaptions, start: int, images: int) -> None:
        """Takes the number of the first picture, and how many there are."""
        self._whole, self._start = whole, start
        self._texts = np.flatnonzero((whole.owner >= start) & (whole.owner < start + images))
        self.owner = whole.owner[self._texts] - start
        self.images, self.texts = images, len(self._texts)

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """(K, 3, H, W) float32."""
        return self._whole.image_batch(rows + self._start)

    def text_batch(self, rows: np.ndarray) -> Text:
        """The captions of these rows."""
        return self._whole.text_batch(self._texts[rows])


class FileQuestions(FileRows):
    """Questions about pictures, with what each answer of the list is worth."""

    binding: frozenset[str] = frozenset()

    def __init__(self, photos: Photos, rows: Sequence[Asked], encoded: Encoded, answers: Sequence[str]) -> None:
        """Takes the closed list of answers."""
        super().__init__(photos, rows, encoded)
        self.asked, self.answers = rows, tuple(answers)
        self.kinds, self.kind = numbered([row.kind for row in rows])
        place = {answer: number for number, answer in enumerate(self.answers)}
        self._worth = [{place[a]: w for a, w in worths(row).items() if a in place} for row in rows]
        self.best = np.array([max(some, key=lambda a: (some[a], -a)) if some else -1 for some in self._worth], np.int64)
        """(rows,) the answer of the list that is worth most; -1 where none is worth anything."""

    def batch(self, rows: np.ndarray) -> QuestionBatch:
        """``sample_id`` is the row."""
        import torch

        worth = torch.zeros(len(rows), len(self.answers))
        for line, row in zip(worth, rows.tolist(), strict=True):
            for answer, value in self._worth[row].items():
                line[answer] = value
        return QuestionBatch(
            image=self.images(rows),
            question=self.text(rows),
            answer=torch.from_numpy(self.best[rows]),
            sample_id=torch.from_numpy(np.asarray(rows, np.int64)),
            worth=worth if any(len(row.answers) > 1 for row in self.asked) else None,
        )

    def annotations(self) -> list[dict[str, Any]]:
        """See `vlpbench.benchmarks.data.scored.Answered`."""
        return [row.annotation() for row in self.asked]


class FileStatements(FileRows):
    """Statements about two pictures or one, true or false."""

    labels = ("false", "true")

    def __init__(self, photos: Photos, rows: Sequence[Claim], encoded: Encoded) -> None:
        """Takes claims of one number of pictures."""
        super().__init__(photos, rows, encoded)
        self.sides = len(rows[0].pictures)
        self.label = np.array([self.labels.index(row.label) for row in rows], np.int64)
        self.kinds, self.kind = numbered([row.kind for row in rows])
        self.group = numbered([row.group or f"\0{place}" for place, row in enumerate(rows)])[1]

    def batch(self, rows: np.ndarray) -> StatementBatch:
        """``sample_id`` is the row."""
        import torch

        images = self.images(rows)
        return StatementBatch(
            left=images[: len(rows)],
            right=images[len(rows) :] if self.sides > 1 else None,
            statement=self.text(rows),
            label=torch.from_numpy(self.label[rows]),
            sample_id=torch.from_numpy(np.asarray(rows, np.int64)),
        )


class FileHypotheses(FileRows):
    """Hypotheses about a picture."""

    labels = ("entailment", "neutral", "contradiction")

    def __init__(self, photos: Photos, rows: Sequence[Claim], encoded: Encoded) -> None:
        """Takes claims about one picture each."""
        super().__init__(photos, rows, encoded)
        self.label = np.array([self.labels.index(row.label) for row in rows], np.int64)
        self.kinds, self.kind = numbered([row.kind for row in rows])

    def batch(self, rows: np.ndarray) -> HypothesisBatch:
        """``sample_id`` is the row."""
        import torch

        return HypothesisBatch(
            image=self.images(rows),
            hypothesis=self.text(rows),
            label=torch.from_numpy(self.label[rows]),
            sample_id=torch.from_numpy(np.asarray(rows, np.int64)),
        )


normalised: Callable[[str], str] = lru_cache(maxsize=2**16)(normaliser("official"))
"""An answer as the official evaluation compares it."""


def worths(row: Asked) -> Mapping[str, float]:
    """What the normalised answers to a question are worth: 1 where there is one, `WORTH` of ten people's."""
    given = Counter(normalised(answer) for answer in row.answers)
    if len(row.answers) == 1:
        return dict.fromkeys(given, 1.0)
    return {answer: WORTH[min(count, len(WORTH) - 1)] for answer, count in given.items()}


def answer_list(rows: Iterable[Asked], least: int) -> tuple[str, ...]:
    """The normalised answers that ``least`` questions have as theirs, the commonest first, then by the alphabet."""
    found = Counter(normalised(row.chosen or row.answers[0]) for row in rows if row.answers)
    kept = [answer for answer, count in found.items() if count >= least and answer]
    return tuple(sorted(kept, key=lambda answer: (-found[answer], answer)))


def numbered(names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The names that occur, sorted, and the number of each (rows,) int64."""
    known = tuple(sorted(set(names)))
    place = {name: number for number, name in enumerate(known)}
    return known, np.array([place[name] for name in names], np.int64)


def digest_rows(rows: Sequence[Row]) -> str:
    """SHA-256 over all that rows say."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps([getattr(row, name) for name in row.__slots__]).encode())
    return found.hexdigest()
