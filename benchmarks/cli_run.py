"""``vlpbench run`` and ``vlpbench plan``."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlpbench.benchmarks import env as environment
from vlpbench.benchmarks.cli_results import claims_of
from vlpbench.benchmarks.data.sources import FOLDER_VARIABLE
from vlpbench.benchmarks.events import require
from vlpbench.benchmarks.fields import SuiteError, check_value, label, select
from vlpbench.benchmarks.folders import existing_results, report_folder, results_folder
from vlpbench.benchmarks.plan import PHASES, Action, Plan, make_plan
from vlpbench.benchmarks.progress import duration, progress_for
from vlpbench.benchmarks.suite import NOTES, Suite, load_suite
from vlpbench.benchmarks.weights import assign
from vlpbench.results.index import standing
from vlpbench.results.record import Status
from vlpbench.results.store import FINAL, RECORDS, Store

if TYPE_CHECKING:
    from argparse import Namespace

    from vlpbench.benchmarks.runner import Summary
    from vlpbench.results.index import Entry
    from vlpbench.results.record import Env

_MARKS = {Action.RUN: "run", Action.DONE: "done", Action.UNSUPPORTED: "impossible"}
_PHASES = {
    "count": "counted, side by side",
    "memory": "memory, alone",
    "cost": "timed, alone, in rounds",
    "accuracy": "trained, side by side",
}


Closing = Callable[[Store], tuple[list[str], dict[str, Any]]]
"""Lines to end a run with, and what the same adds to its summary as JSON."""


def run(options: Namespace) -> int:
    """Measures what is missing and writes the report; of claims, prints the verdicts too."""
    closing = None
    if options.claims or options.suite == NOTES:
        from vlpbench.benchmarks.cli_claims import closing_of

        closing = closing_of(options.claims)
    return run_suite(_suite(options), options, closing)


def run_suite(suite: Suite, options: Namespace, closing: Closing | None = None) -> int:
    """Measures what is missing of a suite, writes the report, and says how it went.

    Args:
        suite: what is asked for.
        options: ``out``, ``again``, ``reuse``, ``data_root``, ``cache``, ``tensorboard``, ``score_memory``, ``lang``
            and ``json``.
        closing: called once all is measured.
    """
    if options.tensorboard:
        require()
    size_of(options.score_memory)
    signal.signal(signal.SIGTERM, _interrupt)
    say = _silent if options.json else _say
    store, env, plan, others = _prepare(suite, options)
    if taken := _take_over(store, others):
        say(taken)
    for line in _headline(plan, store):
        say(line)
    summary = _measure(plan, store, env, options)
    claims = vars(options).get("claims")
    page = _report(store, suite, options.lang, claims, fresh=bool(summary.done or summary.failed))
    lines, extra = closing(store) if closing else ([], {})
    _finish(plan, store, summary, page, lines, None if not options.json else extra)
    return 1 if summary.failed else 0


def plan(options: Namespace) -> int:
    """Prints what a run would do."""
    store, _, plan, _ = _prepare(_suite(options), options)
    if options.json:
        print(json.dumps(_plan_json(plan), indent=2))
        return 0
    width = max(len(label(item.cell)) for item in plan.items)
    for item in plan.items:
        what = f"about {duration(item.seconds)}" if item.action is Action.RUN else item.reason
        print(f"{_MARKS[item.action]:<11} {label(item.cell):<{width}}  {what}")
    print()
    for kind in PHASES:
        if cells := plan.todo(kind):
            print(f"{_PHASES[kind]:<24} {len(cells):>4} cells, about {duration(plan.phase_seconds(kind))}")
    print("\n".join(_headline(plan, store)))
    return 0


def size_of(text: str | None) -> int | None:
    """Bytes of a size such as ``512MB`` or ``2GiB``; None for None.

    Raises:
        SuiteError: for anything else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)\s*(k|M|G)(i?)B", text.strip())
    if found is None or int(found[1]) == 0:
        raise SuiteError(f"--score-memory {text!r} is no size; write one like 64MB, 512MB or 2GiB")
    return int(found[1]) * (1024 if found[3] else 1000) ** ("kMG".index(found[2]) + 1)


def _suite(options: Namespace) -> Suite:
    if options.device is not None:
        try:
            check_value("device", options.device)
        except ValueError as error:
            raise SuiteError(f"--device: {error}") from error
    suite = load_suite(options.claims or options.suite, device=options.device)
    if options.only:
        suite = replace(suite, cells=tuple(select(suite.cells, options.only)))
    return assign(suite, options.checkpoint, folder=suite.folder, download=options.download)


def _elsewhere(suite: Suite, store: Store, env: Env, options: Namespace) -> Iterator[tuple[Store, Entry]]:
    """What other folders hold of cells that this one lacks, measured in this environment; of a cell the first."""
    if options.again:
        return
    wanted = {cell.id for cell in suite.cells} - store.done(env.id)
    for other in (Store(existing_results(named)) for named in vars(options).get("reuse", ())):
        for entry in standing(other.entries()):
            if entry.cell_id in wanted and entry.env_id == env.id and entry.status is Status.OK:
                wanted.remove(entry.cell_id)
                yield other, entry


