"""An ablation as tables and sentences of a report."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from vlpbench.reports.ablation import Study
from vlpbench.reports.ablation_rows import COSTS, Entry
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
    "TR and IR: mean of R@1, R@5, R@10, scored as the row says. Intervals (95 %) are Student's t over seeds: with so "
    "few a bootstrap could not leave the range of what was seen. They are not corrected for the number of rows."
)
CHANGES = (
    "Differences are against the row before, seed by seed: rows share training set, order of batches and initial "
    "weights at each seed. Costs: ratio to the row before, of a step's time with a bootstrap over paired rounds."
)
EFFECTS = (
    "In points. A main effect is what an objective adds, averaged over all sets of others in which it can be seen; an "
    "interaction is how much more it adds beside the other. Sets that would need the empty set, or retrieval from "
    "masked words alone, are left out; n/a: none is left. Matching draws uniform negatives throughout."
)
GAINS = (
    "In points, distillation against the same training without it (queue: momentum model and queue, hard targets; off: "
    "neither), paired by seed."
)
BOLD = "Bold: an interval that excludes no difference."
DIFFERENCE, RATIO = "difference", "ratio"
"""Titles of the columns that hold the change to the row before."""
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
    scales, keys, paper = _scales(study), _keys(study), paper_of(study)
    changing = any(line.entries[key].change for line in study.lines for key in keys)
    heads = [Head(title="Row"), Head(title="Scored by")]
    for key in keys:
        unit = scales[key].name
        group = TITLES[key] if changing else ""
        heads.append(Head(title=TITLES[key], note=unit, unit=UNITS[key], numeric=True, group=group))
        if changing:
            heads.append(Head(title=RATIO if key in COSTS else DIFFERENCE, numeric=True, group=group))
    if paper:
        group = f"{paper['title']}, from {paper['confidence']}"
        heads += [
            Head(title=f"paper {key.upper()}", note="%", unit="%", numeric=True, group=group) for key in PUBLISHED
        ]
    rows = []
    for place, line in enumerate(study.lines):
        items = [Item(text=line.name, kind="head", family=study.arch), Item(text=line.protocol)]
        for key in keys:
            entry = line.entries[key]
            items += [_value(entry, scales[key]), *([_change(key, entry)] if changing else [])]
        rows.append((*items, *_beside(study, paper, place)))
    caption = f"{METHOD} {f'{CHANGES} {BOLD}' if changing else ''}".strip()
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
        note=" to ".join(_number(end, unit) for end in value.interval or ()),
        value=value.value,
        low=value.low,
        high=value.high,
        record=record,
        flags=flags,
    )


def _number(value: float, unit: Scale) -> str:
    """Accuracies with one decimal, costs with three digits."""
    return (f"{value:.1f}" if unit.name == "%" else unit.show(value)).replace("-", "−")


def _change(key: str, entry: Entry) -> Item:
    if entry.change is None:
        return Item(text=entry.word if entry.value is not None else "", kind="absent")
    return replace(_difference(entry.change, ratio=key in COSTS), record=entry.records[0].id)


def _difference(change: Estimate, *, ratio: bool = False) -> Item:
    shown = times if ratio else signed
    ends = f"{shown(change.interval[0])} to {shown(change.interval[1])}" if change.interval else ""
    best = apart(change, 1 if ratio else 0)
    return Item(text=shown(change.value), note=ends, value=change.value, low=change.low, high=change.high, best=best)


def signed(value: float) -> str:
    """``+1.2``, ``−0.3``."""
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")  # adding zero turns −0.0 into +0.0


def paper_of(study: Study) -> Mapping[str, Any] | None:
    """The paper's ladder that belongs beside a table."""
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
        caption=f"{GAINS if gains else EFFECTS} {BOLD}",
        heads=tuple(heads),
        rows=tuple(rows),
    )
