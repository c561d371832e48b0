"""The measured time of a search: dots where it was measured, lines where it is predicted from the cost of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from vlpbench.reports import gallery, plots
from vlpbench.reports.board import Board
from vlpbench.reports.measured import Measured
from vlpbench.reports.summary import listed
from vlpbench.reports.svg import INK, PAPER, Figure, canvas, colour, draw
from vlpbench.reports.table import Item, scorer_words
from vlpbench.reports.units import duration, plain

LARGEST = 1_000_000.0
"""Images, and as many texts, up to which lines are drawn."""
EXTRAPOLATED = {"flickr": "1,000 × 5,000", "coco": "5,000 × 25,010", "million": "10⁶ × 10⁶"}
"""Name in a record -> images x texts."""
DASHED: Any = (0, (5, 3))
NAMED = 6
"""Crossovers up to which each is named; all stand in the table of crossovers."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One architecture by one scorer."""

    measured: Measured
    image: float
    text: float
    compare: float
    fuse: float
    """Seconds of the parts."""
    points: tuple[tuple[float, float], ...]
    """Images, and as many texts -> seconds."""

    @property
    def title(self) -> str:
        """What a figure calls the line."""
        way = gallery.WAYS.get(self.measured.scorer or "", scorer_words(self.measured))
        return f"{self.measured.row.plain_title}, {way}"

    def seconds(self, n: float) -> float:
        """Predicted for n images and n texts."""
        scorer, k = self.measured.scorer, self.measured.k or 1
        pairs = {"embed": 0.0, "match": n * n}.get(scorer or "", min(n * n, 2 * n * min(k, n)))
        compared = 0.0 if scorer == "match" else n * n * self.compare
        return n * (self.image + self.text) + compared + pairs * self.fuse


def searches(board: Board) -> list[Timed]:
    """Every search that was timed, once for all momentum states."""
    found: dict[str, Timed] = {}
    for m in board.everything:
        units, points = m.detail("units"), m.detail("measured")
        if m.measure != "retrieval_cost" or m.env != board.env or not m.ok or not isinstance(units, dict) or not points:
            continue
        timed = Timed(
            measured=m,
            points=tuple((float(p["images"]), float(p["seconds"])) for p in points),
            **{name: float(value) for name, value in units["seconds"].items()},
        )
        found.setdefault(timed.title, timed)
    return list(found.values())


def crossovers(found: Sequence[Timed]) -> list[tuple[float, Timed, Timed]]:
    """Gallery sizes at which one of two searches becomes the faster one, smallest first."""
    met = [(gallery.crossing(a.seconds, b.seconds, 2.0, LARGEST), a, b) for a, b in combinations(found, 2)]
    return sorted(((at, a, b) for at, a, b in met if at is not None), key=lambda entry: entry[0])


def search_time(board: Board, suffix: str) -> Figure | None:
    """Seconds against gallery size, dashed where no gallery was measured; None where nothing was timed."""
    found = searches(board)
    if not found:
        return None
    name, met = f"search-time{suffix}", crossovers(found)
    height = 0.65 + plots.tall(len(found), 3.4)
    figure, (axes,) = canvas(height, left=["100 M s "], right=[f"{one.title}   " for one in found], foot=0.55)
    for one in found:
        last, shade = one.points[-1][0], colour(one.measured.row.arch)
        axes.plot(*zip(*one.points, strict=True), **plots.point(one.measured.row.arch, size=4), linestyle="")
        for sizes, line in ((_sizes(one.points[0][0], last), "-"), (_sizes(last, LARGEST), DASHED)):
            axes.plot(sizes, [one.seconds(n) for n in sizes], color=shade, linestyle=line)
    for at, a, _ in met:
        axes.plot(at, a.seconds(at), marker="o", color=INK, markerfacecolor=PAPER, markersize=6, zorder=5)
    axes.set_xlim(2.0, LARGEST)
    plots.plain_log(axes, "x", subs=(1,))
    plots.plain_log(axes, "y", _tick, subs=(1,))
    plots.quiet(axes)
    axes.set_xlabel("images in the gallery, and as many texts (log)")
    plots.end_labels(
        axes, [(one.seconds(LARGEST), one.title, colour(one.measured.row.arch)) for one in found], log=True
    )
    words = [f"{a.title} equals {b.title} at {at:,.0f}" for at, a, b in met[:NAMED]]
    words += [f"{len(met) - NAMED} more in the table of crossovers"] if len(met) > NAMED else []
    rings = f" Rings: {'; '.join(words)}." if words else ""
    return Figure(
        name=name,
        title="How long a search takes",
        alt=f"Time of a search against gallery size for {listed([one.title for one in found])}.{rings}",
        caption="Dots: measured. Lines: predicted from the measured cost of an image, a text, an inner product and a "
        f"fused pair; dashed where they are extrapolated beyond the largest gallery that was measured.{rings}",
        drawing=draw(figure, name),
        table=_table(found, name),
    )


def _tick(seconds: float) -> str:
    """``10 µs``, ``1 ms``, ``1,000 s``, ``10 k s``."""
    for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.999 * factor:
            return f"{plain(round(seconds / factor))} {name}"
    return f"{seconds * 1e9:,.0f} ns"


def _sizes(low: float, high: float) -> list[float]:
    return [low * (high / low) ** (i / 40) for i in range(41)]


def _table(found: Sequence[Timed], name: str) -> Any:
    """Exponent, largest measured gallery, and the extrapolated times."""
    rows = []
    for one in found:
        m, fit = one.measured, one.measured.detail("exponent")
        size, took = one.points[-1]
        items = [
            Item(text=f"{fit['value']:.2f}", note=f"{fit['low']:.2f}–{fit['high']:.2f}", value=fit["value"]),
            Item(text=duration(took), note=f"{size:,.0f} images, measured", value=took, record=m.first.id),
        ]
        for key in EXTRAPOLATED:
            seconds = m.estimates[f"search_{key}"].value
            items.append(Item(text=duration(seconds), note="extrapolated", value=seconds, record=m.first.id))
        rows.append((Item(text=one.title, kind="head", family=m.row.arch), *items))
    heads = ("Search", "Exponent", "Largest measured", *EXTRAPOLATED.values())
    return plots.figure_table(name, "How long a search takes", heads, rows, 1)
