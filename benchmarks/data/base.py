"""What every data source offers: image-text pairs to train on, galleries to search, questions with closed answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from vlpbench.archs.types import Batch, Text


class DataError(Exception):
    """Data that cannot be used. The message names the file, the entry and what to do; no traceback is shown for it."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a model must be built with to read a source's batches."""

    image: tuple[int, int]
    """Height, width in pixels."""
    text_len: int
    vocab_size: int
    pad: int
    cls: int
    sep: int | None
    mask: int
    """Token ids. ``sep`` is None where texts carry no end token; ``mask`` is -1 where the vocabulary knows none."""
    regions: int | None = None
    """R where images come as regions (B, R, F + 4), F the pixels of a box cut out; None where they come as pixels."""


@runtime_checkable
class Pairs(Protocol):
    """Matching image-text pairs, one row a caption."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> Batch:
        """The pairs of these rows (K,) int64, on the CPU, float32 normalised pixels."""
        ...

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All rows once, in a random order to train in: consecutive slices are the batches.

        A source may keep rows that are hard to tell apart next to one another, so that they meet in a batch.
        """
        ...


@runtime_checkable
class Gallery(Protocol):
    """N images and M texts with the known matches between them."""

    owner: np.ndarray
    """(M,) int64, the image that each text describes; an image may own several texts."""
    images: int
    texts: int

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """(K, 3, H, W), or (K, R, F + 4) of a source that gives regions."""
        ...

    def text_batch(self, rows: np.ndarray) -> Text:
        """(K,) rows -> their texts."""
        ...


@dataclass(frozen=True, kw_only=True)
class QuestionBatch:
    """Rows of a question set."""

    image: Tensor
    """(B, 3, H, W)."""
    question: Text
    answer: Tensor
    """(B,) int64 index into `Questions.answers`; -1 where none of them is right, or nobody gave one."""
    sample_id: Tensor
    """(B,) int64 row numbers."""
    worth: Tensor | None = None
    """(B, A) float32 in [0, 1], what each answer is worth; None where there is one right answer and the rest is wrong."""


@runtime_checkable
class Questions(Protocol):
    """Questions about images with answers from a closed list."""

    answers: tuple[str, ...]
    kinds: tuple[str, ...]
    """Names of the question types."""
    kind: np.ndarray
    """(rows,) int64 index into ``kinds``."""
    binding: frozenset[str]
    """Question types that need an attribute bound to the right object."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> QuestionBatch:
        """The questions of these rows (K,) int64."""
        ...


@runtime_checkable
class Answered(Protocol):
    """Questions to which several people gave an answer of their own, which need not be on the list."""

    def annotations(self) -> Sequence[Mapping[str, Any]]:
        """A row each, in the official form of VQA v2, as `vlpbench.benchmarks.vqa_score.vqa_score` takes them."""
        ...


@runtime_checkable
class Source(Protocol):
    """A data set, ready to be read. Splits are ``train``, ``val`` and ``test``; a source may have further galleries."""

    name: str
    geometry: Geometry

    @property
    def hash(self) -> str:
        """SHA-256 over the content: two accuracy records are comparable only where it agrees."""
        ...

    def pairs(self, split: str) -> Pairs:
        """Raises `DataError` for an unknown or empty split."""
        ...

    def gallery(self, name: str = "test") -> Gallery:
        """A gallery by name.

        Raises:
            DataError: for an unknown name, listing those there are.
        """
        ...

    def questions(self, split: str) -> Questions:
        """Raises `DataError` where the source has no questions."""
        ...

    def galleries(self) -> Mapping[str, str]:
        """Name -> one sentence on what it holds."""
        ...


@runtime_checkable
class FoilBatch(Protocol):
    """Pictures, a true statement of each, and false ones that differ from it by one swap."""

    @property
    def image(self) -> Tensor:
        """(B, 3, H, W)."""
        ...

    @property
    def true(self) -> Text:
        """B statements."""
        ...

    @property
    def false(self) -> Mapping[str, Text]:
        """B statements by kind of swap."""
        ...


@runtime_checkable
class Foils(Protocol):
    """The swap test: which of two statements of nearly the same words is true of the picture?"""

    kinds: tuple[str, ...]
    """Kinds of swap."""
    attributes: tuple[str, ...]
    """Those of them that swap an attribute between two objects."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> FoilBatch:
        """The pictures and statements of these rows (K,) int64."""
        ...


