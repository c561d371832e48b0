"""Miniatures of questions, statements and hypotheses, see `vlpbench.benchmarks.data.samples`."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw
from vlpbench.benchmarks.data.miniature import Drawn, Folder, draw_shape

BOXES = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
"""The six orders of three boxes."""


def asked(drawn: Drawn) -> list[tuple[str, str, str, str]]:
    """Question, answer, type of the answer, type of the question."""
    return [
        (f"What color is the {drawn.shape}?", drawn.colour, "other", "what color is the"),
        ("What shape is it?", drawn.shape, "other", "what"),
        ("Is it red?", "yes" if drawn.colour == "red" else "no", "yes/no", "is it"),
    ]


def vqav2(to: Folder) -> None:
    """Ten answers to each question, of which one or two differ; test sets have none."""
    for split, pictures in to.splits.items():
        subtype = {"train": "train2014", "test": "val2014"}.get(split, split)
        folder = subtype.replace("-dev", "")
        head = {"info": {}, "data_type": "mscoco", "data_subtype": subtype, "license": {}}
        questions, annotations = [], []
        for drawn in pictures:
            to.picture(f"{folder}/COCO_{folder}_{drawn.number:012d}.jpg", drawn.image())
            for n, (text, answer, kind, form) in enumerate(asked(drawn)):
                ids = {"image_id": drawn.number, "question_id": 1000 * drawn.number + n}
                given = [answer] * 8 + ["it is " + answer, "can't tell"]
                answers = [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(given, 1)]
                types = {"question_type": form, "answer_type": kind, "multiple_choice_answer": answer}
                questions.append(ids | {"question": text})
                annotations.append(ids | types | {"answers": answers})
        to.json(to.name(split), head | {"task_type": "Open-Ended", "questions": questions})
        if split in ("train", "test"):
            to.json(to.name(split, "answers"), head | {"annotations": annotations})


def vqa_rad(to: Folder) -> None:
    """One file; an answer in three is a number, as some published ones are."""
    rows: list[dict[str, Any]] = []
    for split, pictures in to.splits.items():
        for drawn in pictures:
            name = to.picture(f"synpic{drawn.number}.jpg", drawn.image())
            for text, answer, kind, _ in [*asked(drawn), ("How many are there?", 1, "number", "")]:
                closed = kind == "yes/no"
                rows.append(
                    {
                        "qid": len(rows) + 1,
                        "phrase_type": "freeform" if split == "train" else "test_freeform",
                        "image_name": name,
                        "image_organ": "CHEST",
                        "question": text,
                        "question_type": "PRES" if closed else "ATTRIB",
                        "answer": answer.capitalize() if isinstance(answer, str) else answer,
                        "answer_type": "CLOSED" if closed else "OPEN",
                    }
                )
    to.json(to.name("train"), rows)


def easy_vqa(to: Folder) -> None:
    """Triples, and the list of answers."""
    answers = dict[str, None]()
    for split, pictures in to.splits.items():
        rows: list[list[Any]] = []
        for place, drawn in enumerate(pictures):
            to.picture(f"{split}/images/{place}.png", drawn.image(64, 64))
            rows += [[text.lower(), answer, place] for text, answer, _, _ in asked(drawn)]
        answers |= {row[1]: None for row in rows}
        to.json(to.name(split), rows)
    to.text("answers.txt", "\n".join(answers) + "\n")


def list_of_questions(to: Folder) -> None:
    """Ten answers in training, one in VLUE's file, none in a test file."""
    number = 0
    for split, pictures in to.splits.items():
        rows = []
        for drawn in pictures:
            name = to.picture(f"{split}/{drawn.number}.jpg", drawn.image())
            for text, answer, _, _ in asked(drawn):
                given = {"answer": answer if to.spec.beside else [answer] * 9 + ["a " + answer]}
                rows.append(
                    {"question_id": number, "question": text, "image": name}
                    | ({} if split == "test2015" else given)
                    | ({} if to.spec.beside else {"dataset": "vqa"})
                )
                number += 1
        to.json(to.name(split), rows)


