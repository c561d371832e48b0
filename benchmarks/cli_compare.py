"""``vlpbench compare``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vlpbench.benchmarks.fields import label
from vlpbench.benchmarks.folders import existing_results, write_text
from vlpbench.results.lines import read_rows
from vlpbench.results.record import Record
from vlpbench.results.store import Store, StoreError, latest

if TYPE_CHECKING:
    from argparse import Namespace


def compare(options: Namespace) -> int:
    """Prints what changed from A to B, and applies the gates."""
    from vlpbench.reports import compare_text as words
    from vlpbench.reports.compare import compare as compared
    from vlpbench.reports.gate import GateError, judge, parse

    try:
        gates = [parse(given) for given in options.fail_if]
    except GateError as error:
        print(f"vlpbench: --fail-if {error}", file=sys.stderr)
        return 2
    before, after = (_records(given) for given in (options.before, options.after))
    found = compared(before, after, label)
    outcomes = [judge(gate, found.changes) for gate in gates]
    names = words.Names(before=options.before, after=options.after, records=(len(before), len(after)))
    if options.out:
        write_text(options.out, words.markdown(found, outcomes, names))
    if options.json:
        print(json.dumps(words.as_json(found, outcomes, names), indent=2))
    else:
        print(words.text(found, outcomes, names))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _records(given: str) -> list[Record]:
    """The records that count of a file, a folder or a suite's results.

    Raises:
        StoreError: if there are none or they cannot be read.
    """
    path = Path(given) if Path(given).is_file() else Store(existing_results(given)).path
    records, problem = read_rows(path, Record)
    if problem:
        print(problem, file=sys.stderr)
    if not records:
        raise StoreError(f"{path} holds no record, so there is nothing to compare")
    return latest(records)
