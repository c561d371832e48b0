"""Goal G5: official VQA accuracy of 5,000 questions with 10 human answers each, against the reference way.

The baseline normalises every answer where it meets it and compares every human answer with every other, as the rules
say it. Interleaved on one thread, minimum to minimum, with the product timed twice in each round as an A/A control.
"""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from vlpbench.benchmarks.vqa_score import CONTRACTIONS, PUNCTUATION, vqa_score

ROUNDS, QUESTIONS = 5, 5000
WORDS = ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS: dict[str, int] = dict(zip(WORDS, (0, *range(11)), strict=True))
ANSWERS = [
    *("yes", "no", "Yes.", "two", "2", "none", "a red car", "the red car", "red", "Red", "blue and white", "1,000"),
    *(f"{size} {thing}" for size in ("small", "big", "a large") for thing in ("dog", "t-shirt", "bus, parked")),
]


def corpus() -> tuple[list[dict[str, Any]], dict[int, str]]:
    rng = random.Random(0)
    questions = []
    for number in range(QUESTIONS):
        said = rng.choices(rng.sample(ANSWERS, rng.choice([1, 2, 3, 5])), k=10)
        human = [{"answer": a, "answer_confidence": "yes", "answer_id": i + 1} for i, a in enumerate(said)]
        kinds = {"question_type": rng.choice(["what", "how many"]), "answer_type": rng.choice(["yes/no", "other"])}
        questions.append({"question_id": number, "answers": human, **kinds})
    return questions, {q["question_id"]: rng.choice([*(a["answer"] for a in q["answers"]), "cat"]) for q in questions}


def normalised(text: str) -> str:
    found = text
    for sign in PUNCTUATION:
        near = sign + " " in text or " " + sign in text or re.search(r"(\d)(\,)(\d)", text) is not None
        found = found.replace(sign, "" if near else " ")
    found = re.sub(r"(?!<=\d)(\.)(?!\d)", "", found, count=32)
    words = [str(NUMBERS.get(word, word)) for word in found.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ["a", "an", "the"])


def reference(questions: list[dict[str, Any]], answers: dict[int, str]) -> dict[str, float]:
    """The rules one by one: overall, and by both types, in percent."""
    groups: dict[str, list[float]] = {}
    for question in questions:
        human = [{**item, "answer": item["answer"].strip()} for item in question["answers"]]
        answer = answers[question["question_id"]].strip()
        if len({item["answer"] for item in human}) > 1:
            human = [{**item, "answer": normalised(item["answer"])} for item in human]
            answer = normalised(answer)
        worth = []
        for item in human:
            others = [other for other in human if other != item]
            worth.append(min(1, len([other for other in others if other["answer"] == answer]) / 3))
        for group in ("overall", question["question_type"], question["answer_type"]):
            groups.setdefault(group, []).append(sum(worth) / len(worth))
    return {name: 100 * sum(values) / len(values) for name, values in groups.items()}


def test_scoring_is_faster_than_the_reference_way(goals: Any) -> None:
    given = corpus()
    ours, slow = vqa_score(*given), reference(*given)
    fast = {"overall": ours.overall, **ours.by_question_type, **ours.by_answer_type}
    assert fast == pytest.approx({name: round(percent, 2) for name, percent in slow.items()}, abs=1e-4)
    goals.race(
        "G5",
        lambda: vqa_score(*given),
        {"the rules one by one": (lambda: reference(*given), 20.0)},
        cost="wall",
        rounds=ROUNDS,
        always=True,
    )
