"""Tables for papers: LaTeX with booktabs, a file for each table and one that inputs them all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlpbench.reports.table import Head, Item, Table

LONG = 40
"""Rows from which a table is broken over pages."""
PACKAGES = ("booktabs", "graphicx", "longtable")
ALL = "tables.tex"
"""The file that inputs the others."""
SPECIAL: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "--": "-{}-",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "µ": r"$\mu$",
    "Δ": r"$\Delta$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "→": r"$\rightarrow$",
    "⚑": r"$^\dagger$",
    **{digit: f"$^{{{place}}}$" for place, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}
"""Characters that LaTeX reads otherwise, or that its usual fonts lack."""
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL)))
FLAG = r"$^\dagger$"


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands; spaces and line ends become single spaces."""
    return _SPECIAL.sub(lambda found: SPECIAL[found.group()], " ".join(text.split()))


def write(tables: Sequence[Table], folder: Path, *, flagged: str = "flagged") -> None:
    """Writes ``<name>.tex`` for every table that has rows, and `ALL`, which inputs them in order.

    Args:
        tables: with names that are unique.
        folder: made if absent.
        flagged: what a dagger means, in the tables' language.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = [table for table in tables if table.rows]
    for table in shown:
        (folder / f"{table.name}.tex").write_text(tex(table, flagged=flagged), encoding="utf-8")
    packages = "".join(f"% \\usepackage{{{name}}}\n" for name in PACKAGES)
    inputs = "".join(f"\\input{{{table.name}}}\n" for table in shown)
    head = f"% The preamble needs:\n{packages}% and, for Chinese text, \\usepackage{{ctex}} with XeLaTeX or LuaLaTeX.\n"
    (folder / ALL).write_text(head + inputs, encoding="utf-8")


def tex(table: Table, *, flagged: str = "flagged") -> str:
    """One table: numbers with their interval as subscript, the best of a column in bold, a dagger at what is flagged.

    A table of `LONG` rows or more is a ``longtable``; any other is as wide as its columns, at most as the line.
    """
    rows = [" & ".join(_cell(item) for item in row) + r" \\" for row in table.rows]
    caption = _caption(table, flagged)
    label = f"\\label{{tab:{table.name}}}"
    columns = "".join("r" if head.numeric else "l" for head in table.heads)
    heads = _heads(table)
    if len(rows) >= LONG:
        lines = [
            "{\\scriptsize\\setlength{\\tabcolsep}{3pt}",
            f"\\begin{{longtable}}{{{columns}}}",
            f"\\caption{{{caption}}}{label} \\\\",
            *heads,
            "\\endhead",
            *rows,
            "\\bottomrule",
            "\\end{longtable}}",
        ]
        return "\n".join(lines) + "\n"
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{caption}}}",
        label,
        # As wide as it is, at most as the line: \width is the natural width of what is resized.
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{columns}}}",
        *heads,
        *rows,
        "\\bottomrule",
        "\\end{tabular}}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _caption(table: Table, flagged: str) -> str:
    marked = any(item.flags for row in table.rows for item in row)
    ends = f" {FLAG}~{escaped(flagged)}." if marked else ""
    mark = "" if table.title.endswith((".", "。")) else "。" if table.title[-1:] > "\u2e80" else "."
    return f"{escaped(table.title)}{mark} {escaped(table.caption)}".rstrip() + ends


def _heads(table: Table) -> list[str]:
    """Shared headings where there are any, titles, and below them settings and units in small print."""
    lines = [r"\toprule"]
    if table.groups:
        cells, rules, place = [], [], 1
        for name, span in table.groups:
            cells.append(f"\\multicolumn{{{span}}}{{c}}{{{escaped(name)}}}" if name else " & ".join([""] * span))
            rules += [f"\\cmidrule(lr){{{place}-{place + span - 1}}}"] if name else []
            place += span
        lines += [" & ".join(cells) + r" \\", "".join(rules)]
    lines.append(" & ".join(escaped(head.title) for head in table.heads) + r" \\")
    if any(head.note for head in table.heads):
        lines.append(" & ".join(_small(head) for head in table.heads) + r" \\")
    return [*lines, r"\midrule"]


def _small(head: Head) -> str:
    return f"{{\\scriptsize {escaped(head.note)}}}" if head.note else ""


def _cell(item: Item) -> str:
    """A number with its interval below the line; words in italics where there is none."""
    text = escaped(item.text)
    if item.best:
        text = f"\\textbf{{{text}}}"
    elif item.kind in ("failed", "absent") and text:
        text = f"\\textit{{{text}}}"
    below = ", ".join(filter(None, (item.note, item.by)))
    return text + (f"\\textsubscript{{{escaped(below)}}}" if below else "") + (FLAG if item.flags else "")
