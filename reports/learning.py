"""What a pre-training could do on the way: curves of accuracy, and the time it took to reach a threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from vlpbench.reports import details, plots
from vlpbench.reports.board import Board, quantity
from vlpbench.reports.measured import Measured
from vlpbench.reports.names import Row
from vlpbench.reports.summary import counted, listed
from vlpbench.reports.svg import FAINT, Figure, canvas, colour, draw
from vlpbench.reports.table import Head, Item, Table, row_item, value_item
from vlpbench.reports.units import PERCENT, scale
from vlpbench.results.record import Record

GUESSING = 50.0
"""Percent of swaps that a coin tells apart."""
TITLES = {"recall": "Validation recall", "binding": "Attribute swaps told apart"}
AXES = {"step": ("training step", ""), "cpu_seconds": ("processor time", "s"), "flops": ("training FLOPs", "FLOP")}
"""What accuracy is drawn against: its name and stored unit."""
PANELS = (("recall", "step"), ("recall", "cpu_seconds"), ("recall", "flops"), ("binding", "step"))


@dataclass(frozen=True, kw_only=True)
class Line:
    """The looks of one variant, a series for each seed."""

    row: Row
    measured: Measured
    seeds: tuple[dict[str, list[float]], ...]

    def has(self, *names: str) -> bool:
        """Whether every seed has these series."""
        return all(name in seed for seed in self.seeds for name in names)

    def mean(self, name: str) -> list[float]:
        """Over the seeds, look by look."""
        return [fmean(values) for values in zip(*(seed[name] for seed in self.seeds), strict=True)]


def accuracy_curves(board: Board, suffix: str) -> Figure | None:
    """Validation accuracy against steps, processor time and FLOPs."""
    lines = _lines(board)
    panels = [(m, x, mine) for m, x in PANELS if (mine := [line for line in lines if line.has(m, x)])]
    if not panels:
        return None
    name, title = f"accuracy-curves{suffix}", "Accuracy while learning"
    names = [f"{line.row.title}   " for line in lines]
    one = plots.tall(len(lines), 1.5)
    figure, axes = canvas(
        0.9 + (one + 0.75) * len(panels) - 0.75, len(panels), left=["100"], right=names, head=0.3, foot=0.6, gap=0.75
    )
    for (metric, against, mine), one in zip(panels, axes, strict=True):
        _panel(one, metric, against, mine)
    shown = dict.fromkeys(line.row.title for *_, mine in panels for line in mine)
    return Figure(
        name=name,
        title=title,
        alt=f"{listed([f'{TITLES[m]} against {AXES[x][0]}' for m, x, _ in panels])}, for {listed(list(shown))}.",
        caption=_caption(lines),
        drawing=draw(figure, name),
        table=_looks_table(name, lines),
    )


def _lines(board: Board) -> list[Line]:
    """One line for a variant; a pre-training that two share is drawn for the first, from the measure that says most."""
    found: dict[str, Line] = {}
    for row in board.trained:
        known = [m for m in board.everything if m.row == row and m.ok and details.looks(m.first.detail)]
        if not known:
            continue
        best = min(known, key=lambda m: (m.measure != "learning", -len(m.records)))
        seeds = [seen for record in best.records if (seen := _series(record))]
        alike = [seen for seen in seeds if seen["step"] == seeds[0]["step"]]
        key = details.pretraining(best.first.detail) or best.first.id
        found.setdefault(key, Line(row=row, measured=best, seeds=tuple(alike)))
    return list(found.values())


def _series(record: Record) -> dict[str, list[float]]:
    """The looks of a record, with the FLOPs spent until each where the record knows them."""
    seen = details.looks(record.detail)
    work = details.amount(record.detail, "flops_per_step")
    return seen | ({"flops": [work * step for step in seen["step"]]} if seen and work else {})


def _panel(axes: Any, metric: str, against: str, lines: Sequence[Line]) -> None:
    what, stored = AXES[against]
    most = max(line.mean(against)[-1] for line in lines)
    unit = scale(stored, [most])
    factor = unit.factor if stored else 1.0
    for line in lines:
        look: dict[str, Any] = {"color": colour(line.row.arch), "linestyle": plots.DASH.get(line.row.momentum, "-")}
        if len(line.seeds) > 1:
            for seed in line.seeds:
                axes.plot([x / factor for x in seed[against]], seed[metric], linewidth=0.8, alpha=0.4, **look)
        dots = plots.point(line.row.arch, line.row.momentum, 4)
        axes.plot([x / factor for x in line.mean(against)], line.mean(metric), **(dots | look))
        ends = [line.mean(against)[-1] / factor, most / factor]
        axes.plot(ends, [line.mean(metric)[-1]] * 2, color=look["color"], linewidth=0.8, alpha=0.5)  # to its name
    axes.set_title(f"{TITLES[metric]}, %", fontweight="normal")
    axes.set_xlim(0, most / factor)
    axes.set_ylim(0, 100)
    if metric == "binding":
        axes.axhline(GUESSING, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.text(most / factor, GUESSING, "guessing ", color=FAINT, fontsize=8.5, va="top", ha="right")
    axes.set_xlabel(f"{what}, {unit.name}" if stored else what)
    plots.quiet(axes)
    plots.end_labels(axes, [(n.mean(metric)[-1], n.row.title, colour(n.row.arch)) for n in lines])


def _caption(lines: Sequence[Line]) -> str:
    first = lines[0]
    what = [details.watched(line.measured.first.detail) for line in lines]
    images = sorted({str(found["images"]) for found in what if "images" in found})
    scorers = sorted({str(found["scorer"]) for found in what if "scorer" in found})
    seeds = max(len(line.seeds) for line in lines)
    spread = f" Thin: {counted(seeds, 'seed')}, their mean bold." if seeds > 1 else ""
    return (
        f"Mean recall on {listed(images)} validation images of {dict(first.measured.setting)['size']} models, by "
        f"{listed(scorers)}. Solid: momentum off, dashed: queue, dotted: distill. Time is without looking.{spread}"
    )


def _looks_table(name: str, lines: Sequence[Line]) -> Table:
    """Every look of every variant, over its seeds."""
    rows = []
    for line in lines:
        m, known = line.measured, [key for key in ("cpu_seconds", "recall", "binding") if line.has(key)]
        series = {key: line.mean(key) for key in known}
        for place, step in enumerate(line.seeds[0]["step"]):
            items = [
                _number(series[key][place], m) if key in series else Item(text="–")
                for key in ("cpu_seconds", "recall", "binding")
            ]
            rows.append((row_item(line.row), _number(step, m, 0), *items))
    heads = ("Variant", "Step", "Processor time, s", "Recall, %", "Attribute swaps, %")
    return plots.figure_table(name, "Accuracy while learning", heads, rows, 1)


def _number(value: float, m: Measured, places: int = 1) -> Item:
    return Item(text=f"{value:,.{places}f}", value=value, record=m.first.id)


def learning_table(everything: Sequence[Measured]) -> Table | None:
    """Time to accuracy; what was not reached says within how many steps. None without the measure."""
    found = [m for m in everything if m.measure == "learning" and m.ok]
    found.sort(key=lambda m: (m.row.order, m.setting, m.env))
    rows = [_learning_row(m) for m in found]
    if not rows:
        return None
    heads = [Head(title=title) for title in ("Variant", "Scored by", "Model, data", "Environment")]
    heads += [_arrival_head(found, *column) for column in ARRIVALS]
    heads += [_mean_head(name, title) for name, title in MEANS.items()]
    heads += [Head(title="Looking", note="% of training", unit="%", better="lower", numeric=True)]
    caption = (
        "The first look at which validation accuracy had reached the threshold, if the next look confirms it; below, "
        "the look before. Over several seeds the median, where one that did not arrive is later than all that did."
    )
    name, title = "time-to-accuracy", "Time to accuracy"
    return Table(name=name, title=title, caption=caption, heads=tuple(heads), rows=tuple(rows))


ARRIVALS = (
    ("steps_to_recall", "recall", "step"),
    ("cpu_seconds_to_recall", "recall", "cpu_seconds"),
    ("steps_to_binding", "binding", "step"),
)
"""Quantity, what is reached, and the series that says when."""
MEANS = {"learning_recall": "Recall, mean", "learning_binding": "Swaps, mean"}
"""Quantities over all looks, and what a column calls them."""


def _learning_row(m: Measured) -> tuple[Item, ...]:
    fields = dict(m.setting)
    share = details.amount(m.first.detail, "looks_share")
    words = (details.watched(m.first.detail).get("scorer", ""), f"{fields['size']}, {fields['data']}", m.env)
    means = [m.estimates.get(name) for name in MEANS]
    return (
        row_item(m.row),
        *(Item(text=str(word)) for word in words),
        *(arrival(m, name, series) for _, name, series in ARRIVALS),
        *(value_item(value, PERCENT, m) if value else _absent() for value in means),
        _absent() if share is None else _number(100 * share, m),
    )


def arrival(m: Measured, name: str, series: str) -> Item:
    """When a threshold was reached, over the seeds of a measurement; words with the bound where it was not."""
    told = [reached for record in m.records if (reached := details.reached(record.detail, name))]
    if not told:
        return _absent()
    times = [math.inf if found.get(series) is None else float(found[series]) for found in told]
    arrived = sum(map(math.isfinite, times))
    seeds = f"{arrived} of {len(told)} seeds" if len(told) > 1 else ""
    middle, unit = median(times), scale("s" if series == "cpu_seconds" else "step", [t for t in times if t < math.inf])
    if math.isinf(middle):
        within = max(int(found.get("within", 0)) for found in told)
        return Item(text=f"> {within:,} steps", note=seeds or "not reached", record=m.first.id, kind="absent")
    show: Callable[[float], str] = unit.full if series == "cpu_seconds" else "{:,.0f}".format
    before = told[0].get("after") if len(told) == 1 and series == "step" else None
    note = seeds if before is None else f"not yet after {before:,}"
    return Item(
        text=show(middle),
        note=note,
        value=middle,
        low=before,
        high=None if before is None else middle,
        record=m.first.id,
        flags=m.flags,
    )


def _arrival_head(found: Sequence[Measured], name: str, reached: str, _: str) -> Head:
    levels = {details.reached(record.detail, reached).get("threshold") for m in found for record in m.records}
    note = " or ".join(f"{level:g} %" for level in sorted(level for level in levels if level is not None))
    meaning = quantity(name)
    return Head(title=meaning.title, note=note, unit=meaning.unit, better=meaning.better, numeric=True)


def _mean_head(name: str, title: str) -> Head:
    meaning = quantity(name)
    return Head(title=title, full=meaning.title, unit="%", note="%", better=meaning.better, numeric=True)


def _absent() -> Item:
    return Item(text="–", kind="absent")
