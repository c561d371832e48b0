"""What a claim, its conditions, its evidence and its verdict are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from vlpbench.reports.published import Published
from vlpbench.results.record import Cell

Kind = Literal["S", "E", "A"]
KINDS: dict[Kind, str] = {"S": "structure", "E": "efficiency", "A": "accuracy"}
Word = Literal["supported", "refuted", "inconclusive", "not measured"]
WORDS: tuple[Word, ...] = ("supported", "refuted", "inconclusive", "not measured")
State = Literal["holds", "fails", "open", "not measured", "shown"]
Statistic = Literal["exact", "level", "ratio", "difference"]
STATISTICS: dict[Statistic, str] = {
    "exact": "what is counted or read off the built model, compared as it is",
    "level": "mean over seeds or rounds of one quantity",
    "ratio": "A over B: the mean over rounds of the log ratio of medians",
    "difference": "A minus B: the mean over seeds that both have",
}
LEVEL = 0.05
"""Error of all verdicts together."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One quantity of a set of cells; the mean over the cells of one seed where they are several."""

    cells: str
    """Name of a matrix of the file."""
    quantity: str
    """A quantity of the samples, or ``detail.`` and a path in a record's detail."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing that has to hold, with bounds fixed beforehand."""

    name: str
    """In words; what the effect is of."""
    statistic: Statistic
    a: tuple[Term, ...]
    b: tuple[Term, ...] = ()
    combine: Literal["mean", "sum"] = "mean"
    """What becomes of the terms of a side: their mean over all cells, or their sum; in a ratio of the logarithms."""
    at_least: float | None = None
    at_most: float | None = None
    equals: Any = None
    """What an exact statistic has to be, where that is no matter of bounds."""
    rank_of: str = ""
    """Architecture whose place among the cells of a term (1 is the best) stands for the term."""
    margin: str = ""
    """Why the bounds are where they are."""
    line: int = 0
    """Of the file."""

    @property
    def decides(self) -> bool:
        """Whether it has a bound; one without is shown and decides nothing."""
        return not (self.at_least is None and self.at_most is None and self.equals is None)

    @property
    def equivalence(self) -> bool:
        """Whether both sides are to be as good as equal."""
        return self.at_least is not None and self.at_most is not None

    @property
    def rule(self) -> str:
        """The bounds in words."""
        if self.statistic == "exact" and self.equals is not None:
            return f"is {self.equals}"
        if not self.decides:
            return "shown beside, decides nothing"
        low, high = (None if bound is None else f"{bound:g}" for bound in (self.at_least, self.at_most))
        return f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One checkable sentence, with the rule that decides it."""

    id: str
    kind: Kind
    """Accuracy and efficiency of one sentence are two claims with the same id."""
    quote: str
    """As the notes say it, in Chinese."""
    gloss: str
    """The same in English."""
    source: str
    """Part of the notes."""
    conditions: tuple[Condition, ...]
    cells: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    """Name of a matrix -> its cells, of those that the conditions need. Device ``auto`` stands for any one device."""
    fixed: tuple[str, ...] = ()
    """Fields of the cells that are part of the claim, and so are not free to be others at another scale."""
    note: str = ""
    """What a reader must know beside the verdict, such as a premise of the sentence that is wrong."""

    @property
    def key(self) -> tuple[str, str]:
        """Id and kind."""
        return self.id, self.kind


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One number behind a verdict."""

    what: str
    """Side, variants and quantity in words."""
    text: str
    """The number with its unit, as a reader wants it; of a structure whatever was found."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % interval; None where there is none."""
    unit: str = ""
    """As stored."""
    method: str = ""
    """Where the interval is from, in words."""
    records: tuple[str, ...] = ()
    """Ids of the records."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one condition came to at one scale."""

    condition: Condition
    state: State
    """By the interval alone, before the correction for several claims; ``shown`` of one that decides nothing."""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    """``points``, ``x`` for a ratio, or a stored unit."""
    method: str = ""
    p_holds: float | None = None
    """Two-sided p of the hypothesis that the effect is not within the bounds; None for what is exact."""
    p_fails: float | None = None
    """The same of the hypothesis that it is not beyond them."""
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[str, ...] = ()
    why: str = ""

    @property
    def exact(self) -> bool:
        """Whether it was counted, so that there is nothing to test."""
        return self.state in ("holds", "fails") and self.p_holds is None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the records say about a claim at one scale."""

    claim: Claim
    word: Word
    scale: str
    """``controlled, small, scenes``, ``paper size, random weights``, ``structure`` ..."""
    about: str = ""
    """Name of the condition that decided; effect and interval are its own."""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    """Of effect and interval: ``points``, ``x`` for a ratio, or a stored unit."""
    why: str = ""
    """One sentence: how interval and bounds led to the word."""
    p: float | None = None
    """Two-sided, of the claim as a whole; None where nothing was tested."""
    p_holm: float | None = None
    """The same, adjusted for all claims judged at once."""
    family: int = 0
    """How many they were."""
    outcomes: tuple[Outcome, ...] = ()
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()
    """What else to know: another scale that disagrees, several versions of the code."""

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """Of all conditions."""
        return tuple(item for outcome in self.outcomes for item in outcome.evidence)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Cells that are not measured, in words."""
        return tuple(dict.fromkeys(cell for outcome in self.outcomes for cell in outcome.missing))

    @cached_property
    def records(self) -> tuple[str, ...]:
        """Ids of all records behind it."""
        return tuple(dict.fromkeys(name for item in self.evidence for name in item.records))
