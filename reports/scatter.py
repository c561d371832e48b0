"""Accuracy against what it costs: work, time of a pair, time of training, with the front that nothing beats on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from vlpbench.reports import details, plots
from vlpbench.reports.board import Board, Column
from vlpbench.reports.measured import Measured
from vlpbench.reports.names import Row
from vlpbench.reports.stats import Estimate
from vlpbench.reports.summary import listed
from vlpbench.reports.svg import FAINT, Figure, canvas, colour, draw
from vlpbench.reports.table import Item, Table, row_item, value_item
from vlpbench.reports.units import PERCENT, plain, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORK = "flops_forward"
PLACES = {
    "recall_mean": "recall",
    "vqa_accuracy": "vqa",
    "reasoning_accuracy": "reasoning",
    "entailment_accuracy": "entailment",
}
"""Accuracy -> name of its figure."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A variant with its accuracy and one cost of it."""

    row: Row
    found: Measured
    accuracy: Estimate
    cost: float
    source: Measured
    """Where the cost is from."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One thing that an accuracy costs."""

    name: str
    """Behind "against" in a sentence."""
    unit: str
    axis: str
    points: tuple[Point, ...]


def accuracy_against_cost(name: str) -> Callable[[Board, str], Figure | None]:
    """The maker of the figure of one accuracy."""

    def make(board: Board, suffix: str) -> Figure | None:
        column = board.column(name)
        costs = [] if column is None else [cost for cost in _costs(board, column) if len(cost.points) > 1]
        return _figure(column, costs, f"{PLACES[name]}-tradeoff{suffix}") if column and costs else None

    return make


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of those (cost, accuracy) that none beats on one without losing on the other (Pareto), cheapest first."""

    def beaten(x: float, y: float) -> bool:
        return any(a <= x and b >= y and (a < x or b > y) for a, b in points)

    return sorted((i for i, one in enumerate(points) if not beaten(*one)), key=lambda i: points[i])


def _costs(board: Board, column: Column) -> list[Cost]:
    size = _size_of_work(board, column)
    known = [
        (row, m) for row in board.rows if (m := board.get(row, column.quantity)) and column.quantity in m.estimates
    ]
    own = [(row if m.row.arch == row.arch else m.row, row, m) for row, m in known]

    def points(cost: Callable[[Row, Row, Measured], tuple[float, Measured] | None]) -> tuple[Point, ...]:
        found = ((lender, m, cost(lender, row, m)) for lender, row, m in own)
        return tuple(
            Point(row=lender, found=m, accuracy=m.estimates[column.quantity], cost=one[0], source=one[1])
            for lender, m, one in found
            if one
        )

    speed = board.column("latency")
    timed = f"latency, {speed.size}, batch {dict(speed.setting)['batch']}" if speed else ""
    return [
        Cost(name="FLOPs", unit="FLOP", axis=f"forward, per pair, {size}", points=points(_work(board, size))),
        Cost(name="latency", unit="s", axis=timed, points=points(lambda _, row, __: _latency(board, row))),
        Cost(
            name="training time",
            unit="s",
            axis="of this pre-training",
            points=points(lambda *a: _training(board, a[2])),
        ),
    ]


def _work(board: Board, size: str) -> Callable[[Row, Row, Measured], tuple[float, Measured] | None]:
    def cost(lender: Row, row: Row, _: Measured) -> tuple[float, Measured] | None:
        m = board.at_size(lender, "flops", size) or board.at_size(row, "flops", size)
        if m is None or WORK not in m.estimates:
            return None
        detector = board.at_size(row, "detector", size)
        extra = detector.estimates.get("flops_detector") if detector else None
        return m.estimates[WORK].value + (extra.value if extra else 0.0), m

    return cost


def _latency(board: Board, row: Row) -> tuple[float, Measured] | None:
    found, value = board.get(row, "latency"), board.value(row, "latency")
    if found is None or value is None:
        return None
    whole = board.at_size(row, "detector", dict(found.setting)["size"])
    detected = whole.estimates.get("latency_with_detector") if whole else None
    return (detected or value).value, found


def _training(board: Board, m: Measured) -> tuple[float, Measured] | None:
    seconds = [details.training_seconds(record.detail, record.cell.device) for record in m.records]
    if m.env != board.env or None in seconds:
        return None
    return fmean(second for second in seconds if second is not None), m


def _size_of_work(board: Board, column: Column) -> str:
    """The size that the accuracy was measured at where every variant's FLOPs are known there, else the table's."""
    flops = board.column(WORK)
    rows = [row for row in board.rows if board.value(row, column.quantity)]
    return column.size if flops is None or all(board.at_size(row, "flops", column.size) for row in rows) else flops.size


def _figure(column: Column, costs: Sequence[Cost], name: str) -> Figure:
    what = column.meaning.title
    fronts = {cost.name: [cost.points[i].row.title for i in _front(cost)] for cost in costs}
    said = [f"against {cost.name} {listed(fronts[cost.name])}" for cost in costs]
    regions = any(cost.name == "FLOPs" and column.size not in cost.axis for cost in costs)
    return Figure(
        name=name,
        title=f"{what} against cost",
        alt=f"{what} of {listed([p.row.title for p in costs[0].points])}. On the Pareto front {'; '.join(said)}.",
        caption=(
            f"{what} of {column.size} models ({dict(column.setting)['data']}). Up and left is better. Grey line: the "
            "Pareto front, which nothing beats on both. Bars: 95 % interval; where one reaches the line, the front is "
            "not told apart. Equal costs are drawn side by side."
            + (" Work is of the papers' size, with the detector where there is one." if regions else "")
        ),
        drawing=_drawing(column, costs, name),
        table=_table(name, f"{what} against cost", costs, fronts),
    )


def _front(cost: Cost) -> list[int]:
    return front([(point.cost, point.accuracy.value) for point in cost.points])


def _table(name: str, title: str, costs: Sequence[Cost], fronts: dict[str, list[str]]) -> Table:
    shown = {point.row: point for cost in costs for point in cost.points}
    units = {cost.name: scale(cost.unit, [point.cost for point in cost.points]) for cost in costs}
    rows = []
    for row, any_point in shown.items():
        items = [row_item(row), value_item(any_point.accuracy, PERCENT, any_point.found)]
        for cost in costs:
            one = next((point for point in cost.points if point.row == row), None)
            unit, on = units[cost.name], row.title in fronts[cost.name]
            items.append(
                Item(text="–", kind="absent")
                if one is None
                else Item(
                    text=unit.show(one.cost), value=one.cost, record=one.source.first.id, note="front" if on else ""
                )
            )
        rows.append(items)
    heads = ("Variant", "accuracy, %", *(f"{cost.name}, {units[cost.name].name}" for cost in costs))
    return plots.figure_table(name, title, heads, rows, 1)


def _drawing(column: Column, costs: Sequence[Cost], name: str) -> str:
    labels = [f"{point.row.title}   " for cost in costs for point in cost.points]
    one = plots.tall(max(len(cost.points) for cost in costs), 2.3)
    height = 0.8 + (one + 0.85) * len(costs) - 0.85
    figure, panels = canvas(height, len(costs), left=["100"], right=labels, head=0.3, foot=0.5, gap=0.85)
    for cost, axes in zip(costs, panels, strict=True):
        _panel(axes, cost)
        axes.set_title(f"{column.meaning.title}, %, against {cost.name}", fontweight="normal")
    return draw(figure, name)


def _panel(axes: Axes, cost: Cost) -> None:
    unit = scale(cost.unit, [point.cost for point in cost.points])
    places = _side_by_side([point.cost / unit.factor for point in cost.points])
    base = details.majority(cost.points[0].found.first.detail)
    _limits(axes, cost, places, base)
    order = _front(cost)
    steps = [(places[i], cost.points[i].accuracy.value) for i in order]
    steps = [(steps[0][0], axes.get_ylim()[0]), *steps, (axes.get_xlim()[1], steps[-1][1])]
    axes.step(*zip(*steps, strict=True), where="post", color=FAINT, linewidth=1.1, alpha=0.7)
    for point, x in zip(cost.points, places, strict=True):
        if point.accuracy.interval:
            axes.plot([x, x], point.accuracy.interval, color=colour(point.row.arch), linewidth=1.8, alpha=0.55)
        axes.plot(x, point.accuracy.value, **plots.point(point.row.arch, point.row.momentum), linestyle="")
    if base is not None:
        axes.axhline(base, color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        across = axes.get_yaxis_transform()
        axes.text(0.01, base, "commonest answers", transform=across, va="bottom", fontsize=9, color=FAINT)
    plots.quiet(axes)
    log = axes.get_xscale() == "log"
    axes.set_xlabel(f"{unit.name} {cost.axis}{' (log)' if log else ''}")
    plots.end_labels(axes, [(p.accuracy.value, p.row.title, colour(p.row.arch)) for p in cost.points])


def _limits(axes: Axes, cost: Cost, places: Sequence[float], base: float | None) -> None:
    ends = [edge for p in cost.points for edge in (p.accuracy.interval or (p.accuracy.value,))]
    ends += [] if base is None else [base]
    axes.set_ylim(max(0.0, min(ends) - 6), min(101.0, max(ends) + 4))
    if max(places) < 3 * min(places):
        axes.set_xlim(0, 1.15 * max(places))
        return
    axes.set_xlim(min(places) / 1.35, max(places) * 1.35)
    wide = max(places) > 10 * min(places)
    plots.plain_log(axes, "x", plain, subs=(1, 2, 5) if wide else (1, 1.5, 2, 3, 4, 5, 7))


def _side_by_side(work: Sequence[float]) -> list[float]:
    """Equal values moved apart a little, so that their intervals can be seen."""
    step = max(max(work) / min(work), 2.0) ** 0.03
    places = []
    for index, value in enumerate(work):
        same = [i for i, other in enumerate(work) if other == value]
        places.append(value * step ** (same.index(index) - (len(same) - 1) / 2))
    return places
