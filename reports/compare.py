"""Two sets of records side by side: what changed in each number, what changed around it, and what only one of them has.

The two were measured in separate runs, so nothing is paired: a ratio's interval draws the samples of both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from vlpbench.reports import stats
from vlpbench.reports.board import quantity
from vlpbench.reports.measured import estimate
from vlpbench.reports.stats import Estimate
from vlpbench.results.record import Cell, Env, Quantity, Record, Status

EXACT = ("1", "FLOP")
"""Units of what is counted: one sample says it all."""
EVERYWHERE = (*EXACT, "%", "step")
"""Units of what does not depend on the machine."""

Verdict = Literal["better", "worse", "changed", "same", "undecided", "lost"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One quantity of one cell in both sets."""

    cell: Cell
    label: str
    """The cell in words."""
    quantity: str
    before: Estimate
    after: Estimate | None
    """None where B has a record of the cell and no number."""
    ratio: Estimate | None
    """B over A; None where there is none."""
    elsewhere: bool
    """Whether it depends on the machine and the two environments differ."""
    flags: tuple[str, ...]
    status: Status
    """How the cell ended in B."""

    @property
    def meaning(self) -> Quantity:
        """Unit, direction and title."""
        return quantity(self.quantity)

    @property
    def verdict(self) -> Verdict:
        """What the interval allows to say; ``undecided`` without one."""
        if self.after is None:
            return "lost"
        if self.ratio is None or self.ratio.interval is None:
            return "undecided"
        if not stats.apart(self.ratio, 1.0):
            return "same"
        if self.meaning.better == "neither":
            return "changed"
        return "better" if (self.ratio.value > 1) == (self.meaning.better == "higher") else "worse"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field of the environment, or the code, that is not the same."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of it."""

    changes: tuple[Change, ...]
    differences: tuple[Difference, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    """Cells that have no partner, in words."""

    @cached_property
    def elsewhere(self) -> int:
        """Changes that tell of two machines as much as of two programs."""
        return sum(change.elsewhere for change in self.changes)


def compare(before: Sequence[Record], after: Sequence[Record], label: Callable[[Cell], str]) -> Comparison:
    """Compares cells of equal id, in the same environment where both sets have it, else in the last one of each.

    Args:
        before: A, the record that counts for each cell and environment.
        after: B.
        label: names a cell.
    """
    pairs = list(_pairs(before, after))
    left, right = ({id(pair[side]) for pair in pairs} for side in (0, 1))
    return Comparison(
        changes=tuple(change for pair in pairs for change in _changes(*pair, label)),
        differences=tuple(_differences(pairs)),
        only_before=tuple(label(r.cell) for r in before if id(r) not in left),
        only_after=tuple(label(r.cell) for r in after if id(r) not in right),
    )


def _pairs(before: Iterable[Record], after: Iterable[Record]) -> Iterator[tuple[Record, Record]]:
    theirs: dict[str, dict[str, Record]] = defaultdict(dict)
    mine: dict[str, dict[str, Record]] = defaultdict(dict)
    for records, found in ((before, mine), (after, theirs)):
        for record in records:
            found[record.cell.id][record.env.id] = record
    for cell, envs in mine.items():
        others = theirs.get(cell, {})
        if shared := [env for env in envs if env in others]:
            yield from ((envs[env], others[env]) for env in shared)
        elif others:
            yield list(envs.values())[-1], list(others.values())[-1]


def _changes(a: Record, b: Record, label: Callable[[Cell], str]) -> Iterator[Change]:
    if a.status is not Status.OK:
        return
    apart = a.env.id != b.env.id or _threads(a) != _threads(b)
    for name in a.samples:
        old = estimate(name, [a])
        if old is None:
            continue
        new = estimate(name, [b]) if b.status is Status.OK and name in b.samples else None
        yield Change(
            cell=a.cell,
            label=label(a.cell),
            quantity=name,
            before=old,
            after=new,
            ratio=None if new is None else _ratio(name, a, b, old, new),
            elsewhere=apart and quantity(name).unit not in EVERYWHERE,
            flags=tuple(dict.fromkeys([*a.flags, *b.flags])),
            status=b.status,
        )


def _threads(record: Record) -> int:
    return record.cell.threads or record.env.threads


def _ratio(name: str, a: Record, b: Record, old: Estimate, new: Estimate) -> Estimate | None:
    unit = quantity(name).unit
    if old.value == 0:
        return None
    if unit == "%":
        return stats.rate_ratio(new, old)
    over, under = b.samples[name].values, a.samples[name].values
    if unit in EXACT and len(over) == len(under) == 1:
        value = new.value / old.value
        return Estimate(value=value, low=value, high=value, method="counted")
    return stats.ratio(over, under, _rounds(b), _rounds(a), interleaved=False)


def _rounds(record: Record) -> Sequence[int]:
    found = record.detail.get("rounds", ())
    return found if isinstance(found, (list, tuple)) else ()


def _differences(pairs: Iterable[tuple[Record, Record]]) -> Iterator[Difference]:
    """Each field once, with every pair of values that it has."""
    seen: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for a, b in pairs:
        left, right = _fields(a.env) | {"code": a.code}, _fields(b.env) | {"code": b.code}
        for field in dict.fromkeys([*left, *right]):
            values = (left.get(field, "absent"), right.get(field, "absent"))
            if values[0] != values[1]:
                seen[field][values] = None
    for field, values in seen.items():
        before, after = zip(*values, strict=True)
        yield Difference(field=field, before=_joined(before), after=_joined(after))


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _fields(env: Env) -> dict[str, str]:
    flat = env.model_dump(mode="json")
    versions = flat.pop("versions")
    flat["cpu_flags"] = " ".join(flat["cpu_flags"]) or None
    words = {key: "none" if value is None else str(value) for key, value in flat.items()}
    return words | {name: str(version) for name, version in versions.items()}
