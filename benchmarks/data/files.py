"""Data sets in the user's files as sources: rows of a reader, tokens and pixels as the architecture has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from vlpbench.benchmarks.data import photos as cuts
from vlpbench.benchmarks.data.base import DataError, Geometry
from vlpbench.benchmarks.data.faults import Faults
from vlpbench.benchmarks.data.filesets import (
    FileCaptions,
    FileHypotheses,
    FileQuestions,
    FileStatements,
    Fold,
    answer_list,
    digest_rows,
    normalised,
)
from vlpbench.benchmarks.data.photos import Photos
from vlpbench.benchmarks.data.readers.questions import answer_lines
from vlpbench.benchmarks.data.rows import Row, pictures_of
from vlpbench.benchmarks.data.sifting import usable

if TYPE_CHECKING:
    from pathlib import Path

    from vlpbench.benchmarks.data.base import Gallery, Pairs, Questions
    from vlpbench.benchmarks.data.catalogue import Located
    from vlpbench.benchmarks.data.options import DataOptions
    from vlpbench.benchmarks.data.preparation import Preparation

S = TypeVar("S")
FOLDS, FOLD = 5, 1_000
"""The "1K test" of COCO: the mean over five parts of its 5,000 test pictures."""
HASHED = 10_000
"""Test pictures whose bytes are hashed; of more than these, as of training pictures, the sizes are."""
USUAL = ("train", "val", "test")
LISTS = ("answer_list.json", "answers.txt")


class FileSource:
    """What sources over files share. Pairs, galleries and questions are refused by those that have none."""

    what = "samples"

    def __init__(
        self,
        located: Located,
        options: DataOptions,
        prepare: Callable[[FileSource], Preparation],
        other: FileSource | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            located: the data set in its folder.
            options: the user's.
            prepare: pixels and tokens; it may ask the source for the rows of its training set.
            other: where splits are taken from that this data set lacks; prepared alike.
        """
        self.name, self.located, self.options, self.other = located.spec.name, located, options, other
        self.faults = Faults(policy=options.faulty)
        self._prepare = prepare
        self._read: dict[str, Sequence[Row]] = {}
        self._rows: dict[str, Sequence[Row]] = {}
        self._sets: dict[str, Any] = {}

    @cached_property
    def preparation(self) -> Preparation:
        """How texts and pictures are read."""
        return self._prepare(self)

    @property
    def geometry(self) -> Geometry:
        """What a model must be built with."""
        return self.preparation.geometry()

    @property
    def splits(self) -> tuple[str, ...]:
        """Its own, and those of the data set beside it."""
        own = self.located.spec.splits
        return own if self.other is None else tuple(dict.fromkeys([*self.other.splits, *own]))

    def pairs(self, split: str) -> Pairs:
        """Raises `DataError` where there are no captions."""
        raise DataError(f"{self.name} holds {self.what} and no captions, so nothing to pre-train on: leave out budget")

    def gallery(self, name: str = "test") -> Gallery:
        """Raises `DataError` where there are no captions."""
        raise DataError(f"{self.name} holds {self.what} and no captions, so no gallery {name!r}")

    def galleries(self) -> Mapping[str, str]:
        """None."""
        return {}

    def questions(self, split: str) -> Questions:
        """Raises `DataError` where there are no questions."""
        raise DataError(f"{self.name} holds {self.what} and no questions, so none in {split!r}: use it for those")

    def left_out(self) -> Mapping[str, Any]:
        """See `vlpbench.benchmarks.data.faults.Sifted`; of what was opened so far."""
        return dict(self.other.left_out() if self.other else {}) | self.faults.left_out()

    def rows(self, split: str) -> Sequence[Row]:
        """The rows of a split that can be used.

        Raises:
            DataError: for an unknown or an empty split, and what a reader raises.
        """
        if split not in self._rows:
            rows = usable(self._reading(split), self.located.images, self.faults, self.located.spec.needs())
            if not rows:
                out = f"; left out: {dict(self.faults.counts)}" if self.faults.counts else ""
                there = ", ".join(f"{name} ({len(found)})" for name, found in self._read.items() if found) or "none"
                raise DataError(f"{self.name}: split {split!r} is empty; splits with samples: {there}{out}")
            self._rows[split] = rows
        return self._rows[split]

    @property
    def hash(self) -> str:
        """SHA-256 over rows, the bytes of test pictures and the sizes of all others.

        Not over preprocessing and tokens, which are the architecture's: all that read the same files are comparable.
        """
        return self._hash

    @cached_property
    def _hash(self) -> str:
        found = hashlib.sha256(json.dumps([self.name, self.options.captions]).encode())
        if self.other is not None:
            found.update(self.other.hash.encode())
        for split in self._present():
            rows = self.rows(split)
            pictures = pictures_of(rows)
            found.update(f"{split} {digest_rows(rows)}".encode())
            whole = split == "test" and len(pictures) <= HASHED
            for name in pictures:
                path = self.located.images / name
                found.update(hashlib.sha256(path.read_bytes()).digest() if whole else str(path.stat().st_size).encode())
        return found.hexdigest()

    def _reading(self, split: str) -> Sequence[Row]:
        if split not in self._read:
            found = self.located.read(split, self.options, self.faults)
            self._read |= {split: ()} | {name: rows for name, rows in found.items() if name not in self._read}
        return self._read[split]

    def _present(self) -> list[str]:
        """Those of the usual splits whose files are there and hold something."""
        spec = self.located.spec
        roles = {split: {f.role for f in spec.files if f.split == split} for split in USUAL if split in spec.splits}
        there = [split for split in roles if all(self.located.file(split, role) for role in roles[split])]
        return [split for split in there if self._reading(split)]

    def _open(self, split: str, make: Callable[[Photos, Sequence[Any]], S]) -> S:
        """The set of a split, made once."""
        if split not in self._sets:
            rows = self.rows(split)
            cut = getattr(cuts, self.located.spec.cut) if self.located.spec.cut else None
            photos = Photos(self.located.images, pictures_of(rows), self.preparation.preset, cut)
            self._sets[split] = make(photos, rows)
        return self._sets[split]

    def _elsewhere(self, split: str) -> bool:
        return self.other is not None and split not in self.located.spec.splits


