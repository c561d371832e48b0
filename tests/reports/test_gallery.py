"""The predicted cost of a search, against sums done by hand."""

from __future__ import annotations

import pytest
from vlpbench.reports import gallery
from vlpbench.reports.board import boards
from vlpbench.reports.gallery import Stages, crossing, search_flops
from vlpbench.reports.measured import measure_all
from vlpbench.results.record import Record

STAGES = Stages(image=10.0, text=2.0, fusion=3.0)


def test_sums_by_hand():
    # 4 images, 20 texts: encodings 4*10 + 20*2 = 80; all pairs 80*3; k = 2 gives 4*2 + 20*2 = 48 fusions
    assert search_flops("dual", STAGES, 4, 20) == 80
    assert search_flops("exhaustive", STAGES, 4, 20) == 80 + 240
    assert search_flops("rerank", STAGES, 4, 20, k=2) == 80 + 144


def test_reranking_never_fuses_more_pairs_than_there_are():
    assert search_flops("rerank", STAGES, 4, 20, k=1000) == search_flops("exhaustive", STAGES, 4, 20)


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="hash"):
        search_flops("hash", STAGES, 1, 1)


def test_crossing_of_two_lines_that_meet():
    assert crossing(lambda n: 10 * n, lambda n: n * n / 10, 1, 10_000) == pytest.approx(100)
    assert crossing(lambda n: n, lambda n: 2 * n, 1, 10_000) is None
    assert crossing(lambda n: n, lambda n: n, 1, 10_000) is None


def test_reranking_pays_from_one_and_a_fifth_k_with_five_texts_an_image():
    # pairs: 5 n n = k (n + 5 n)  <=>  n = 1.2 k = 153.6
    def cost(way: str, n: float) -> float:
        return search_flops(way, STAGES, n, 5 * n, k=128)

    found = crossing(lambda n: cost("rerank", n), lambda n: cost("exhaustive", n), 10, 100_000)
    assert found == pytest.approx(153.6, rel=1e-3)


def test_ways_are_those_that_were_measured(records: list[Record]):
    (board,) = boards(measure_all(records))
    titles = [one.title for one in gallery.searches(board)]
    assert titles == ["CLIP, dual", "ViLT, exhaustive", "ALBEF, dual", "ALBEF, rerank", "ALBEF, exhaustive"]


def test_without_retrieval_the_fused_flops_decide(records: list[Record]):
    (board,) = boards(measure_all([r for r in records if r.cell.measure == "flops"]))
    assert [one.way for one in gallery.searches(board)] == ["dual", "exhaustive", "exhaustive"]
