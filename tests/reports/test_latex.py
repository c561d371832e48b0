"""LaTeX tables, read back by a strict parser of their own: balanced, escaped, and the numbers of the report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from vlpbench.reports import latex
from vlpbench.reports.assemble import Report, assemble
from vlpbench.reports.language import language, translated
from vlpbench.reports.latex import SPECIAL, escaped, tex
from vlpbench.reports.table import Head, Item, Table
from vlpbench.results.record import Record

TOKEN = re.compile(r"\\[A-Za-z]+|\\[^A-Za-z]|%[^\n]*\n|[{}$&#_^~%]|[^\\{}$&#_^~%]+", re.DOTALL)


class Unbalanced(Exception):
    """What LaTeX would stop at."""


def checked(text: str) -> None:
    """Raises for braces, environments or mathematics left open, and for characters that need an escape."""
    stack: list[str] = []
    math = False
    tokens = list(TOKEN.findall(text))
    assert "".join(tokens) == text
    for place, token in enumerate(tokens):
        if token == "{":
            stack.append("{")
        elif token == "}":
            if not stack or stack.pop() != "{":
                raise Unbalanced(f"}} closes nothing, after {''.join(tokens[max(0, place - 9) : place])!r}")
        elif token == "$":
            math = not math
        elif token in ("\\begin", "\\end"):
            name = tokens[place + 2]
            if token == "\\begin":
                stack.append(name)
            elif not stack or stack.pop() != name:
                raise Unbalanced(f"\\end{{{name}}} does not match")
        elif token in ("#", "_", "%") or (token in ("^", "~") and not (math or token == "~")):
            raise Unbalanced(f"{token!r} is not escaped, after {''.join(tokens[max(0, place - 9) : place])!r}")
    if stack or math:
        raise Unbalanced(f"left open: {stack or '$'}")


def split(text: str, mark: str) -> list[str]:
    """Parts between marks that are not within braces."""
    parts, depth, part = [], 0, ""
    for token in TOKEN.findall(text):
        depth += {"{": 1, "}": -1}.get(token, 0)
        if token == mark and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += token
    return [*parts, part.strip()]


def rows(text: str) -> list[list[str]]:
    """Cells of the body."""
    body = text.split("\\midrule\n")[1].split("\\bottomrule", maxsplit=1)[0].removeprefix("\\endhead\n")
    lines = split(body, "\\\\")
    assert lines[-1] == ""
    return [split(line, "&") for line in lines[:-1]]


PLAIN = {value: key for key, value in SPECIAL.items()}
SAFE = re.compile("|".join(re.escape(value) for value in sorted(PLAIN, key=len, reverse=True)))


def plain(cell: str) -> str:
    """What a reader sees of a cell, its subscript in brackets."""
    cell = cell.removesuffix(latex.FLAG)
    cell = re.sub(r"\\textsubscript\{(.*)\}$", r" [\1]", cell, flags=re.DOTALL)
    cell = re.sub(r"^\\text(?:bf|it)\{(.*?)\}(?= \[|$)", r"\1", cell, flags=re.DOTALL)
    return SAFE.sub(lambda found: PLAIN[found.group()], cell)


def expected(item: Item) -> str:
    below = ", ".join(filter(None, (item.note, item.by)))
    return " ".join((item.text + (f" [{below}]" if below else "")).split())


@pytest.fixture(scope="module")
def report(records: list[Record]) -> Report:
    return assemble(records, title="t")


def test_the_parser_is_strict():
    for wrong in ("{a", "a}", "\\begin{x}\\end{y}", "a_b", "50% of\n", "$x", "#1", "a^2"):
        with pytest.raises(Unbalanced):
            checked(wrong.replace("% of\n", "%"))
    checked("\\begin{x}{a\\_b} 50\\% $10^6$\\end{x}")


def test_every_character_of_an_id_or_reason_survives():
    hostile = r"a_b {c} 50% $x^2$ #1 & ~ -- --only – \input{/etc/passwd} <b> |d| “q”"
    checked(escaped(hostile))
    assert plain(escaped(hostile)) == hostile
    assert "\\input" not in escaped(hostile)


def test_a_table_by_hand():
    heads = (Head(title="Variant"), Head(title="Latency", note="ms, batch 1", numeric=True, group="cost at base"))
    best = Item(text="12.0", note="11.5–12.6", value=0.012, low=0.0115, high=0.0126, best=True)
    lines = (
        (Item(text="ALBEF (off)"), best),
        (Item(text="toy_net"), Item(text="30.1", value=0.0301, flags=("drifting",))),
        (Item(text="CLIP + late"), Item(text="out of memory", kind="failed")),
    )
    found = tex(Table(name="t-1", title="Comparison", caption="95 % interval.", heads=heads, rows=lines))
    checked(found)
    assert "\\caption{Comparison. 95 \\% interval. $^\\dagger$~flagged.}\n\\label{tab:t-1}" in found
    assert "\\begin{tabular}{lr}\n\\toprule\n & \\multicolumn{1}{c}{cost at base} \\\\\n\\cmidrule(lr){2-2}\n" in found
    assert "Variant & Latency \\\\\n & {\\scriptsize ms, batch 1} \\\\\n\\midrule\n" in found
    assert "ALBEF (off) & \\textbf{12.0}\\textsubscript{11.5--12.6} \\\\\n" in found
    assert "toy\\_net & 30.1$^\\dagger$ \\\\\n" in found
    assert "CLIP + late & \\textit{out of memory} \\\\\n\\bottomrule\n" in found


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_table_of_a_report_reads_back(report: Report, tmp_path: Path, lang: str):
    tables = translated(report, language(lang)).all_tables
    latex.write(tables, tmp_path)
    whole = (tmp_path / latex.ALL).read_text(encoding="utf-8")
    assert re.findall(r"^\\input\{([\w-]+)\}$", whole, re.MULTILINE) == [table.name for table in tables if table.rows]
    for table in tables:
        text = (tmp_path / f"{table.name}.tex").read_text(encoding="utf-8")
        checked(text)
        found = rows(text)
        assert [[plain(cell) for cell in row] for row in found] == [[expected(i) for i in row] for row in table.rows]
        for row, items in zip(found, table.rows, strict=True):
            assert ["\\textbf" in cell for cell in row] == [item.best for item in items]
            assert [cell.endswith(latex.FLAG) for cell in row] == [bool(item.flags) for item in items]
        (columns,) = re.findall(r"\\begin\{(?:tabular|longtable)\}\{([lr]+)\}", text)
        assert columns == "".join("r" if head.numeric else "l" for head in table.heads)
        for line in headings(text):
            assert sum(spans(cell) for cell in split(line, "&")) == len(table.heads)
        assert ("longtable" in text) == (len(table.rows) >= latex.LONG)


def headings(text: str) -> Iterator[str]:
    """Lines above the body that hold cells."""
    top = text.split("\\toprule\n")[1].split("\\midrule", maxsplit=1)[0]
    yield from (line.removesuffix(" \\\\") for line in top.splitlines() if line.endswith("\\\\"))


def spans(cell: str) -> int:
    found = re.match(r"\\multicolumn\{(\d+)\}", cell)
    return int(found[1]) if found else 1


def test_labels_are_unique_and_what_they_need_is_said(report: Report, tmp_path: Path):
    latex.write(report.all_tables, tmp_path)
    labels = [
        label
        for path in tmp_path.glob("*.tex")
        for label in re.findall(r"\\label\{(.*?)\}", path.read_text(encoding="utf-8"))
    ]
    assert len(labels) == len(set(labels)) == len([table for table in report.all_tables if table.rows])
    head = (tmp_path / latex.ALL).read_text(encoding="utf-8")
    used = {"\\toprule": "booktabs", "\\resizebox": "graphicx", "longtable": "longtable"}
    assert all(f"% \\usepackage{{{package}}}" in head for package in used.values())
