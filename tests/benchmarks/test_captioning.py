"""Captioning: scores by hand, references that are true, and the measure from a cell to samples."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs.types import Text, Unsupported
from vlpbench.benchmarks import caption_score as scores
from vlpbench.benchmarks.caption_score import caption_score
from vlpbench.benchmarks.data.captioned import Captioned, Captions, Judging, Worded
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.packed import unpacked
from vlpbench.results.record import UNITS, Cell

pytestmark = pytest.mark.usefixtures("shared_cache")

CELL = Cell(
    arch="blip",
    size="tiny",
    measure="captioning",
    objectives=("lm",),
    batch=16,
    threads=1,
    data="scenes",
    budget=3,
    finetune=3,
)


@pytest.fixture
def package() -> None:
    pytest.importorskip(scores.PACKAGE, reason="captions are scored by an extra, vlpbench[captions]")


def measured(**changes: Any) -> Samples:
    cell = Cell(**(CELL.model_dump() | changes))
    return base.load(cell.measure).run(Subject.build(cell), cell)


@pytest.mark.usefixtures("package")
def test_bleu_by_hand() -> None:
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 quadruples are in the reference, which is as long.
    one = caption_score(["a b c d e"], [["a b c d f"]])
    assert one.bleu4 == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25, abs=1e-4)
    # Two words too few for the closest of two references: the penalty of brevity is exp(1 - 6 / 4).
    short = caption_score(["a b c d"], [["a b c d e f", "x y x y x y x y"]])
    assert short.bleu4 == pytest.approx(100 * math.exp(1 - 6 / 4), abs=1e-4)


@pytest.mark.usefixtures("package")
def test_cider_by_hand() -> None:
    # Two words and no third: n = 1 and 2 are matched, n = 3 and 4 are not there. 10 * (1 + 1 + 0 + 0) / 4.
    # Of "blue square" one of two equally rare words is in "blue ring", and no pair: 10 * (1/2 + 0 + 0 + 0) / 4.
    found = caption_score(["red square", "blue square"], [["red square"], ["blue ring"]])
    assert found.each == pytest.approx((5.0, 1.25))
    assert found.cider == pytest.approx(3.125)
    # One word short of one of two references: cos is 1 / sqrt(2), a difference of one costs exp(-1 / (2 * 36)); the
    # other reference shares nothing, and the mean is over both.
    found = caption_score(["red", "blue ring"], [["red square", "a b"], ["blue ring"]])
    assert found.each[0] == pytest.approx(10 * math.exp(-1 / 72) / math.sqrt(2) / 4 / 2)


@pytest.mark.usefixtures("package")
def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        caption_score(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="each of which needs a reference"):
        caption_score(["a"], [[]])


def test_references_are_true_different_and_first_that_of_the_pairs() -> None:
    source: Any = open_source("scenes", size="tiny")
    assert isinstance(source, Captioned)
    assert isinstance(source, Worded)
    captions = source.captions("test")
    assert isinstance(captions, Captions)
    assert isinstance(captions, Judging)
    words = source.decode(Text(ids=torch.from_numpy(source.pairs("test").ids), mask=torch.ones(1)))
    assert [texts[0] for texts in captions.references] == words
    rows = np.arange(len(captions))
    for place in range(captions.ids.shape[1]):
        assert (captions.judge(rows, captions.ids[:, place]) == 0).all()
    numbers = {len(texts) for texts in captions.references}
    assert numbers == {2, 4}  # on a grid of 2 x 2 one of the three pairs of three objects is on a diagonal
    assert all(len(set(texts)) == len(texts) for texts in captions.references)
    shifted = captions.judge(rows, np.roll(captions.ids[:, 0], 1, axis=0))
    assert (shifted == 2).mean() > 0.8  # another picture's caption is rarely true


@pytest.mark.usefixtures("package")
def test_the_measure_brings_back_what_it_promises() -> None:
    brought = measured()
    assert set(brought.values) == set(base.spec("captioning").quantities) <= set(UNITS)
    detail = json.loads(json.dumps(brought.detail))
    test = detail["splits"]["test"]
    source: Any = open_source("scenes", size="tiny")
    data = source.captions("test")
    for ending, way in (("", "beams_3"), ("_greedy", "greedy")):
        told = test[way]
        ids = np.array(unpacked(told["tokens"])).reshape(-1, told["length"])
        assert len(ids) == len(data)
        verdict = data.judge(np.arange(len(data)), ids)
        assert unpacked(told["verdict"]) == verdict.tolist()
        assert brought.values[f"caption_right{ending}"] == [100 * float((verdict == 0).mean())]
        texts = source.decode(Text(ids=torch.from_numpy(ids), mask=torch.from_numpy(ids > 0)))
        score = caption_score(texts, data.references)
        assert brought.values[f"caption_cider{ending}"] == [pytest.approx(score.cider)]
        assert brought.values[f"caption_bleu4{ending}"] == [pytest.approx(score.bleu4)]
        assert unpacked(told["each_cider_1000"])[:9] == [round(1000 * value) for value in score.each[:9]]
    assert set(detail["splits"]) == {"test", "comp"}
    assert set(detail["finetuning"]["curve"]["loss"]) == {"lm", "total"}
    assert detail["data_hash"] != source.hash


def test_what_cannot_be_is_refused_before_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match="albef cannot decode, so it writes no captions"):
        measured(arch="albef", objectives=("itc",))
    monkeypatch.setattr(scores, "PACKAGE", "no_such_package")
    with pytest.raises(Unsupported, match=r"pip install 'vlpbench\[captions\]'"):
        measured()
