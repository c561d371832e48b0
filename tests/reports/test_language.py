"""The report in Chinese: whole, with the same numbers, from a catalogue without a useless entry."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from vlpbench.reports import language as spoken
from vlpbench.reports.assemble import Report, assemble
from vlpbench.reports.claims import load
from vlpbench.reports.language import Language, LanguageError, Message, drawn, language, message, translated
from vlpbench.reports.render import render
from vlpbench.results.record import UNITS, Cell, Record

ROOT = Path(__file__).resolve().parent.parent.parent
ZH = language("zh")
STORED = ("command", ".fields", ".failures", ".environments", ".problems", ".missing", ".cards.title", ".flags")
"""Parts of a report that hold stored text: reasons, names and versions of machines and libraries, fields, flags."""
QUOTED = (".gloss", ".quote", ".verdicts.rows")
"""Parts that hold the Chinese sentences of claims, as they were said, with English words and numbers of their own."""
COMPOSED = (
    "{value:n} points to {high:n} points",
    "{value:n} points ({low:n} points to {high:n} points)",
    "vqa accuracy",
    "reasoning accuracy",
)
"""Messages that code puts together from two words, of which these records give none."""
MADE_UP = ("toy", "drift 6 %", "未测量：")
"""What the records of these tests hold that no catalogue knows, and cells that are named by their fields."""


def a_language(entries: dict[str, str], **settings: Any) -> Language:
    return Language("xx", "xx", tuple(message(key, value) for key, value in entries.items()), **settings)


def test_holes_carry_numbers_over_and_words_are_said_in_turn():
    found = a_language({"{n:n} of {what}": "{what} 中的 {n}", "seeds": "种子", "{a} is {b:raw}": "{a} 是 {b:raw}"})
    assert found.say("1,200 of seeds") == "种子中的 1,200"
    assert found.say("seeds is seeds") == "种子是 seeds"
    assert found.say("some of seeds") == "some of seeds", "words do not fit where a number is"


def test_the_message_that_says_more_of_the_text_is_taken():
    found = a_language({"{a} rises": "甲 {a}", "{a} that falls rises": "乙 {a}", "what that falls rises": "丙"})
    texts = ("x rises", "x that falls rises", "what that falls rises")
    assert [found.say(text) for text in texts] == ["甲 x", "乙 x", "丙"]


def test_sentences_are_said_one_by_one_and_a_hole_stays_within_one():
    found = a_language({"It is {what}.": "是{what}。", "No more.": "没有了。"})
    assert found.say("It is 3.5. No more. And this stays.") == "是 3.5。没有了。And this stays."


def test_enumerations_are_joined_as_the_language_joins_and_names_stay():
    found = a_language({"Of {names:list}.": "{names}。", "batch {n:n}": "批大小 {n}"}, comma="、", last=" 和 ")
    assert found.say("Of CLIP, ViLT (a, b) and ALBEF.") == "CLIP、ViLT (a, b) 和 ALBEF。"
    assert found.say("CPU, batch 8") == "CPU, 批大小 8"
    assert found.say("ValueError: too few, batch 8") == "ValueError: too few, batch 8", "all of it or nothing"


def test_every_quantity_has_its_name():
    titles = [quantity.title for quantity in UNITS.values()]
    assert {title: left for title in titles if (left := ZH.left(ZH.say(title)))} == {}


def test_white_space_around_a_text_stays():
    found = a_language({"guessing": "瞎猜"})
    assert found.say("guessing  ") == "瞎猜  "


@pytest.mark.parametrize(
    ("english", "other", "said"),
    [
        ("{n:n} of {m:n}", "{n}", r"holes \['m', 'n'\]"),
        ("{n:x} of it", "{n}", "kind 'x'"),
    ],
)
def test_a_wrong_entry_is_named(english: str, other: str, said: str):
    with pytest.raises(LanguageError, match=said):
        message(english, other)


def test_a_language_that_is_not_there_is_refused():
    with pytest.raises(LanguageError, match="no report in 'fr'; there is en, zh"):
        language("fr")


def test_words_of_a_drawing_are_said_again_and_stay_text():
    found = a_language({"less < more": "少 < 多"})
    assert drawn('<g><text x="1">less &lt; more</text><path d="M 0"/></g>', found) == (
        '<g><text x="1">少 &lt; 多</text><path d="M 0"/></g>'
    )


def texts(thing: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a report that is no name or id, and where it stands."""
    if isinstance(thing, str):
        yield path, thing
    elif isinstance(thing, (tuple, list)):
        for part in thing:
            yield from texts(part, path)
    elif isinstance(thing, dict):
        for part in thing.values():
            yield from texts(part, path)
    elif is_dataclass(thing):
        for field in fields(thing):
            if field.name not in spoken.VERBATIM:
                yield from texts(getattr(thing, field.name), f"{path}.{field.name}")


def words_of_drawings(report: Report) -> list[str]:
    drawings = [figure.drawing for figure in report.all_figures]
    return [unescape(word) for d in drawings for word in re.findall(r"<(?:text|tspan)[^>]*>([^<]+)</", d)]


