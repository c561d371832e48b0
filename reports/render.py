"""Renders records: one self-contained page, its Markdown twin, the figures as files, the tables as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlpbench.reports.assemble import Report, ReportError, assemble
from vlpbench.reports.svg import colour, palette
from vlpbench.reports.units import duration
from vlpbench.results.record import Record

__all__ = ["ReportError", "render"]

TEMPLATES = Path(__file__).with_name("templates")


def render(records: Sequence[Record], out: Path, *, title: str, problems: Sequence[str] = ()) -> Path:
    """Writes index.html, report.md, figures/*.svg and tables/*.csv below ``out``.

    Args:
        records: any mix of suites, environments and statuses; of a cell measured twice the later record counts.
        out: folder, made if absent; files of an earlier report are overwritten.
        title: heading of the page.
        problems: sentences on what could not be read, shown with the quality flags.

    Returns:
        The page's path.

    Raises:
        ReportError: without a record.
        OSError: if the folder cannot be written.
    """
    report = assemble(records, title=title, problems=problems)
    for folder in (out, out / "figures", out / "tables"):
        folder.mkdir(parents=True, exist_ok=True)
    for figure in report.all_figures:
        (out / "figures" / f"{figure.name}.svg").write_text(figure.standalone, encoding="utf-8")
    for table in report.all_tables:
        (out / "tables" / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
    (out / "report.md").write_text(_template("report.md.j2", report, escape=False), encoding="utf-8")
    page = out / "index.html"
    page.write_text(_template("page.html.j2", report, escape=True), encoding="utf-8")
    return page


def _template(name: str, report: Report, *, escape: bool) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    engine = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    engine.filters["duration"] = duration
    engine.filters["md"] = _markdown
    names = {hue: css for hue, (css, _, _) in palette().items()}
    files = (
        {} if not escape else {key: (TEMPLATES / f"page.{key}").read_text(encoding="utf-8") for key in ("css", "js")}
    )
    return engine.get_template(name).render(
        report=report, hue=lambda arch: names[colour(arch)], palette=list(palette().values()), **files
    )


def _markdown(text: str) -> str:
    """Text that neither ends a table cell nor becomes markup."""
    found = "".join(f"\\{char}" if char in "\\`*_{}[]<>|#" else char for char in text)
    return " ".join(found.split())
