"""The tables of an ablation: ladder, factorial and sweeps, as far as the records hold rows of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from vlpbench.reports.ablation_rows import ACCURACIES, Effect, Index, Line, effect, paired
from vlpbench.reports.names import MOMENTUM, text_of
from vlpbench.results.ablation import LADDER, RECIPE, SWEPT, Row, cell_of, objectives_name, shared
from vlpbench.results.record import Record

FEWEST = 3
"""Rows that make a ladder or a factorial."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One table: rows that share a setting, measured on one machine."""

    kind: str
    """``ladder``, ``factorial`` or ``sweep``."""
    title: str
    setting: Mapping[str, Any]
    env: str
    lines: tuple[Line, ...]
    effects: tuple[Effect, ...] = ()

    @property
    def arch(self) -> str:
        """The architecture."""
        return self.setting["arch"]

    @property
    def seeds(self) -> int:
        """The most that a row has."""
        return max((len(e.series) for line in self.lines for e in line.entries.values()), default=0)


def studies(records: Sequence[Record]) -> list[Study]:
    """Every ladder, factorial and sweep that the records hold rows of, one environment after the other."""
    found = []
    for env in dict.fromkeys(record.env.id for record in records):
        index = Index([record for record in records if record.env.id == env])
        for base in index.bases():
            makers = (_ladder(index, base), *_factorials(index, base), *_sweeps(index, base))
            found += [Study(env=env, setting=base, **made) for made in makers if made is not None]
    return found


def _ladder(index: Index, base: Mapping[str, Any]) -> dict[str, Any] | None:
    lines = index.lines(LADDER, base)
    if len(lines) < FEWEST:
        return None
    return {"kind": "ladder", "title": "Ladder", "lines": tuple(lines)}


def _factorials(index: Index, base: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """One for each momentum state: every set of objectives, matching with uniform negatives, all else by default."""
    sets: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for cell in index.trained(base):
        row = _set(cell.objectives, cell.momentum)
        if shared(cell) == shared(cell_of(cell.measure, {**base, **row.recipe})):
            sets[cell.momentum].add(cell.objectives)
    for state in MOMENTUM:
        chosen = sorted(sets[state], key=len)
        if len(chosen) < FEWEST:
            continue
        names = list(dict.fromkeys(name for objectives in reversed(chosen) for name in objectives))
        chosen.sort(key=lambda objectives: (len(objectives), [names.index(name) for name in objectives]))
        lines = [line for o in chosen if (line := index.line(_set(o, state), base, None)) is not None]
        suffix = "" if state == "off" else f", momentum {state}"
        made = {"kind": "factorial", "title": f"Factorial of the objectives{suffix}", "lines": tuple(lines)}
        yield made | {"effects": tuple(_effects(lines, names))}


def _set(objectives: tuple[str, ...], momentum: str) -> Row:
    negatives = {"negatives": "uniform"} if "itm" in objectives else {}
    recipe = {"objectives": objectives, "momentum": momentum} | negatives
    return Row(name=objectives_name(objectives), recipe=recipe)


def _effects(lines: Sequence[Line], names: Sequence[str]) -> Iterator[Effect]:
    """Main effects, then interactions of two."""
    for size in (1, 2):
        for of in combinations(names, size):
            values = {}
            for key in ACCURACIES:
                series = {frozenset(line.fields["objectives"]): line.entries[key].series for line in lines}
                if (found := effect(of, series, names)) is not None:
                    values[key] = found
            yield Effect(name=" × ".join(objectives_name((name,)) for name in of), values=values)


def _sweeps(index: Index, base: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Rows that differ in one field and in the momentum state, where the field has two values or more."""
    groups: dict[tuple[Any, ...], dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for cell in index.trained(base):
        recipe = {key: getattr(cell, key) for key in RECIPE}
        for swept in SWEPT:
            value = recipe[swept]
            if value in (None, ()) or recipe["finetune_momentum"] != "off":
                continue
            rest = {key: value for key, value in recipe.items() if key not in (swept, "momentum")}
            kind = tuple(name for name, _ in value) if swept == "changes" else ()
            groups[swept, kind, tuple(rest.items())][recipe["momentum"]].add(value)
    for (swept, kind, rest), states in groups.items():
        if any(len(values) > 1 for values in states.values()):
            yield _sweep(index, base, swept, kind, dict(rest), states)


def _sweep(
    index: Index,
    base: Mapping[str, Any],
    swept: str,
    kind: tuple[str, ...],
    rest: dict[str, Any],
    states: Mapping[str, set[Any]],
) -> dict[str, Any]:
    lines: list[Line] = []
    name = " : ".join(kind) or swept.replace("_", " ")
    if swept == "queue_size":
        lines += index.lines([Row(name="no queue (momentum off)", recipe=rest)], base)
    for state in MOMENTUM:
        rows = [
            Row(name=f"{state}, {name} {_shown(value)}", recipe=rest | {"momentum": state, swept: value})
            for value in sorted(states.get(state, ()))
        ]
        lines += index.lines(rows, base)
    made = {"kind": "sweep", "title": f"Sweep of {name}", "lines": tuple(lines)}
    return made | ({"effects": tuple(_gains(lines))} if swept == "noise" else {})


def _shown(value: Any) -> str:
    return " : ".join(str(depth) for _, depth in value) if isinstance(value, tuple) else text_of(value)


def _gains(lines: Sequence[Line]) -> Iterator[Effect]:
    """At each level of noise what distillation gains over the same model without it."""
    at = {(line.fields["momentum"], line.fields["noise"]): line.entries for line in lines}
    for less in ("queue", "off"):
        for noise in sorted({noise for _, noise in at}):
            after, before = at.get(("distill", noise)), at.get((less, noise))
            if after and before:
                found = {key: paired(after[key].series, before[key].series) for key in ACCURACIES}
                values = {key: value for key, value in found.items() if value is not None}
                yield Effect(name=f"distill − {less}", values=values, at=noise)
