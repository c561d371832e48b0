"""Where results and reports lie by default."""

from __future__ import annotations

from collections.abc import Sequence
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


def write_text(named: str, text: str) -> None:
    """Writes a file that the user named, with the folders that lead to it.

    Raises:
        OSError: if it cannot be written, as where a folder of that name stands.
    """
    file = Path(named)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def report_folder(named: str | None, results: Sequence[Path], lang: str = "en") -> Path:
    """Where the report of results folders goes; one that is not in English lies within the English one's.

    Of several folders it has all their names, and stands where that of the first would.
    """
    if named:
        return Path(named)
    first, name = results[0], "+".join(dict.fromkeys(folder.name for folder in results))
    inside = is_checkout(Path()) and first.resolve().parent == results_root().resolve()
    alone = first / "report" if len(results) == 1 else first.parent / f"{name}-report"
    folder = Path("reports") / "out" / name if inside else alone
    return folder if lang == "en" else folder / lang
