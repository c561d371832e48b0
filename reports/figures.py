"""The figures of a report. Each is drawn from a board, and is None where the records hold too little to draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vlpbench.reports import components, curves, gap, learning, plots, scatter, search_time
from vlpbench.reports.board import Board
from vlpbench.reports.measured import Measured
from vlpbench.reports.plots import Bar
from vlpbench.reports.summary import counted, listed
from vlpbench.reports.svg import Figure, canvas, draw, style
from vlpbench.reports.table import Item, failure_item, row_item, value_item
from vlpbench.reports.units import scale, times

PHASES = (
    ("step_forward", "forward"),
    ("step_backward", "backward"),
    ("step_optimizer", "optimiser"),
    ("step_momentum", "momentum"),
)
Maker = Callable[[Board, str], Figure | None]


def figures(board: Board, suffix: str = "", *, everywhere: bool = True) -> dict[str, list[Figure]]:
    """All figures of one environment by the section that they stand in, in the order of the page.

    Args:
        board: the comparison they are drawn from.
        suffix: set behind the name of every figure, so that those of several environments stay apart.
        everywhere: whether to draw those that do not depend on the environment too.
    """
    with style():
        return {
            section: [
                figure
                for make in makers
                if (everywhere or make in TIMED) and (figure := make(board, suffix)) is not None
            ]
            for section, makers in MAKERS.items()
        }


def latency(board: Board, suffix: str) -> Figure | None:
    """Latency bars."""
    return _bars(board, "latency", f"latency{suffix}", "Median time of one forward; shorter is better.")


def throughput(board: Board, suffix: str) -> Figure | None:
    """Throughput bars."""
    return _bars(board, "throughput", f"throughput{suffix}", "Median pairs in a second; longer is better.")


def memory_inference(board: Board, suffix: str) -> Figure | None:
    """Peak memory of an inference."""
    return _bars(board, "memory_inference", f"memory-inference{suffix}", "Peak of an inference call; less is better.")


def memory_training(board: Board, suffix: str) -> Figure | None:
    """Peak memory of a training step."""
    return _bars(board, "memory_training", f"memory-training{suffix}", "Peak of a training step; less is better.")


def _bars(board: Board, name: str, figure: str, reading: str) -> Figure | None:
    column = board.column(name)
    if column is None:
        return None
    shown = _each_once(board, name)
    behind = {m.first.id: more.value for _, m in shown if (more := board.detected(m.row, name))}
    pick = min if column.meaning.better == "lower" else max
    best = pick(behind.get(m.first.id, m.estimates[name].value) for _, m in shown if name in m.estimates)
    bars, rows = [], []
    for title, found in shown:
        value = found.estimates.get(name)
        more = behind.get(found.first.id)
        whole = more or (value.value if value else best)
        ratio = f" · {times(whole / best)}" if whole != best else ""
        all_of_it = f" · {scale(column.meaning.unit, [more]).full(more)} in all" if more else ""
        word = column.scale.full(value.value) + all_of_it + ratio if value else failure_item(found).text
        bars.append(
            Bar(name=title, arch=found.row.arch, momentum=found.row.momentum, estimate=value, word=word, more=more)
        )
        extra = f"{column.scale.full(more)} with detector" if more else ""
        item = value_item(value, column.scale, found, by=extra) if value else failure_item(found)
        rows.append((Item(text=title, kind="head", family=found.row.arch), item))
    drawing, (axes,) = canvas(plots.height(len(bars)), left=[bar.name for bar in bars])
    plots.bar_rows(axes, bars, column.scale.factor)
    plots.horizontal(axes, [bar.name for bar in bars])
    fields = dict(column.setting)
    threads = counted(int(fields["threads"]), "thread")
    setting = f"{fields['size']}, batch {fields['batch']}, {fields['dtype']}, {fields['device']}, {threads}"
    words = listed([f"{bar.name} {bar.word}" for bar in bars])
    return Figure(
        name=figure,
        title=column.meaning.title,
        alt=f"{column.meaning.title} ({setting}): {words}.",
        caption=f"{reading} Models at {setting}. Whisker: 95 % interval; × is against the best."
        + (" Hatched: the detector in front of models that read regions; in all: with it." if behind else ""),
        drawing=draw(drawing, figure),
        table=plots.figure_table(
            figure, column.meaning.title, ("Variant", f"{column.meaning.title}, {column.scale.name}"), rows, 1
        ),
    )


def _each_once(board: Board, name: str) -> list[tuple[str, Measured]]:
    """Measurements in the order of rows; one that holds for all momentum states is called by the architecture alone."""
    found: dict[str, tuple[str, Measured]] = {}
    for row in board.rows:
        m = board.get(row, name)
        if m is not None:
            found.setdefault(m.first.id, (row.plain_title if m.shared else row.title, m))
    return list(found.values())


def phases(board: Board, suffix: str) -> Figure | None:
    """Training step by phase, and what it is against the same architecture without momentum."""
    column, title = board.column("step"), "Training step by phase"
    shown = [(row, m) for row in board.rows if (m := board.get(row, "step")) and PHASES[0][0] in m.estimates]
    if column is None or not shown:
        return None
    unit, name, bars, rows = column.scale, f"phases{suffix}", [], []
    for row, m in shown:
        total, off = m.estimates["step"].value, board.value(replace(row, momentum="off"), "step")
        ratio = f" · {times(total / off.value)}" if row.momentum != "off" and off else ""
        parts = [(word, _middle(m, key) / unit.factor) for key, word in PHASES]
        bars.append((row.arch, parts, unit.full(total) + ratio))
        known = [value_item(m.estimates[k], unit, m) if k in m.estimates else Item(text="–") for k, _ in PHASES]
        rows.append((row_item(row), value_item(m.estimates["step"], unit, m), *known))
    drawing, (axes,) = canvas(plots.height(len(shown)), left=[row.title for row, _ in shown])
    plots.stacked(axes, bars)
    plots.horizontal(axes, [row.title for row, _ in shown])
    fields = dict(column.setting)
    heads = ("Variant", f"whole, {unit.name}", *(word for _, word in PHASES))
    words = [f"{row.title} {word}" for (row, _), (_, _, word) in zip(shown, bars, strict=True)]
    return Figure(
        name=name,
        title=title,
        alt=f"Training step: {listed(words)}.",
        caption=(
            f"Medians of {fields['size']} models, batch {fields['batch']}, {fields['device']}. From the left: forward "
            "(with the momentum model's), backward, optimiser, momentum update (hatched). × is against momentum off."
        ),
        drawing=draw(drawing, name),
        table=plots.figure_table(name, title, heads, rows, 1),
    )


def _middle(m: Measured, quantity: str) -> float:
    return m.estimates[quantity].value if quantity in m.estimates else 0.0


TIMED: tuple[Maker, ...] = (latency, throughput, phases, memory_inference, memory_training, search_time.search_time)
"""Those that depend on the environment."""
MAKERS: dict[str, tuple[Maker, ...]] = {
    "tradeoff": (
        *map(scatter.accuracy_against_cost, scatter.PLACES),
        *map(gap.gap_figure, gap.TASKS),
    ),
    "cost": (components.work, components.parameters, *TIMED[:-1]),
    "search": (curves.search_cost, search_time.search_time),
    "learning": (learning.accuracy_curves, curves.learning),
    "accuracy": (curves.question_types,),
}
"""Name of a section -> what is drawn there."""