KINDS = ("records", "two_machines", "three_seeds", "ablation_records", "structures")
"""Fixtures that give records."""


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> dict[str, Report]:
    """In English; with verdicts on the claims of the notes, which take time, where most is measured."""
    return {
        kind: assemble(
            request.getfixturevalue(kind), title="Quick comparison", claims=load() if kind == "records" else ()
        )
        for kind in KINDS
    }


@pytest.fixture(scope="module", params=KINDS)
def pair(reports: dict[str, Report], request: pytest.FixtureRequest) -> tuple[Report, Report]:
    """A report in English and in Chinese."""
    return reports[request.param], translated(reports[request.param], ZH)


@pytest.mark.slow
def test_no_english_is_left_but_names(pair: tuple[Report, Report]):
    left: dict[str, list[str]] = {}
    for path, text in texts(pair[1]):
        apart = any(part in path for part in (*STORED, *QUOTED)) or any(word in text for word in MADE_UP)
        if not apart and not path.endswith("drawing") and (words := ZH.left(text)):
            left[text] = words
    for text in words_of_drawings(pair[1]):
        if (words := ZH.left(text)) and not any(word in text for word in MADE_UP):
            left[text] = words
    assert left == {}


@pytest.mark.slow
def test_numbers_and_ids_are_the_same(pair: tuple[Report, Report]):
    def numbers(text: str) -> list[str]:
        return sorted(re.findall(r"\d[\d.,]*\d|\d", text))

    english, chinese = (list(texts(report)) for report in pair)
    assert [path for path, _ in english] == [path for path, _ in chinese]
    compared = [
        (a, b)
        for (path, a), (_, b) in zip(english, chinese, strict=True)
        if not path.endswith("drawing") and not any(part in path for part in QUOTED)
    ]
    assert [(a, b) for a, b in compared if numbers(a) != numbers(b)] == []
    for one, other in zip(pair[0].all_tables, pair[1].all_tables, strict=True):
        assert one.name == other.name
        assert [[(i.value, i.low, i.high, i.record) for i in row] for row in one.rows] == [
            [(i.value, i.low, i.high, i.record) for i in row] for row in other.rows
        ]


