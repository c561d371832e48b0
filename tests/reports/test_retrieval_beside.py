"""Retrieval by brought weights beside published numbers, whose values stand in the papers."""

from __future__ import annotations

from typing import Any

import pytest
from vlpbench.reports.language import language, translated
from vlpbench.reports.measured import measure_all
from vlpbench.reports.retrieval_beside import beside_table, published
from vlpbench.results.record import UNITS, Cell, Env, Record, Series, Status

ENV = Env(cpu="c", cores=2, memory=1, os="o", python="3", versions={}, threads=1)
NAMES = ("tr_r1", "tr_r5", "tr_r10", "ir_r1", "ir_r5", "ir_r10")


def record(arch: str, data: str, images: int, tuned: str | None, **fields: Any) -> Record:
    cell = Cell(
        arch=arch,
        measure="retrieval",
        data=data,
        objectives=("itc", "itm"),
        scorer="rerank",
        k=128,
        checkpoint="w.pth@0",
        **fields,
    )
    protocol = {
        "weights": "w.pth@0",
        "tuned": tuned,
        "images": images,
        "texts": 5 * images,
        "image": [384, 384],
        "text_len": 30,
        "scorer": "rerank",
        "k": 128,
    }
    values = dict.fromkeys(NAMES, 90.0) | {"recall_mean": 90.0}
    return Record(
        id=f"{arch}{data}{images}"[:16].ljust(16, "0"),
        cell=cell,
        status=Status.OK,
        samples={name: Series(unit=UNITS[name].unit, values=(value,)) for name, value in values.items()},
        detail={"protocol": protocol, "scorer": "rerank", "k": 128},
        env=ENV,
        code="c",
        suite="zeroshot",
        started="2026-11-20T09:15:00Z",
        seconds=1.0,
    )


def test_published_numbers_are_those_of_the_papers() -> None:
    rows = {(one.arch, one.variant, one.data, one.protocol, one.pretrained): one for one in published()}
    vilt = rows["vilt", "B/32 200K steps", "flickr30k", "zero_shot", "4M"]
    assert (vilt.tr, vilt.ir) == ((73.2, 93.6, 96.5), (55.0, 82.5, 89.8))  # ViLT, table 3
    clip = rows["clip", "ViT-L/14@336px", "flickr30k", "zero_shot", "400M"]
    assert (clip.tr[0], clip.ir[0]) == (88.0, 68.7)  # CLIP, table 13
    assert all(one.protocol in ("zero_shot", "finetuned") and one.data in ("coco", "flickr30k") for one in published())
    assert all(0 < number <= 100 for one in published() for number in (*one.tr, *one.ir))


def test_each_number_stands_beside_those_of_its_protocol() -> None:
    table = beside_table(measure_all([record("albef", "flickr30k", 1000, "finetuned")]))
    assert table is not None
    wanted = [one for one in published() if (one.arch, one.data, one.protocol) == ("albef", "flickr30k", "finetuned")]
    assert len(table.rows) == len(wanted) >= 2
    for row, one in zip(table.rows, wanted, strict=True):
        assert row[3].text == "fine-tuned; scored by rerank; k 128; 384 px; 30 tokens"
        assert one.variant in row[4].text
        assert row[5].value == 90.0
        assert row[5].note == f"{one.tr[0]:.1f}, {90 - one.tr[0]:+.1f}"


def test_another_gallery_has_no_difference_and_another_protocol_no_row() -> None:
    table = beside_table(measure_all([record("albef", "coco", 113, "finetuned")]))
    assert table is not None
    assert all(row[2].text == "coco, 113 × 565" for row in table.rows)
    assert all("," not in row[5].note for row in table.rows)
    other = beside_table(measure_all([record("albef", "coco", 5000, "zero_shot_coco_tuned")]))
    assert other is not None
    assert [row[4].text for row in other.rows] == ["nothing under this protocol"]


@pytest.mark.parametrize("checkpoint", [None])
def test_trained_cells_have_no_published_numbers(checkpoint: None) -> None:
    one = record("albef", "coco", 5000, None)
    plain = one.model_copy(update={"detail": {"scorer": "rerank", "k": 128}})
    assert beside_table(measure_all([plain])) is None


@pytest.mark.parametrize("tuned", ["finetuned", "zero_shot", "zero_shot_coco_tuned", None])
def test_the_table_is_said_in_chinese(tuned: str | None) -> None:
    chinese = language("zh")
    table = translated(beside_table(measure_all([record("albef", "flickr30k", 1000, tuned)])), chinese)
    assert table is not None
    cells = [item.text for row in table.rows for item in row]
    protocols, published_ = {row[3].text for row in table.rows}, {row[4].text for row in table.rows}
    assert all("打分方式 rerank" in one and "384 像素" in one for one in protocols)
    assert any("ALBEF Table" in one and "预训练数据" in one for one in published_)
    assert not any(word in text for text in cells for word in ("scored", "tuned", "pre-trained", "memory", "tokens"))
    assert "小字" in table.caption
