"""At which size of gallery one search becomes cheaper than another: every pair, in FLOPs and in measured time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Protocol

from vlpbench.reports import curves, gallery, search_time
from vlpbench.reports.board import Board
from vlpbench.reports.measured import Measured
from vlpbench.reports.table import Head, Item, Table


class Way(Protocol):
    """One architecture by one scorer."""

    @property
    def title(self) -> str:
        """What a figure calls it."""
        ...

    @property
    def measured(self) -> Measured:
        """What its cost is from."""
        ...


def crossover_table(board: Board, suffix: str = "") -> Table | None:
    """Every two searches; None where there are no two."""
    counted = {one.title: (one, one.flops) for one in gallery.searches(board)}
    timed = {one.title: (one, one.seconds) for one in search_time.searches(board)}
    titles = list(dict.fromkeys([*counted, *timed]))
    rows = []
    for a, b in combinations(titles, 2):
        work = _meeting(counted, a, b, curves.SMALLEST, curves.LARGEST)
        time = _meeting(timed, a, b, 2.0, search_time.LARGEST)
        if work is None and time is None:
            continue
        known = {**timed, **counted}
        heads = [Item(text=name, kind="head", family=known[name][0].measured.row.arch) for name in (a, b)]
        rows.append((*heads, *(work or _ABSENT), *(time or _ABSENT)))
    if not rows:
        return None
    rows.sort(key=lambda row: all(item.value is None for item in row))  # pairs that cross come first
    columns = (("Equal at", True), ("Cheaper below", False), ("Cheaper above", False))
    heads = [Head(title="Search A"), Head(title="Search B")]
    for group, note in (("work, FLOPs", "images"), ("time", "images")):
        heads += [Head(title=t, note=note if num else "", numeric=num, group=group) for t, num in columns]
    caption = (
        "Work: predicted from FLOPs, five texts an image, both directions. Time: predicted from the measured cost of "
        "the parts, as many texts as images. Never: one is the cheaper at every size drawn above."
    )
    name = f"crossovers{suffix}"
    return Table(name=name, title="Crossovers of every pair", caption=caption, heads=tuple(heads), rows=tuple(rows))


_ABSENT = (Item(text="–", kind="absent"),) * 3


def _meeting(
    known: Mapping[str, tuple[Way, Callable[[float], float]]], a: str, b: str, low: float, high: float
) -> tuple[Item, Item, Item] | None:
    """Where they meet, the cheaper below and the cheaper above; None where one of them is not known."""
    if a not in known or b not in known:
        return None
    (one, cost), (_, other) = known[a], known[b]
    at = gallery.crossing(cost, other, low, high)
    first, last = (a if cost(size) < other(size) else b for size in (low, high))
    if cost(low) == other(low):
        first = "equal"
    if at is None:
        same = cost(high) == other(high)
        word = Item(text="always" if same else "never", record=one.measured.first.id)
        side = Item(text="equal" if same else last)
        return word, side, side
    return Item(text=f"{at:,.0f}", value=at, record=one.measured.first.id), Item(text=first), Item(text=last)
