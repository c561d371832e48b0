"""Stacked bars of what a model is made of and where its work goes, by component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlpbench.reports import plots
from vlpbench.reports.board import Board, Column
from vlpbench.reports.measured import Measured
from vlpbench.reports.summary import listed
from vlpbench.reports.svg import Figure, canvas, draw
from vlpbench.reports.table import Item

COMPONENTS = ("image", "text", "fusion", "embedding", "projection", "head")
COPY, DETECTOR = "momentum copies", "detector"
LAST = (DETECTOR, COPY)
"""Parts that are no component of the model: drawn last, hatched."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One bar."""

    name: str
    measured: Measured
    parts: Mapping[str, float]
    total: float
    """What the number behind the bar says."""


def parameters(board: Board, suffix: str) -> Figure | None:
    """Parameters by component, and behind them the detector and the copies that momentum keeps."""
    column = board.column("params_stored")
    return _figure(
        column, _stacks(board, "params_stored", "params_detector"), f"parameters{suffix}", "Parameters by component"
    )


def work(board: Board, suffix: str) -> Figure | None:
    """FLOPs of one pair by component, and behind them the detector's."""
    column = board.column("flops_forward")
    return _figure(column, _stacks(board, "flops_forward", "flops_detector"), f"work{suffix}", "FLOPs by component")


def _stacks(board: Board, name: str, detector: str) -> list[Stack]:
    """Each measurement once; states of momentum of which the number is equal are one bar."""
    found: dict[tuple[str, float], Stack] = {}
    for row in board.rows:
        m = board.get(row, name)
        parts = _components(m) if m and name in m.estimates else {}
        if m is None or not parts:
            continue
        whole = board.at_size(row, DETECTOR, dict(m.setting)["size"])
        extra = whole.estimates.get(detector) if whole else None
        parts |= {DETECTOR: extra.value} if extra else {}
        value = m.estimates[name].value
        stack = Stack(name=row.plain_title, measured=m, parts=parts, total=value + (extra.value if extra else 0.0))
        found.setdefault((stack.name, value), stack)
    return list(found.values())


def _components(m: Measured) -> dict[str, float]:
    """By component, with the momentum copies where the record tells of training."""
    found = m.detail("by_component")
    copies = (m.detail("learner") or {}).get("momentum", 0)
    parts = {str(k): float(v) for k, v in found.items()} if isinstance(found, dict) else {}
    return parts | ({COPY: float(copies)} if parts and copies else {})


def _figure(column: Column | None, shown: Sequence[Stack], name: str, title: str) -> Figure | None:
    if column is None or not shown:
        return None
    present = dict.fromkeys(part for stack in shown for part, value in stack.parts.items() if value)
    names = [part for part in COMPONENTS if part in present]
    names += sorted(part for part in present if part not in (*COMPONENTS, *LAST))
    names += [part for part in LAST if part in present]
    unit = column.scale
    bars, rows = [], []
    for stack in shown:
        parts = [(part, stack.parts.get(part, 0.0) / unit.factor) for part in names]
        bars.append((stack.measured.row.arch, parts, unit.full(stack.total)))
        first = stack.measured.first.id
        known = [Item(text=f"{value:,.1f}", value=value * unit.factor, record=first) for _, value in parts]
        whole = Item(text=unit.show(stack.total), value=stack.total, record=first)
        rows.append((Item(text=stack.name, kind="head", family=stack.measured.row.arch), whole, *known))
    drawing, (axes,) = canvas(plots.height(len(shown)), left=[stack.name for stack in shown])
    plots.stacked(axes, bars)
    plots.horizontal(axes, [stack.name for stack in shown])
    words = [f"{stack.name} {word}" for stack, (_, _, word) in zip(shown, bars, strict=True)]
    return Figure(
        name=name,
        title=title,
        alt=f"{title}: {listed(words)}.",
        caption=f"Models at {column.size}. From the left: {listed([n for n in names if n not in LAST])}.{_more(names)}",
        drawing=draw(drawing, name),
        table=plots.figure_table(
            name, title, ("Variant", f"whole, {unit.name}", *(f"{part}, {unit.name}" for part in names)), rows, 1
        ),
    )


def _more(names: Sequence[str]) -> str:
    found = " Hatched, and in the number: the detector in front." if DETECTOR in names else ""
    copies = " Hatched, and not in the number: the copies that momentum keeps while training."
    return found + (copies if COPY in names else "")
