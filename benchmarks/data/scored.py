"""What else an evaluation may ask of rows: the answers of several people, and which statements are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Answered(Protocol):
    """Questions to which several people gave an answer of their own, which need not be on the list."""

    def annotations(self) -> Sequence[Mapping[str, Any]]:
        """A row each, in the official form of VQA v2, as `vlpbench.benchmarks.vqa_score.vqa_score` takes them."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """Statements that were each made about several pictures."""

    group: np.ndarray
    """(rows,) int64, equal for those that are one statement."""
