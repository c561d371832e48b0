"""How well a machine was used, and the tails of timings: derived from what records hold, without counting anything."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from vlpbench.reports.board import quantity
from vlpbench.reports.measured import Measured
from vlpbench.reports.table import Head, Item, Table, row_item, setting_words
from vlpbench.reports.units import Scale, number, scale

TIMED = {"latency": "latency", "throughput": "throughput", "train_step": "step"}
"""Measure -> the quantity that its achieved FLOP/s are of."""
TAILS = ("latency", "device_time", "step")
PERCENTILES = (50, 90, 95, 99)
BEYOND = 2
"""Samples that must lie beyond a percentile on average, or it says nothing: 40 for the 95th, 200 for the 99th."""


def machine_tables(everything: Sequence[Measured]) -> list[Table]:
    """Those of the two that have a line."""
    return [table for table in (tail_table(everything), utilisation_table(everything)) if table]


def utilisation_table(everything: Sequence[Measured]) -> Table | None:
    """Work, achieved FLOP/s, their share of the measured peak, arithmetic intensity; None without counted work."""
    found = [(m, rate) for m in everything if (rate := achieved(m)) is not None]
    if not found:
        return None
    titles = ("Variant", "Of", "FLOPs a call", "Achieved", "Peak", "MFU", "FLOP per byte", "Setting")
    heads = tuple(Head(title=title, numeric=title in ("Achieved", "MFU")) for title in titles)
    rows = []
    for m, rate in sorted(found, key=lambda pair: (pair[0].row.order, pair[0].measure, pair[0].setting)):
        work, best = m.detail("work"), peak(m)
        rows.append(
            (
                row_item(m.row),
                Item(text=quantity(TIMED[m.measure]).title),
                Item(text=scale("FLOP", [work["flops"]]).full(work["flops"])),
                _number(rate, scale("FLOP/s", [rate]), m),
                Item(text="–" if best is None else scale("FLOP/s", [best]).full(best)),
                Item(text="–") if best is None else _number(100 * rate / best, Scale(factor=1, name="%", places=1), m),
                Item(text=number(work["intensity"])),
                Item(text=setting_words(m)),
            )
        )
    caption = (
        "Achieved: counted FLOPs over the median time. Peak: the fastest large matrix product of the same type on the "
        "same machine as the run began; MFU is the share of it. FLOP per byte counts weights, inputs and outputs."
    )
    return Table(name="utilisation", title="Use of the machine", caption=caption, heads=heads, rows=tuple(rows))


def achieved(m: Measured) -> float | None:
    """FLOP per second of a timing; None for anything else or where its work was not counted."""
    work, name = m.detail("work"), TIMED.get(m.measure)
    if name is None or name not in m.estimates or not isinstance(work, dict) or "flops" not in work:
        return None
    value = m.estimates[name].value
    return work["flops"] / m.detail("pairs_per_call") * value if name == "throughput" else work["flops"] / value


def peak(m: Measured) -> float | None:
    """FLOP per second that the machine reached with one large product, the median over the visits to the cell."""
    visits = m.detail("visits") or ()
    rates = [m.detail("peak"), *(visit.get("detail", {}).get("peak") for visit in visits)]
    known = [rate["flops_per_second"] for rate in rates if isinstance(rate, dict) and "flops_per_second" in rate]
    return median(known) if known else None


def tail_table(everything: Sequence[Measured]) -> Table | None:
    """Percentiles of timings of which enough samples were taken; None without any."""
    found = [(m, name, values) for m in everything for name in TAILS if (values := _samples(m, name))]
    if not found:
        return None
    titles = ("Variant", "Quantity", "Unit", *(f"p{p}" for p in PERCENTILES), "n", "Setting")
    heads = tuple(Head(title=title, numeric=title.startswith("p")) for title in titles)
    rows = []
    for m, name, values in sorted(found, key=lambda one: (one[0].row.order, one[0].measure, one[1], one[0].setting)):
        unit = scale("s", [median(values)])
        tails = (percentile(values, p) for p in PERCENTILES)
        shown = (Item(text="–") if tail is None else _number(tail, unit, m, bare=True) for tail in tails)
        rest = (Item(text=f"{len(values):,}"), Item(text=setting_words(m)))
        rows.append((row_item(m.row), Item(text=quantity(name).title), Item(text=unit.name), *shown, *rest))
    caption = f"Of the raw samples of all rounds. A percentile is shown if {BEYOND} samples lie beyond it on average."
    return Table(name="percentiles", title="Percentiles", caption=caption, heads=heads, rows=tuple(rows))


def percentile(values: Sequence[float], p: int) -> float | None:
    """The p-th percentile, between samples on a line; None where too few samples lie beyond it."""
    if len(values) * (100 - p) < BEYOND * 100:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * p / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _samples(m: Measured, name: str) -> list[float]:
    return [value for record in m.records if name in record.samples for value in record.samples[name].values]


def _number(value: float, unit: Scale, m: Measured, *, bare: bool = False) -> Item:
    text = unit.show(value) if bare else unit.full(value)
    return Item(text=text, value=value, record=m.first.id, flags=m.flags)
