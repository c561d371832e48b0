"""All that a report says, before it is HTML or Markdown."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlpbench.reports import ablation_figures, ablation_words, summary
from vlpbench.reports.ablation import Study, studies
from vlpbench.reports.accuracy import accuracy_tables
from vlpbench.reports.board import Board, boards, quantity
from vlpbench.reports.figures import figures
from vlpbench.reports.measured import latest, measure_all
from vlpbench.reports.names import Row, text_of
from vlpbench.reports.summary import Finding
from vlpbench.reports.svg import Figure
from vlpbench.reports.table import STATUS_WORDS, Head, Item, Table, comparison, measurement_table
from vlpbench.reports.units import scale
from vlpbench.reports.utilisation import machine_tables
from vlpbench.results.record import Env, Record, Status

DEFINITIONS = Path(__file__).with_name("definitions.toml")


class ReportError(Exception):
    """Records that no report can be made of. The message says what to do; no traceback is shown for it."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One record in the appendix: all that is needed to see where a number came from and to measure it again."""

    record: Record
    title: str
    fields: tuple[tuple[str, str], ...]
    values: tuple[str, ...]
    command: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """What belongs to one environment."""

    heading: str
    """Empty where there is only one environment."""
    findings: tuple[Finding, ...]
    comparison: Table
    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One table of rows that share a setting, what follows from it, and its figures."""

    heading: str
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a reader sees, before it is HTML or Markdown."""

    title: str
    scope: str
    limits: tuple[str, ...]
    parts: tuple[Part, ...]
    ablations: tuple[Ablation, ...]
    tables: tuple[Table, ...]
    failures: Table | None
    flags: Table | None
    problems: tuple[str, ...]
    environments: Table
    definitions: tuple[dict[str, str], ...]
    cards: tuple[Card, ...]

    @property
    def compares(self) -> bool:
        """Whether there are figures beside those of ablations."""
        return any(part.figures for part in self.parts)

    @property
    def all_figures(self) -> list[Figure]:
        """Every figure."""
        return [figure for part in (*self.parts, *self.ablations) for figure in part.figures]

    @property
    def all_tables(self) -> list[Table]:
        """Every table, those behind figures included."""
        found = [part.comparison for part in self.parts] + [table for part in self.ablations for table in part.tables]
        found += [figure.table for figure in self.all_figures]
        rest = (*self.tables, self.failures, self.flags, self.environments)
        return found + [table for table in rest if table is not None]


def assemble(records: Sequence[Record], *, title: str, problems: Sequence[str] = ()) -> Report:
    """All content of a report.

    Raises:
        ReportError: without a record.
    """
    if not records:
        raise ReportError("there is no record to report on; measure something first, for example `vlpbench run smoke`")
    records = latest(records)
    everything = measure_all(records)
    views, found = boards(everything), studies(records)
    # Rows of an ablation are too many and too alike for sentences and figures that compare architectures.
    plain = [record for record in records if record.suite != ablation_words.SUITE]
    compared = {board.env: board for board in boards(measure_all(plain))} if plain else {}
    envs = {record.env.id: record.env for record in records}
    parts = [
        _part(board, compared.get(board.env), envs[board.env], place, len(views)) for place, board in enumerate(views)
    ]
    said = tuple(finding for study in found for finding in ablation_words.findings(study))
    return Report(
        title=title,
        scope=summary.scope(records),
        limits=tuple(summary.limits(records)),
        parts=(replace(parts[0], findings=parts[0].findings + said), *parts[1:]),
        ablations=tuple(_ablation(study, number) for number, study in enumerate(found, 1)),
        tables=(*accuracy_tables(everything), *machine_tables(everything), measurement_table(everything)),
        failures=failure_table(records),
        flags=flag_table(records),
        problems=tuple(problems),
        environments=environment_table(records),
        definitions=tuple(tomllib.loads(DEFINITIONS.read_text(encoding="utf-8"))["definition"]),
        cards=tuple(_card(record) for record in sorted(records, key=_reading_order)),
    )


def _part(board: Board, compared: Board | None, env: Env, place: int, count: int) -> Part:
    caption = (
        "One row for a variant; a number links to its record. Small print: 95 % interval, scorer. Bold: the best of "
        "its column and all whose interval reaches it."
    )
    suffix = "" if count == 1 else f"-{env.id}"
    return Part(
        heading="" if count == 1 else f"Environment {env.id}: {env.gpu or env.cpu}",
        findings=tuple(summary.findings(compared, everywhere=place == 0)) if compared else (),
        comparison=comparison(board, f"comparison{suffix}", caption),
        figures=tuple(figures(compared, suffix, everywhere=place == 0)) if compared else (),
    )


def _ablation(study: Study, number: int) -> Ablation:
    name = f"ablation-{number}"
    return Ablation(
        heading=f"{study.title}, {ablation_words.setting_words(study)}",
        tables=tuple(ablation_words.tables(study, name)),
        figures=tuple(ablation_figures.figures(study, name)),
    )


