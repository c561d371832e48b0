"""Pictures with labels of what they show: what an image side can be trained on without any text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LabelBatch:
    """Pictures with labels."""

    image: Tensor
    """(B, 3, H, W)."""
    label: Tensor
    """(B, C) float32, 1 for the labels that are right."""


@runtime_checkable
class LabelledPictures(Protocol):
    """Pictures with labels of what they show, any number of the C that there are."""

    names: tuple[str, ...]
    """C."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> LabelBatch:
        """The pictures of these rows (K,) int64."""
        ...


@runtime_checkable
class Labels(Protocol):
    """A source that knows what its pictures show."""

    def labelled(self, split: str) -> LabelledPictures:
        """Raises `DataError` for an unknown split."""
        ...
