"""Accuracy against work: what a variant reaches, for how many FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlpbench.reports import details, plots
from vlpbench.reports.board import Board, Column
from vlpbench.reports.measured import Measured
from vlpbench.reports.names import Row
from vlpbench.reports.stats import Estimate
from vlpbench.reports.summary import listed
from vlpbench.reports.svg import FAINT, Figure, canvas, colour, draw
from vlpbench.reports.table import row_item, value_item
from vlpbench.reports.units import PERCENT, Scale, plain, scale

WORK = "flops_forward"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A variant with its accuracy and the FLOPs of a pair."""

    row: Row
    found: Measured
    accuracy: Estimate
    work: Measured

    @property
    def flops(self) -> float:
        """Of one forward of one pair."""
        return self.work.estimates[WORK].value


def recall_against_work(board: Board, suffix: str) -> Figure | None:
    """Mean recall against FLOPs."""
    return _figure(board, "recall_mean", f"recall-flops{suffix}", "Retrieval against work")


def vqa_against_work(board: Board, suffix: str) -> Figure | None:
    """VQA accuracy against FLOPs."""
    return _figure(board, "vqa_accuracy", f"vqa-flops{suffix}", "VQA against work")


def _figure(board: Board, name: str, figure: str, title: str) -> Figure | None:
    column, size = board.column(name), _size_of_work(board, name)
    points = _points(board, name, size) if column and size else []
    if column is None or len(points) < 2:
        return None
    unit, what = scale("FLOP", [point.flops for point in points]), column.meaning.title
    words = [f"{p.row.title} {p.accuracy.value:.1f} % at {unit.full(p.flops)}" for p in points]
    rows = [
        (
            row_item(p.row),
            value_item(p.accuracy, PERCENT, p.found),
            value_item(p.work.estimates[WORK], unit, p.work),
        )
        for p in points
    ]
    return Figure(
        name=figure,
        title=title,
        alt=f"{what} against FLOPs: {listed(words)}.",
        caption=(
            f"{what} of {column.size} models ({dict(column.setting)['data']}) against forward FLOPs of one pair at "
            f"{size}. Lines: 95 % interval. Up and left is better; equal FLOPs are drawn side by side."
        ),
        drawing=_drawing(points, unit, column, figure),
        table=plots.figure_table(figure, title, ("Variant", f"{what}, %", f"FLOPs, {unit.name}"), rows, 1),
    )


def _size_of_work(board: Board, name: str) -> str | None:
    """The size that the accuracy was measured at where every variant's FLOPs are known there, else the table's."""
    column, flops = board.column(name), board.column(WORK)
    if column is None or flops is None:
        return None
    rows = [row for row in board.rows if board.value(row, name)]
    return column.size if all(board.at_size(row, "flops", column.size) for row in rows) else flops.size


def _points(board: Board, name: str, size: str) -> list[Point]:
    points = []
    for row in board.rows:
        found, work = board.get(row, name), board.at_size(row, "flops", size)
        if found and work and name in found.estimates:
            lender = row if found.row.arch == row.arch else found.row
            points.append(Point(row=lender, found=found, accuracy=found.estimates[name], work=work))
    return points


def _drawing(points: Sequence[Point], unit: Scale, column: Column, name: str) -> str:
    names = [f"{point.row.title}   " for point in points]
    figure, (axes,) = canvas(3.4, left=["100"], right=names, head=0.3, foot=0.5)
    places = _side_by_side([point.flops / unit.factor for point in points])
    for point, x in zip(points, places, strict=True):
        hue, value = colour(point.row.arch), point.accuracy
        if value.interval:
            axes.plot([x, x], value.interval, color=hue, linewidth=1.8, alpha=0.55)
        axes.plot(x, value.value, marker=plots.MARKER.get(point.row.momentum, "o"), color=hue, markersize=8)
    base = details.majority(points[0].found.first.detail)
    if base is not None:
        axes.axhline(base, color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        across = axes.get_yaxis_transform()
        axes.text(0.01, base, "commonest answers", transform=across, va="bottom", fontsize=9, color=FAINT)
    ends = [edge for p in points for edge in (p.accuracy.interval or (p.accuracy.value,))]
    ends += [] if base is None else [base]
    axes.set_ylim(max(0.0, min(ends) - 6), min(100.0, max(ends) + 4))
    narrow = max(places) < 3 * min(places)
    if narrow:
        axes.set_xlim(0, 1.15 * max(places))
    else:
        axes.set_xlim(min(places) / 1.35, max(places) * 1.35)
        wide = max(places) > 10 * min(places)
        plots.plain_log(axes, "x", plain, subs=(1, 2, 5) if wide else (1, 1.5, 2, 3, 4, 5, 7))
    plots.quiet(axes)
    axes.set_xlabel(f"{unit.name} forward, per pair{'' if narrow else ' (log)'}")
    axes.set_title(f"{column.meaning.title}, %", fontweight="normal")
    plots.end_labels(axes, [(point.accuracy.value, point.row.title, colour(point.row.arch)) for point in points])
    return draw(figure, name)


def _side_by_side(work: Sequence[float]) -> list[float]:
    """Equal values moved apart a little, so that their intervals can be seen."""
    step = max(max(work) / min(work), 2.0) ** 0.03
    places = []
    for index, value in enumerate(work):
        same = [i for i, other in enumerate(work) if other == value]
        places.append(value * step ** (same.index(index) - (len(same) - 1) / 2))
    return places
