"""``vlpbench report`` and ``vlpbench check``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vlpbench.benchmarks.folders import existing_results, report_folder
from vlpbench.results.store import Store, StoreError

if TYPE_CHECKING:
    from argparse import Namespace


def report(options: Namespace) -> int:
    """Writes the report of a results folder and prints the page's path."""
    store = Store(existing_results(options.results))
    records = store.records()
    if not records:
        raise StoreError(f"{store.path} holds no record, so there is nothing to report; run `vlpbench run` first")
    from vlpbench.reports.render import render

    folder = report_folder(options.out, store.folder)
    print(render(records, folder, title=_title(records[-1].suite), problems=store.problems()))
    return 0


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
