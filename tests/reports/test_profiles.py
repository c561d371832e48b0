"""Cards of architectures: diagrams drawn from records alone, and words where there is none."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from vlpbench.reports.board import boards
from vlpbench.reports.diagram import diagram
from vlpbench.reports.measured import measure_all
from vlpbench.reports.outline import outlines, read
from vlpbench.reports.profiles import profiles
from vlpbench.results.record import UNITS, Cell, Quantity, Record

ALBEF: dict[str, Any] = {
    "tokens": {"image": 197, "text": 25, "regions": None},
    "width": 768,
    "layers": {"image": 12, "text": 6, "fusion": 6},
    "notes": ["the text encoder is the lower half of BERT"],
    "can": ["EMBED", "FUSE", "MASK"],
    "towers": {
        "image": {"width": 768, "params": 85_800_000, "attention": [{"queries": 197, "keys": 197, "calls": 12}]},
        "text": {"width": 768, "params": 66_000_000, "attention": [{"queries": 25, "keys": 25, "calls": 6}]},
        "fusion": {"width": 768, "params": 56_700_000, "attention": [{"queries": 25, "keys": 197, "calls": 6}]},
        "decoder": {"width": 0, "params": 0, "attention": []},
    },
    "shared": {"text+fusion": 1000},
    "experts": {"layers": 0},
    "decoder": {"read": 0, "own": 0},
    "step": {
        "forwards": {
            "online": {"image": {"calls": 1, "passes": 1.0}, "fusion": {"calls": 3, "passes": 4.0}},
            "momentum": {"image": {"calls": 1, "passes": 1.0}, "fusion": {"calls": 1, "passes": 1.0}},
        }
    },
}


@pytest.fixture
def structure(make_record, monkeypatch: pytest.MonkeyPatch) -> Record:
    for name in ("layers_cross",):
        monkeypatch.setitem(UNITS, name, UNITS.get(name) or Quantity(unit="1", better="neither", title=name))
    cell = Cell(arch="albef", measure="structure", objectives=("itc", "itm", "mlm"), momentum="distill")
    return make_record(cell, {"layers_cross": [6.0]}, detail=ALBEF)


def test_a_record_tells_what_a_model_is_made_of(structure: Record):
    one = read(structure)
    assert one is not None
    assert {name: (t.layers, t.width) for name, t in one.towers.items()} == {
        "image": (12, 768),
        "text": (6, 768),
        "fusion": (6, 768),
    }
    assert (one.image_tokens, one.text_tokens, one.cross, one.embeds) == (197, 25, 6, True)
    assert one.momentum == {"image": 1.0, "fusion": 1.0}
    assert read(structure.model_copy(update={"detail": {}})) is None


def test_of_several_records_the_largest_with_the_most_momentum_is_drawn(structure: Record):
    plain = structure.model_copy(update={"cell": structure.cell.model_copy(update={"momentum": "off"})})
    small = structure.model_copy(update={"cell": structure.cell.model_copy(update={"size": "small"})})
    assert outlines([plain, small, structure])["albef"].record == structure


def test_the_drawing_has_a_stripe_for_every_layer_and_words_for_every_part(structure: Record):
    one = read(structure)
    assert one is not None
    figure = diagram(one, "structure-albef")
    root = ET.fromstring(figure.standalone)
    space = "{http://www.w3.org/2000/svg}"
    assert sum(node.get("opacity") == "0.2" for node in root.iter(f"{space}rect")) == 12 + 6 + 6
    words = [node.text for node in root.iter(f"{space}text")]
    assert {"image, 197 tokens", "text, 25 tokens", "12 layers · 768", "dot product"} <= set(words)
    assert "cross-attention in 6 layers" in words
    assert sum(node.get("stroke-dasharray") == "4 3" for node in root.iter(f"{space}rect")) == 2  # the copy's towers
    assert "fusion 4.00, of the copy" in figure.caption
    assert "12 layers of width 768" in figure.alt
    assert not re.search(r"#[0-9a-f]{6}\b", figure.inline)


def test_layers_that_no_record_tells_are_not_called_none(structure: Record):
    decoder = {"decoder": {"width": 1024, "params": 9, "attention": []}}
    detail = ALBEF | {"towers": ALBEF["towers"] | decoder}
    one = read(structure.model_copy(update={"detail": detail}))
    assert one is not None
    figure = diagram(one, "structure-albef")
    assert "no layers" not in figure.drawing
    assert "decoder" not in figure.alt
    assert figure.table.rows[-1][1].text == "–"


def test_every_architecture_has_a_card_and_one_without_a_record_says_what_makes_it(
    records: list[Record], structure: Record
):
    found = [*records, structure]
    (board,) = boards(measure_all(found))
    cards = {block.heading: block for block in profiles(board, found)}
    assert list(cards) == ["CLIP", "ViLT", "ALBEF", "toy<i>"]
    assert [figure.name for figure in cards["ALBEF"].figures] == ["structure-albef"]
    assert not cards["CLIP"].figures
    assert "`vlpbench run notes --only measure=structure` makes one" in cards["CLIP"].text
    facts = {row[0].text: row for row in cards["ALBEF"].tables[0].rows}
    assert facts["Parameters stored"][1].text == "209 M"
    assert [head.title for head in cards["ALBEF"].tables[0].heads][1:4] == [
        "ALBEF (off)",
        "ALBEF (queue)",
        "ALBEF (distill)",
    ]
    assert "layers_cross" not in {column.quantity for column in board.columns}
