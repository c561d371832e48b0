"""What is peculiar to each public format, by hand and on the real files at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vlpbench.archs.inputs import PUBLISHED
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.catalogue import catalogue, folder_of, locate
from vlpbench.benchmarks.data.faults import Faults
from vlpbench.benchmarks.data.filesets import answer_list, worths
from vlpbench.benchmarks.data.options import options_of
from vlpbench.benchmarks.data.rows import Asked
from vlpbench.benchmarks.data.samples import write
from vlpbench.benchmarks.data.sources import open_source


def read(folder: Path, name: str, split: str, **options: Any) -> tuple[Any, Faults]:
    given = options_of({"faulty": "skip"} | options)
    faults = Faults(policy=given.faulty)
    return locate(catalogue()[name], folder).read(split, given, faults)[split], faults


# --- VQA v2

WORTHS = [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]


@pytest.mark.parametrize(("count", "worth"), WORTHS)
def test_what_an_answer_of_ten_people_is_worth(count, worth):
    answers = ("Red.",) * count + tuple(f"x{n}" for n in range(10 - count))
    assert worths(Asked(picture="", text="", answers=answers))["red"] == worth


def test_the_list_of_answers_counts_what_the_official_evaluation_calls_equal():
    rows = [
        Asked(picture="", text="", answers=("x",), chosen=text)
        for text in ["Two", "2", "the 2.", "a dog", "dog", "cat"]
    ]
    assert answer_list(rows, 1) == ("2", "dog", "cat")
    assert answer_list(rows, 2) == ("2", "dog")


@pytest.mark.shared
def test_real_questions_of_vqa(shared):
    rows, faults = read(shared / "data/coco_cc", "vqav2", "train")
    assert (len(rows), faults.counts) == (8, {})
    assert {len(row.answers) for row in rows} == {10}
    assert rows[0].text == "What time does the clock say?"
    assert (rows[0].picture, rows[0].chosen) == ("train2017/000000174632.jpg", "11:43")


def edited(folder: Path, name: str, change: Any) -> None:
    """Changes an annotation file in place."""
    path = next(folder.rglob(name))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"
VQA_FAULTS = [
    (QUESTIONS, lambda c: c["questions"].append(c["questions"][0]), "repeated"),
    (QUESTIONS, lambda c: c["questions"][0].update(question=""), "no question"),
    (QUESTIONS, lambda c: c["questions"][0].update(question_id="7"), "no question_id"),
    (QUESTIONS, lambda c: c["questions"][0].update(image_id=True), "no image_id"),
    (QUESTIONS, lambda c: c["questions"][0].update(image_id=99), "other image"),
    (ANNOTATIONS, lambda c: c["annotations"].pop(0), "no annotation"),
    (ANNOTATIONS, lambda c: c["annotations"][0].update(answers=[]), "no answers"),
]


@pytest.mark.parametrize(("name", "change", "reason"), VQA_FAULTS, ids=[fault[2] for fault in VQA_FAULTS])
def test_faulty_questions(tmp_path, name, change, reason):
    folder = write(catalogue()["vqav2"], tmp_path)
    edited(folder, name, change)
    rows, faults = read(folder, "vqav2", "train")
    assert faults.counts[reason] == 1
    assert len(rows) == (96 if reason == "repeated" else 95)


def test_the_wrong_file_is_called_so(tmp_path):
    folder = write(catalogue()["vqav2"], tmp_path)
    (folder / QUESTIONS).write_bytes((folder / ANNOTATIONS).read_bytes())
    with pytest.raises(
        DataError, match=r"is not a questions file .*: it holds .*'annotations'.*no list of 'questions'"
    ):
        read(folder, "vqav2", "train")


# --- COCO captions


def test_captions_come_in_the_order_of_their_ids_whatever_that_of_the_file(tmp_path):
    folder = write(catalogue()["coco-captions"], tmp_path)
    before, _ = read(folder, "coco-captions", "test")
    edited(folder, "captions_val2017.json", lambda c: c["annotations"].reverse())
    assert read(folder, "coco-captions", "test")[0] == before
    edited(folder, "captions_val2017.json", lambda c: c["annotations"][0].update(image_id=5))
    after, faults = read(folder, "coco-captions", "test")
    assert faults.counts == {"no image": 1, "few captions": 1}
    assert len(after) == 7
    assert [len(e.captions) for e in read(folder, "coco-captions", "test", captions="all")[0]].count(4) == 1


# --- NLVR2 and NLVR


def lines(folder: Path, name: str, items: list[Any]) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(item) + "\n" for item in items))


def test_nlvr2_labels_are_texts_and_pictures_are_named_after_the_statement(tmp_path):
    common = {"sentence": "Two dogs.", "synset": "dog"}
    lines(
        tmp_path,
        "train.json",
        [
            common | {"label": "True", "identifier": "train-10-0-1", "directory": 7},
            common | {"label": "False", "identifier": "train-10-1-1", "directory": 7},
            common | {"label": True, "identifier": "train-10-2-1", "directory": 7},
            common | {"label": "true", "identifier": "train-10-3-1", "directory": 7},
            common | {"label": "True", "identifier": "10-3", "directory": 7},
            common | {"label": "True", "identifier": "train-10-0-1", "directory": 7},
            common | {"label": "True", "identifier": "train-10-0-2", "directory": "../.."},
        ],
    )
    rows, faults = read(tmp_path, "nlvr2", "train")
    assert [row.label for row in rows] == ["true", "false"]
    assert rows[1].pictures == tuple(f"images/train/7/train-10-1-img{side}.png" for side in (0, 1))
    assert rows[0].group == rows[1].group
    assert faults.counts == {"unknown label": 2, "no identifier": 1, "repeated": 1, "outside": 1}
    lines(tmp_path, "test1.json", [common | {"label": "True", "identifier": "test1-0-1-0"}])
    assert read(tmp_path, "nlvr2", "test")[0][0].pictures == ("test1/test1-0-1-img0.png", "test1/test1-0-1-img1.png")


def opened_at(root: Path, **options: Any) -> Any:
    return open_source("nlvr2", size="tiny", root=root / "nlvr2", inputs=PUBLISHED["clip"], options=options)


def test_dead_pictures_of_nlvr2_take_their_statements_with_them(tmp_path):
    write(catalogue()["nlvr2"], tmp_path)
    gone = next((tmp_path / "nlvr2").rglob("train-0-0-img0.png"))
    gone.unlink()
    with pytest.raises(DataError, match=r"1 of 64 pictures are not in .*train-0-0-img0\.png"):
        opened_at(tmp_path).reasoning("train")
    skipping = opened_at(tmp_path, faulty="skip")
    assert len(skipping.reasoning("train")) == 62
    assert skipping.left_out() == {"no picture": {"count": 1, "first": ["images/train/0/train-0-0-img0.png"]}}


@pytest.fixture(scope="session")
def nlvr(shared, tmp_path_factory) -> Path:
    """The real NLVR, unpacked."""
    import tarfile

    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(shared / "data/nlvr.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "nlvr"


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_nlvr_has_six_orders_of_the_boxes(nlvr):
    dev, faults = read(nlvr, "nlvr", "val")
    assert (len(dev), faults.counts) == (5934, {})
    assert len({row.pictures for row in dev}) == 5934
    assert sum(row.label == "true" for row in dev) == 6 * 547
    assert len({row.group for row in dev}) < 989 / 2  # statements were made about up to four scenes
    assert len(read(nlvr, "nlvr", "test")[0]) == 990
    assert len(read(nlvr, "nlvr", "train")[0]) == 3000
    source: Any = open_source("nlvr", size="small", root=nlvr)
    batch = source.reasoning("val").batch(np.array([0, 5933]))
    assert batch.left.shape == (2, 3, 64, 192)
    assert source.reasoning("val").encoded.ids.shape == (5934, 32)
    assert (source.reasoning("val").encoded.ids == 4).mean() < 0.01  # few words are unknown


# --- SNLI-VE


def test_both_spellings_of_the_key_and_rows_without_a_majority(tmp_path):
    common = {"sentence1": "a premise", "sentence2": "It sleeps."}
    lines(
        tmp_path,
        "snli_ve_test.jsonl",
        [
            common | {"Flikr30kID": "12.jpg", "pairID": "12.jpg#0r1n", "gold_label": "neutral"},
            common | {"Flickr30K_ID": "12", "pairID": "12.jpg#0r1e", "gold_label": "entailment"},
            common | {"Flickr30K_ID": 13, "pairID": "13.jpg#0r1e", "gold_label": "contradiction"},
            common | {"Flickr30K_ID": "12", "pairID": "12.jpg#2r1e", "gold_label": "-"},
            common | {"Flickr30K_ID": "7", "pairID": "vg_7.jpg#2r1e", "gold_label": "neutral"},
            common | {"Flickr30K_ID": "12", "pairID": "12.jpg#3r1e", "gold_label": "maybe"},
        ],
    )
    rows, faults = read(tmp_path, "snli-ve", "test")
    assert [(row.pictures[0], row.label, row.text) for row in rows] == [
        ("12.jpg", "neutral", "It sleeps."),
        ("12.jpg", "entailment", "It sleeps."),
        ("13.jpg", "contradiction", "It sleeps."),
    ]
    assert faults.counts == {"unknown label": 1}


# --- ALBEF's lists


def test_lists_join_the_captions_of_a_picture(tmp_path):
    rows = [{"image": "a.jpg", "caption": f"c{n}", "image_id": "x"} for n in range(3)]
    (tmp_path / "flickr30k_train.json").write_text(json.dumps([*rows, {"image": "/a.jpg", "caption": "d"}]))
    found, faults = read(tmp_path, "albef-flickr30k", "train")
    assert [(entry.picture, entry.captions) for entry in found] == [("a.jpg", ("c0", "c1", "c2"))]
    assert faults.counts == {"outside": 1}
    (tmp_path / "flickr30k_test.json").write_text(
        json.dumps([{"image": "a.jpg", "caption": [f"c{n}" for n in range(7)]}])
    )
    assert read(tmp_path, "albef-flickr30k", "test")[0][0].captions == tuple(f"c{n}" for n in range(5))


def test_a_list_of_answers_that_comes_with_the_data_is_used(tmp_path):
    folder = write(catalogue()["albef-vqa"], tmp_path)
    (folder / "answer_list.json").write_text(json.dumps(["Yes", "no", "", "red"]))
    source: Any = open_source("albef-vqa", size="tiny", root=folder, inputs=PUBLISHED["clip"])
    assert source.questions("test").answers == ("yes", "no", "red")


# --- VQA-RAD and easy-VQA


def test_numbers_are_answers_and_the_phrase_says_the_split(tmp_path):
    common = {"image_name": "a.jpg", "question": "How many?", "answer_type": "OPEN ", "question_type": "COUNT"}
    rows = [
        common | {"qid": 1, "phrase_type": "freeform", "answer": 3},
        common | {"qid": 2, "phrase_type": "test_para", "answer": "Left Lung "},
        common | {"qid": 2, "phrase_type": "para", "answer": "x"},
        common | {"qid": 3, "phrase_type": "para", "answer": None},
    ]
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    train, faults = read(tmp_path, "vqa-rad", "train")
    assert [(row.answers, row.kind) for row in train] == [(("3",), "OPEN")]
    assert [row.answers for row in read(tmp_path, "vqa-rad", "test")[0]] == [("left lung",)]
    assert faults.counts == {"repeated": 1, "no answer": 1}


def test_easy_vqa_from_its_package():
    pytest.importorskip("easy_vqa", reason="the package easy-vqa is not installed")
    spec = catalogue()["easy-vqa"]
    folder = folder_of(spec, None)
    train, _ = read(folder, "easy-vqa", "train")
    test, faults = read(folder, "easy-vqa", "test")
    assert (len(train), len(test), faults.counts) == (38575, 9673, {})
    source: Any = open_source("easy-vqa", size="small")
    questions = source.questions("test")
    assert len(questions.answers) == 13
    assert source.geometry.vocab_size < 60
    assert (questions.encoded.ids != 4).all()  # no word is unknown
    assert questions.encoded.ids[:, -1].max() == 0  # and no question is cut
    batch = questions.batch(np.array([0, 4]))
    assert batch.image.shape == (2, 3, 64, 64)
    assert [questions.answers[answer] for answer in batch.answer] == ["triangle", "yes"]
    assert batch.worth is None
