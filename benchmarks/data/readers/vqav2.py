"""VQA v2 (arXiv:1612.00837): a file of questions and, but for the test sets, one of annotations, joined by question."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from vlpbench.benchmarks.data.faults import Fault, Faults, mapping, need, words
from vlpbench.benchmarks.data.jsonfiles import listed, read_json
from vlpbench.benchmarks.data.readers.reading import Reading, first_there
from vlpbench.benchmarks.data.rows import Asked, Found

QUESTIONS, ANNOTATIONS = "a questions file of VQA v2", "an annotations file of VQA v2"


def read(reading: Reading) -> Found:
    """The split of the two files. Without a file of annotations the questions have no answers."""
    path, faults = reading.file("questions"), reading.faults
    content = read_json(path, QUESTIONS)
    questions = listed(content, "questions", path, QUESTIONS)
    subtype = content.get("data_subtype")
    known = _annotations(reading.files["answers"], faults) if "answers" in reading.files else None
    picture = cache(lambda image: first_there(reading.images, names(subtype, image)))
    rows: dict[int, Asked] = {}
    for number, item in enumerate(questions):
        with faults.at(f"{path}: questions[{number}]"):
            question = mapping(item)
            key, image = need(question, "question_id", int), need(question, "image_id", int)
            text = words(question.get("question"), "question")
            if key in rows:
                raise Fault("repeated", f"repeats the question {key}: keep one of the two")
            answered = {} if known is None else _answered(known, key, image)
            rows[key] = Asked(picture=picture(image), text=text, number=key, **answered)
    return {reading.split: list(rows.values())}


def names(subtype: Any, image: int) -> tuple[str, ...]:
    """Where the picture of a number may lie: as published in 2014 and 2015, then in the folders of 2017."""
    folder = {"test-dev2015": "test2015"}.get(subtype, subtype)
    old = f"COCO_{folder}_{image:012d}.jpg"
    return f"{folder}/{old}", f"train2017/{image:012d}.jpg", f"val2017/{image:012d}.jpg", old


def _annotations(path: Path, faults: Faults) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, item in enumerate(listed(read_json(path, ANNOTATIONS), "annotations", path, ANNOTATIONS)):
        with faults.at(f"{path}: annotations[{number}]"):
            annotation = mapping(item)
            key = need(annotation, "question_id", int)
            if key in found:
                raise Fault("repeated", f"repeats the question {key}: keep one of the two")
            given = need(annotation, "answers", list)
            if not given:
                raise Fault("no answers", "has no answers: mend the file")
            found[key] = {
                "image": need(annotation, "image_id", int),
                "answers": tuple(words(mapping(answer).get("answer"), "answer") for answer in given),
                "chosen": words(annotation.get("multiple_choice_answer"), "multiple_choice_answer"),
                "kind": words(annotation.get("answer_type"), "answer_type"),
                "form": words(annotation.get("question_type"), "question_type"),
            }
    return found


def _answered(known: dict[int, dict[str, Any]], key: int, image: int) -> dict[str, Any]:
    if key not in known:
        raise Fault("no annotation", f"asks question {key}, which no annotation answers: give the file of this split")
    found = dict(known[key])
    if found.pop("image") != image:
        raise Fault("other image", f"asks about image {image}, its annotation is about another: give files that match")
    return found
