"""What figures are made of: bars, labels that keep apart, axes in plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlpbench.reports.names import family
from vlpbench.reports.stats import Estimate
from vlpbench.reports.svg import FAINT, GRID, INK, ON, PAPER, colour, room
from vlpbench.reports.table import Head, Item, Table
from vlpbench.reports.units import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

HATCH = {"off": "", "queue": "///", "distill": "xxx"}
SHADES = (1.0, 0.78, 0.58, 0.42, 0.3, 0.22, 0.16)
"""Opacity of the parts of a stacked bar, first to last."""
READABLE = 0.6
"""From this opacity on text on a part is set in the page's colour, below in ink."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: a name, the architecture whose colour it has, its momentum state, and its value or a word instead."""

    name: str
    arch: str
    momentum: str
    estimate: Estimate | None = None
    word: str = ""
    """Set at the end of the bar, or in its place."""
    more: float | None = None
    """Value with what comes on top, drawn behind the bar."""


DASH: dict[str, Any] = {"off": "-", "queue": (0, (5, 2)), "distill": (0, (1, 1.4))}
"""Momentum state -> how its lines are drawn."""
LABEL = 0.168
"""Inches that a label at the end of a line takes."""


def point(arch: str, momentum: str = "off", size: float = 7) -> dict[str, Any]:
    """Look of a variant's points: colour and shape are the architecture's; full without momentum, hollow with a queue,
    half full with distillation."""
    hue, shape = colour(arch), family(arch).marker
    look: dict[str, Any] = {"color": hue, "marker": shape, "markersize": size + 2 * (shape == "*")}
    look |= {"markeredgecolor": hue, "markeredgewidth": 1.3}
    if momentum == "queue":
        return look | {"markerfacecolor": PAPER}
    return look | ({"fillstyle": "left", "markerfacecoloralt": PAPER} if momentum == "distill" else {})


def height(bars: int) -> float:
    """Inches of a figure of horizontal bars."""
    return 0.4 + 0.38 * max(bars, 2)


def horizontal(axes: Axes, names: Sequence[str]) -> None:
    """Rows from top to bottom with their names; a grid for reading values off; zero is on the axis."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x")


def bar_rows(axes: Axes, bars: Sequence[Bar], factor: float) -> None:
    """Bars with whiskers over the interval and a word behind each."""
    for place, bar in enumerate(bars):
        if bar.estimate is not None:
            value = bar.estimate.value / factor
            if bar.more is not None:
                top: dict[str, Any] = {"color": colour(bar.arch), "alpha": 0.4, "hatch": "///", "linewidth": 0}
                axes.barh(place, bar.more / factor - value, left=value, height=0.62, **top)
            axes.barh(place, value, height=0.62, color=colour(bar.arch), hatch=HATCH.get(bar.momentum, ""), linewidth=0)
            if bar.estimate.interval:
                low, high = (edge / factor for edge in bar.estimate.interval)
                axes.plot([low, high], [place, place], color=INK, linewidth=1.4, marker="|", markersize=6)
        behind(axes, _end(bar) / factor, place, bar.word, INK if bar.estimate else FAINT)
    ends = [_end(bar) / factor for bar in bars]
    fit(axes, [(end, bar.word) for end, bar in zip(ends, bars, strict=True)])


def _end(bar: Bar) -> float:
    if bar.estimate is None:
        return 0.0
    return max(bar.estimate.value, bar.estimate.high or 0.0, bar.more or 0.0)


def behind(axes: Axes, end: float, place: int, word: str, hue: str = INK) -> None:
    """A word behind the end of a bar."""
    axes.annotate(word, (end, place), (5, 0), textcoords="offset points", va="center", color=hue, annotation_clip=False)


def inches(axes: Axes) -> float:
    """Width of axes."""
    return axes.bbox.width / axes.figure.dpi


def fit(axes: Axes, ends: Sequence[tuple[float, str]]) -> None:
    """Sets the axis so that the word behind the end of every bar has room.

    Args:
        axes: already in its place.
        ends: length of each bar and the word behind it.
    """
    wide = inches(axes)
    limits = [end * wide / max(wide - room([word]), 0.2 * wide) for end, word in ends]
    axes.set_xlim(0, 1.02 * max(limits) or 1)


def stacked(axes: Axes, bars: Sequence[tuple[str, Sequence[tuple[str, float]], str]]) -> None:
    """Stacked bars in shades of their architecture's colour, a word behind each; a part is named where its name fits.

    Args:
        axes: where to draw.
        bars: architecture, parts (name and value, in the order of `SHADES`), word; parts of zero keep their shade.
    """
    ends = [sum(value for _, value in parts) for _, parts, _ in bars]
    fit(axes, [(end, word) for end, (_, _, word) in zip(ends, bars, strict=True)])
    inch = axes.get_xlim()[1] / inches(axes)
    for place, (arch, parts, word) in enumerate(bars):
        left = 0.0
        for shade, (name, value) in zip(SHADES, parts, strict=False):
            hatch = "///" if name.startswith(("momentum", "detector")) else ""
            look: dict[str, Any] = {"color": colour(arch), "alpha": shade, "hatch": hatch, "linewidth": 0}
            if value > 0:
                axes.barh(place, value, left=left, height=0.62, **look)
            if value > (0.07 * len(name) + 0.08) * inch:
                ink = ON if shade >= READABLE else INK
                axes.text(left + value / 2, place, name, ha="center", va="center", color=ink, fontsize=9)
            left += value
        behind(axes, left, place, word)


def plain_log(
    axes: Axes, which: str, shown: Callable[[float], str] = plain, *, subs: Sequence[float] = (1, 2, 5)
) -> None:
    """A logarithmic axis whose ticks are written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Places as near to the values as can be, none closer to the next than ``gap``, order kept.

    Overlapping labels are merged into blocks that sit centred on the mean of what they label.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    blocks: list[tuple[float, list[int]]] = []
    for index in order:
        centre, members = values[index], [index]
        while blocks and blocks[-1][0] + gap * (len(blocks[-1][1]) + len(members)) / 2 > centre:
            _, before = blocks.pop()
            members = before + members
            centre = sum(values[i] for i in members) / len(members)
        blocks.append((centre, members))
    placed = [0.0] * len(values)
    for centre, members in blocks:
        for rank, index in enumerate(members):
            placed[index] = centre + gap * (rank - (len(members) - 1) / 2)
    return placed


