"""Finds the records that a condition needs: one for every cell, fit to be compared with one another.

The cells of a condition differ in what is compared. The rest, their setting (size, data, batch, steps, device ...), is
the same for all of them, so a condition can be looked at in any setting that the records have all of its cells in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlpbench.reports.claim_types import Claim, Condition, Term
from vlpbench.reports.measured import BOUND, latest
from vlpbench.reports.names import Row, text_of
from vlpbench.results.record import UNITS, Cell, Record, Status

SETTING = (
    *("size", "data", "device", "dtype", "threads", "compile", "attention", "channels_last", "memory_limit"),
    *("batch", "image", "text_len", "budget", "finetune", "lr", "data_options"),
    *("finetune_lr", "finetune_batch", "finetune_warmup", "finetune_decay"),
)
"""Fields that are one setting where all cells of a condition agree in them."""
AUTO = "auto"
"""Stands for any one device."""
_DEFAULTS = {name: info.default for name, info in Cell.model_fields.items()}
Setting = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One cell of a condition, whatever its seed."""

    cell: Cell
    """In the setting it was found in, with seed 0."""
    records: Mapping[int, Record]
    """By seed."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """Records for all cells of a condition."""

    setting: Setting
    terms: Mapping[Term, tuple[Slot, ...]]
    missing: tuple[str, ...] = ()
    """Cells without a record, in words; then there is nothing to judge."""
    why: str = ""
    """Why there is nothing, where it is not that cells were never measured."""

    @property
    def records(self) -> list[Record]:
        """All of them, once."""
        found = [record for slots in self.terms.values() for slot in slots for record in slot.records.values()]
        return list({record.id: record for record in found}.values())

    @property
    def sizes(self) -> tuple[str, ...]:
        """Sizes of the models."""
        return tuple(sorted({slot.cell.size for slots in self.terms.values() for slot in slots}))

    @property
    def data(self) -> tuple[str, ...]:
        """Data sources."""
        return tuple(sorted({slot.cell.data for slots in self.terms.values() for slot in slots}))


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """All records, by architecture and measure."""

    records: Mapping[tuple[str, str], tuple[Record, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Shelf:
        """Of records of every cell and environment the latest."""
        found: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for record in latest(records):
            found[record.cell.arch, record.cell.measure].append(record)
        return cls(records={key: tuple(rows) for key, rows in found.items()})


def pick(claim: Claim, condition: Condition, shelf: Shelf) -> tuple[Picked, tuple[Picked, ...]]:
    """Records in the condition's own setting, and in every other that has all of its cells."""
    cells = [cell for term in (*condition.a, *condition.b) for cell in claim.cells[term.cells]]
    alike = (name for name in SETTING if len({getattr(cell, name) for cell in cells}) == 1)
    loose = tuple(name for name in alike if name not in claim.fixed)
    places: dict[Setting, dict[Cell, list[Record]]] = defaultdict(lambda: defaultdict(list))
    wanted = dict.fromkeys(_blank(cell, loose) for cell in cells)
    for key in dict.fromkeys((cell.arch, cell.measure) for cell in cells):
        for record in shelf.records.get(key, ()):
            slot = _blank(record.cell, loose)
            if slot in wanted:
                places[_setting(record.cell, loose)][slot].append(record)
    own = _setting(cells[0], loose)
    here = [_chosen(claim, condition, loose, place, places[place]) for place in places if _covers(own, place)]
    here = here or [_chosen(claim, condition, loose, own, {})]
    there = [_chosen(claim, condition, loose, place, places[place]) for place in places if not _covers(own, place)]
    best = max(here, key=lambda one: (-len(one.missing), _newest(one.records)))
    return best, tuple(sorted((one for one in there if not one.missing), key=lambda one: _newest(one.records)))


def _blank(cell: Cell, loose: Sequence[str]) -> Cell:
    return cell.model_copy(update={name: _DEFAULTS[name] for name in (*loose, "seed")})


def _setting(cell: Cell, loose: Sequence[str]) -> Setting:
    return tuple((name, getattr(cell, name)) for name in loose)


def _covers(own: Setting, place: Setting) -> bool:
    return all(mine in (theirs, AUTO) for (_, mine), (_, theirs) in zip(own, place, strict=True))


def _newest(records: Iterable[Record]) -> str:
    return max((record.started for record in records), default="")


