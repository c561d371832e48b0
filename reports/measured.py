"""From records to estimates: which records are one measurement, which variant they belong to, and what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from vlpbench.reports import details, stats
from vlpbench.reports.names import SIZES, Row, shared_size, text_of
from vlpbench.reports.stats import Estimate
from vlpbench.results.record import Cell, Record, Status

RECIPE = (
    "objectives",
    "weights",
    "distilled",
    "negatives",
    "queue_size",
    "momentum_rate",
    "alpha",
    "label_smoothing",
    "finetune_momentum",
    "changes",
)
"""Fields that make another variant, where they differ between records that are otherwise alike."""
SETTING = ("device", "dtype", "compile", "attention", "batch", "data", "noise", "budget", "finetune")
"""Fields that make another measurement of the same variant."""
SOMETIMES = ("image", "text_len", "lr")
"""Likewise, but only where one variant was measured with several values: each architecture has its own by default."""
NAMED = ("arch", "size", "measure", "momentum", "scorer", "k", "threads", "seed")
"""Fields that have a place of their own."""
RECIPE = tuple(name for name in Cell.model_fields if name not in (*SETTING, *SOMETIMES, *NAMED))
"""All others make another variant, where they differ between records that are otherwise alike."""
BOUND = ("s", "1/s", "B")
"""Units of what depends on the machine: never compared across environments."""
RECALLS = ("tr_r1", "tr_r5", "tr_r10", "ir_r1", "ir_r5", "ir_r10")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measurement: its records (several where only the seed differs) and, by quantity, the estimates."""

    row: Row
    measure: str
    setting: tuple[tuple[str, str], ...]
    """What must agree for two measurements to be compared."""
    scorer: str | None
    k: int | None
    """How retrieval was scored, and the candidates that were reranked."""
    records: tuple[Record, ...]
    """Those with status ok; without any, the ones that failed."""
    estimates: dict[str, Estimate]
    env: str
    shared: bool
    """Whether it was taken without a training recipe, and so holds for every momentum state of the architecture."""

    @property
    def first(self) -> Record:
        """The record that a link leads to."""
        return self.records[0]

    @property
    def ok(self) -> bool:
        """Whether it has numbers."""
        return self.first.status is Status.OK

    @property
    def flags(self) -> tuple[str, ...]:
        """Quality warnings of all its records, each once."""
        return tuple(dict.fromkeys(flag for record in self.records for flag in record.flags))

    def detail(self, key: str) -> Any:
        """An explanation stored with the first record; None if absent."""
        return self.first.detail.get(key)