class CaptionFiles(FileSource):
    """Pictures with captions; COCO's 5,000 test pictures are also five galleries of 1,000."""

    what = "captions"

    def pairs(self, split: str) -> FileCaptions:
        """A row for every caption."""
        if self.other is not None and self._elsewhere(split):
            return self.other.pairs(split)  # pyright: ignore[reportReturnType]  # of the same class
        return self._open(split, lambda photos, rows: FileCaptions(photos, rows, self.preparation.captions))

    def gallery(self, name: str = "test") -> FileCaptions | Fold:
        """All pictures and captions of a split; ``fold1`` to ``fold5`` are parts of ``test``."""
        if name not in self.galleries():
            raise DataError(f"{self.name} has no gallery {name!r}; it has {', '.join(self.galleries()) or 'none'}")
        if name.startswith("fold"):
            return Fold(self.pairs("test"), (int(name.removeprefix("fold")) - 1) * FOLD, FOLD)
        return self.pairs(name)

    def galleries(self) -> Mapping[str, str]:
        """Splits that hold pictures, and folds."""
        which = "the first five captions" if self.options.captions == "five" else "all captions"
        own = {split: len(self.rows(split)) for split in self._present() if split != "train"}
        found = {split: f"{count} pictures with {which} of each" for split, count in own.items()}
        if own.get("test") == FOLDS * FOLD:
            found |= {f"fold{n}": f"pictures {FOLD * (n - 1)} to {FOLD * n - 1} of test" for n in range(1, FOLDS + 1)}
        return found


class QuestionFiles(FileSource):
    """Questions with a closed list of answers. Training questions without an answer on the list are left out."""

    what = "questions"

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """From its file where there is one, else from the data; of the data set beside it where there is one."""
        if isinstance(self.other, QuestionFiles):
            return self.other.answers
        given = next((f for name in LISTS if (f := self.located.folder / name).is_file()), None)
        if given is not None:
            return _listed(given)
        spec, names = self.located.spec, [s for s in self.located.spec.list_from if s in self._present()]
        rows: list[Any] = [row for split in names for row in self.rows(split)]
        found = answer_list(rows, self.options.least or spec.least)
        if not found:
            raise DataError(
                f"{self.name}: no answer is that of {self.options.least or spec.least} questions; lower 'least'"
            )
        return found

    def questions(self, split: str) -> FileQuestions:
        """The questions of a split."""
        if self.other is not None and self._elsewhere(split):
            return self.other.questions(split)  # pyright: ignore[reportReturnType]
        return self._open(split, lambda photos, rows: self._asked(split, photos, rows))

    def _asked(self, split: str, photos: Photos, rows: Sequence[Any]) -> FileQuestions:
        whole = FileQuestions(photos, rows, self.preparation.questions([row.text for row in rows]), self.answers)
        if split != "train" or (whole.best >= 0).all():
            return whole
        kept = [row for row, best in zip(rows, whole.best.tolist(), strict=True) if best >= 0]
        return FileQuestions(photos, kept, self.preparation.questions([row.text for row in kept]), self.answers)


class StatementFiles(FileSource):
    """Statements about two pictures or one."""

    what = "statements"

    def reasoning(self, split: str) -> FileStatements:
        """The statements of a split."""
        if isinstance(self.other, StatementFiles) and self._elsewhere(split):
            return self.other.reasoning(split)
        encode = self.preparation.captions
        return self._open(split, lambda photos, rows: FileStatements(photos, rows, encode([row.text for row in rows])))


class HypothesisFiles(FileSource):
    """Hypotheses about a picture."""

    what = "hypotheses"

    def entailment(self, split: str) -> FileHypotheses:
        """The hypotheses of a split."""
        encode = self.preparation.captions
        return self._open(split, lambda photos, rows: FileHypotheses(photos, rows, encode([row.text for row in rows])))


CLASSES = {
    "captions": CaptionFiles,
    "questions": QuestionFiles,
    "statements": StatementFiles,
    "hypotheses": HypothesisFiles,
}
"""By kind of data set."""


def cleaned(preparation: Preparation, clean: str) -> Preparation:
    """With the cleaning that the user asks for; 30 words of a caption are kept, as in the releases that clean."""
    if clean == "architecture":
        return preparation
    return replace(preparation, clean="" if clean == "none" else clean, words=preparation.words or 30)


def _listed(path: Path) -> tuple[str, ...]:
    from vlpbench.benchmarks.data.jsonfiles import listed, read_json

    if path.suffix != ".json":
        found = answer_lines(path)
    else:
        what = "a list of answers"
        found = [text for text in listed(read_json(path, what), "", path, what) if isinstance(text, str) and text]
    if not found:
        raise DataError(f"{path} lists no answers; it should hold one or more")
    return tuple(dict.fromkeys(map(normalised, found)))
