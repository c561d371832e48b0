"""What a source offers beside `vlpbench.benchmarks.data.base.Source` where its models write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from vlpbench.archs.types import Text


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
class Judging(Protocol):
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
