"""How a run went: what did not end well, what was flagged, and on which machines."""

from __future__ import annotations

from collections.abc import Sequence

from vlpbench.reports.appendix import reading_order, record_title
from vlpbench.reports.table import STATUS_WORDS, Head, Item, Table
from vlpbench.results.record import Env, Record, Status


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
        for record in sorted(failed, key=reading_order)
    ]
    caption = "The whole reason stands with the record in the appendix."
    heads = tuple(Head(title=title) for title in titles)
    return Table(name="failures", title="Failures", caption=caption, heads=heads, rows=tuple(rows))


def flag_table(records: Sequence[Record]) -> Table | None:
    """Every quality flag; None without any."""
    rows = [
        (_cell_item(record), Item(text=record.cell.measure, record=record.id), Item(text=flag))
        for record in sorted(records, key=reading_order)
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
    return Item(text=record_title(record), kind="head", family=record.cell.arch)