def latest(records: Iterable[Record]) -> list[Record]:
    """One record for each cell and environment: the one started last."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        key = (record.cell.id, record.env.id)
        if key not in found or record.started >= found[key].started:
            found[key] = record
    return list(found.values())


def measure_all(records: Sequence[Record]) -> list[Measured]:
    """Groups records that differ in nothing but the seed, and estimates every quantity of every group."""
    telling = _telling(records)
    sometimes = _varying(records, SOMETIMES, lambda c: (c.arch, c.momentum, c.measure, c.size, c.scorer))
    varying = tuple(sorted({field for fields in sometimes.values() for field in fields}))
    several = {record.cell.arch for record in records if record.cell.momentum != "off"}
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in records:
        cell = record.cell
        row = _row(cell, telling, cell.arch in several)
        key = (row, cell.measure, _setting(record, varying), *details.scorer(record), record.env.id)
        groups[key].append(record)
    return [_measured(key, found) for key, found in groups.items()]


def _measured(key: tuple[Any, ...], found: list[Record]) -> Measured:
    row, measure, setting, scorer, k, env = key
    good = [record for record in found if record.status is Status.OK]
    # Of a time to an accuracy, the seeds that arrived say too little: what one lacks has no estimate.
    names = dict.fromkeys(name for record in good for name in record.samples if all(name in r.samples for r in good))
    estimates = {name: estimate(name, good) for name in names}
    return Measured(
        row=row,
        measure=measure,
        setting=setting,
        scorer=scorer,
        k=k,
        records=tuple(good or found),
        estimates={name: value for name, value in estimates.items() if value is not None},
        env=env,
        shared=not found[0].cell.objectives and found[0].cell.momentum == "off",
    )


def estimate(name: str, records: Sequence[Record]) -> Estimate | None:
    """What the records say about a quantity; None where no record holds a sample of it.

    Rates get the binomial interval of their test items, or over seeds where there are several; everything else that was
    sampled more than once gets the bootstrap interval of its median.
    """
    records = [record for record in records if record.samples[name].values]
    if not records:
        return None
    if records[0].samples[name].unit != "%":
        values = [value for record in records for value in record.samples[name].values]
        return stats.timing(values, [count for record in records for count in _rounds(record)])
    rates = [fmean(record.samples[name].values) for record in records]
    if len(rates) > 1:
        return stats.seeds(rates)
    single = {"recall_mean": _recall_mean, "vqa_binding": _binding}.get(name, partial(_rate, name))
    return single(records[0], rates[0])


def _rate(name: str, record: Record, percent: float) -> Estimate:
    n = details.trials(name, record.detail)
    return stats.rate(percent, n) if n else Estimate(value=percent)


def _recall_mean(record: Record, percent: float) -> Estimate:
    present = [name for name in RECALLS if name in record.samples and record.samples[name].values]
    found = mean_of_recalls([_rate(name, record, record.samples[name].values[0]) for name in present])
    return replace(found, value=percent) if found else Estimate(value=percent)


def mean_of_recalls(parts: Sequence[Estimate]) -> Estimate | None:
    """Mean of recalls of one gallery, with their half-widths averaged: what holds if all err together, so never too
    narrow; None without recalls that have intervals."""
    ends = [part.interval for part in parts]
    if not ends or None in ends:
        return None
    value = fmean(part.value for part in parts)
    below = fmean(part.value - end[0] for part, end in zip(parts, ends, strict=True) if end)
    above = fmean(end[1] - part.value for part, end in zip(parts, ends, strict=True) if end)
    n = min(part.n for part in parts)
    return Estimate(value=value, low=value - below, high=value + above, n=n, method="mean of six Wilson intervals")


def _binding(record: Record, percent: float) -> Estimate:
    found, names = details.kinds(record.detail), details.binding_kinds(record.detail)
    parts = [stats.rate(*found[name]) for name in names if name in found]
    return replace(stats.mean_of_rates(parts), value=percent) if parts else Estimate(value=percent)


def kind_estimate(m: Measured, kind: str) -> Estimate | None:
    """Accuracy on one type of question, over seeds where there are several; None where a record has no such type."""
    found = [details.kinds(record.detail).get(kind) for record in m.records]
    rates = [rate for rate in found if rate is not None]
    if not rates:
        return None
    return stats.seeds([percent for percent, _ in rates]) if len(rates) > 1 else stats.rate(*rates[0])


def _rounds(record: Record) -> list[int]:
    found = record.detail.get("rounds", [])
    return [int(count) for count in found] if isinstance(found, (list, tuple)) else []


def _telling(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """Architecture -> recipe fields that differ between records of it that are otherwise one variant."""
    varying = _varying(records, RECIPE, lambda c: (c.arch, c.momentum, c.measure, c.size, c.device, not c.objectives))
    found: dict[str, set[str]] = defaultdict(set)
    for (arch, *_), fields in varying.items():
        found[arch] |= fields
    return {arch: tuple(field for field in RECIPE if field in fields) for arch, fields in found.items()}


def _varying(records: Sequence[Record], fields: tuple[str, ...], group: Any) -> dict[tuple[Any, ...], set[str]]:
    seen: dict[tuple[Any, ...], dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for record in records:
        for field in fields:
            seen[group(record.cell)][field].add(getattr(record.cell, field))
    return {key: {field for field, values in found.items() if len(values) > 1} for key, found in seen.items()}


def _row(cell: Cell, telling: dict[str, tuple[str, ...]], states: bool) -> Row:
    extra = [("size", cell.size)] if cell.size not in SIZES else []
    fields = [field for field in telling.get(cell.arch, ()) if cell.objectives or field == "changes"]
    extra += [(field, text_of(getattr(cell, field))) for field in fields]
    return Row(arch=cell.arch, momentum=cell.momentum, states=states, extra=tuple(extra))


def _setting(record: Record, varying: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    cell = record.cell
    fields = [("size", shared_size(cell)), ("threads", str(cell.threads or record.env.threads))]
    fields += [(field, text_of(getattr(cell, field))) for field in (*SETTING, *varying)]
    return tuple(fields)
