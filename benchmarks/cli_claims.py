"""``vlpbench claims``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlpbench.benchmarks.fields import SuiteError, check_value, normalise
from vlpbench.benchmarks.folders import existing_results, results_root
from vlpbench.results.matrix import nearest
from vlpbench.results.store import RECORDS, Store

if TYPE_CHECKING:
    from argparse import Namespace

    from vlpbench.benchmarks.cli_run import Closing
    from vlpbench.reports.claims import Claim
    from vlpbench.results.record import Record


def claims(options: Namespace) -> int:
    """Prints the verdicts, or explains one."""
    from vlpbench.reports import claim_text as words
    from vlpbench.reports.claims import judge

    found = _load(options.claims)
    known = list(dict.fromkeys(claim.id for claim in found))
    if options.id is not None and options.id not in known:
        raise SuiteError(nearest("claim", options.id, known))
    # All are judged whatever is asked for: the correction is over all of them.
    verdicts = [v for v in judge(found, _records(options.results)) if options.id in (None, v.claim.id)]
    if options.json:
        print(json.dumps(words.as_json(verdicts), indent=2, ensure_ascii=False))
    else:
        print(words.table(verdicts) if options.id is None else words.explanation(verdicts))
    return 0


def closing_of(file: str | None) -> Closing:
    """What a run of claims ends with: the verdicts on its folder's records, and their JSON.

    Args:
        file: claims of the user's own; None are those of the notes.

    Raises:
        SuiteError: for a file that cannot be read, before anything is measured.
    """
    found = _load(file)

    def closing(store: Store) -> tuple[list[str], dict[str, Any]]:
        from vlpbench.reports import claim_text as words
        from vlpbench.reports.claims import judge

        verdicts = judge(found, store.records())
        return [words.table(verdicts), ""], {"claims": words.as_json(verdicts)}

    return closing


def _load(file: str | None) -> tuple[Claim, ...]:
    from vlpbench.reports.claims import load

    return load(Path(file) if file else None, check=check_value, complete=normalise)


def _records(named: list[str]) -> list[Record]:
    """The records of the folders that are named, or of all that there are.

    Raises:
        StoreError: for a folder without records.
    """
    folders = [existing_results(name) for name in named]
    if not folders:
        folders = sorted(path.parent for path in results_root().glob(f"*/{RECORDS}"))
    return [record for folder in folders for record in Store(folder).records()]
