"""Renders records: one self-contained page, its Markdown twin, the figures as files, the tables as CSV and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vlpbench.reports import latex
from vlpbench.reports.assemble import Report, ReportError, assemble
from vlpbench.reports.claims import Claim, load
from vlpbench.reports.language import ENGLISH, Language, language, translated
from vlpbench.reports.svg import colour, palette
from vlpbench.reports.units import duration
from vlpbench.results.record import Record

__all__ = ["ReportError", "render"]

TEMPLATES = Path(__file__).with_name("templates")


def render(
    records: Sequence[Record],
    out: Path,
    *,
    title: str,
    problems: Sequence[str] = (),
    lang: str = ENGLISH,
    tex: bool = False,
    claims: Sequence[Claim] | None = None,
) -> Path:
    """Writes index.html, report.md, figures/*.svg and tables/*.csv below ``out``, and latex/*.tex if asked.

    Args:
        records: any mix of suites, environments and statuses; of a cell measured twice the later record counts.
        out: folder, made if absent; files of an earlier report are overwritten.
        title: heading of the page.
        problems: sentences on what could not be read, shown with the quality flags.
        lang: what everything but records, names and commands is written in, one of `language.LANGUAGES`.
        tex: whether to write the tables as LaTeX too.
        claims: what is decided by the records; None takes the claims of the notes.

    Returns:
        The page's path.

    Raises:
        ReportError: without a record.
        LanguageError: for a language that is not there.
        OSError: if the folder cannot be written.
    """
    into = language(lang)
    decided = load() if claims is None else claims
    report = translated(assemble(records, title=title, problems=problems, claims=decided), into)
    for folder in (out, out / "figures", out / "tables"):
        folder.mkdir(parents=True, exist_ok=True)
    for figure in report.all_figures:
        (out / "figures" / f"{figure.name}.svg").write_text(figure.standalone, encoding="utf-8")
    # Spreadsheets read a file in the encoding of the country unless it says that it is UTF-8.
    coding = "utf-8" if into.english else "utf-8-sig"
    for table in report.all_tables:
        (out / "tables" / f"{table.name}.csv").write_text(table.csv(into.say), encoding=coding)
    if tex:
        latex.write(report.all_tables, out / "latex", flagged=into.say("flagged"))
    (out / "report.md").write_text(_template("report.md.j2", report, into, escape=False), encoding="utf-8")
    page = out / "index.html"
    page.write_text(_template("page.html.j2", report, into, escape=True), encoding="utf-8")
    return page


def _template(name: str, report: Report, into: Language, *, escape: bool) -> str:
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
    engine.filters["codes"] = _with_code
    engine.filters["t"] = into.say
    names = {hue: css for hue, (css, _, _) in palette().items()}
    files = (
        {} if not escape else {key: (TEMPLATES / f"page.{key}").read_text(encoding="utf-8") for key in ("css", "js")}
    )
    return engine.get_template(name).render(
        report=report, lang=into.tag, hue=lambda arch: names[colour(arch)], palette=list(palette().values()), **files
    )


def _markdown(text: str) -> str:
    """Text that neither ends a table cell nor becomes markup."""
    found = "".join(f"\\{char}" if char in "\\`*_{}[]<>|#" else char for char in text)
    return " ".join(found.split())


def _with_code(text: str) -> str:
    """HTML of a text in which what stands between backticks is typed on a command line."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
