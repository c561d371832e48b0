"""Figures of lines and dots: the cost of a search, learning curves, VQA by question type."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from vlpbench.reports import details, gallery, plots
from vlpbench.reports.board import Board
from vlpbench.reports.gallery import Search
from vlpbench.reports.measured import Measured, kind_estimate
from vlpbench.reports.names import Row
from vlpbench.reports.summary import listed
from vlpbench.reports.svg import FAINT, INK, PAPER, Figure, canvas, colour, draw
from vlpbench.reports.table import Item, row_item, value_item
from vlpbench.reports.units import PERCENT, duration, plain, scale

SMALLEST, LARGEST = 10.0, 100_000.0
"""Images of the galleries that the search figure spans."""
NAMED = 6
"""Crossovers up to which each is named in the figure; all stand in the table of crossovers."""
DASH: dict[str, Any] = {"dual": "-", "rerank": (0, (5, 2)), "exhaustive": (0, (1, 1.4))}


def search_cost(board: Board, suffix: str) -> Figure | None:
    """Predicted FLOPs of searching a gallery, with the sizes at which one way becomes cheaper than another."""
    found = gallery.searches(board)
    if len(found) < 2:
        return None
    name = f"search{suffix}"
    crossings = crossovers(found)
    height = 0.65 + plots.tall(len(found), 3.4)
    figure, (axes,) = canvas(height, left=["100 PFLOP"], right=[f"{s.title}   " for s in found], foot=0.55)
    sizes = [SMALLEST * (LARGEST / SMALLEST) ** (i / 80) for i in range(81)]
    for place, one in enumerate(found):
        look = plots.point(one.row.arch, size=5) | {"linestyle": DASH[one.way], "markevery": (5 + 3 * place % 20, 25)}
        axes.plot(sizes, [one.flops(n) for n in sizes], **look)
    axes.set_xlim(SMALLEST, LARGEST)
    plots.plain_log(axes, "x", subs=(1,))
    plots.plain_log(axes, "y", _flop_tick, subs=(1,))
    low, high = axes.get_ylim()
    axes.set_yticks([10.0**e for e in range(0, 31, 3) if low <= 10.0**e <= high])
    for images, label in gallery.GALLERIES.items():
        axes.axvline(images, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.text(images, high, f" {label}", color=FAINT, fontsize=8.5, rotation=90, va="top", ha="right")
    for at, a, _ in crossings:
        axes.plot(at, a.flops(at), marker="o", color=INK, markerfacecolor=PAPER, markersize=6, zorder=5)
        if len(crossings) <= NAMED:
            axes.annotate(
                f"{at:,.0f}", (at, a.flops(at)), (5, -11), textcoords="offset points", fontsize=9, color=INK, zorder=5
            )
    plots.quiet(axes)
    axes.set_xlabel("images in the gallery (log); five texts each")
    plots.end_labels(axes, [(s.flops(LARGEST), s.title, colour(s.row.arch)) for s in found], log=True)
    words = [f"{a.title} equals {b.title} at {at:,.0f} images" for at, a, b in crossings[:NAMED]]
    words += [f"{len(crossings) - NAMED} more in the table of crossovers"] if len(crossings) > NAMED else []
    return Figure(
        name=name,
        title="What a search costs",
        alt=f"Predicted FLOPs of a search against gallery size for {listed([s.title for s in found])}. "
        + (f"Crossovers: {'; '.join(words)}." if words else "No two lines cross."),
        caption=_search_caption(found, words),
        drawing=draw(figure, name),
        table=_search_table(board, found, name),
    )


def _search_caption(found: Sequence[Search], words: Sequence[str]) -> str:
    size = dict(found[0].measured.setting)["size"]
    rings = f" Rings: {'; '.join(words)}." if words else ""
    return (
        f"Predicted from the FLOPs of the stages at {size}, both directions, a detector included. Solid: dual, N + M "
        f"encodings. Dashed: rerank, and k = {gallery.CANDIDATES} fusions a query. Dotted: exhaustive, N × M "
        f"fusions. Where an embedding runs what no pair runs, only its time is predicted.{rings}"
    )


def _flop_tick(value: float) -> str:
    """``1 TFLOP``; one name for each factor of a thousand."""
    for exponent, prefix in ((24, "Y"), (21, "Z"), (18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**exponent:
            return f"{value / 10**exponent:,.0f} {prefix}FLOP"
    return f"{value:,.0f} FLOP"


def crossovers(found: Sequence[Search]) -> list[tuple[float, Search, Search]]:
    """Where the lines of two searches meet, smallest gallery first."""
    met = [(gallery.crossing(a.flops, b.flops, SMALLEST, LARGEST), a, b) for a, b in combinations(found, 2)]
    return sorted(((at, a, b) for at, a, b in met if at is not None), key=lambda entry: entry[0])


def _search_table(board: Board, found: list[Search], name: str) -> Any:
    """FLOPs at round gallery sizes, and the time they take at the throughput measured here."""
    sizes = (100, 1000, 5000, 100_000)
    rows = []
    for one in found:
        items = []
        for n in sizes:
            flops = one.flops(n)
            unit = scale("FLOP", [flops])
            took = _seconds(board, one, flops)
            note = f"about {duration(took)}" if took else ""
            items.append(Item(text=unit.full(flops), note=note, value=flops, record=one.measured.first.id))
        rows.append((Item(text=one.title, kind="head", family=one.row.arch), *items))
    heads = ("Search", *(f"{plain(n)} images" for n in sizes))
    return plots.figure_table(name, "What a search costs", heads, rows, 1)


def _seconds(board: Board, one: Search, flops: float) -> float | None:
    rate, work = board.value(one.row, "throughput"), board.value(one.row, "flops_forward")
    return flops / (work.value * rate.value) if rate and work else None


def question_types(board: Board, suffix: str) -> Figure | None:
    """VQA accuracy by type of question."""
    shown = [
        (row if m.row.arch == row.arch else m.row, m)
        for row in board.rows
        if (m := board.get(row, "vqa_accuracy")) and details.kinds(m.first.detail)
    ]
    kinds = list(dict.fromkeys(kind for _, m in shown for kind in details.kinds(m.first.detail)))
    if not kinds:
        return None
    name, size = f"vqa-types{suffix}", dict(shown[0][1].setting)["size"]
    rows = [(row_item(row), *(_type_item(m, kind) for kind in kinds)) for row, m in shown]
    words = [f"{row.title} {', '.join(f'{k} {_type_item(m, k).text}' for k in kinds)}" for row, m in shown]
    return Figure(
        name=name,
        title="VQA by type of question",
        alt=f"Accuracy in percent by question type: {'; '.join(words)}.",
        caption=f"Share answered exactly by {size} models. Lines: 95 % interval over the questions of the type.",
        drawing=_type_dots(shown, kinds, name),
        table=plots.figure_table(name, "VQA by type of question, %", ("Variant", *kinds), rows, 1),
    )


def _type_dots(shown: Sequence[tuple[Row, Measured]], kinds: Sequence[str], name: str) -> str:
    legend = 0.2 + 0.22 * ((len(shown) + 1) // 2)
    tall = legend + 0.55 + max(0.5, 0.16 * len(shown)) * len(kinds)
    figure, (axes,) = canvas(tall, left=kinds, head=legend, foot=0.55)
    step, handles = 0.8 / len(shown), []
    for index, (row, m) in enumerate(shown):
        look: dict[str, Any] = plots.point(row.arch, row.momentum, 6) | {"linestyle": ""}
        handles += axes.plot([], [], label=row.title, **look)
        for place, kind in enumerate(kinds):
            value, y = kind_estimate(m, kind), place + step * (index - (len(shown) - 1) / 2)
            if value is None:
                continue
            if value.interval:
                axes.plot(value.interval, [y, y], color=colour(row.arch), linewidth=1.6, alpha=0.55)
            axes.plot(value.value, y, **look)
    for place in range(len(kinds) - 1):
        axes.axhline(place + 0.5, color=FAINT, linewidth=0.5, alpha=0.6)
    plots.horizontal(axes, kinds)
    axes.set_xlim(0, 101)
    axes.set_xlabel("%")
    figure.legend(
        handles=handles, loc="upper left", borderaxespad=0, ncols=2, frameon=False, handletextpad=0.1, fontsize=9.5
    )
    return draw(figure, name)


def _type_item(m: Measured, kind: str) -> Item:
    value = kind_estimate(m, kind)
    return value_item(value, PERCENT, m) if value else Item(text="–")


def learning(board: Board, suffix: str) -> Figure | None:
    """Training losses against the step, one panel for an objective."""
    shown = _trainings(board)
    objectives = list(dict.fromkeys(name for *_, curve in shown for name in curve))
    if not objectives:
        return None
    name = f"learning{suffix}"
    names = [f"{row.title}   " for row, *_ in shown]
    one = plots.tall(len(shown), 1.3)
    figure, panels = canvas(
        0.85 + (one + 0.6) * len(objectives) - 0.6,
        len(objectives),
        left=["10.0"],
        right=names,
        head=0.3,
        foot=0.55,
        gap=0.6,
    )
    rows = []
    for objective, axes in zip(objectives, panels, strict=True):
        mine = [(row, m, curve[objective]) for row, m, curve in shown if objective in curve]
        _loss_panel(axes, objective, [(row, points) for row, _, points in mine])
        rows += [
            (row_item(row), Item(text=objective.upper()), Item(text=f"{points[-1][0]:,.0f}"), _last(m, points))
            for row, m, points in mine
        ]
    panels[-1].set_xlabel("training step")
    size = dict(shown[0][1].setting)["size"]
    return Figure(
        name=name,
        title="Learning curves",
        alt=f"Training loss against the step for {listed(objectives)}, {listed([row.title for row, *_ in shown])}.",
        caption=(
            f"Loss of each objective while {size} models are pre-trained. Solid: momentum off, dashed: queue, dotted: "
            "distill. Soft targets and the queue raise the floor of a loss: compare shapes, not heights."
        ),
        drawing=draw(figure, name),
        table=plots.figure_table(name, "Last losses", ("Variant", "Objective", "Step", "Loss"), rows, 3),
    )


def _loss_panel(axes: Any, objective: str, lines: list[tuple[Row, list[tuple[float, float]]]]) -> None:
    for row, points in lines:
        axes.plot(*zip(*points, strict=True), color=colour(row.arch), linestyle=plots.DASH.get(row.momentum, "-"))
    axes.set_title(f"{objective.upper()} loss", fontweight="normal")
    axes.set_xlim(0, max(points[-1][0] for _, points in lines))
    plots.quiet(axes)
    plots.end_labels(axes, [(points[-1][1], row.title, colour(row.arch)) for row, points in lines])


def _last(m: Measured, points: list[tuple[float, float]]) -> Item:
    return Item(text=f"{points[-1][1]:.3f}", value=points[-1][1], record=m.first.id)


def _trainings(board: Board) -> list[tuple[Row, Measured, dict[str, list[tuple[float, float]]]]]:
    """One learning curve for a variant; a pre-training that two share is shown for the first."""
    found: dict[str, tuple[Row, Measured, dict[str, list[tuple[float, float]]]]] = {}
    for row in board.trained:
        mine = [m for m in board.everything if m.row == row and m.ok and details.curve(m.first.detail)]
        if mine:
            key = details.pretraining(mine[0].first.detail) or mine[0].first.id
            found.setdefault(key, (row, mine[0], details.curve(mine[0].first.detail)))
    return list(found.values())
