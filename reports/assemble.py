"""All that a report says, before it is HTML or Markdown."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlpbench.reports import ablation_words, gap, summary
from vlpbench.reports.ablation import studies
from vlpbench.reports.accuracy import accuracy_tables
from vlpbench.reports.appendix import Card, cards
from vlpbench.reports.board import Board, boards
from vlpbench.reports.claims import Claim, judge
from vlpbench.reports.crossings import crossover_table
from vlpbench.reports.figures import figures
from vlpbench.reports.learning import learning_table
from vlpbench.reports.measured import latest, measure_all
from vlpbench.reports.profiles import profiles
from vlpbench.reports.quality import environment_table, failure_table, flag_table
from vlpbench.reports.rulings import RULE, Ruling, Tally, rulings, tallies
from vlpbench.reports.rulings import table as ruling_table
from vlpbench.reports.sections import Block, Section, drawn, missing, sections, studied
from vlpbench.reports.studies import compared_records
from vlpbench.reports.summary import Finding
from vlpbench.reports.svg import Figure
from vlpbench.reports.table import Table, comparison, measurement_table
from vlpbench.reports.utilisation import machine_tables
from vlpbench.results.record import Env, Record

DEFINITIONS = Path(__file__).with_name("definitions.toml")


class ReportError(Exception):
    """Records that no report can be made of. The message says what to do; no traceback is shown for it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What belongs to one environment."""

    heading: str
    """Empty where there is only one environment."""
    findings: tuple[Finding, ...]
    comparison: Table


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a reader sees, before it is HTML or Markdown."""

    title: str
    scope: str
    rulings: tuple[Ruling, ...]
    """Verdicts on claims, those that were measured first."""
    tallies: tuple[Tally, ...]
    rule: str
    """How verdicts are reached."""
    verdicts: Table | None
    limits: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]
    """What the records hold nothing of, and the command that measures it."""
    parts: tuple[Part, ...]
    sections: tuple[Section, ...]
    failures: Table | None
    flags: Table | None
    problems: tuple[str, ...]
    environments: Table
    definitions: tuple[dict[str, str], ...]
    cards: tuple[Card, ...]

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Anchors and titles of the sections."""
        return [(section.name, section.title) for section in self.sections]

    @property
    def measured(self) -> tuple[Ruling, ...]:
        """Claims that the records decide, or leave open."""
        return tuple(one for one in self.rulings if one.kind != "not measured")

    @property
    def unmeasured(self) -> tuple[Ruling, ...]:
        """Claims that they say nothing about."""
        return tuple(one for one in self.rulings if one.kind == "not measured")

    @property
    def all_figures(self) -> list[Figure]:
        """Every figure."""
        return [figure for section in self.sections for block in section.blocks for figure in block.figures]

    @property
    def all_tables(self) -> list[Table]:
        """Every table, those behind figures included; a card of an architecture repeats the comparison and has none."""
        blocks = [block for one in self.sections if one.name != "architectures" for block in one.blocks]
        found = [table for block in blocks for table in (*block.tables, *block.folded)]
        found += [figure.table for figure in self.all_figures]
        rest = (self.verdicts, self.failures, self.flags, self.environments)
        return found + [table for table in rest if table is not None]


def assemble(
    records: Sequence[Record], *, title: str, problems: Sequence[str] = (), claims: Sequence[Claim] = ()
) -> Report:
    """All content of a report.

    Args:
        records: any mix of suites, environments and statuses.
        title: heading of the page.
        problems: sentences on what could not be read.
        claims: to be decided, judged at once.

    Raises:
        ReportError: without a record.
    """
    if not records:
        raise ReportError("there is no record to report on; measure something first, for example `vlpbench run smoke`")
    records = latest(records)
    views, found = boards(measure_all(compared_records(records))), studies(records)
    envs = {record.env.id: record.env for record in records}
    parts = [_part(board, envs[board.env], place, len(views)) for place, board in enumerate(views)]
    said = tuple(finding for study in found for finding in ablation_words.findings(study))
    shown = _sections(records, views, parts, studied(found))
    decided = rulings(judge(claims, records) if claims else ())
    return Report(
        title=title,
        scope=summary.scope(records),
        rulings=decided,
        tallies=tallies(decided),
        rule=RULE if decided else "",
        verdicts=ruling_table(decided) if decided else None,
        limits=tuple(summary.limits(records)),
        missing=missing(
            shown, any(f.name.startswith("structure-") for s in shown for b in s.blocks for f in b.figures)
        ),
        parts=(replace(parts[0], findings=parts[0].findings + said), *parts[1:]),
        sections=shown,
        failures=failure_table(records),
        flags=flag_table(records),
        problems=tuple(problems),
        environments=environment_table(records),
        definitions=tuple(tomllib.loads(DEFINITIONS.read_text(encoding="utf-8"))["definition"]),
        cards=cards(records),
    )


def _part(board: Board, env: Env, place: int, count: int) -> Part:
    caption = (
        "One row for a variant; a number links to its record. Small print: 95 % interval, scorer. Bold: the best of "
        "its column and all whose interval reaches it."
    )
    first = place == 0
    return Part(
        heading="" if count == 1 else f"Environment {env.id}: {env.gpu or env.cpu}",
        findings=(*summary.findings(board, everywhere=first), *(gap.findings(board) if first else ())),
        comparison=comparison(board, f"comparison{_suffix(board, count)}", caption),
    )


def _suffix(board: Board, count: int) -> str:
    return "" if count == 1 else f"-{board.env}"


def _sections(
    records: Sequence[Record], views: Sequence[Board], parts: Sequence[Part], ablations: dict[str, list[Block]]
) -> tuple[Section, ...]:
    everything, count = measure_all(records), len(views)
    pictures = [
        (part.heading, figures(board, _suffix(board, count), everywhere=place == 0))
        for place, (board, part) in enumerate(zip(views, parts, strict=True))
    ]
    crossed = [table for board in views if (table := crossover_table(board, _suffix(board, count)))]
    learnt = learning_table(everything)
    tables = {"search": crossed, "learning": [learnt] if learnt else []}
    whole = measurement_table(everything)
    folded = {"cost": [*machine_tables(everything), whole], "accuracy": accuracy_tables(everything)}
    compared = [Block(heading=part.heading, tables=(part.comparison,)) for part in parts]
    rest = {"comparison": compared, "architectures": profiles(views[0], records)}
    return sections(drawn(pictures, tables, folded) | ablations | rest)
