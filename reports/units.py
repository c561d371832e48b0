"""Stored SI values as a reader wants to see them: one prefix for a column, and only digits that mean something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

STEPS: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")),
    "FLOP": ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP")),
    "1": ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")),
    "1/s": ((1.0, "pairs/s"),),
    "FLOP/s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")),
    "J": ((1.0, "J"), (1e-3, "mJ")),
}
"""Stored unit -> factors and what they are called, largest first."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A factor and its name: a stored value divided by ``factor`` is a number of ``name``."""

    factor: float
    name: str
    places: int | None = None
    """Decimals of every number; None leaves three significant digits."""

    def show(self, value: float) -> str:
        """The number alone."""
        shown = value / self.factor
        return number(shown) if self.places is None else f"{shown:,.{self.places}f}"

    def full(self, value: float) -> str:
        """The number and its unit."""
        return f"{self.show(value)} {self.name}".strip()

    def span(self, low: float, high: float) -> str:
        """An interval, both ends with the same number of decimals: enough of them that the ends differ, if they do."""
        ends = (low / self.factor, high / self.factor)
        if self.places is not None:
            return "–".join(f"{end:,.{self.places}f}" for end in ends)
        places = max(decimals(end) for end in ends)
        while places < 6 and low != high and f"{ends[0]:.{places}f}" == f"{ends[1]:.{places}f}":
            places += 1
        return "–".join(f"{end:,.{places}f}" for end in ends)


PERCENT = Scale(factor=1, name="%", places=1)
"""Rates: one decimal is more than the intervals allow."""

COUNT = Scale(factor=1, name="pairs", places=0)
"""Sizes of batches: whole numbers."""


def scale(unit: str, values: Sequence[float]) -> Scale:
    """The prefix that puts the median of the values nearest above 1; a unit that is not known keeps its own name."""
    if unit == PERCENT.name:
        return PERCENT
    if unit == COUNT.name:
        return COUNT
    steps = STEPS.get(unit, ((1.0, unit),))
    middle = abs(median(values)) if values else 0.0
    for factor, name in steps:
        if middle >= factor:
            return Scale(factor=factor, name=name)
    factor, name = steps[-1]
    return Scale(factor=factor, name=name)


def decimals(value: float) -> int:
    """Decimals that leave three significant digits, none from 100 on."""
    size = abs(value)
    if size == 0 or size >= 100:
        return 0
    return min(6, max(0, 2 - math.floor(math.log10(size))))


def number(value: float) -> str:
    """Three significant digits, thousands with commas, no exponent."""
    return f"{value:,.{decimals(value)}f}"


def times(value: float) -> str:
    """A ratio: two decimals below ten, as ``1.31x``."""
    return f"{value:.2f}×" if value < 10 else f"{number(value)}×"


def plain(value: float) -> str:
    """A tick of a logarithmic axis in words people use: ``1``, ``10``, ``1,000``, ``10 k``, ``1 M``."""
    for factor, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= factor:
            shown = value / (1e3 if suffix == " k" else factor)
            return f"{shown:,.0f}{suffix}" if shown == round(shown) else f"{shown:,.1f}{suffix}"
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def duration(seconds: float) -> str:
    """Time spent, to the precision a reader cares for."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
