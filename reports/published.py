"""Published numbers that the report uses, and what is to be said where a measured one differs.

A number that was recalled without its text at hand is marked. A time is never shown without its hardware, and never beside
a time of another machine: ratios stand beside ratios.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FILE = Path(__file__).with_name("published.toml")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published number, or a ratio or difference of two that stand in one table."""

    id: str
    what: str
    """In words."""
    value: float
    unit: str
    """``x`` of a ratio, ``points`` of a difference, ``%``, ``M``, ``GFLOP`` ..."""
    table: str
    source: str
    """Where it was read."""
    confidence: Literal["seen", "memory"]
    """``memory``: recalled from the paper without its text at hand; shown with that mark."""
    protocol: str = ""
    """Data, split, inputs."""
    hardware: str = ""
    """Of everything that depends on it."""

    @property
    def mark(self) -> str:
        """What to set behind the number; empty for one that was read."""
        return "" if self.confidence == "seen" else "from memory"