@runtime_checkable
class Swaps(Protocol):
    """A source that has a swap test."""

    def foils(self) -> Foils:
        """All of it."""
        ...


@dataclass(frozen=True, kw_only=True)
class StatementBatch:
    """Statements about two pictures each, or about one."""

    left: Tensor
    """(B, 3, H, W)."""
    right: Tensor | None
    """(B, 3, H, W); None where statements are about one picture, which is ``left``."""
    statement: Text
    label: Tensor
    """(B,) int64 index into `Statements.labels`."""
    sample_id: Tensor
    """(B,) int64 row numbers."""


@runtime_checkable
class Statements(Protocol):
    """Visual reasoning in the form of NLVR2: a statement is true or false of two pictures; NLVR has one."""

    sides: int
    """Pictures of a statement, 1 or 2."""
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    """Names of the kinds of statement."""
    kind: np.ndarray
    """(rows,) int64 index into ``kinds``."""

    @property
    def hash(self) -> str:
        """SHA-256 over the content."""
        ...

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> StatementBatch:
        """The statements of these rows (K,) int64."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """Statements that were each made about several pictures."""

    group: np.ndarray
    """(rows,) int64, equal for those that are one statement."""


@runtime_checkable
class Reasoning(Protocol):
    """A source that has statements about two pictures."""

    def reasoning(self, split: str) -> Statements:
        """Raises `DataError` for an unknown split."""
        ...


@dataclass(frozen=True, kw_only=True)
class HypothesisBatch:
    """Hypotheses about a picture each."""

    image: Tensor
    """(B, 3, H, W)."""
    hypothesis: Text
    label: Tensor
    """(B,) int64 index into `Hypotheses.labels`."""
    sample_id: Tensor
    """(B,) int64 row numbers."""


@runtime_checkable
class Hypotheses(Protocol):
    """Visual entailment in the form of SNLI-VE: a picture entails a hypothesis, contradicts it, or leaves it open."""

    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    """Names of the kinds of hypothesis."""
    kind: np.ndarray
    """(rows,) int64 index into ``kinds``."""

    @property
    def hash(self) -> str:
        """SHA-256 over the content."""
        ...

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> HypothesisBatch:
        """The hypotheses of these rows (K,) int64."""
        ...


@runtime_checkable
class Entailment(Protocol):
    """A source that has hypotheses about pictures."""

    def entailment(self, split: str) -> Hypotheses:
        """Raises `DataError` for an unknown split."""
        ...


@runtime_checkable
class Worded(Protocol):
    """A source whose tokens can be read and written in words."""

    def encode(self, texts: Sequence[str]) -> Text:
        """Words -> tokens."""
        ...

    def decode(self, text: Text) -> list[str]:
        """Tokens -> words, without start, end and padding."""
        ...


@runtime_checkable
class Judged(Protocol):
    """Pictures of which the data know whether a text is true of them."""

    verdicts: tuple[str, ...]
    """Best first."""

    def judge(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """(K,) int64 index into ``verdicts`` of token ids (K, L), each as a caption of the picture of its row."""
        ...


@runtime_checkable
class Captions(Protocol):
    """Pictures to be described, with the captions that a description is compared with."""

    @property
    def hash(self) -> str:
        """SHA-256 over the content."""
        ...

    @property
    def references(self) -> list[list[str]]:
        """One caption or more of each picture, in words."""
        ...

    def __len__(self) -> int: ...

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """(K,) rows -> their images."""
        ...


@runtime_checkable
class Captioned(Protocol):
    """A source that has pictures to be described."""

    def captions(self, split: str) -> Captions:
        """Raises `DataError` for an unknown split."""
        ...
