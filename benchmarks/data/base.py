"""What every data source offers: image-text pairs to train on, galleries to search, questions with closed answers."""

from __future__ import annotations

from collections.abc import Mapping
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
    vocabulary: str = ""
    """Hash of the vocabulary that token ids are of, where it is read from a file."""
    inside: frozenset[int] = frozenset()
    """Ids of tokens that go on with the word before them."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    """Mean and deviation of RGB in [0, 1] by which pixels are normalised."""
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


class Labelled(Protocol):
    """Rows of several kinds, each with a right class."""

    kinds: tuple[str, ...]
    """Names of the kinds."""
    kind: np.ndarray
    """(rows,) int64 index into ``kinds``."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> Any:
        """The rows (K,) int64, as a model is shown them."""
        ...


class Choice(Labelled, Protocol):
    """Rows whose class is one of a few labels, with a hash of their own."""

    labels: tuple[str, ...]

    @property
    def hash(self) -> str:
        """SHA-256 over the content."""
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
    """(B, A) float32 in [0, 1], what each answer is worth; None where one answer is right and all others are wrong."""


@runtime_checkable
class Questions(Labelled, Protocol):
    """Questions of several kinds about images, with answers from a closed list."""

    answers: tuple[str, ...]
    binding: frozenset[str]
    """Kinds of question that need an attribute bound to the right object."""

    def batch(self, rows: np.ndarray) -> QuestionBatch:
        """The questions of these rows (K,) int64."""
        ...


@runtime_checkable
class Source(Protocol):
    """A data set, ready to be read. Splits are ``train``, ``val`` and ``test``; a source may have further galleries."""

    name: str

    @property
    def geometry(self) -> Geometry:
        """What a model must be built with."""
        ...

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
class Detecting(Protocol):
    """A source whose regions a detector may have found."""

    def detector(self) -> Mapping[str, Any]:
        """The detector, how well it does and what a picture takes it, for a record; empty where there is none."""
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
class Statements(Choice, Protocol):
    """Visual reasoning in the form of NLVR2: a statement is true or false of two pictures; NLVR has one."""

    sides: int
    """Pictures of a statement, 1 or 2."""

    def batch(self, rows: np.ndarray) -> StatementBatch:
        """The statements of these rows (K,) int64."""
        ...


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
class Hypotheses(Choice, Protocol):
    """Visual entailment in the form of SNLI-VE: a picture entails a hypothesis, contradicts it, or leaves it open."""

    def batch(self, rows: np.ndarray) -> HypothesisBatch:
        """The hypotheses of these rows (K,) int64."""
        ...


@runtime_checkable
class Entailment(Protocol):
    """A source that has hypotheses about pictures."""

    def entailment(self, split: str) -> Hypotheses:
        """Raises `DataError` for an unknown split."""
        ...
