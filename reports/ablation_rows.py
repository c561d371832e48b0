"""Rows of an ablation found again in records, with differences paired by seed and the effects of a factorial.

Rows of a table share everything but what their names say; at one seed they also share the training set, the order of
batches and the initial weights. So differences are taken seed by seed, and their interval is Student's t over seeds. A
bootstrap would be no honest alternative: over three seeds it has ten distinct draws, none outside the range of the
three differences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import Any

from vlpbench.reports import stats
from vlpbench.reports.stats import Estimate
from vlpbench.results.ablation import ACCURACY, MEASURES, Row, cell_of, setting, shared
from vlpbench.results.record import Cell, Record, Status

ACCURACIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tr": ("retrieval", ("tr_r1", "tr_r5", "tr_r10")),
    "ir": ("retrieval", ("ir_r1", "ir_r5", "ir_r10")),
    "recall": ("retrieval", ("recall_mean",)),
    "vqa": ("vqa", ("vqa_accuracy",)),
    "binding": ("vqa", ("vqa_binding",)),
}
"""Quantity of a row -> measure, and what is averaged."""
COSTS = {"step": "train_step", "flops": "flops"}
_SCORERS = ("rerank", "match", "embed")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One quantity of one row."""

    value: Estimate | None = None
    change: Estimate | None = None
    """Against the row before: a difference in points, of costs a ratio."""
    word: str = ""
    """Why there is no value, or no change."""
    series: Mapping[int, float] = field(default_factory=dict)
    """Seed -> value, of an accuracy."""
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row with its numbers."""

    name: str
    protocol: str
    """How retrieval was scored."""
    entries: Mapping[str, Entry]
    fields: Mapping[str, Any]
    """The row and its setting."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A mean of differences between rows, paired by seed."""

    name: str
    values: Mapping[str, Estimate]
    """By accuracy; one that cannot be estimated from the rows there are is left out."""
    at: float | None = None
    """Caption noise, where it is one of several levels."""

    @property
    def title(self) -> str:
        """Name and level."""
        return self.name if self.at is None else f"{self.name} at {self.at:.0%} noise"


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean with Student's t interval; one value has none."""
    return stats.seeds(values) if len(values) > 1 else Estimate(value=values[0])


def paired(after: Mapping[int, float], before: Mapping[int, float]) -> Estimate | None:
    """Mean over the seeds that both have of the difference; None where they have none in common."""
    both = sorted(after.keys() & before.keys())
    return over_seeds([after[seed] - before[seed] for seed in both]) if both else None


def effect(
    of: Sequence[str], series: Mapping[frozenset[str], Mapping[int, float]], objectives: Sequence[str]
) -> Estimate | None:
    """What adding the objectives ``of`` does, averaged over the sets of others that it can be seen in.

    For one objective the difference that it makes; for two how much more it makes beside the other, the difference of
    differences, in points. A set is used if all the rows it needs are there: those that would need the empty set, or a
    row without the quantity, are not.

    Args:
        of: one objective for a main effect, two for their interaction.
        series: set of objectives -> seed -> value.
        objectives: all of the factorial.

    Returns:
        Mean over the seeds that all these rows have; None without such a set.
    """
    used = []
    for context in _subsets([name for name in objectives if name not in of]):
        corners = [((-1) ** (len(of) - len(part)), frozenset((*context, *part))) for part in _subsets(of)]
        if all(series.get(corner) for _, corner in corners):
            used.append(corners)
    if not used:
        return None
    seeds = set.intersection(*(set(series[corner]) for corners in used for _, corner in corners))
    if not seeds:
        return None
    return over_seeds(
        [
            fmean(sum(sign * series[corner][seed] for sign, corner in corners) for corners in used)
            for seed in sorted(seeds)
        ]
    )


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(names) + 1):
        yield from combinations(names, size)


