"""What a check finds missing of the single answers and ranks in accuracy records."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vlpbench.benchmarks.checks import _record
from vlpbench.results.packed import packed
from vlpbench.results.record import Record

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "results" / "data" / "quick" / "records.jsonl"


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, Any]]:
    """A record of each accuracy measure that the repository keeps."""
    lines = [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()]
    return {line["cell"]["measure"]: line for line in lines if line["status"] == "ok"}


def findings(line: dict[str, Any]) -> list[str]:
    return [one.message for one in _record(Record.model_validate(line)) if one.code == "no-items"]


def test_kept_records_are_whole(kept: dict[str, dict[str, Any]]) -> None:
    assert {"vqa", "retrieval", "learning", "latency"} <= set(kept)
    for line in kept.values():
        assert findings(line) == []


def _no_given(detail: dict[str, Any]) -> None:
    del detail["splits"]["comp"]["given"]


def _short(detail: dict[str, Any]) -> None:
    detail["splits"]["test"]["right"] = packed([1, 2, 3])


def _broken(detail: dict[str, Any]) -> None:
    detail["splits"]["test"]["given"] = "what"


def _none(detail: dict[str, Any]) -> None:
    detail["splits"]["test"]["given"] = None


def _no_splits(detail: dict[str, Any]) -> None:
    del detail["splits"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_given, "splits.comp has no given answers that can be read"),
        (_short, "splits.test has 3 right answers of 3000 items"),
        (_broken, "splits.test has no given answers that can be read"),
        (_none, "splits.test has no given answers that can be read"),
        (_no_splits, "an accuracy, and no split that has its answers"),
    ],
)
def test_answers_that_are_missing(
    kept: dict[str, dict[str, Any]], spoil: Callable[[dict[str, Any]], None], said: str
) -> None:
    line = copy.deepcopy(kept["vqa"])
    spoil(line["detail"])
    (found,) = findings(line)
    assert found.endswith(said)


def _no_ranks(detail: dict[str, Any]) -> None:
    del detail["galleries"]["hard"]["ranks"]


def _few_ranks(detail: dict[str, Any]) -> None:
    detail["galleries"]["test"]["ranks"]["text"].pop()


def _no_galleries(detail: dict[str, Any]) -> None:
    del detail["galleries"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_ranks, ["hard has no ranks of 200 image queries", "hard has no ranks of 200 text queries"]),
        (_few_ranks, ["test has 199 ranks of 200 text queries"]),
        (_no_galleries, ["recalls, and no gallery that has their ranks"]),
    ],
)
def test_ranks_that_are_missing(
    kept: dict[str, dict[str, Any]], spoil: Callable[[dict[str, Any]], None], said: list[str]
) -> None:
    line = copy.deepcopy(kept["retrieval"])
    spoil(line["detail"])
    found = findings(line)
    assert len(found) == len(said)
    for message, expected in zip(found, said, strict=True):
        assert message.endswith(expected)
