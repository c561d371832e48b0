"""``vlpbench report`` and ``vlpbench check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vlpbench.benchmarks.fields import check_value, normalise
from vlpbench.benchmarks.folders import existing_results, report_folder
from vlpbench.results.store import Store, StoreError

if TYPE_CHECKING:
    from argparse import Namespace

    from vlpbench.reports.claims import Claim
    from vlpbench.results.record import Record


def report(options: Namespace) -> int:
    """Writes the report of one or several results folders and prints the page's path."""
    stores = [Store(existing_results(named)) for named in options.results or (None,)]
    records: list[Record] = []
    problems: list[str] = []
    titles: list[str] = []
    for store in stores:
        found = store.records()
        if not found:
            raise StoreError(f"{store.path} holds no record, so there is nothing to report; run `vlpbench run` first")
        records += found
        problems += store.problems()
        titles.append(_title(found[-1].suite))
    from vlpbench.reports.render import render
    from vlpbench.reports.summary import listed

    folder = report_folder(options.out, [store.folder for store in stores], options.lang)
    title = listed(list(dict.fromkeys(titles)))
    judged = claims_of(None)
    print(render(records, folder, title=title, problems=problems, lang=options.lang, tex=options.latex, claims=judged))
    return 0


def claims_of(file: str | None) -> tuple[Claim, ...]:
    """What a report decides: the claims of a file, or those of the notes, with what tables of ours fill in."""
    from vlpbench.reports.claims import load

    return load(Path(file) if file else None, check=check_value, complete=normalise)


def check(options: Namespace) -> int:
    """Prints what is wrong with a results folder."""
    from vlpbench.benchmarks.checks import check_results

    store = Store(existing_results(options.results))
    findings = check_results(store, options.suite)
    errors = sum(finding.level == "error" for finding in findings)
    if options.json:
        print(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.level:<8} {finding.code:<12} {finding.message}")
        print(f"{store.folder}: {errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


def _title(suite: str) -> str:
    """The title of a suite that comes along; of any other its name."""
    from vlpbench.benchmarks.suite import load_suite, names

    return load_suite(suite).title if suite in names() else suite
