"""Where results and reports lie by default."""

from __future__ import annotations

from pathlib import Path

from vlpbench.results.store import RECORDS, StoreError

ELSEWHERE = "vlpbench-results"
"""Folder of results outside a checkout."""


def is_checkout(folder: Path) -> bool:
    """Whether a folder is the repository, where results and reports have folders of their own."""
    return (folder / "results" / "record.py").is_file() and (folder / "archs" / "registry.py").is_file()


def results_root() -> Path:
    """The folder that holds one results folder a suite."""
    here = Path()
    return here / "results" / "data" if is_checkout(here) else here / ELSEWHERE


def results_folder(named: str | None, suite: str) -> Path:
    """The results folder of a suite, unless one is named."""
    return Path(named) if named else results_root() / suite


def existing_results(named: str | None) -> Path:
    """A results folder that holds records: a path, a suite's name, or without either the one written last.

    Raises:
        StoreError: if there is none.
    """
    if named:
        found = [folder for folder in (Path(named), results_root() / named) if (folder / RECORDS).is_file()]
        if not found:
            raise StoreError(f"no results in {named}: there is no {RECORDS}; `vlpbench run SUITE --out DIR` makes one")
        return found[0]
    files = sorted(results_root().glob(f"*/{RECORDS}"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise StoreError(f"no results in {results_root()}; run `vlpbench run`, or name a folder with --results")
    return files[-1].parent


def report_folder(named: str | None, results: Path) -> Path:
    """Where the report of a results folder goes."""
    if named:
        return Path(named)
    if is_checkout(Path()) and results.resolve().parent == results_root().resolve():
        return Path("reports") / "out" / results.name
    return results / "report"