class Index:
    """The records of one environment by the row they belong to."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.rows: dict[Cell, list[Record]] = defaultdict(list)
        for record in records:
            if record.cell.measure in MEASURES:
                self.rows[shared(record.cell)].append(record)

    def bases(self) -> list[dict[str, Any]]:
        """The settings that trained rows share, each with the fine-tuning of its questions."""
        plain: dict[str, dict[str, Any]] = {}
        tuned: dict[str, set[int | None]] = defaultdict(set)
        for cell in self.rows:
            if cell.measure in ACCURACY and cell.budget is not None:
                fields = setting(cell)
                steps = fields.pop("finetune", None)
                plain[repr(fields)] = fields
                if cell.measure == "vqa":
                    tuned[repr(fields)].add(steps)
        pairs = [(fields, steps) for key, fields in plain.items() for steps in tuned[key] or {None}]
        return [fields | ({} if steps is None else {"finetune": steps}) for fields, steps in pairs]

    def trained(self, base: Mapping[str, Any]) -> list[Cell]:
        """Cells of rows with this setting."""
        apart = ("finetune",)
        wanted = {key: value for key, value in base.items() if key not in apart}
        own = [(cell, setting(cell)) for cell in self.rows if cell.measure in ACCURACY and cell.budget is not None]
        return [cell for cell, fields in own if {k: v for k, v in fields.items() if k not in apart} == wanted]

    def line(self, row: Row, base: Mapping[str, Any], before: Line | None) -> Line | None:
        """The row with its numbers; None if nothing was run for it that is not the row before's."""
        fields = {**base, **row.recipe}
        found = {measure: self.rows.get(shared(cell_of(measure, fields)), []) for measure in MEASURES}
        found["retrieval"], protocol = _best(found["retrieval"])
        old = before.entries if before else {}
        known = {record.id for entry in old.values() for record in entry.records}
        if all(record.id in known for measure in ACCURACY for record in found[measure]):
            return None
        entries = {key: _accuracy(names, found[m], old.get(key)) for key, (m, names) in ACCURACIES.items()}
        entries |= {key: _cost(key, found[measure], old.get(key)) for key, measure in COSTS.items()}
        return Line(name=row.name, protocol=protocol, entries=entries, fields=fields)

    def lines(self, rows: Iterable[Row], base: Mapping[str, Any]) -> list[Line]:
        """Those of which something was run, each against the one before."""
        found: list[Line] = []
        for row in rows:
            if (line := self.line(row, base, found[-1] if found else None)) is not None:
                found.append(line)
        return found


def _best(records: list[Record]) -> tuple[list[Record], str]:
    """Of several ways to score the best that worked."""
    good = {record.cell.scorer for record in records if record.status is Status.OK}
    chosen = next((scorer for scorer in _SCORERS if scorer in good), None)
    if chosen is None:
        return records, "none"
    return [record for record in records if record.cell.scorer == chosen], chosen


def _accuracy(names: tuple[str, ...], records: Sequence[Record], before: Entry | None) -> Entry:
    good = [r for r in records if r.status is Status.OK and all(name in r.samples for name in names)]
    if not good:
        return Entry(word=_why(records), records=tuple(records))
    series = {r.cell.seed: fmean(fmean(r.samples[name].values) for name in names) for r in good}
    same = before is not None and {r.id for r in before.records} == {r.id for r in good}
    return Entry(
        value=over_seeds([series[seed] for seed in sorted(series)]),
        change=paired(series, before.series) if before is not None and not same else None,
        word="same model" if same else "",
        series=series,
        records=tuple(good),
    )


def _cost(key: str, records: Sequence[Record], before: Entry | None) -> Entry:
    good = [record for record in records if record.status is Status.OK]
    if not good:
        return Entry(word=_why(records), records=tuple(records))
    value, ratio = _step(good[-1]) if key == "step" else _work(good[-1]), None
    same = before is not None and bool(before.records) and before.records[-1].id == good[-1].id
    if before is not None and before.value is not None and not same:
        if key == "step":
            a, b = (record.samples["step"].values for record in (good[-1], before.records[-1]))
            ratio = stats.ratio(a, b, _rounds(good[-1]), _rounds(before.records[-1]))
        else:
            ratio = Estimate(value=value.value / before.value.value, method="counted")
    return Entry(value=value, change=ratio, word="same step" if same else "", records=(good[-1],))


def _step(record: Record) -> Estimate:
    return stats.timing(record.samples["step"].values, _rounds(record))


def _work(record: Record) -> Estimate:
    """FLOPs of a whole step; the record holds them by pair."""
    return Estimate(value=record.samples["flops_forward_backward"].values[0] * record.cell.batch, method="counted", n=1)


def _rounds(record: Record) -> Sequence[int]:
    return record.detail.get("rounds", ())


def _why(records: Sequence[Record]) -> str:
    if not records:
        return "n/a"
    reason = records[-1].reason.strip().partition("\n")[0]
    word = "impossible" if records[-1].status is Status.UNSUPPORTED else records[-1].status.value
    return f"{word}: {reason}" if reason else word
