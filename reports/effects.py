"""Effects with intervals around zero: what objectives add, and what each rung of a ladder adds beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlpbench.reports import plots
from vlpbench.reports.ablation import Study
from vlpbench.reports.ablation_words import paper_of, setting_words, signed
from vlpbench.reports.stats import Estimate
from vlpbench.reports.summary import listed
from vlpbench.reports.svg import FAINT, INK, PAPER, Figure, canvas, colour, draw
from vlpbench.reports.table import Item

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {"recall": "mean recall", "vqa": "VQA accuracy"}
RUNGS = {"tr": "TR mean", "ir": "IR mean", "vqa": "VQA"}
"""Accuracies that the paper's ladder has too."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One line of a forest: an effect, and the published one beside it."""

    name: str
    effect: Estimate | None
    published: float | None = None


def factorial(study: Study, name: str) -> Figure | None:
    """Main effects and interactions, a panel for each accuracy; None without any."""
    panels = {
        title: [Dot(name=effect.title, effect=effect.values.get(key)) for effect in study.effects]
        for key, title in PANELS.items()
    }
    if study.kind != "factorial" or not any(dot.effect for dots in panels.values() for dot in dots):
        return None
    reading = "What an objective adds, averaged over the sets of others; × is an interaction. Filled: the interval"
    return _figure(study, name, f"{study.title}: effects", panels, f"{reading} leaves zero out.")


def ladder(study: Study, name: str) -> Figure | None:
    """What each rung adds to the one before, ours beside the paper's; None for what is no ladder."""
    paper = paper_of(study)
    own = {} if paper is None else {row["name"]: row for row in paper["rows"]}
    if study.kind != "ladder":
        return None
    panels: dict[str, list[Dot]] = {}
    for key, title in RUNGS.items():
        dots = []
        for before, line in zip(study.lines, study.lines[1:], strict=False):
            there, last = own.get(line.name, {}), own.get(before.name, {})
            published = there[key] - last[key] if key in there and key in last else None
            dots.append(Dot(name=line.name, effect=line.entries[key].change, published=published))
        panels[title] = dots
    beside = f" Hollow: {paper['title']}, known from {paper['confidence']}; it gives no interval." if paper else ""
    reading = f"What a row adds to the row before. Filled: the interval leaves zero out.{beside}"
    return _figure(study, name, f"{study.title}: what each row adds", panels, reading)


def _figure(study: Study, name: str, title: str, panels: dict[str, list[Dot]], reading: str) -> Figure:
    names = [dot.name for dot in next(iter(panels.values()))]
    words = [_word(dot) + "  " for dots in panels.values() for dot in dots]
    one = 0.1 + 0.27 * max(len(names), 2)
    figure, axes = canvas(
        0.85 + (one + 0.7) * len(panels) - 0.7,
        len(panels),
        left=[f"{one}   " for one in names],
        right=words,
        head=0.3,
        foot=0.55,
        gap=0.7,
    )
    rows, said = [], []
    for (panel, dots), ax in zip(panels.items(), axes, strict=True):
        _panel(ax, study.arch, dots)
        ax.set_title(f"{panel}, points", fontweight="normal")
        said += [f"{dot.name} {_word(dot)} in {panel}" for dot in dots if dot.effect]
        rows += [_row(study.arch, panel, dot) for dot in dots]
    axes[-1].set_xlabel("points")
    return Figure(
        name=name,
        title=title,
        alt=f"{title}, in points: {listed(said)}.",
        caption=f"{setting_words(study)}. {reading} Lines: 95 % interval over seeds of paired differences.",
        drawing=draw(figure, name),
        table=plots.figure_table(name, title, ("Effect", "Of", "points", "published, points"), rows, 2),
    )


def _panel(axes: Axes, arch: str, dots: Sequence[Dot]) -> None:
    plots.horizontal(axes, [dot.name for dot in dots])
    axes.axvline(0, color=FAINT, linewidth=1.0)
    hue, ends = colour(arch), [0.0]
    for place, dot in enumerate(dots):
        if dot.published is not None:
            look = {"color": INK, "markerfacecolor": PAPER, "markeredgewidth": 1.2, "markersize": 6, "marker": "D"}
            axes.plot(dot.published, place + 0.22, linestyle="", **look)
            ends.append(dot.published)
        if dot.effect is None:
            continue
        low, high = dot.effect.interval or (dot.effect.value,) * 2
        apart = low > 0 or high < 0
        axes.plot([low, high], [place, place], color=hue, linewidth=2.2, alpha=0.6)
        axes.plot(dot.effect.value, place, marker="o", color=hue, markerfacecolor=hue if apart else PAPER)
        ends += [low, high]
        axes.text(1.02, place, _word(dot), transform=axes.get_yaxis_transform(), va="center", fontsize=9.5, color=INK)
    wide = (max(ends) - min(ends)) or 1.0
    axes.set_xlim(min(ends) - 0.06 * wide, max(ends) + 0.06 * wide)


def _word(dot: Dot) -> str:
    if dot.effect is None:
        return ""
    ends = dot.effect.interval
    return signed(dot.effect.value) + (f" ({signed(ends[0])} to {signed(ends[1])})" if ends else "")


def _row(arch: str, panel: str, dot: Dot) -> tuple[Item, ...]:
    effect = dot.effect
    ends = effect.interval if effect else None
    ours = (
        Item(text="n/a", kind="absent")
        if effect is None
        else Item(
            text=signed(effect.value),
            note=f"{signed(ends[0])} to {signed(ends[1])}" if ends else "",
            value=effect.value,
            low=effect.low,
            high=effect.high,
        )
    )
    paper = Item(text="n/a", kind="absent")
    if dot.published is not None:
        paper = Item(text=f"{dot.published:+.2f}".replace("-", "−"), value=dot.published)
    return Item(text=dot.name, kind="head", family=arch), Item(text=panel), ours, paper
