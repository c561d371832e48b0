"""An ablation as tables of a report, as text on a terminal, and as JSON."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vlpbench.reports.ablation import Study
from vlpbench.reports.ablation_rows import COSTS, Entry, Line
from vlpbench.reports.names import arch_title
from vlpbench.reports.stats import Estimate, apart
from vlpbench.reports.summary import Finding, listed
from vlpbench.reports.table import Head, Item, Table
from vlpbench.reports.units import Scale, scale, times
from vlpbench.results.record import Cell

TITLES = {
    "tr": "TR mean",
    "ir": "IR mean",
    "vqa": "VQA",
    "binding": "VQA binding",
    "step": "Step",
    "flops": "FLOPs of a step",
}
SHOWN = ("tr", "ir", "vqa", "binding")
"""Accuracies of the tables; mean recall over both directions is for figures."""
UNITS = dict.fromkeys(SHOWN, "%") | {"step": "s", "flops": "FLOP"}
_FINDINGS = {"recall": "mean recall over both directions", "vqa": "VQA accuracy"}
PUBLISHED = ("tr", "ir", "vqa")
METHOD = (
    "Differences are against the row before, seed by seed: rows share training set, order of batches and initial "
    "weights at each seed. Intervals (95 %) are Student's t over seeds; with so few a bootstrap could not leave the "
    "range of the differences seen. They are not corrected for the number of rows. Step: ratio of medians, bootstrap "
    "over paired rounds. TR and IR: mean of R@1, R@5, R@10, scored as the row says."
)
EFFECTS = (
    "In points. A main effect is what an objective adds, averaged over all sets of others in which it can be seen; an "
    "interaction is how much more it adds beside the other. Sets that would need the empty set, or retrieval from "
    "masked words alone, are left out; n/a: none is left. Matching draws uniform negatives throughout. Intervals "
    "(95 %) are Student's t over seeds."
)
GAINS = (
    "In points, distillation against the same training without it (queue: momentum model and queue, hard targets; off: "
    "neither), paired by seed; intervals (95 %) are Student's t over seeds."
)
SUITE = "ablation"
"""Name of the suite whose cells the command `vlpbench ablate` makes."""
_SOURCE = Path(__file__).with_name("ablation.toml")


@cache
def published() -> Mapping[str, Mapping[str, Any]]:
    """Architecture -> its paper's ladder."""
    return {entry["arch"]: entry for entry in tomllib.loads(_SOURCE.read_text(encoding="utf-8"))["published"]}


def setting_words(study: Study) -> str:
    """What the rows of a table share."""
    fields = study.setting
    said = [f"{arch_title(study.arch)} {fields.get('size', 'base')}, {fields.get('data', 'random')}"]
    said += [f"{fields['budget']:,} steps", f"batch {fields['batch']}"]
    said += [f"{fields['finetune']:,} steps of fine-tuning"] if "finetune" in fields else []
    shown = ("arch", "size", "data", "budget", "batch", "finetune")
    said += [f"{key} {value}" for key, value in fields.items() if key not in shown]
    return ", ".join([*said, f"{study.seeds} {'seed' if study.seeds == 1 else 'seeds'}"])


def command(cell: Cell) -> str:
    """The command that measures a row of an ablation again."""
    said = f"vlpbench ablate --arch {cell.arch} --size {cell.size} --data {cell.data}"
    said += f" --budget {cell.budget}" if cell.budget else ""
    named = [name for name in ("queue_size", "momentum_rate", "alpha") if getattr(cell, name) is not None]
    named += ["noise"] if cell.noise else []
    named += [{1: "fusion_depth"}.get(len(cell.changes), "depth_ratio")] if cell.changes else []
    return f"{said} --only sweep --sweep {named[0]} --again" if named else f"{said} --again"


def findings(study: Study) -> list[Finding]:
    """For the summary: what each row of a ladder adds, or the effects."""
    found = []
    for key in ("recall", "vqa"):
        if study.kind == "ladder":
            steps = [(line.name, line.entries[key].change) for line in study.lines]
            ids = [record.id for line in study.lines for record in line.entries[key].records]
        else:
            steps = [(one.title, one.values.get(key)) for one in study.effects]
            ids = []
        said = [f"{name} {_points(change)}" for name, change in steps if change is not None]
        if said:
            text = f"{study.title} of {arch_title(study.arch)}, {_FINDINGS[key]}, points: {listed(said)}."
            found.append(Finding(lead="Ablation", text=text, records=tuple(dict.fromkeys(ids))))
    return found


