"""The JSON lists of ALBEF's release, whose form BLIP and X-VLM took over, and VLUE's, which are like them.

A training file of retrieval has a row for every caption, one of evaluation a row for every picture with all captions.
"""

from __future__ import annotations

from typing import Any

from vlpbench.benchmarks.data.faults import Fault, below, mapping, need, one_of, words
from vlpbench.benchmarks.data.jsonfiles import listed, read_json
from vlpbench.benchmarks.data.readers.karpathy import chosen
from vlpbench.benchmarks.data.readers.nlvr import LABELS
from vlpbench.benchmarks.data.readers.reading import Reading
from vlpbench.benchmarks.data.readers.snli_ve import LABELS as RELATIONS
from vlpbench.benchmarks.data.rows import Asked, Claim, Entry, Found

SIDES = 2


def read_retrieval(reading: Reading) -> Found:
    """Captions. Rows of one picture are joined, since a picture with two rows would be its own wrong answer."""
    said: dict[str, list[Any]] = {}
    for where, line in _lines(reading, "captions"):
        with reading.faults.at(where):
            item = mapping(line)
            picture, caption = below(item.get("image")), item.get("caption")
            texts = [words(text, "caption") for text in (caption if isinstance(caption, list) else [caption])]
            said.setdefault(picture, []).extend(texts)
    entries = []
    for picture, texts in said.items():
        with reading.faults.at(f"{reading.file('captions')}: {picture}"):
            # Rows of a training file may be a part of a picture's captions on purpose; only galleries ask for five.
            captions = "all" if reading.split == "train" else reading.captions
            entries.append(Entry(picture=picture, split=reading.split, captions=chosen(texts, captions)))
    return {reading.split: entries}


def read_questions(reading: Reading) -> Found:
    """Questions; ``answer`` is a list of people's answers, one answer, or absent."""
    rows: dict[int, Asked] = {}
    for where, line in _lines(reading, "questions"):
        with reading.faults.at(where):
            item = mapping(line)
            number = need(item, "question_id", int)
            if number in rows:
                raise Fault("repeated", f"repeats the question {number}: keep one of the two")
            given = item.get("answer", [])
            answers = tuple(words(answer, "answer") for answer in (given if isinstance(given, list) else [given]))
            rows[number] = Asked(
                picture=below(item.get("image")),
                text=words(item.get("question"), "question"),
                answers=answers,
                kind="yes/no" if set(answers) & {"yes", "no"} else "other" if answers else "all",
                number=number,
            )
    return {reading.split: list(rows.values())}


def read_statements(reading: Reading) -> Found:
    """Statements about two pictures. Labels are the texts "True" and "False"; released code reads others as false."""
    claims = []
    for where, line in _lines(reading, "statements"):
        with reading.faults.at(where):
            item = mapping(line)
            images = need(item, "images", list)
            if len(images) != SIDES:
                raise Fault("no images", f"has {len(images)} images in place of {SIDES}: mend the file")
            text = words(item.get("sentence"), "sentence")
            label = one_of(item.get("label"), LABELS, "label")
            claims.append(Claim(pictures=tuple(map(below, images)), text=text, label=label, group=text))
    return {reading.split: claims}


def read_hypotheses(reading: Reading) -> Found:
    """Hypotheses about a picture, whose name lacks its ending."""
    claims = []
    for where, line in _lines(reading, "hypotheses"):
        with reading.faults.at(where):
            item = mapping(line)
            claims.append(
                Claim(
                    pictures=(f"{below(item.get('image'))}.jpg",),
                    text=words(item.get("sentence"), "hypothesis"),
                    label=one_of(item.get("label"), RELATIONS, "label"),
                )
            )
    return {reading.split: claims}


def _lines(reading: Reading, role: str) -> list[tuple[str, Any]]:
    path, what = reading.file(role), f"a list of {role} in ALBEF's form"
    return [(f"{path}: [{place}]", item) for place, item in enumerate(listed(read_json(path, what), "", path, what))]