def _take_over(store: Store, others: Iterable[tuple[Store, Entry]]) -> str:
    """Copies records of other folders into the suite's own; in words, how many and from where."""
    found: Counter[Path] = Counter()
    for other, entry in others:
        store.append(other.read(entry))
        found[other.folder] += 1
    return ", ".join(f"{count} cells taken over from {folder}" for folder, count in found.items())


def _prepare(suite: Suite, options: Namespace) -> tuple[Store, Env, Plan, list[tuple[Store, Entry]]]:
    """Store, environment, plan, and what the plan counts as done that lies in other folders yet."""
    if options.data_root:
        os.environ[FOLDER_VARIABLE] = str(Path(options.data_root).absolute())
    store = Store(results_folder(options.out, suite.name))
    env = environment.capture()
    others = list(_elsewhere(suite, store, env, options))
    history, code = [*store.entries(), *(entry for _, entry in others)], environment.code_hash()
    plan = make_plan(suite, history, env, workers=environment.cores(), again=options.again, code=code)
    return store, env, plan, others


def _headline(plan: Plan, store: Store) -> list[str]:
    """What is going to happen, in a few lines."""
    todo, done, not_possible = (plan.count(action) for action in (Action.RUN, Action.DONE, Action.UNSUPPORTED))
    lines = [*store.problems(), f"{plan.suite.title}: {len(plan.items)} cells, results in {store.folder}"]
    counts = [f"{todo} to run" if todo else "", f"{done} done before" if done else ""]
    counts.append(f"{not_possible} impossible" if not_possible else "")
    lines.append(", ".join(filter(None, counts)) + (f"; about {duration(plan.seconds)}" if todo else ""))
    if not todo and not not_possible:
        lines[-1] = f"nothing to do: all {done} cells are done (--again measures them once more)"
    if old := _of_other_code(plan, store):
        lines.append(f"{old} of the cells done before were measured with other code; --again measures them once more")
    return lines


def _of_other_code(plan: Plan, store: Store) -> int:
    done = {item.cell.id for item in plan.items if item.action is Action.DONE}
    code = environment.code_hash() if done else ""
    return len({e.cell_id for e in standing(store.entries()) if e.cell_id in done and e.code != code})


def _measure(plan: Plan, store: Store, env: Env, options: Namespace) -> Summary:
    from vlpbench.benchmarks.runner import Runner, Summary

    if plan.count(Action.DONE) == len(plan.items):
        return Summary(done=0, skipped=len(plan.items), failed=0)
    cache = Path(options.cache) if options.cache else store.folder / ".cache"
    with progress_for(plan, json=options.json) as progress:
        events = str(Path(options.tensorboard).absolute()) if options.tensorboard else ""
        scores = size_of(options.score_memory)
        runner = Runner(plan, store, env, cache=cache, progress=progress, tensorboard=events, score_memory=scores)
        try:
            return runner.run()
        except KeyboardInterrupt:
            progress.close()
            kept = f"{progress.ended_cells} of {progress.cells} cells are kept in {store.folder}"
            print(f"stopped; {kept}; the same command goes on from there", file=sys.stderr)
            raise


def _report(store: Store, suite: Suite, lang: str, claims: str | None, *, fresh: bool) -> Path | None:
    """Writes the report if there is news; returns its page. Without any record there is none."""
    folder = report_folder(None, [store.folder], lang)
    page = folder / "index.html"
    if not fresh and page.is_file() and page.stat().st_mtime >= (store.folder / RECORDS).stat().st_mtime:
        return page
    records = store.records()
    if not records:
        return None
    from vlpbench.reports.render import render

    judged = claims_of(claims)
    return render(records, folder, title=suite.title, problems=store.problems(), lang=lang, claims=judged)


def _finish(
    plan: Plan, store: Store, summary: Summary, page: Path | None, lines: list[str], extra: dict[str, Any] | None
) -> None:
    """Says how it went, as JSON where ``extra`` is what to add to it."""
    if extra is not None:
        counts = {"done": summary.done, "skipped": summary.skipped, "failed": summary.failed}
        print(json.dumps(counts | {"report": None if page is None else str(page)} | extra), flush=True)
        return
    for line in lines:
        print(line)
    ids = {item.cell.id for item in plan.items}
    failed = [e for e in standing(store.entries()) if e.cell_id in ids and e.status not in FINAL]
    for record in map(store.read, failed):
        print(f"failed: {label(record.cell)}: {record.status.value}: {record.reason.splitlines()[0]}")
    print(f"{summary.done} done, {summary.skipped} skipped, {summary.failed} failed")
    if page is not None:
        print(f"report: {page}")


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "suite": plan.suite.name,
        "seconds": plan.seconds,
        "cells": [
            {
                "id": item.cell.id,
                "cell": item.cell.model_dump(mode="json", exclude_defaults=True),
                "action": item.action.value,
                "reason": item.reason,
                "seconds": item.seconds,
            }
            for item in plan.items
        ],
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(_: str) -> None:
    pass


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
