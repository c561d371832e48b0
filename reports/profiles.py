"""One card for each architecture: its structure as a diagram, and all that the comparison holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlpbench.reports.board import Board
from vlpbench.reports.diagram import diagram
from vlpbench.reports.names import arch_title, family_key, text_of
from vlpbench.reports.outline import Outline, outlines
from vlpbench.reports.sections import COMMANDS, Block
from vlpbench.reports.summary import counted, listed
from vlpbench.reports.table import ABSENT, Head, Item, Table, column_head, entry
from vlpbench.results.record import Record, Status


def profiles(board: Board, records: Sequence[Record]) -> tuple[Block, ...]:
    """Cards in the order of the comparison; an architecture with its late-fusion relative is one."""
    drawn = outlines(records)
    found = []
    for key in dict.fromkeys(family_key(row.arch) for row in board.trained):
        mine = [record for record in records if family_key(record.cell.arch) == key]
        outline = drawn.get(key) or next((one for arch, one in drawn.items() if family_key(arch) == key), None)
        facts = _facts(board, key)
        found.append(
            Block(
                heading=arch_title(key),
                text=_about(mine, outline),
                figures=(diagram(outline, f"structure-{key}"),) if outline else (),
                tables=(facts,) if facts else (),
            )
        )
    return tuple(found)


def _about(records: Sequence[Record], outline: Outline | None) -> str:
    sizes = listed(list(dict.fromkeys(record.cell.size for record in records)))
    objectives = listed(
        list(dict.fromkeys(text_of(record.cell.objectives).upper() for record in records if record.cell.objectives))
    )
    failed = sum(record.status is not Status.OK for record in records)
    flagged = sum(bool(record.flags) for record in records)
    said = [f"{counted(len(records), 'record')} at {sizes}."]
    said += [f"{failed} did not end well."] if failed else []
    said += [f"{flagged} flagged."] if flagged else []
    said += [f"Trained with {objectives}."] if objectives else []
    if outline is None:
        said.append(f"No record of its structure, so no diagram; `{COMMANDS['structure'][1]}` makes one.")
    return " ".join(said)


def _facts(board: Board, key: str) -> Table | None:
    """Quantities down, variants across."""
    mine = [row for row in board.rows if family_key(row.arch) == key]
    rows = []
    for column in board.columns:
        items = [entry(board, row, column) for row in mine]
        if all(item.text == ABSENT for item in items):
            continue
        unit = column.scale.name
        named = [item if item.value is None else replace(item, text=f"{item.text} {unit}".strip()) for item in items]
        head = column_head(column)
        note = ", ".join(filter(None, (head.group.rpartition(" at ")[2], head.note.removeprefix(unit).strip(", "))))
        rows.append((Item(text=column.meaning.title, kind="head"), *named, Item(text=note)))
    if not rows:
        return None
    heads = (Head(title="Quantity"), *(Head(title=row.title, numeric=True) for row in mine), Head(title="Setting"))
    title = f"All of {arch_title(key)}"
    return Table(name=f"profile-{key}", title=title, caption="", heads=heads, rows=tuple(rows))
