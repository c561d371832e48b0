"""The measure from a cell to samples, on tiny models: what it brings back, shares and flags."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import scoring
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.measures import base, retrieval
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.metrics import Ranks, Rate, recalls
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import Pretraining
from vlpbench.results.record import UNITS, Cell

pytestmark = pytest.mark.usefixtures("shared_cache")
ALBEF = Cell(
    arch="albef",
    size="tiny",
    measure="retrieval",
    objectives=("itc", "itm"),
    scorer="embed",
    batch=16,
    threads=1,
    data="scenes",
    budget=3,
)


def measured(cell: Cell, **changes: Any) -> Samples:
    cell = Cell(**(cell.model_dump() | changes))
    return base.load("retrieval").run(Subject.build(cell), cell)


@pytest.mark.parametrize(("scorer", "fused"), [("embed", 0), ("match", 40 * 40), ("rerank", None)])
def test_samples_follow_from_the_ranks_that_are_kept(scorer: str, fused: int | None) -> None:
    brought = measured(ALBEF, scorer=scorer, k=4)
    assert set(brought.values) == set(base.spec("retrieval").quantities) <= set(UNITS)
    detail = json.loads(json.dumps(brought.detail))
    kept = detail["galleries"]["test"]
    ranks = Ranks(image=np.array(kept["ranks"]["image"]), text=np.array(kept["ranks"]["text"]))
    assert len(ranks.image) == len(ranks.text) == 40
    for name, rate in recalls(ranks).items():
        assert brought.values[name] == [rate.percent] == [kept["recalls"][name]["percent"]]
        assert kept["recalls"][name]["low"] <= rate.percent <= kept["recalls"][name]["high"]
    six = [brought.values[f"{way}_r{k}"][0] for way in ("tr", "ir") for k in (1, 5, 10)]
    assert brought.values["recall_mean"] == pytest.approx([sum(six) / 6])
    assert set(detail["galleries"]) == set(open_source("scenes", size="tiny").galleries())
    assert set(detail["swaps"]) == {"colour", "shape", "relation"}
    assert all(0 <= rate["percent"] <= 100 and rate["total"] == 80 for rate in detail["swaps"].values())
    work = detail["evaluation"]
    assert (work["encoded"], work["embedded"]) == (80, 0 if scorer == "match" else 80)
    assert work["fused"] == fused if fused is not None else 40 * 4 <= work["fused"] <= 40 * 8
    assert (detail["scorer"], detail["k"]) == (scorer, 4 if scorer == "rerank" else None)
    assert detail["data_hash"] == open_source("scenes", size="tiny").hash


def test_scorers_share_one_training_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured(ALBEF)
    monkeypatch.setattr(Pretraining, "losses", None)  # another training would fail
    again, other = measured(ALBEF), measured(ALBEF, scorer="match")
    assert again.values == first.values
    assert again.detail["pretraining"]["cached"]
    assert again.detail["pretraining"]["key"] == other.detail["pretraining"]["key"]
    assert first.detail["pretraining"]["curve"] == other.detail["pretraining"]["curve"]


def test_a_cell_without_a_scorer_is_scored_by_what_its_model_can() -> None:
    brought = measured(ALBEF, arch="vilt", objectives=("itm", "mlm"), negatives="uniform", scorer=None)
    assert brought.detail["scorer"] == "match"


def test_matching_untrained_pairs_is_refused() -> None:
    with pytest.raises(Unsupported, match="trains none"):
        measured(ALBEF, objectives=("itc",), scorer="match")


def test_galleries_that_cost_too_much_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "EXTRA_FUSIONS", 40 * 40)  # `large` has 80 x 80 pairs
    found = measured(ALBEF, scorer="match").detail["galleries"]
    assert "large" not in found
    assert {"test", "hard"} <= set(found)


def test_a_tie_is_no_swap_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        scoring, "score_pairs", lambda engine, image, texts, scorer: torch.zeros(len(image), len(texts))
    )
    assert {rate["percent"] for rate in measured(ALBEF).detail["swaps"].values()} == {0.0}


def test_chance_is_flagged() -> None:
    gallery = open_source("scenes", size="tiny").gallery()  # 40 images: 25 % are among ten by luck
    (flag,) = retrieval._flags({"ir_r10": Rate(hits=12, total=40)}, gallery)
    assert "not above chance" in flag
    assert "25.0 %" in flag
    assert not retrieval._flags({"ir_r10": Rate(hits=30, total=40)}, gallery)