def _points(change: Estimate) -> str:
    item = _difference(change)
    return f"{item.text} ({item.note})" if item.note else f"{item.text} (one seed)"


def tables(study: Study, name: str) -> list[Table]:
    """The rows, and the effects where there are any; ``name`` is that of the files."""
    found = [_rows(study, name)]
    if study.effects:
        found.append(_effects(study, f"{name}-effects"))
    return found


def _rows(study: Study, name: str) -> Table:
    scales, keys, paper = _scales(study), _keys(study), _paper(study)
    changing = any(line.entries[key].change for line in study.lines for key in keys)
    heads = [Head(title="Row"), Head(title="Scored by")]
    for key in keys:
        unit = scales[key].name
        heads.append(Head(title=TITLES[key], note=unit, unit=UNITS[key], numeric=True, group=TITLES[key]))
        if changing:
            what = "ratio" if key in COSTS else "difference"
            heads.append(Head(title=what, full=f"{TITLES[key]} {what}", numeric=True, group=TITLES[key]))
    if paper:
        group = f"{paper['title']}, from {paper['confidence']}"
        heads += [Head(title=TITLES[key], note="%", unit="%", numeric=True, group=group) for key in PUBLISHED]
    rows = []
    for place, line in enumerate(study.lines):
        items = [Item(text=line.name, kind="head", family=study.arch), Item(text=line.protocol)]
        for key in keys:
            items += [_value(line.entries[key], scales[key]), *([_change(key, line.entries[key])] if changing else [])]
        rows.append((*items, *_beside(study, paper, place)))
    caption = f"{setting_words(study)}. {METHOD} Bold: an interval that excludes no difference."
    if paper:
        caption += f" {paper['title']}: {paper['setting']}. Known from {paper['confidence']}. {paper['note']}"
    return Table(name=name, title=study.title, caption=caption, heads=tuple(heads), rows=tuple(rows))


def _keys(study: Study) -> list[str]:
    """Quantities that any row has; an accuracy is shown even where all failed."""
    return [k for k in TITLES if k in SHOWN or any(line.entries[k].value for line in study.lines)]


def _scales(study: Study) -> dict[str, Scale]:
    known = {key: [line.entries[key].value for line in study.lines] for key in TITLES}
    return {key: scale(UNITS[key], [e.value for e in values if e]) for key, values in known.items()}


def _value(entry: Entry, unit: Scale) -> Item:
    record = entry.records[0].id if entry.records else None
    if entry.value is None:
        word = entry.word.partition(":")[0]
        return Item(text=word, record=record, kind="failed" if entry.records else "absent")
    flags = tuple(dict.fromkeys(flag for found in entry.records for flag in found.flags))
    value = entry.value
    return Item(
        text=_number(value.value, unit),
        note=f"{_number(value.interval[0], unit)}–{_number(value.interval[1], unit)}" if value.interval else "",
        value=value.value,
        low=value.low,
        high=value.high,
        record=record,
        flags=flags,
    )


def _number(value: float, unit: Scale) -> str:
    """Accuracies with one decimal, costs with three digits."""
    return f"{value:.1f}" if unit.name == "%" else unit.show(value)


def _change(key: str, entry: Entry) -> Item:
    if entry.change is None:
        return Item(text=entry.word if entry.value is not None else "", kind="absent")
    return _difference(entry.change, ratio=key in COSTS)


def _difference(change: Estimate, *, ratio: bool = False) -> Item:
    shown = times if ratio else signed
    ends = f"{shown(change.interval[0])} to {shown(change.interval[1])}" if change.interval else ""
    best = apart(change, 1 if ratio else 0)
    return Item(text=shown(change.value), note=ends, value=change.value, low=change.low, high=change.high, best=best)


def signed(value: float) -> str:
    """``+1.2``, ``−0.3``."""
    return f"{value:+.1f}".replace("-", "−")


def _paper(study: Study) -> Mapping[str, Any] | None:
    return published().get(study.arch) if study.kind == "ladder" else None


