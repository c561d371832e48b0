"""The claims of the notes, and what records say about each: supported, refuted, inconclusive or not measured.

A claim is data (`claims.toml`): the sentence, the cells that it needs, and conditions with bounds that were written
down before anything was measured. `judge` knows no claim; it holds an interval against the bounds.

**Rule.** A condition has a lower bound, an upper bound or both. It *holds* where the whole 95 % interval of its effect
is within the bounds, *fails* where the whole interval is beyond one of them, and is *open* otherwise; an end of an
interval that touches a bound leaves it open. What is counted has no interval and is compared as it is, bounds included.
Both bounds together are two one-sided tests of equivalence, at 2.5 % each, which is the 95 % interval between the
bounds. A claim is supported if all its conditions hold, refuted if one fails, and inconclusive otherwise. All claims
judged at once that rest on a test share an error of 5 % by Holm's procedure: where a verdict does not survive it, it is
inconclusive. Without all of its cells a condition is not measured, and neither is its claim, unless another of its
conditions fails.

**Intervals.** Accuracies: Student's t over seeds, of differences paired by seed, of one data set (by its hash). Times:
Student's t over rounds, of log ratios, within one environment. Structure and FLOPs: exact. Accuracy and cost never meet
in a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlpbench.reports.claim_file import read
from vlpbench.reports.claim_types import (
    KINDS,
    LEVEL,
    STATISTICS,
    WORDS,
    Claim,
    Condition,
    Evidence,
    Kind,
    Outcome,
    State,
    Statistic,
    Term,
    Verdict,
    Word,
)
from vlpbench.reports.judge import verdicts
from vlpbench.results.record import Record

__all__ = [
    "KINDS",
    "LEVEL",
    "STATISTICS",
    "WORDS",
    "Claim",
    "Condition",
    "Evidence",
    "Kind",
    "Outcome",
    "State",
    "Statistic",
    "Term",
    "Verdict",
    "Word",
    "judge",
    "load",
]
FILE = Path(__file__).with_name("claims.toml")
"""The claims of the notes."""


def load(
    path: Path | None = None,
    *,
    check: Callable[[str, Any], None] | None = None,
    complete: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> tuple[Claim, ...]:
    """Reads a file of claims.

    Args:
        path: the file; None takes the claims of the notes.
        check: raises ValueError for a value of a field that no table knows, with the nearest one; whoever knows the
            tables of architectures and measures passes it.
        complete: fills in what a matrix leaves to the tables, as for a suite.

    Raises:
        SuiteError: for what is wrong with the file, with the line.
    """
    return read(FILE if path is None else path, check=check, complete=complete)


def judge(claims: Sequence[Claim], records: Sequence[Record]) -> tuple[Verdict, ...]:
    """Decides claims; one verdict for each and for each scale that the records have all its cells of.

    Args:
        claims: judged at once, so corrected for one another.
        records: of any number of suites and environments; those of status ok count, the latest of each cell.

    Returns:
        In the order of the claims; every claim has a verdict at its own scale, ``not measured`` where cells lack.
    """
    return verdicts(claims, records)