def _chosen(
    claim: Claim, condition: Condition, loose: Sequence[str], place: Setting, found: Mapping[Cell, list[Record]]
) -> Picked:
    """The records of one setting that can be compared; where cells lack, which."""
    seeds: dict[Cell, set[int]] = defaultdict(set)
    terms: dict[Term, list[Cell]] = defaultdict(list)
    for term in dict.fromkeys((*condition.a, *condition.b)):
        for cell in claim.cells[term.cells]:
            slot = _blank(cell, loose)
            seeds[slot].add(cell.seed)
            if slot not in terms[term]:
                terms[term].append(slot)
    kept: dict[Cell, dict[int, Record]] = {}
    for group in _comparable(claim, seeds):
        kept |= _together(group, seeds, found)
    failed = {slot: [r for r in rows if r.status is not Status.OK] for slot, rows in found.items()}
    missing = tuple(_lacking(kept, seeds, failed, place))
    elsewhere = missing and all(_good(found.get(slot, ())).keys() >= needed for slot, needed in seeds.items())
    why = "its cells were measured apart, in environments or on data that are not compared with one another"
    shared = set.intersection(*(set(kept.get(slot, ())) for slot in seeds))
    return Picked(
        setting=place,
        terms={
            term: tuple(
                Slot(
                    cell=slot.model_copy(update=dict(place)),
                    records={seed: record for seed, record in kept.get(slot, {}).items() if missing or seed in shared},
                )
                for slot in slots
            )
            for term, slots in terms.items()
        },
        missing=missing,
        why=why if elsewhere else "",
    )


def _comparable(claim: Claim, seeds: Mapping[Cell, set[int]]) -> Iterator[list[Cell]]:
    """Cells that have to come from one place: of trained ones those of one measure, of timed ones all."""
    if claim.kind != "A":
        yield list(seeds)
        return
    for measure in dict.fromkeys(cell.measure for cell in seeds):
        yield [cell for cell in seeds if cell.measure == measure]


def _together(
    group: Sequence[Cell], seeds: Mapping[Cell, set[int]], found: Mapping[Cell, list[Record]]
) -> dict[Cell, dict[int, Record]]:
    """Of the places that hold records of the group the one with most, and then the newest."""
    places = dict.fromkeys(_place(record) for cell in group for record in found.get(cell, ()))
    options = []
    for place in [place for place in places if place] or [()]:
        kept = {cell: _good(r for r in found.get(cell, ()) if _place(r) in ((), place)) for cell in group}
        lacking = sum(len(seeds[cell] - kept[cell].keys()) for cell in group)
        options.append((-lacking, _newest(r for rows in kept.values() for r in rows.values()), kept))
    return max(options, key=lambda option: option[:2])[2]


def _place(record: Record) -> tuple[object, ...]:
    """What two records have to share: trainings the data, what depends on the machine that, counts nothing."""
    if trained(record.cell):
        return (record.data,)
    if any(UNITS[name].unit in BOUND for name in record.samples if name in UNITS):
        return (record.env.id, record.cell.threads or record.env.threads)
    return ()


def trained(cell: Cell) -> bool:
    """Whether its weights were learnt, so that its numbers are of a training and not of an architecture."""
    return cell.budget is not None or cell.checkpoint is not None


def _good(records: Iterable[Record]) -> dict[int, Record]:
    """Seed -> the newest record with numbers."""
    found = [record for record in records if record.status is Status.OK]
    return {record.cell.seed: record for record in sorted(found, key=lambda record: record.started)}


def _lacking(
    kept: Mapping[Cell, Mapping[int, Record]],
    seeds: Mapping[Cell, set[int]],
    failed: Mapping[Cell, Sequence[Record]],
    place: Setting,
) -> Iterator[str]:
    for cell, needed in seeds.items():
        if lacking := sorted(needed - kept.get(cell, {}).keys()):
            words = cell_words(cell.model_copy(update=dict(place)))
            words += f", seed {', '.join(map(str, lacking))}" if trained(cell) or len(needed) > 1 else ""
            ended = next(
                (f" ({r.status.value}: {r.reason.splitlines()[0]})" for r in failed.get(cell, ()) if r.reason), ""
            )
            yield words + ended


def cell_words(cell: Cell, fields: Sequence[str] | None = None) -> str:
    """A cell for a reader: measure, variant, size and every field that is not at its default, or those named."""
    title = Row(arch=cell.arch, momentum=cell.momentum).title
    named = ("arch", "momentum", "measure", "size", "seed")
    wanted = [name for name in Cell.model_fields if name not in named] if fields is None else fields
    rest = [
        f"{name.replace('_', ' ')} {text_of(getattr(cell, name))}"
        for name in wanted
        if name not in named and (fields is not None or getattr(cell, name) != _DEFAULTS[name])
    ]
    head = [f"{cell.measure} of {title}", cell.size] if fields is None else [title]
    return ", ".join([*head, *rest])