def _pairs(pictures: list[Drawn]) -> list[tuple[int, Drawn, Drawn, str, bool]]:
    """Number of the pair, left, right, statement and whether it is true."""
    found = []
    for n, (left, right) in enumerate(zip(pictures, pictures[1:] + pictures[:1], strict=True)):
        found.append(
            (n, left, right, f"The left image shows a {left.colour if n % 2 else right.colour} shape.", bool(n % 2))
        )
        found.append((n, left, right, f"One of the images shows a {right.shape}.", True))
    return [(n, a, b, text, true or a.colour == b.colour) for n, a, b, text, true in found]


def nlvr2(to: Folder) -> None:
    """Pairs of files beside one another, named after the statement."""
    for place, (split, pictures) in enumerate(to.splits.items()):
        short = {"val": "dev", "test": "test1"}.get(split, split)
        rows = []
        for n, left, right, text, true in _pairs(pictures):
            pair, sentence = n % 4, len(rows) % 2
            identifier = f"{short}-{100 * place + n // 4}-{pair}-{sentence}"
            folder = "images/train/0" if split == "train" else short
            for side, drawn in enumerate((left, right)):
                to.picture(f"{folder}/{identifier.rpartition('-')[0]}-img{side}.png", drawn.image())
            more = {"directory": 0} if split == "train" else {}
            rows.append({"sentence": text, "label": str(true), "identifier": identifier} | more)
        to.lines(to.name(split), rows)


def nlvr(to: Folder) -> None:
    """Three boxes of 100 x 100 with bars of 50 between them, in six orders."""
    for split in to.splits:
        short = to.name(split).split("/")[0]
        rows = []
        for n in range(8 if split == "train" else 4):
            shapes = [to.splits[split][(n + box) % len(to.splits[split])] for box in range(3)]
            for k, order in enumerate(BOXES):
                to.picture(f"{short}/images/0/{short}-{n}-0-{k}.png", _boxes([shapes[box] for box in order]))
            colour = shapes[0].colour if n % 2 else "yellow"
            true = any(shape.colour == colour for shape in shapes)
            text = f"There is a box with a {colour} item."
            rows.append({"sentence": text, "label": str(true).lower(), "identifier": f"{n}-0", "directory": "0"})
        to.lines(to.name(split), rows)


def _boxes(shapes: list[Drawn]) -> Image.Image:
    found = Image.new("RGB", (400, 100), (211, 211, 211))
    for place, shape in enumerate(shapes):
        if place:
            ImageDraw.Draw(found).rectangle((150 * place - 50, 0, 150 * place - 1, 99), fill=(100, 100, 100))
        draw_shape(found, (150 * place + 50, 50), 20, shape)
    return found


def list_of_statements(to: Folder) -> None:
    """Two pictures a row."""
    for split, pictures in to.splits.items():
        names = {d.number: to.picture(f"{split}/{d.number}.jpg", d.image()) for d in pictures}
        rows = [
            {"sentence": text, "images": [names[left.number], names[right.number]], "label": str(true)}
            for _, left, right, text, true in _pairs(pictures)
        ]
        to.json(to.name(split), rows)


def _supposed(drawn: Drawn) -> list[tuple[str, str]]:
    other = "blue" if drawn.colour != "blue" else "red"
    return [
        (f"Something is {drawn.colour}.", "entailment"),
        (f"The {drawn.shape} was drawn yesterday.", "neutral"),
        (f"The {drawn.shape} is {other}.", "contradiction"),
    ]


def snli_ve(to: Folder) -> None:
    """Both spellings of the key; a row without a majority in each file, which readers leave out."""
    for place, (split, pictures) in enumerate(to.splits.items()):
        rows = []
        for drawn in pictures:
            name = to.picture(f"{1000 + drawn.number}.jpg", drawn.image())
            key = {"Flickr30K_ID": name.removesuffix(".jpg")} if place else {"Flikr30kID": name}
            for text, label in [*_supposed(drawn), ("It is nice.", "-")]:
                pair = f"{name}#0r1{len(rows)}"
                about = {"gold_label": label, "pairID": pair, "sentence1": drawn.captions()[0], "sentence2": text}
                rows.append(key | about)
        to.lines(to.name(split), rows)


def list_of_hypotheses(to: Folder) -> None:
    """Names of pictures lack their ending."""
    for split, pictures in to.splits.items():
        rows = []
        for drawn in pictures:
            to.picture(f"{drawn.number}.jpg", drawn.image())
            rows += [{"image": str(drawn.number), "sentence": t, "label": label} for t, label in _supposed(drawn)]
        to.json(to.name(split), rows)
