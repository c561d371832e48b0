"""Published numbers that the report uses, and what is to be said where a measured one differs.

A number that was recalled without its text at hand is marked. A time is never shown without its hardware, and never
beside a time of another machine: ratios stand beside ratios.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlpbench.results.record import Record, Status

if TYPE_CHECKING:
    from vlpbench.reports.claim_types import Claim

FILE = Path(__file__).with_name("published.toml")
FACTORS = {"M": 1e6, "GFLOP": 1e9}
"""Unit of a published number -> the stored unit's number of it."""
TIMES = ("s", "ms", "h", "days")
"""Units that mean nothing without hardware."""
APART = 0.05
"""Relative difference above which a measured number needs an explanation."""


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
    condition: str = ""
    """Name of the condition of a claim whose effect it stands beside; empty where none is quite the same."""

    @property
    def mark(self) -> str:
        """What to set behind the number; empty for one that was read."""
        return "" if self.confidence == "seen" else "from memory"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A measured number that ought to be a published one."""

    published: Published
    measured: float
    """In the unit of the published one."""
    quantity: str
    arch: str
    size: str
    record: str
    """Id of the record."""
    explanation: str
    """Why they differ, where that is known."""

    @property
    def ratio(self) -> float:
        """Measured over published."""
        return self.measured / self.published.value

    @property
    def apart(self) -> bool:
        """Whether they differ by more than 5 %."""
        return abs(self.ratio - 1) > APART

    @property
    def words(self) -> str:
        """What to say of the difference; empty where there is nothing to say."""
        return (self.explanation or "Nothing that we know of explains it.") if self.apart else ""


@dataclass(frozen=True, kw_only=True)
class Library:
    """All published numbers."""

    numbers: dict[str, Published]
    beside: tuple[tuple[str, str, Published], ...]
    """Id and kind of a claim, and a number that stands beside it."""
    checks: tuple[dict[str, str], ...]


def load(path: Path = FILE) -> Library:
    """Reads a file of published numbers.

    Raises:
        ValueError: for a time without hardware, or an id that is not there.
    """
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    numbers = {table["id"]: Published(**table) for table in found["number"]}
    for number in numbers.values():
        if number.unit in TIMES and not number.hardware:
            raise ValueError(f"{path}: {number.id} is a time without the hardware it was measured on")
    wanted = [table[side] for table in found.get("beside", []) for side in "ab"]
    wanted += [table["number"] for table in found.get("check", [])]
    if unknown := [name for name in wanted if name not in numbers]:
        raise ValueError(f"{path}: there is no number {unknown[0]!r}")
    beside = ((table["claim"], table["kind"], _of_two(table, numbers)) for table in found.get("beside", []))
    return Library(numbers=numbers, beside=tuple(beside), checks=tuple(found.get("check", [])))


@cache
def library() -> Library:
    """The numbers that come with the package, read once."""
    return load()


def of_claim(claim: Claim) -> tuple[Published, ...]:
    """What was published on a claim, each as the ratio or difference that the claim is about."""
    return tuple(number for name, kind, number in library().beside if (name, kind) == claim.key)


def compared(records: Sequence[Record]) -> tuple[Beside, ...]:
    """Counted numbers of full-size models beside what was published of them, those that the records have.

    Args:
        records: any; those of status ok count. Parameters and FLOPs do not depend on the machine.
    """
    found = []
    for check in library().checks:
        published, quantity = library().numbers[check["number"]], check["quantity"]
        for record in reversed(records):
            cell = record.cell
            alike = (cell.arch, cell.size) == (check["arch"], check["size"]) and not (cell.image or cell.text_len)
            if not alike or record.status is not Status.OK or quantity not in record.samples or cell.changes:
                continue
            measured = record.samples[quantity].values[0] / FACTORS[published.unit]
            explanation = check.get("explanation", "")
            place = {"arch": cell.arch, "size": cell.size, "record": record.id, "quantity": quantity}
            found.append(Beside(published=published, measured=measured, explanation=explanation, **place))
            break
    return tuple(found)


def _of_two(table: dict[str, Any], numbers: dict[str, Published]) -> Published:
    """A ratio or a difference; remembered if one of the two is."""
    a, b = numbers[table["a"]], numbers[table["b"]]
    ratio = table["how"] == "ratio"

    def both(field: Literal["table", "source", "protocol", "hardware"]) -> str:
        parts = [part for number in (a, b) for part in getattr(number, field).split("; ") if part]
        return "; ".join(dict.fromkeys(parts))

    return Published(
        id=f"{a.id} {'over' if ratio else 'minus'} {b.id}",
        what=table["what"],
        value=a.value / b.value if ratio else a.value - b.value,
        unit="x" if ratio else "points" if a.unit == "%" else a.unit,
        table=both("table"),
        source=both("source"),
        confidence="seen" if a.confidence == b.confidence == "seen" else "memory",
        protocol=both("protocol"),
        hardware=both("hardware"),
        condition=table.get("condition", ""),
    )
