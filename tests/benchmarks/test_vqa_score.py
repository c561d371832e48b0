"""VQA accuracy against the recorded official evaluation, and against answers worked out by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vlpbench.benchmarks.vqa_score import Mode, normaliser, vqa_score


def asked(*human: str, ids: bool = True, kind: str = "other", number: int = 1) -> dict[str, Any]:
    answers: list[dict[str, Any]] = [{"answer": text, "answer_confidence": "yes"} for text in human]
    if ids:
        answers = [{**answer, "answer_id": place} for place, answer in enumerate(answers)]
    return {"question_id": number, "question_type": "what", "answer_type": kind, "answers": answers}


def score(answer: str, *human: str, mode: Mode = "official", ids: bool = True) -> float:
    return vqa_score([asked(*human, ids=ids)], {1: answer}, mode).overall


def test_equals_the_official_evaluation(oracles: Path) -> None:
    folder = oracles / "vqa_eval"
    official = json.loads((folder / "official.json").read_text())
    questions = json.loads((folder / "input.json").read_text())["questions"]
    before = copy.deepcopy(questions)
    found = vqa_score(questions, {q["question_id"]: q["prediction"] for q in questions})
    assert questions == before
    assert {str(number): percent for number, percent in found.by_question.items()} == official["evalQA"]
    accuracy = official["accuracy"]
    assert found.overall == accuracy["overall"]
    assert found.by_answer_type == accuracy["perAnswerType"]
    assert found.by_question_type == accuracy["perQuestionType"]
    # The evaluation that ALBEF carries along is another one.
    other = json.loads((folder / "albef_vendored.json").read_text())
    assert other["accuracy"]["overall"] != found.overall


def test_normalises_as_the_official_evaluation(oracles: Path) -> None:
    recorded = json.loads((oracles / "vqa_eval" / "official.json").read_text())["normalised"]
    normalise = normaliser("official")
    assert len(recorded) > 250
    assert [normalise(case["cleaned"]) for case in recorded] == [case["final"] for case in recorded]


@pytest.mark.parametrize(("equal", "expected"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)])
def test_worth_of_an_answer(equal: int, expected: float) -> None:
    # 3 of 10: the three see two others (2/3 each), the seven see three (1 each): (3 * 2/3 + 7) / 10.
    others = [f"answer{n}" for n in range(10 - equal)]
    assert score("red", *["red"] * equal, *others) == expected
    assert score("red", *others, *["red"] * equal) == expected


def test_the_official_oddities_and_what_clean_makes_of_them() -> None:
    agreed = ["black"] * 10
    assert score("Black.", *agreed) == 0.0
    assert score("Black.", *agreed, mode="clean") == 100.0
    zero = ["0"] * 9 + ["1"]
    assert score("none", *zero) == 100.0
    assert score("none", *zero, mode="clean") == 0.0
    dots = "a" + ". b" * 40
    joined = ["b" + " b" * 39] * 9 + ["c"]
    assert score(dots, *joined) == 0.0  # 8 of the 40 periods are left
    assert score(dots, *joined, mode="clean") == 100.0
    anonymous = ["red"] * 4 + ["blue"] * 6
    assert score("red", *anonymous, ids=False) == 60.0  # the reds are one another's equals and not "others": 6 see 4
    assert score("red", *anonymous, ids=False, mode="clean") == 100.0
    assert score("red", *anonymous) == 100.0


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("The two dogs", "2 dogs"),
        ("1,000", "1000"),
        ("red/white", "red white"),
        ("red / white", "red white"),
        ("3.5", "3.5"),
        ("5.", "5"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # two apostrophes are missing
        ("couldn'tve", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("it's 3:30", "it's 3:30"),  # neither apostrophes nor colons are signs
    ],
)
def test_normalised(raw: str, expected: str) -> None:
    assert normaliser("official")(raw) == normaliser("clean")(raw) == expected


def test_a_tie_is_rounded_away_from_zero() -> None:
    """1 of 800 is 0.125 % exactly: Python 3 would round it to 0.12."""
    questions = [asked(*["red"] * 10, number=n) for n in range(800)]
    assert vqa_score(questions, {n: "red" if n == 0 else "blue" for n in range(800)}).overall == 0.13


def test_by_type() -> None:
    questions = [asked(*["red"] * 10, kind=kind, number=n) for n, kind in enumerate(["other", "number", "other"])]
    found = vqa_score(questions, {0: "red", 1: "red", 2: "blue"}, "clean")
    assert found.by_answer_type == {"other": 50.0, "number": 100.0}
    assert found.by_question == {0: 100.0, 1: 100.0, 2: 0.0}
    assert found.name == "VQA accuracy (clean)"


@given(st.lists(st.sampled_from(["red", "Red.", "a red", "blue", "none", "0"]), min_size=2, max_size=10), st.data())
def test_modes_agree_where_nothing_is_odd(human: list[str], data: st.DataObject) -> None:
    answer = data.draw(st.sampled_from([text for text in human if text != "none"] or ["blue"]))
    if len(set(human)) > 1 and "none" not in human:
        assert score(answer, *human) == score(answer, *human, mode="clean")


def test_refuses_what_it_cannot_score() -> None:
    with pytest.raises(ValueError, match=r"1 of 1 questions have no answer \(first: \[1\]\)"):
        vqa_score([asked("red")], {})
    with pytest.raises(ValueError, match="0 of 0"):
        vqa_score([], {})
    with pytest.raises(ValueError, match="unknown mode 'fair'"):
        vqa_score([asked("red")], {1: "red"}, "fair")  # pyright: ignore[reportArgumentType]
