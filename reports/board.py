"""The comparison: one row for a variant, one column for a quantity, all on one machine and at settings that agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from vlpbench.reports.measured import BOUND, Measured
from vlpbench.reports.names import LATE, SIZES, Row
from vlpbench.reports.stats import Estimate
from vlpbench.reports.units import Scale, scale
from vlpbench.results.record import UNITS, Quantity

MAIN: tuple[tuple[str, str], ...] = (
    ("params", "params_stored"),
    ("flops", "flops_forward"),
    ("latency", "latency"),
    ("throughput", "throughput"),
    ("train_step", "step"),
    ("memory", "memory_inference"),
    ("memory", "memory_training"),
    ("retrieval", "tr_r1"),
    ("retrieval", "ir_r1"),
    ("retrieval", "recall_mean"),
    ("vqa", "vqa_accuracy"),
    ("vqa", "vqa_binding"),
    ("reasoning", "reasoning_accuracy"),
    ("entailment", "entailment_accuracy"),
)
"""Measure and quantity of the columns of the comparison table."""
ASIDE = frozenset(
    {"params_trainable", "params_touched", "flops_forward_backward", "first_call", "device_time"}
    | {"step_teacher", "step_ema", "step_queue", "train_throughput_model", "loader_wait"}
    | {"params_detector", "flops_detector", "detector_latency"}
    | {"params_with_detector", "flops_with_detector", "latency_with_detector"}
    | {"learning_recall", "learning_binding", "steps_to_recall", "cpu_seconds_to_recall", "steps_to_binding"}
    | {"step_forward", "step_backward", "step_optimizer", "step_momentum", "tr_r5", "tr_r10", "ir_r5", "ir_r10"}
)
"""Quantities that are shown elsewhere; any other that records hold gets a column of its own."""
DETECTED = {
    "params_stored": "params_with_detector",
    "flops_forward": "flops_with_detector",
    "latency": "latency_with_detector",
}
"""Quantity -> the same with the detector that stands in front."""
DESCRIBED = frozenset({"structure"})
"""Measures whose quantities describe a model and compare nothing."""
SCORERS = ("rerank", "match", "embed")
"""Which retrieval the comparison shows where a variant was measured with several, best first."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A quantity at the setting that most variants share."""

    measure: str
    quantity: str
    setting: tuple[tuple[str, str], ...]
    scale: Scale

    @property
    def meaning(self) -> Quantity:
        """Unit, direction and title."""
        return quantity(self.quantity)

    @property
    def size(self) -> str:
        """Model size it was measured at."""
        return dict(self.setting)["size"]

    @property
    def accuracy(self) -> bool:
        """Whether it says how well, not at what cost."""
        return self.meaning.unit == "%"


def quantity(name: str) -> Quantity:
    """The line of the units table; a quantity without one is shown under its own name, as stored."""
    return UNITS.get(name) or Quantity(unit="", better="neither", title=name)


