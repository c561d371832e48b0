"""Figures of an ablation: bars with intervals for the rows of a table, and noise against the gain of distillation."""

from __future__ import annotations

from vlpbench.reports import effects as forests
from vlpbench.reports import plots
from vlpbench.reports.ablation import Study
from vlpbench.reports.ablation_words import setting_words, signed
from vlpbench.reports.plots import Bar
from vlpbench.reports.stats import Estimate
from vlpbench.reports.summary import listed
from vlpbench.reports.svg import FAINT, INK, Figure, canvas, colour, draw, style
from vlpbench.reports.table import Item

PANELS = {"recall": "mean recall (TR and IR)", "vqa": "VQA accuracy"}
LINES = {"distill − queue": ("-", "D", -0.4), "distill − off": ((0, (5, 2)), "o", 0.4)}
"""Gain -> line, marker, and how far it is moved aside, in percent of noise."""


def figures(study: Study, name: str) -> list[Figure]:
    """What is added, with intervals, then bars of every row; for a sweep of noise the gains too."""
    with style():
        forest = forests.ladder(study, f"{name}-added"), forests.factorial(study, f"{name}-forest")
        found = [figure for figure in forest if figure is not None]
        found += [_bars(study, f"{name}-{key}", key) for key in PANELS]
        return [*found, *([_gains(study, f"{name}-gain")] if study.kind == "sweep" and study.effects else [])]


def _bars(study: Study, name: str, key: str) -> Figure:
    bars, rows = [], []
    for line in study.lines:
        entry = line.entries[key]
        change = f" ({signed(entry.change.value)})" if entry.change else ""
        word = f"{entry.value.value:.1f}{change}" if entry.value else entry.word.partition(":")[0]
        state = line.fields.get("momentum", "off")
        bars.append(Bar(name=line.name, arch=study.arch, momentum=state, estimate=entry.value, word=word))
        rows.append((Item(text=line.name, kind="head", family=study.arch), _item(entry.value), _item(entry.change)))
    drawing, (axes,) = canvas(plots.height(len(bars)), left=[f"{bar.name}  " for bar in bars])
    plots.bar_rows(axes, bars, 1.0)
    plots.horizontal(axes, [bar.name for bar in bars])
    brackets = (
        " In brackets: difference to the row before." if any(line.entries[key].change for line in study.lines) else ""
    )
    return Figure(
        name=name,
        title=f"{study.title}: {PANELS[key]}",
        alt=f"{PANELS[key]} in percent: {listed([f'{bar.name} {bar.word}' for bar in bars])}.",
        caption=(
            f"Percent. {setting_words(study)}. Whiskers: 95 % interval of the mean over seeds (Student's t).{brackets} "
            "Hatched: momentum queue; crossed: distillation."
        ),
        drawing=draw(drawing, name),
        table=plots.figure_table(name, study.title, ("Row", f"{PANELS[key]}, %", "difference, points"), rows, 1),
    )


def _gains(study: Study, name: str) -> Figure:
    shown = [(kind, [one for one in study.effects if one.name == kind]) for kind in LINES]
    drawing, panels = canvas(4.6, 2, left=["+10.0"], right=[f"{kind}  " for kind in LINES], head=0.35, foot=0.55)
    words, rows = [], []
    for (key, title), axes in zip(PANELS.items(), panels, strict=True):
        ends = []
        axes.axhline(0, color=FAINT, linewidth=1.0)
        for kind, effects in shown:
            points = [(one.at or 0.0, one.values[key]) for one in effects if key in one.values]
            dash, marker, aside = LINES[kind]
            hue = colour(study.arch) if marker == "D" else INK
            for x, gain in points:
                if gain.interval:
                    axes.plot([100 * x + aside] * 2, gain.interval, color=hue, linewidth=1.6, alpha=0.5)
            if points:
                axes.plot(
                    [100 * x + aside for x, _ in points],
                    [gain.value for _, gain in points],
                    color=hue,
                    linestyle=dash,
                    marker=marker,
                    markersize=5,
                )
                ends.append((points[-1][1].value, kind, hue))
            words += [f"{kind} {signed(gain.value)} at {x:.0%} noise in {title}" for x, gain in points]
        axes.set_title(f"{title[0].upper()}{title[1:]}, points", fontweight="normal")
        plots.quiet(axes)
        plots.end_labels(axes, ends)
    panels[-1].set_xlabel("corrupted training captions, %")
    for kind, effects in shown:
        for one in effects:
            head = Item(text=f"{kind} at {one.at or 0:.0%}", kind="head", family=study.arch)
            rows.append((head, *(_item(one.values.get(key)) for key in PANELS)))
    return Figure(
        name=name,
        title="Gain of distillation against caption noise",
        alt=f"Gain of distillation: {listed(words)}.",
        caption=(
            f"{setting_words(study)}. Lines: 95 % interval over seeds of the paired difference (Student's t). Solid: "
            "against the same momentum queue with hard targets; dashed: against training without a momentum model."
        ),
        drawing=draw(drawing, name),
        table=plots.figure_table(name, "Gain of distillation, points", ("Gain", *PANELS.values()), rows, 1),
    )


def _item(estimate: Estimate | None) -> Item:
    if estimate is None:
        return Item(text="n/a", kind="absent")
    ends = f"{estimate.interval[0]:.1f} to {estimate.interval[1]:.1f}" if estimate.interval else ""
    return Item(text=f"{estimate.value:.1f}", note=ends, value=estimate.value, low=estimate.low, high=estimate.high)