def sources() -> str:
    """Every text of the code and data that reports are made of; holes of f-strings are gaps."""
    found = [quantity.title for quantity in UNITS.values()]
    found += [name.replace("_", " ") for name in Cell.model_fields]
    for folder in ("archs", "reports", "results", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                found += [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
    for path in [*(ROOT / "reports").rglob("*.toml"), *(ROOT / "benchmarks" / "suites").glob("*.toml")]:
        if path.stem not in spoken.LANGUAGES:
            found.append(" ".join(path.read_text(encoding="utf-8").replace("\\\n", "").split()))
    found += [path.read_text(encoding="utf-8") for path in (ROOT / "reports" / "templates").glob("*.j2")]
    return "\n".join(found)


class Counting(Language):
    """Knows which messages it has said."""

    used: set[str]

    def _whole(self, text: str) -> tuple[str | None, int]:
        if text in self._plain:
            self.used.add(text)
        return super()._whole(text)

    def _filled(self, one: Message, held: Sequence[str]) -> str:
        self.used.add(one.english)
        return super()._filled(one, held)


@pytest.mark.slow
def test_every_entry_of_the_catalogue_is_said_somewhere(reports: dict[str, Report]):
    """In a report made here, or by code that they do not reach, in which its longest run of words stands."""
    found = spoken.catalogue("zh")
    keys = {key: other for section in found["messages"].values() for key, other in section.items()}
    into = Counting("zh", messages=tuple(message(*pair) for pair in keys.items()), **found["language"])
    into.used = set()
    for report in reports.values():
        translated(report, into)
    source = sources()
    assert len(keys) > 300
    unused = [key for key in keys if key not in into.used and not _stands(key, source)]
    assert [key for key in unused if key not in COMPOSED] == []


def _stands(key: str, source: str) -> bool:
    """Whether its longest run of words does, without holes, numbers and marks; of a long one any three words."""
    runs = re.findall(r"[A-Za-z][A-Za-z' -]*", re.sub(r"\{[^}]*\}", "|", key))
    words = max((run.split() for run in runs), key=len, default=[])
    wide = 3 if len(words) > 3 else len(words)
    runs = [" ".join(words[i : i + wide]) for i in range(len(words) - wide + 1)]
    return any(run in source or run[:1].lower() + run[1:] in source for run in runs)


def test_every_word_that_stays_english_is_needed():
    source = sources()
    assert [word for word in spoken.catalogue("zh")["language"]["keep"] if word not in source] == []


@pytest.fixture(scope="module")
def folder(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a report in each language."""
    found = tmp_path_factory.mktemp("reports")
    for lang in spoken.LANGUAGES:
        render(records, found / lang, title="t", lang=lang, tex=True)
    return found


@pytest.mark.slow
def test_the_page_says_its_language_and_numbers_the_same(folder: Path):
    english, chinese = ((folder / lang / "index.html").read_text(encoding="utf-8") for lang in spoken.LANGUAGES)
    assert '<html lang="zh-CN">' in chinese
    assert '<html lang="en">' in english
    assert re.findall(r'data-v="([^"]*)"', english) == re.findall(r'data-v="([^"]*)"', chinese)
    assert re.findall(r'\b(?:id|href)="[^"]*"', english) == re.findall(r'\b(?:id|href)="[^"]*"', chinese)
    assert "Noto Sans CJK SC" in chinese
    for name in ("report.md", "tables/comparison.csv", "latex/comparison.tex", "figures/latency.svg"):
        text = (folder / "zh" / name).read_text(encoding="utf-8")
        assert re.search("[\u4e00-\u9fff]", text), name
    assert (folder / "zh" / "tables" / "comparison.csv").read_bytes().startswith("\ufeff变体,".encode())


@pytest.mark.slow
def test_stored_text_stays_as_it_is(folder: Path):
    page = (folder / "zh" / "index.html").read_text(encoding="utf-8")
    assert "ValueError: &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt;" in page
    assert "clip cannot FUSE, which vqa needs; use clip+late" in page


@pytest.fixture(scope="module")
def structures(make_record: Callable[..., Record]) -> list[Record]:
    """What was read off built models: with a momentum copy, with experts, with a decoder, and without image layers."""
    one = {"params": 4e6, "width": 64, "attention": [{"calls": 2, "causal": True}]}
    detail: dict[str, Any] = {
        "tokens": {"image": 197, "text": 25, "regions": None},
        "layers": {"image": 12, "text": 1, "fusion": 6},
        "towers": {"image": one, "text": one, "fusion": one},
        "can": ["EMBED", "FUSE"],
        "shared": {"image+text": 3e6, "text+fusion": 2e6},
        "step": {"forwards": {"online": {"image": {"passes": 1}, "text": {"passes": 2}}}},
    }
    copy = {"step": {"forwards": detail["step"]["forwards"] | {"momentum": {"image": {"passes": 1}}}}}
    regions = {"tokens": {"image": 36, "text": 25, "regions": 36}, "layers": {"text": 1}, "can": ["FUSE"]}
    several = {
        "albef": (6, detail | copy),
        "vlmo": (0, detail | {"experts": {"layers": 10}, "can": ["FUSE"]}),
        "beit3": (1, detail | {"experts": {"layers": 1}, "towers": {**detail["towers"], "decoder": one}}),
        "uniter": (0, detail | regions),
    }
    return [
        make_record(Cell(arch=arch, measure="structure"), {"layers_cross": [float(cross)]}, detail=found)
        for arch, (cross, found) in several.items()
    ]


@pytest.fixture(scope="module")
def ablation_records(make_record: Callable[..., Record]) -> list[Record]:
    """What `made_ablation` makes."""
    return made_ablation(make_record)


def made_ablation(make_record: Callable[..., Record]) -> list[Record]:
    """The ladder, the factorial and sweeps, with numbers that do not matter here."""
    from vlpbench.results.ablation import LADDER, MEASURES, Row, cell_of

    base: dict[str, Any] = {"arch": "albef", "size": "small", "data": "scenes", "budget": 1200, "batch": 64}
    base |= {"finetune": 300, "attention": "eager"}
    sets = [("itc",), ("itm",), ("itc", "itm"), ("itc", "itm", "mlm"), ("itc", "mlm"), ("itm", "mlm")]
    rows = list(LADDER)
    for objectives in sets:
        negatives = {"negatives": "uniform"} if "itm" in objectives else {}
        rows += [Row(name="x", recipe={"objectives": objectives, "momentum": s} | negatives) for s in ("off", "queue")]
    for noise in (0.25, 0.5):
        states = ("off", "queue", "distill")
        rows += [Row(name="x", recipe={"objectives": sets[3], "momentum": s, "noise": noise}) for s in states]
        rows += [Row(name="x", recipe={"objectives": sets[3], "momentum": "queue", "queue_size": int(400 * noise)})]
        rows += [Row(name="x", recipe={"objectives": sets[3], "momentum": "queue", "momentum_rate": noise})]
    found: dict[str, Record] = {}
    for place, row in enumerate(rows):
        for measure in MEASURES:
            for seed in (0, 1):
                given = {**base, **row.recipe} | ({"seed": seed} if measure in ("retrieval", "vqa") else {})
                given |= {"scorer": "embed"} if measure == "retrieval" else {}
                record = make_record(cell_of(measure, given), _values(measure, place + 3 * seed))
                found.setdefault(record.cell.id, record.model_copy(update={"suite": "ablation"}))
    return list(found.values())


def _values(measure: str, more: float) -> dict[str, list[float]]:
    names = {
        "retrieval": ("tr_r1", "tr_r5", "tr_r10", "ir_r1", "ir_r5", "ir_r10", "recall_mean"),
        "vqa": ("vqa_accuracy", "vqa_binding"),
        "train_step": ("step",),
        "flops": ("flops_forward", "flops_forward_backward"),
    }
    return {name: [50.0 + more] for name in names[measure]}
