"""Tests over the same items against values worked out by hand and by SciPy."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from vlpbench.reports import details, paired
from vlpbench.reports.measured import measure_all
from vlpbench.reports.paired import Comparison, mcnemar, paired_difference
from vlpbench.results.record import Cell, Env, Record, Series, Status


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 32)  # five coins on one side
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(4, 4) == 1.0
    with pytest.raises(ValueError, match="not -1"):
        mcnemar(-1, 2)


@given(st.integers(0, 600), st.integers(0, 600))
def test_mcnemar_is_a_binomial_test(a: int, b: int) -> None:
    if a + b:
        exact = binomtest(a, a + b, 0.5).pvalue
        assert mcnemar(a, b) == pytest.approx(min(1.0, exact), rel=1e-6 if a + b < 1000 else 0.06, abs=1e-6)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_a_paired_difference_knows_the_pairs() -> None:
    # 200 items; both right on 100, both wrong on 80, only A right on 20: the pairs say it, the two rates hardly.
    a = np.repeat([True, False, True], [100, 80, 20])
    b = np.repeat([True, False, False], [100, 80, 20])
    found = paired_difference(a, b)
    assert found.value == pytest.approx(10.0)
    # A share of 20 in 200: standard deviation sqrt(0.1 * 0.9 / 200) = 2.12 points.
    assert found.interval == pytest.approx((10 - 1.96 * 2.12, 10 + 1.96 * 2.12), abs=1.0)
    assert found == paired_difference(a[::-1], b[::-1])
    other = paired_difference(b, a)
    assert other.value == -found.value
    assert paired_difference(a, a).interval == (0.0, 0.0)
    with pytest.raises(ValueError, match="not of 3 and 2"):
        paired_difference(a[:3], b[:2])


def test_what_was_kept_of_every_item() -> None:
    detail = {
        "galleries": {"test": {"ranks": {"image": [1, 3], "text": [1, 2, 11]}}},
        "splits": {"test": {"correct": np.packbits([1, 0, 1]).tobytes().hex(), "accuracy": {"total": 3}}},
    }
    assert {way: of.tolist() for way, of in details.ranks(detail).items()} == {"TR": [1, 3], "IR": [1, 2, 11]}
    correct = details.correct(detail)
    assert correct is not None
    assert correct.tolist() == [True, False, True]
    assert details.ranks({}) == {}
    assert details.correct({}) is None
    assert paired.KS == (1, 5, 10)


ENV = Env(cpu="cpu", cores=2, memory=2**30, os="Linux", python="3.11", versions={}, threads=1)


def retrieval(arch: str, ranks: list[int], scorer: Literal["embed", "match"] = "embed", data: str = "hash") -> Record:
    rates = {key: {"percent": 50.0, "total": len(ranks)} for key in ("tr_r1", "ir_r1")}
    kept = {"test": {"recalls": rates, "ranks": {"image": ranks, "text": ranks}}}
    return Record(
        id=arch + scorer + data + str(ranks[0]),
        cell=Cell(arch=arch, size="small", measure="retrieval", scorer=scorer, data="scenes", budget=1),
        status=Status.OK,
        samples={"tr_r1": Series(unit="%", values=(50.0,))},
        detail={"galleries": kept, "scorer": scorer},
        env=ENV,
        code="c",
        data=data,
        suite="quick",
        started="2026-11-20T09:15:00Z",
        seconds=1.0,
    )


def compared(*records: Record) -> list[Comparison]:
    return paired.comparisons(measure_all(records))


def test_only_what_met_the_same_items_by_the_same_protocol_is_compared() -> None:
    found = compared(retrieval("clip", [1, 1, 1, 1, 1, 1, 2]), retrieval("albef", [2, 2, 2, 2, 2, 2, 1]))
    assert [(c.what, c.only_a + c.only_b) for c in found] == [("TR R@1", 7), ("IR R@1", 7)]
    assert found[0].p == pytest.approx(2 * (1 + 7) / 128)
    assert found[0].verdict == "no difference shown"
    clip = retrieval("clip", [1] * 7)
    assert compared(clip, retrieval("albef", [2] * 7, data="other")) == []
    assert compared(clip, retrieval("albef", [2] * 7, "match")) == []
    assert len(compared(retrieval("albef", [1] * 7), retrieval("albef", [2] * 7, "match"))) == 2
    clearly = compared(clip, retrieval("albef", [2] * 7))[0]
    assert clearly.p == pytest.approx(2 / 128)
    assert clearly.verdict == ("A" if clearly.a.row.arch == "clip" else "B") + " is better"