def inside(places: Sequence[float], gap: float) -> list[float]:
    """The same places pushed back between 0 and 1 where they lie outside, and then no closer together than ``gap``."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    found, most, least = list(places), 1.0, 0.0
    for index in reversed(order):
        found[index] = min(found[index], most)
        most = found[index] - gap
    for index in order:
        found[index] = max(found[index], least)
        least = found[index] + gap
    return found


def tall(labels: int, least: float) -> float:
    """Inches of axes that have room for as many labels at the right, and at least so many."""
    return max(least, LABEL * (labels + 0.5))


def end_labels(axes: Axes, ends: Sequence[tuple[float, str, str]], *, log: bool = False) -> None:
    """Names lines at the right edge, kept apart, each tied to its line by a hair.

    Args:
        axes: in its place, with its limits already set, and `tall` enough.
        ends: height of the line's end in data units, text, colour.
        log: whether the vertical axis is logarithmic.
    """
    gap = LABEL * axes.figure.dpi / axes.bbox.height
    low, high = axes.get_ylim()
    warp = math.log10 if log else float
    full = warp(high) - warp(low)
    at = [(warp(max(value, low)) - warp(low)) / full for value, _, _ in ends]
    for (_, text, hue), true, place in zip(ends, at, inside(spread(at, gap), gap), strict=True):
        axes.plot([1.0, 1.03], [true, place], transform=axes.transAxes, color=hue, linewidth=0.8, clip_on=False)
        axes.text(1.045, place, text, transform=axes.transAxes, va="center", color=INK, fontsize=9.5)


def quiet(axes: Axes) -> None:
    """Grid lines behind, no ticks sticking out."""
    axes.grid(color=GRID)
    axes.tick_params(length=0)


def figure_table(name: str, title: str, heads: Sequence[str], rows: Sequence[Sequence[Item]], numeric: int) -> Table:
    """The numbers behind a figure; columns from ``numeric`` on hold numbers."""
    found = [Head(title=head, numeric=place >= numeric) for place, head in enumerate(heads)]
    return Table(name=name, title=title, caption="", heads=tuple(found), rows=tuple(tuple(row) for row in rows))
