"""VQA accuracy over free answers: what the official evaluation gives, and the same without its oddities.

An answer is worth, averaged over the human answers to its question, min(1, how many of the *other* human answers equal
it / 3) (Antol et al., 2015, arXiv:1505.00468, section 4). What makes two answers equal is where evaluations differ:

``official`` gives the very numbers of the evaluation that VQA v2 is published with. Among its oddities: nothing is
normalised where all human answers to a question agree, so that "Black." is wrong against ten times "black"; "none" is
the number 0; of the periods that end no number, 32 are removed at most; the others of a human answer are those that are
unlike it in any field, so that equal answers without an ``answer_id`` do not count for one another.

``clean`` differs in exactly these four: it always normalises, "none" is a word, every such period is removed, and the
others of a human answer are the others, whatever their fields.

Scores of the two are different quantities, as are those of models that classify, rank a list or generate.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, Literal

Mode = Literal["official", "clean"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(number) for number, word in enumerate(DIGITS)}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
PERIOD = re.compile(r"\.(?![0-9])")
"""The official pattern also asks what comes before, by a misspelt look-behind that always holds."""
MOST_PERIODS = 32
"""The official code hands a flag over where the number of replacements is expected; this is the flag's value."""
THOUSANDS = re.compile("[0-9],[0-9]")

CONTRACTED = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't
needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTED.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}
"""What lacks one of its apostrophes -> what has them all; the last one is the official table's own."""


@dataclass(frozen=True, kw_only=True)
class VQAScore:
    """Percent, rounded to two decimals as the official evaluation does."""

    mode: Mode
    overall: float
    by_answer_type: dict[str, float]
    by_question_type: dict[str, float]
    by_question: dict[int, float]

    @property
    def name(self) -> str:
        """What a table calls the overall number."""
        return f"VQA accuracy ({self.mode})"


def vqa_score(
    annotations: Sequence[Mapping[str, Any]], answers: Mapping[int, str], mode: Mode = "official"
) -> VQAScore:
    """Scores one answer to each annotated question.

    Args:
        annotations: as in the official files: ``question_id``, ``question_type``, ``answer_type`` and ``answers``, the
            human ones, each with its ``answer`` and, normally, an ``answer_id``. They are not changed.
        answers: by question id.
        mode: see the module.

    Raises:
        ValueError: without a question, for questions that were not answered, and for an unknown mode.
    """
    if mode not in ("official", "clean"):
        raise ValueError(f"unknown mode {mode!r}: known are official, clean")
    without = [a["question_id"] for a in annotations if a["question_id"] not in answers]
    if without or not annotations:
        raise ValueError(f"{len(without)} of {len(annotations)} questions have no answer (first: {without[:3]})")
    worth = _official if mode == "official" else _clean
    cleaned, known = _Memo(_on_one_line), _Memo(normaliser(mode))
    credits = [worth(a["answers"], answers[a["question_id"]], cleaned, known) for a in annotations]
    return VQAScore(
        mode=mode,
        overall=_percent(credits),
        by_answer_type=_by(annotations, credits, "answer_type"),
        by_question_type=_by(annotations, credits, "question_type"),
        by_question={a["question_id"]: _percent([credit]) for a, credit in zip(annotations, credits, strict=True)},
    )


class _Memo(dict[str, str]):
    """Few of the millions of answers differ, so each is worked out once."""

    def __init__(self, work: Any) -> None:
        super().__init__()
        self.work = work

    def __missing__(self, text: str) -> str:
        self[text] = found = self.work(text)
        return found


def _on_one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def normaliser(mode: Mode) -> Any:
    """Punctuation, then case, number words, articles and contractions, of a text on one line (str -> str)."""
    numbers = NUMBERS | ({"none": "0"} if mode == "official" else {})
    periods = MOST_PERIODS if mode == "official" else 0

    def normalise(text: str) -> str:
        return _words(_without_punctuation(text, periods), numbers)

    return normalise


def _without_punctuation(text: str, periods: int) -> str:
    """A sign next to a space goes, any other becomes one; where a number has a comma inside, all signs go.

    Whether it does is asked of the text as it was, sign by sign.
    """
    grouped = THOUSANDS.search(text) is not None
    found = text
    for sign in PUNCTUATION:
        gone = grouped or f"{sign} " in text or f" {sign}" in text
        found = found.replace(sign, "" if gone else " ")
    return PERIOD.sub("", found, count=periods)


def _words(text: str, numbers: Mapping[str, str]) -> str:
    words = (numbers.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _official(human: Sequence[Mapping[str, Any]], answer: str, cleaned: _Memo, known: _Memo) -> float:
    given = [cleaned[item["answer"]] for item in human]
    result = cleaned[answer]
    if given.count(given[0]) < len(given):
        given, result = [known[text] for text in given], known[result]
    if len({item.get("answer_id") for item in human}) == len(human):
        return _one_left_out(given, result)
    items = [{**item, "answer": text} for item, text in zip(human, given, strict=True)]
    right = [item for item in items if item["answer"] == result]
    return _mean(tuple(sum(other != item for other in right) for item in items))


def _clean(human: Sequence[Mapping[str, Any]], answer: str, cleaned: _Memo, known: _Memo) -> float:
    return _one_left_out([known[cleaned[item["answer"]]] for item in human], known[cleaned[answer]])


def _one_left_out(given: Sequence[str], result: str) -> float:
    """The mean over all ``given`` of the worth by the others; from four equal ones on every one sees three others."""
    equal = given.count(result)
    if equal == 0 or equal > 3:
        return 1.0 if equal else 0.0
    return _mean(tuple(equal - (text == result) for text in given))


@lru_cache(maxsize=4096)
def _mean(others: tuple[int, ...]) -> float:
    """Of min(1, others / 3), added one by one in the order of the answers, as rounding may depend on it."""
    return _sum(min(1.0, count / 3) for count in others) / len(others)


def _sum(values: Iterable[float]) -> float:
    """Plain addition in order; the built-in sum corrects its rounding from Python 3.12 on, the official one never."""
    total = 0.0
    for value in values:
        total += value
    return total


def _by(annotations: Sequence[Mapping[str, Any]], credits: Sequence[float], field: str) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for annotation, credit in zip(annotations, credits, strict=True):
        groups[annotation[field]].append(credit)
    return {name: _percent(group) for name, group in groups.items()}


@lru_cache(maxsize=4096)
def _rounded(percent: float) -> float:
    """To two decimals, an exact tie away from zero, as the official evaluation's Python 2 does."""
    return float(Decimal(percent).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _percent(credits: Sequence[float]) -> float:
    return _rounded(100 * _sum(credits) / len(credits))
