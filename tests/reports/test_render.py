"""What is written: a page that needs nothing else, its twin, its figures, its tables."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from vlpbench.reports.assemble import ReportError, assemble
from vlpbench.reports.render import render
from vlpbench.results.record import Cell, Record, Status

Make = Callable[..., Record]
FIGURES = {
    "recall-tradeoff",
    "vqa-tradeoff",
    "gap-recall-mean",
    "gap-vqa-accuracy",
    "work",
    "parameters",
    "latency",
    "throughput",
    "phases",
    "memory-inference",
    "memory-training",
    "search",
    "vqa-types",
    "accuracy-curves",
    "learning",
}


class Page(HTMLParser):
    """Text, ids, link targets and elements left open."""

    VOID = frozenset({"meta", "link", "br", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [found["href"] or ""] if tag == "a" else []
        self.loads += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "poster")]
        self.loads += [found.get("href") or found.get("xlink:href") or ""] if tag in ("link", "image", "use") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def folder(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    page = render(records, out, title="Quick <run> & more", problems=("line 7 of records.jsonl is torn",))
    assert page == out / "index.html"
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_page_is_well_formed_with_unique_ids_and_links_that_lead_somewhere(page: str):
    found = Page(page)
    assert not found.open
    assert len(found.ids) == len(set(found.ids))
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)


def test_page_needs_nothing_from_outside(page: str):
    found = Page(page)
    assert {load for load in found.loads if not load.startswith(("data:", "#"))} == set()
    assert not re.search(r"@import|url\((?!#)", page)
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of XML vocabularies
    assert "default-src 'none'" in page
    assert len(page.encode()) < 6_000_000


def test_stored_text_is_text(page: str, folder: Path):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "toy<i>" not in page
    assert "<h1>Quick &lt;run&gt; &amp; more</h1>" in page
    twin = (folder / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in twin
    assert r"\<script\>alert" in twin


def test_every_record_has_a_card_with_its_command(page: str, records: list[Record]):
    found = Page(page)
    assert {f"r-{record.id}" for record in records} <= set(found.ids)
    for record in records:
        assert f"vlpbench run quick --only id={record.cell.id}" in page
    assert "line 7 of records.jsonl is torn" in page


def test_figures_have_text_alt_and_data(page: str, folder: Path):
    assert {path.stem for path in (folder / "figures").glob("*.svg")} == FIGURES
    for name in FIGURES:
        root = ET.parse(folder / "figures" / f"{name}.svg").getroot()
        assert any("".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text"))
        assert "var(--" not in ET.tostring(root, encoding="unicode")
        section = page.split(f'id="fig-{name}"')[1].split("</figure>", maxsplit=1)[0]
        assert re.search(r'role="img" aria-label="[^"]{20,}"', section)
        assert "<table" in section
        assert "var(--c-" in section
        assert not re.search(r"#[0-9a-f]{6}\b", section), "a colour that does not follow the page into the dark"


def test_tables_are_csv_and_the_twin_has_them_all(folder: Path):
    names = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert {
        "verdicts",
        "comparison",
        "crossovers",
        "percentiles",
        "retrieval",
        "swaps",
        "questions",
        "time-to-accuracy",
        "measurements",
        "failures",
        "flags",
        "environments",
    } | FIGURES == names
    for name in names:
        lines = list(csv.reader((folder / "tables" / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
        assert len({len(line) for line in lines}) == 1
    twin = (folder / "report.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", twin, re.MULTILINE)
    assert headings == [
        "What the notes claim, and what was found",
        "The numbers in short",
        "Trade-off",
        "Comparison",
        "Cost",
        "Cost of retrieval",
        "Learning",
        "Accuracy in detail",
        "Architectures",
        "Failures",
        "Environment and quality",
        "Method and definitions",
        "How to reproduce each number",
    ]
    assert set(re.findall(r"\(figures/([\w-]+)\.svg\)", twin)) == FIGURES
    assert "[113](#r-" in twin


def test_page_opens_with_the_answer_and_its_navigation_leads_through_all_sections(page: str):
    found = re.findall(r'<section id="([\w-]+)">', page)
    assert found == [
        "summary",
        "tradeoff",
        "comparison",
        "cost",
        "search",
        "learning",
        "accuracy",
        "architectures",
        "failures",
        "environment",
        "method",
        "records",
    ]
    for nav in re.findall(r"<nav [^>]*>(.*?)</nav>", page, re.DOTALL):
        assert re.findall(r'href="#([\w-]+)"', nav) == found
    assert len(re.findall(r"<nav ", page)) == 2


def test_what_is_missing_is_said_with_the_command_that_measures_it(records: list[Record]):
    report = assemble(records, title="t")
    assert dict(report.missing) == {
        "ablation of the objectives": "vlpbench ablate --arch albef",
        "caption noise against distillation": "vlpbench ablate --arch albef --only sweep --sweep noise",
        "structure diagrams": "vlpbench run notes --only measure=structure",
    }


def test_failures_are_listed_with_their_reasons(records: list[Record]):
    table = assemble(records, title="t").failures
    assert table is not None
    assert [row[2].text for row in table.rows] == ["not supported", "timed out", "out of memory", "failed"]
    assert "26.1 GiB were asked for" in table.rows[2][3].text
    assert "Traceback" not in table.rows[2][3].text


def test_summary_has_the_numbers(records: list[Record]):
    report = assemble(records, title="t")
    assert "46 cells: 42 measured, 4 not" in report.scope
    said = {finding.lead: finding.text for finding in report.parts[0].findings}
    assert said["Momentum"].startswith("ALBEF's training step (base, batch 4) against the one without: ")
    assert re.search(r"with momentum distillation it costs 1\.3\d× \(1\.\d\d–1\.\d\d\) the time;", said["Momentum"])
    assert "CLIP does the least work, 14.8 GFLOP; ALBEF 3.24× and ViLT 3.50× as much" in said["FLOPs"]
    assert "ALBEF, rerank 204×" in said["Search"]
    assert said["Retrieval"].endswith("The intervals of the first two overlap.")
    assert said["Binding"].startswith("On questions that need")
    (accuracy, cost, flags) = report.limits
    assert "1 seed each" in accuracy
    assert "generated scenes" in accuracy
    assert "no claim beyond that" in accuracy
    assert "base models with random weights" in cost
    assert flags.startswith("1 of 46 records carry a quality flag")


def test_environments_are_never_mixed_in_a_timing(two_machines: list[Record]):
    report = assemble(two_machines, title="t")
    slow, fast = report.parts
    assert slow.heading != fast.heading
    assert {slow.comparison.name, fast.comparison.name} & {"comparison"} == set()
    env = {record.id: record.env.id for record in two_machines}
    assert all(not part.comparison.name.endswith("comparison") for part in report.parts)
    timed = [i for i, head in enumerate(slow.comparison.heads) if head.unit in ("s", "1/s", "B")]
    assert len(timed) == 5
    for part in report.parts:
        seen = {env[record] for row in part.comparison.rows for i in timed if (record := row[i].record)}
        assert len(seen) == 1
        assert part.heading.startswith(f"Environment {seen.pop()}")
    fast_latency, slow_latency = (p.comparison.rows[0][timed[0]].value for p in (fast, slow))
    assert fast_latency is not None
    assert slow_latency is not None
    assert slow_latency / fast_latency == pytest.approx(9, rel=0.05)
    assert any("several environments" in text for text in report.limits)


def test_no_record_is_a_clear_error(tmp_path: Path):
    with pytest.raises(ReportError, match="no record to report on; measure something first"):
        render([], tmp_path / "out", title="t")
    assert not (tmp_path / "out").exists()


def test_only_failures_still_make_a_page(tmp_path: Path, make_record: Make):
    record = make_record(Cell(arch="clip", measure="latency"), status=Status.OOM, reason="too little")
    page = render([record], tmp_path, title="t").read_text(encoding="utf-8")
    assert "1 cell: 0 measured, 1 not (1 out of memory)" in page
    assert not Page(page).open


def test_each_measure_alone_makes_a_page(tmp_path: Path, records: list[Record]):
    for measure in sorted({record.cell.measure for record in records}):
        some = [record for record in records if record.cell.measure == measure]
        assert not Page(render(some, tmp_path / measure, title=measure).read_text(encoding="utf-8")).open


def test_details_may_be_absent(tmp_path: Path, records: list[Record]):
    bare = [record.model_copy(update={"detail": {}}) for record in records]
    assert not Page(render(bare, tmp_path, title="t").read_text(encoding="utf-8")).open


def test_the_same_records_give_the_same_bytes(tmp_path: Path, records: list[Record], page: str):
    again = render(records, tmp_path, title="Quick <run> & more", problems=("line 7 of records.jsonl is torn",))
    assert again.read_text(encoding="utf-8") == page


def test_importing_the_report_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, vlpbench.reports.render\n"
        "print([name for name in ('torch', 'matplotlib', 'pandas', 'numpy', 'scipy', 'jinja2') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