def failure_table(records: Sequence[Record]) -> Table | None:
    """Every cell that did not end well, with its reason; None if all did."""
    failed = [record for record in records if record.status is not Status.OK]
    if not failed:
        return None
    titles = ("Cell", "Measure", "Status", "Reason")
    rows = [
        (
            _cell_item(record),
            Item(text=record.cell.measure),
            Item(text=STATUS_WORDS[record.status], record=record.id, kind="failed"),
            Item(text=first_line(record.reason) or "no reason was recorded"),
        )
        for record in sorted(failed, key=_reading_order)
    ]
    caption = "The whole reason stands with the record in the appendix."
    heads = tuple(Head(title=title) for title in titles)
    return Table(name="failures", title="Failures", caption=caption, heads=heads, rows=tuple(rows))


def flag_table(records: Sequence[Record]) -> Table | None:
    """Every quality flag; None without any."""
    rows = [
        (_cell_item(record), Item(text=record.cell.measure, record=record.id), Item(text=flag))
        for record in sorted(records, key=_reading_order)
        for flag in record.flags
    ]
    heads = tuple(Head(title=title) for title in ("Cell", "Measure", "Flag"))
    caption = "Numbers marked ⚑ above."
    return Table(name="flags", title="Quality flags", caption=caption, heads=heads, rows=tuple(rows)) if rows else None


def environment_table(records: Sequence[Record]) -> Table:
    """One column for an environment."""
    envs = {record.env.id: record.env for record in records}
    count = {key: sum(record.env.id == key for record in records) for key in envs}
    lines = {key: dict(environment_lines(env)) | {"Records": str(count[key])} for key, env in envs.items()}
    names = list(dict.fromkeys(name for found in lines.values() for name in found))
    rows = [(Item(text=name), *(Item(text=lines[key].get(name, "–")) for key in envs)) for name in names]
    heads = (Head(title="Environment"), *(Head(title=key) for key in envs))
    caption = "The heading is the id that records and tables name."
    return Table(name="environments", title="Environments", caption=caption, heads=heads, rows=tuple(rows))


def environment_lines(env: Env) -> list[tuple[str, str]]:
    """What an environment is, in words."""
    state = {True: ", with uncommitted changes", False: "", None: ""}[env.dirty]
    gpu = f"{env.gpu}, {env.gpu_memory / 2**30:.0f} GiB" if env.gpu and env.gpu_memory else env.gpu or "none"
    lines = [
        ("Processor", f"{env.cpu}, {env.cores} cores"),
        ("Vector extensions", ", ".join(env.cpu_flags)),
        ("Main memory", f"{env.memory / 2**30:.1f} GiB"),
        ("GPU", gpu),
        ("Driver, CUDA", ", ".join(filter(None, (env.driver, env.cuda)))),
        ("System", env.os),
        ("Python", env.python),
        *((name, version) for name, version in sorted(env.versions.items())),
        ("Threads", str(env.threads)),
        ("Commit", f"{env.commit[:12]}{state}" if env.commit else ""),
    ]
    return [(name, value) for name, value in lines if value]


def first_line(text: str) -> str:
    """The sentence before the traceback."""
    return text.strip().partition("\n")[0]


def _cell_item(record: Record) -> Item:
    return Item(text=_title(record), kind="head", family=record.cell.arch)


def _title(record: Record) -> str:
    row = Row(arch=record.cell.arch, momentum=record.cell.momentum)
    scorer = f", {record.cell.scorer}" if record.cell.scorer else ""
    return f"{row.title}, {record.cell.size}{scorer}"


def _reading_order(record: Record) -> tuple[Any, ...]:
    cell = record.cell
    return Row(arch=cell.arch, momentum=cell.momentum).order, cell.measure, cell.id, record.env.id


def _card(record: Record) -> Card:
    cell = record.cell
    values = []
    for name, series in record.samples.items():
        if not series.values:
            continue
        ordered = sorted(series.values)
        unit = scale(series.unit, ordered)
        middle = ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1 :][:2]) / 2
        spread = f", {unit.span(ordered[0], ordered[-1])} in {len(ordered)} samples" if len(ordered) > 1 else ""
        values.append(f"{quantity(name).title}: {unit.full(middle)}{spread}")
    return Card(
        record=record,
        title=f"{_title(record)}: {cell.measure}",
        fields=tuple((k, text_of(getattr(cell, k))) for k in type(cell).model_fields if k in cell.model_fields_set),
        values=tuple(values),
        command=_command(record),
    )


def _command(record: Record) -> str:
    if record.suite == ablation_words.SUITE:
        return ablation_words.command(record.cell)
    return f"vlpbench run {record.suite} --only id={record.cell.id}"
