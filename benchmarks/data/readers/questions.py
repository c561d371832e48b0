"""Two small sets of questions: VQA-RAD (radiology, one file of all splits) and easy-VQA (generated shapes)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.faults import Fault, below, mapping, need, words
from vlpbench.benchmarks.data.jsonfiles import listed, read_json
from vlpbench.benchmarks.data.readers.reading import Reading
from vlpbench.benchmarks.data.rows import Asked, Found

RAD, EASY = "the questions of VQA-RAD", "the questions of easy-VQA"


def read_rad(reading: Reading) -> Found:
    """VQA-RAD: questions whose ``phrase_type`` begins with ``test`` are the test set. Answers become lower case."""
    path = reading.file("questions")
    rows: dict[str, dict[int, Asked]] = {"train": {}, "test": {}}
    for place, item in enumerate(listed(read_json(path, RAD), "", path, RAD)):
        with reading.faults.at(f"{path}: [{place}]"):
            line = mapping(item)
            number, kind = need(line, "qid", int), words(line.get("phrase_type"), "phrase_type")
            if any(number in split for split in rows.values()):
                raise Fault("repeated", f"repeats the question {number}: keep one of the two")
            rows["test" if kind.startswith("test") else "train"][number] = Asked(
                picture=below(line.get("image_name")),
                text=words(line.get("question"), "question"),
                answers=(_plain(line.get("answer")),),
                kind=words(line.get("answer_type"), "answer_type"),
                form=words(line.get("question_type"), "question_type"),
                number=number,
            )
    return {split: list(found.values()) for split, found in rows.items()}


def read_easy(reading: Reading) -> Found:
    """easy-VQA: a list of [question, answer, number of the picture]; yes/no is one kind of question, other the rest."""
    path, rows = reading.file("questions"), []
    for place, item in enumerate(listed(read_json(path, EASY), "", path, EASY)):
        with reading.faults.at(f"{path}: [{place}]"):
            if not isinstance(item, list) or len(item) != 3 or not isinstance(item[2], int):
                raise Fault("malformed", "is no list of a question, an answer and a number: mend the file")
            text, answer = words(item[0], "question"), words(item[1], "answer")
            kind = "yes/no" if answer in ("yes", "no") else "other"
            picture = f"{reading.split}/images/{item[2]}.png"
            rows.append(Asked(picture=picture, text=text, answers=(answer,), kind=kind, number=place))
    return {reading.split: rows}


def answer_lines(path: Path) -> list[str]:
    """A closed list of answers, one a line.

    Raises:
        DataError: for a file that cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list of answers {path} cannot be read ({error}); it should hold one a line") from error


def _plain(answer: Any) -> str:
    """Some answers of VQA-RAD are numbers."""
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        answer = str(answer)
    return words(answer, "answer").lower()