def _beside(study: Study, paper: Mapping[str, Any] | None, place: int) -> Iterator[Item]:
    """The paper's numbers for a row, each with its difference to the paper's row before."""
    if paper is None:
        return
    own = {row["name"]: row for row in paper["rows"]}
    row = own.get(study.lines[place].name, {})
    before = own.get(study.lines[place - 1].name, {}) if place else {}
    for key in PUBLISHED:
        if key not in row:
            yield Item(text="n/a", kind="absent")
            continue
        note = f"{row[key] - before[key]:+.2f}".replace("-", "−") if key in before else ""
        yield Item(text=f"{row[key]:.2f}", note=note, value=row[key])


def _effects(study: Study, name: str) -> Table:
    gains = study.kind == "sweep"
    heads = [Head(title="Gain" if gains else "Effect"), *([Head(title="Noise")] if gains else [])]
    heads += [Head(title=TITLES[key], note="points", unit="points", numeric=True) for key in SHOWN]
    rows = []
    for effect in study.effects:
        said = [Item(text=effect.name, kind="head", family=study.arch)]
        said += [Item(text=f"{effect.at:.0%}", value=effect.at)] if effect.at is not None else []
        items = [
            _difference(effect.values[key]) if key in effect.values else Item(text="n/a", kind="absent")
            for key in SHOWN
        ]
        rows.append((*said, *items))
    return Table(
        name=name,
        title="Gain of distillation by caption noise" if gains else f"{study.title}: effects",
        caption=f"{setting_words(study)}. {GAINS if gains else EFFECTS} Bold: an interval that excludes no difference.",
        heads=tuple(heads),
        rows=tuple(rows),
    )


def text(study: Study) -> str:
    """For a terminal: a line for each row, and below it the differences to the row before with their intervals."""
    found = [f"{study.title}: {setting_words(study)}"]
    for table in tables(study, study.kind):
        found.append(_grid(table))
    reasons = dict.fromkeys(
        f"{line.name}: {entry.word}" for line in study.lines for entry in line.entries.values() if ":" in entry.word
    )
    if paper := _paper(study):
        found.append(f"{paper['title']}: {paper['setting']}; from {paper['confidence']}")
    return "\n".join([*found, *reasons])


def _grid(table: Table) -> str:
    """A value and its difference share a column, one below the other."""
    columns: list[tuple[Head, list[list[str]]]] = []
    for place, head in enumerate(table.heads):
        cells = [[row[place].text, row[place].note] for row in table.rows]
        if head.full:
            _, above = columns[-1]
            for old, (shown, ends) in zip(above, cells, strict=True):
                old[1:] = [shown, ends]
        else:
            columns.append((head, cells))
    return "\n".join(_lines(columns, len(table.rows)))


def _lines(columns: Sequence[tuple[Head, list[list[str]]]], rows: int) -> Iterator[str]:
    tops = [[head.title, head.note] for head, _ in columns]
    wide = [
        max(map(len, [*top, *(part for cell in cells for part in cell)]))
        for top, (_, cells) in zip(tops, columns, strict=True)
    ]
    for stack in (tops, *([cells[row] for _, cells in columns] for row in range(rows))):
        for level in range(max(map(len, stack))):
            parts = [cell[level] if level < len(cell) else "" for cell in stack]
            if any(parts):
                pairs = zip(parts, wide, columns, strict=True)
                yield "  ".join(f"{p:>{w}}" if head.numeric else f"{p:<{w}}" for p, w, (head, _) in pairs).rstrip()


def as_json(study: Study) -> dict[str, Any]:
    """For machines: stored units, differences in points, ratios of costs."""
    return {
        "kind": study.kind,
        "title": study.title,
        "setting": {key: value for key, value in study.setting.items() if value is not None},
        "environment": study.env,
        "seeds": study.seeds,
        "rows": [_line_json(line) for line in study.lines],
        "effects": [
            {"name": effect.name, "noise": effect.at, "values": {k: _json(v) for k, v in effect.values.items()}}
            for effect in study.effects
        ],
    }


def _line_json(line: Line) -> dict[str, Any]:
    entries = {
        key: {"value": _json(entry.value), "change": _json(entry.change), "word": entry.word}
        for key, entry in line.entries.items()
    }
    return {"name": line.name, "scored_by": line.protocol, **entries}


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    ends = list(estimate.interval) if estimate.interval else None
    return {"value": estimate.value, "ci": ends, "n": estimate.n, "method": estimate.method}
