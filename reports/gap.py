"""From known to new compositions: accuracy on pairs of colour and shape that training showed, and on held-out ones.

Both are of one model on test items that are drawn alike but for the pairs, so the gap is what composing costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vlpbench.reports import details, plots, stats
from vlpbench.reports.board import Board
from vlpbench.reports.measured import RECALLS, Measured, mean_of_recalls
from vlpbench.reports.names import Row
from vlpbench.reports.stats import Estimate
from vlpbench.reports.summary import Finding, listed, ranked
from vlpbench.reports.svg import FAINT, PAPER, Figure, canvas, colour, draw
from vlpbench.reports.table import Item, row_item, scorer_words, value_item
from vlpbench.reports.units import PERCENT
from vlpbench.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELD = "comp"
"""Gallery and split of held-out compositions."""
TASKS = {
    "recall_mean": "Retrieval, mean recall",
    "vqa_accuracy": "VQA",
    "vqa_binding": "VQA, binding questions",
    "reasoning_accuracy": "Visual reasoning",
    "entailment_accuracy": "Visual entailment",
}


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One variant on one task."""

    row: Row
    measured: Measured
    inside: Estimate
    outside: Estimate
    lost: Estimate
    """Outside minus inside, in points: what is lost is negative."""


def gap_figure(name: str) -> Callable[[Board, str], Figure | None]:
    """The maker of the figure of one task."""

    def make(board: Board, suffix: str) -> Figure | None:
        found = gaps(board, name)
        return _figure(name, found, suffix) if found else None

    return make


def gaps(board: Board, name: str) -> list[Gap]:
    """Every variant whose records hold both."""
    found: dict[str, Gap] = {}
    for row in board.rows:
        m = board.get(row, name)
        if m is None or name not in m.estimates:
            continue
        pairs = [pair for record in m.records if (pair := _pair(name, record)) is not None]
        if not pairs or len(pairs) < len(m.records):
            continue
        gap = _over_seeds(row if m.row.arch == row.arch else m.row, m, pairs)
        found.setdefault(m.first.id, gap)
    return list(found.values())


def _over_seeds(row: Row, m: Measured, pairs: Sequence[tuple[Estimate, Estimate]]) -> Gap:
    """One seed has intervals over its test items; several the spread over seeds, of differences seed by seed."""
    if len(pairs) == 1:
        (inside, outside), lost = pairs[0], stats.rate_difference(pairs[0][1], pairs[0][0])
    else:
        inside, outside = (stats.seeds([pair[side].value for pair in pairs]) for side in (0, 1))
        lost = stats.seeds([after.value - before.value for before, after in pairs])
    return Gap(row=row, measured=m, inside=inside, outside=outside, lost=lost)


def _pair(name: str, record: Record) -> tuple[Estimate, Estimate] | None:
    both = [_estimate(name, record, part) for part in (details.MAIN, HELD)]
    return None if both[0] is None or both[1] is None else (both[0], both[1])


def _estimate(name: str, record: Record, part: str) -> Estimate | None:
    if name == "recall_mean":
        found = details.recalls(record.detail, part)
        rates = [stats.rate(*found[recall]) for recall in RECALLS if recall in found]
        return mean_of_recalls(rates) if len(rates) == len(RECALLS) else None
    if name == "vqa_binding":
        kinds, bound = details.kinds(record.detail, part), details.binding_kinds(record.detail)
        rates = [stats.rate(*kinds[kind]) for kind in bound if kind in kinds]
        return stats.mean_of_rates(rates) if rates else None
    whole = details.split_accuracy(record.detail, part)
    return stats.rate(*whole) if whole else None


def _figure(name: str, found: Sequence[Gap], suffix: str) -> Figure:
    task, figure = TASKS[name], f"gap-{name.replace('_', '-')}{suffix}"
    first = dict(found[0].measured.setting)
    words = [f"{gap.row.title} {gap.inside.value:.1f} to {gap.outside.value:.1f} %" for gap in found]
    rows = [
        (
            row_item(gap.row),
            value_item(gap.inside, PERCENT, gap.measured, by=scorer_words(gap.measured)),
            value_item(gap.outside, PERCENT, gap.measured),
            _lost_item(gap),
        )
        for gap in found
    ]
    title = f"{task}: known and new compositions"
    return Figure(
        name=figure,
        title=title,
        alt=f"{task}, from test items like the training to held-out compositions: {listed(words)}.",
        caption=(
            f"{first['size']} models, {first['data']}, %. Full: compositions of colour and shape as in training; "
            "hollow: pairs that no training picture shows. Behind: the change in points with its 95 % interval."
        ),
        drawing=_drawing(found, figure),
        table=plots.figure_table(
            figure, title, ("Variant", "as in training, %", "held out, %", "change, points"), rows, 1
        ),
    )


def _lost_item(gap: Gap) -> Item:
    item = value_item(gap.lost, replace(PERCENT, name="points"), gap.measured)
    ends = gap.lost.interval
    note = f"{_signed(ends[0])} to {_signed(ends[1])}" if ends else ""
    return replace(item, text=_signed(gap.lost.value), note=note, best=False)


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")  # adding zero turns −0.0 into +0.0


def _words(gap: Gap) -> str:
    ends = gap.lost.interval
    return _signed(gap.lost.value) + (f" ({_signed(ends[0])} to {_signed(ends[1])})" if ends else "")


def _drawing(found: Sequence[Gap], name: str) -> str:
    names, words = [gap.row.title for gap in found], [f"{_words(gap)}  " for gap in found]
    figure, (axes,) = canvas(
        0.75 + 0.3 * max(len(found), 2), left=[f"{one}  " for one in names], right=words, head=0.1, foot=0.55
    )
    plots.horizontal(axes, names)
    for place, gap in enumerate(found):
        _dumbbell(axes, place, gap)
        axes.text(
            1.02, place, _words(gap), transform=axes.get_yaxis_transform(), va="center", fontsize=9.5, color=FAINT
        )
    ends = [edge for gap in found for e in (gap.inside, gap.outside) for edge in (e.interval or (e.value,))]
    axes.set_xlim(max(0.0, min(ends) - 4), min(101.0, max(ends) + 4))
    axes.set_xlabel("%")
    return draw(figure, name)


def _dumbbell(axes: Axes, place: int, gap: Gap) -> None:
    hue = colour(gap.row.arch)
    axes.plot([gap.inside.value, gap.outside.value], [place, place], color=hue, linewidth=1.0, alpha=0.8)
    look: dict[str, Any] = plots.point(gap.row.arch, "off") | {"linestyle": ""}
    hollow: dict[str, Any] = look | {"markerfacecolor": PAPER}
    for one, aside, drawn in ((gap.inside, -0.12, look), (gap.outside, 0.12, hollow)):
        if one.interval:
            axes.plot(one.interval, [place + aside] * 2, color=hue, linewidth=2.2, alpha=0.4)
        axes.plot(one.value, place, **drawn)


def findings(board: Board) -> list[Finding]:
    """What new compositions cost, of retrieval and of questions."""
    found = []
    for name in ("recall_mean", "vqa_accuracy"):
        all_gaps = gaps(board, name)
        if len(all_gaps) > 1:
            said = [f"{gap.row.title} {_words(gap)}" for gap in sorted(all_gaps, key=lambda gap: -gap.lost.value)]
            text = (
                f"From compositions as in training to held-out ones {TASKS[name]} changes, in points: {ranked(said)}."
            )
            found.append(
                Finding(lead="New compositions", text=text, records=tuple(g.measured.first.id for g in all_gaps))
            )
    return found