@dataclass(frozen=True, kw_only=True)
class Board:
    """All measurements, seen from one environment."""

    env: str
    everything: tuple[Measured, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    late: frozenset[str] = field(default_factory=frozenset)
    """Architectures whose missing quantities are filled in by their late-fusion relative."""

    @cached_property
    def _index(self) -> dict[tuple[Row, str], Measured]:
        return {
            (row, column.quantity): found
            for row in self.rows
            for column in self.columns
            if (found := self._find(row, column)) is not None
        }

    @property
    def trained(self) -> tuple[Row, ...]:
        """The rows of the table, and behind them the late-fusion relatives that fill in for some: they train too."""
        return tuple(dict.fromkeys([*self.rows, *(m.row for m in self.everything)]))

    def get(self, row: Row, quantity: str) -> Measured | None:
        """The measurement in this cell of the table, failed ones included; None where nothing was run."""
        return self._index.get((row, quantity))

    def value(self, row: Row, quantity: str) -> Estimate | None:
        """Its estimate; None where it failed or was not run."""
        found = self.get(row, quantity)
        return found.estimates.get(quantity) if found else None

    def column(self, quantity: str) -> Column | None:
        """The column of this quantity."""
        return next((column for column in self.columns if column.quantity == quantity), None)

    def at_size(self, row: Row, measure: str, size: str) -> Measured | None:
        """A measurement of this variant with numbers at a size that need not be the column's.

        Where it has none at that size, that of the architecture without momentum: for what momentum does not change.
        """
        plain = [m for m in self.everything if m.measure == measure and m.row == replace(row, momentum="off")]
        found = [m for m in (*self._of(row, measure), *plain) if dict(m.setting)["size"] == size and m.ok]
        return found[0] if found else None

    def detected(self, row: Row, quantity: str) -> Estimate | None:
        """The quantity with the detector in front, of an architecture that reads regions, at the size of its column."""
        column, whole = self.column(quantity), DETECTED.get(quantity)
        found = self.at_size(row, "detector", column.size) if column and whole else None
        return found.estimates.get(whole or "") if found else None

    def in_training(self, row: Row, quantity: str) -> Estimate | None:
        """The estimate of a quantity that was taken with this variant's own training recipe."""
        measure = next((m.measure for m in self.everything if quantity in m.estimates), "")
        column = next((column for column in self.columns if column.measure == measure), None)
        found = self._find(row, column) if column else None
        return found.estimates.get(quantity) if found and not found.shared else None

    def elsewhere(self, row: Row, column: Column) -> Measured | None:
        """A measurement of the cell's quantity at another setting, where the cell itself is empty."""
        return next((m for m in self._of(row, column.measure) if column.quantity in m.estimates), None)

    def _find(self, row: Row, column: Column) -> Measured | None:
        found = [m for m in self._of(row, column.measure) if m.setting == column.setting]
        known = [m for m in found if column.quantity in m.estimates]
        return min(known or [m for m in found if not m.ok], key=_preference, default=None)

    def _of(self, row: Row, measure: str) -> list[Measured]:
        """Own measurements, else the architecture's shared ones, else those of its late-fusion relative."""
        mine = [m for m in self.everything if m.measure == measure and m.row == row]
        if any(m.ok for m in mine):
            return mine
        kin = replace(row, momentum="off", extra=tuple(e for e in row.extra if e[0] in ("size", "changes")))
        shared = [m for m in self.everything if m.measure == measure and m.shared and m.row == kin]
        late = replace(row, arch=row.arch + LATE)
        lent = [m for m in self.everything if m.measure == measure and m.row == late and row.arch in self.late]
        return shared if any(m.ok for m in shared) else lent or mine or shared


def boards(everything: Sequence[Measured]) -> list[Board]:
    """One board for each environment that holds timings or memory; one in all where none does.

    Counts and accuracies do not depend on the machine, so every board shows them, its own first.
    """
    bound = Counter(m.env for m in everything if m.measure in _bound_measures(everything))
    envs = [env for env, _ in bound.most_common()] or list(dict.fromkeys(m.env for m in everything))[:1]
    return [_board(env, everything) for env in envs]


def _bound_measures(everything: Iterable[Measured]) -> set[str]:
    planned = {measure for measure, name in MAIN if quantity(name).unit in BOUND}
    return (
        planned
        | {"detector"}
        | {m.measure for m in everything for name in m.estimates if name not in ASIDE and quantity(name).unit in BOUND}
    )


def _board(env: str, everything: Sequence[Measured]) -> Board:
    bound = _bound_measures(everything)
    seen = [m for m in everything if m.env == env or m.measure not in bound]
    seen.sort(key=lambda m: (m.env != env, not m.ok))
    late = _lent(seen)
    rows = _rows(seen, late)
    extra = {
        (m.measure, name) for m in seen for name in m.estimates if name not in ASIDE and m.measure not in DESCRIBED
    }
    wanted = [*MAIN, *sorted(extra - set(MAIN))]
    columns = [column for measure, name in wanted if (column := _column(measure, name, seen)) is not None]
    return Board(env=env, everything=tuple(seen), rows=rows, columns=tuple(columns), late=late)


def _lent(seen: Sequence[Measured]) -> frozenset[str]:
    """Architectures that hold no number which their late-fusion relative holds too: the two then share a row."""
    held: dict[str, set[str]] = {}
    for m in seen:
        held.setdefault(m.row.arch, set()).update(m.estimates)
    bases = (arch.removesuffix(LATE) for arch in held if arch.endswith(LATE))
    return frozenset(base for base in bases if base in held and not held[base] & held[base + LATE])


def _rows(seen: Sequence[Measured], late: frozenset[str]) -> tuple[Row, ...]:
    """Every variant, without what is only the shared part of others and without rows folded into their relative."""
    rows = {m.row for m in seen if not m.row.arch.endswith(LATE) or m.row.arch.removesuffix(LATE) not in late}
    trained = {m.row for m in seen if not m.shared}

    def covers(row: Row, other: Row) -> bool:
        same = row.arch == other.arch and set(row.extra) <= set(other.extra)
        return same and row.momentum in ("off", other.momentum)

    only_shared = {row for row in rows - trained if any(covers(row, other) for other in trained)}
    return tuple(sorted(rows - only_shared, key=lambda row: row.order))


def _column(measure: str, name: str, seen: Sequence[Measured]) -> Column | None:
    """The setting that most variants have in common; among equals the larger size, then the least noise."""
    found = [m for m in seen if m.measure == measure and name in m.estimates]
    if not found:
        return None
    variants: dict[tuple[tuple[str, str], ...], set[Row]] = {}
    for m in found:
        variants.setdefault(m.setting, set()).add(m.row)

    def merit(setting: tuple[tuple[str, str], ...]) -> tuple[int, int, float]:
        fields = dict(setting)
        return len(variants[setting]), -SIZES.index(fields["size"]), -float(fields["noise"])

    best = max(variants, key=merit)
    values = [m.estimates[name].value for m in found if m.setting == best]
    return Column(measure=measure, quantity=name, setting=best, scale=scale(quantity(name).unit, values))


def _preference(m: Measured) -> int:
    return SCORERS.index(m.scorer) if m.scorer in SCORERS else len(SCORERS)
