"""Tasks on data in files: learnt from nothing, scored by the official rule, with what was left out in the record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vlpbench.benchmarks.data.catalogue import catalogue
from vlpbench.benchmarks.data.samples import write
from vlpbench.benchmarks.fields import SuiteError
from vlpbench.benchmarks.finetune import Judged
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.reasoning import consistency
from vlpbench.benchmarks.measures.retrieval import folds
from vlpbench.benchmarks.measures.vqa import official
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.suite import parse_suite
from vlpbench.results.record import Cell


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VLPBENCH_DATA", str(tmp_path))
    return tmp_path


def measured(**fields: Any) -> Samples:
    cell = Cell(**({"arch": "clip+late", "size": "tiny", "objectives": ("itc",), "threads": 1, "finetune": 2} | fields))
    brought = base.load(cell.measure).run(Subject.build(cell), cell)
    return Samples(values=brought.values, detail=json.loads(json.dumps(brought.detail)), flags=brought.flags)


def test_answers_of_ten_people_are_learnt_from_nothing_and_scored_officially(root):
    folder = write(catalogue()["vqav2"], root)
    brought = measured(measure="vqa", data="vqav2")
    test = brought.detail["splits"]["test"]
    assert brought.detail["pretraining"]["steps"] == 0
    assert brought.detail["finetuning"]["steps"] == 2
    assert (test["accuracy"]["total"], test["official"]["total"]) == (24, 24)
    assert set(test["official"]["by_answer_type"]) == {"other", "yes/no"}
    assert "left_out" not in brought.detail
    first = min(folder.rglob("COCO_val2014*"))
    first.write_bytes(b"broken")
    skipping = measured(measure="vqa", data="vqav2", data_options=(("faulty", "skip"),))
    assert skipping.detail["splits"]["test"]["accuracy"]["total"] == 21  # three questions about the picture
    name = f"val2014/{first.name}"
    assert skipping.detail["left_out"] == {"unreadable picture": {"count": 1, "first": [name]}}
    assert skipping.detail["data_hash"] != brought.detail["data_hash"]


def test_statements_about_one_picture(root):
    write(catalogue()["nlvr"], root)
    brought = measured(measure="reasoning", data="nlvr")
    test = brought.detail["splits"]["test"]
    assert brought.detail["protocol"].startswith("the picture is fused")
    assert (test["accuracy"]["total"], test["consistency"]["total"]) == (24, 4)
    assert brought.detail["answers"] == ["false", "true"]


def test_recalls_of_files_say_how_many_samples_they_rest_on(root):
    write(catalogue()["coco"], root)
    brought = measured(measure="retrieval", data="coco", arch="clip", budget=2, batch=8, finetune=None)
    recalls = brought.detail["galleries"]["test"]["recalls"]
    assert (recalls["tr_r1"]["total"], recalls["ir_r1"]["total"]) == (8, 40)


def test_retrieval_of_an_untrained_model_is_refused(root):
    write(catalogue()["coco"], root)
    with pytest.raises(ValueError, match="names no budget"):
        measured(measure="retrieval", data="coco", arch="clip")


@dataclass
class Rows:
    """Just what judging reads."""

    group: np.ndarray
    kinds: tuple[str, ...] = ("all",)

    @property
    def kind(self) -> np.ndarray:
        return np.zeros(len(self.group), np.int64)


def test_consistency_by_hand():
    truth = np.array([0, 1, 1, 0, 1])
    data: Any = Rows(np.array([7, 7, 3, 3, 5]))
    found = consistency(Judged(answer=np.array([0, 1, 1, 1, 1]), truth=truth, data=data))["consistency"]
    assert (found["percent"], found["total"]) == (pytest.approx(200 / 3), 3)  # 7 and 5 are all right, 3 is not
    data = object()
    assert consistency(Judged(answer=truth, truth=truth, data=data)) == {}


@dataclass
class Answers(Rows):
    """Questions that people answered."""

    answers: tuple[str, ...] = ("red", "blue")

    def annotations(self) -> list[dict[str, Any]]:
        given = [["red"] * 3 + ["blue"] * 7, ["red"] * 10]
        return [
            {
                "question_id": number,
                "question_type": "what",
                "answer_type": "other",
                "answers": [{"answer": text, "answer_id": place} for place, text in enumerate(texts)],
            }
            for number, texts in enumerate(given)
        ]


def test_the_official_score_by_hand():
    data: Any = Answers(np.zeros(2))
    judged = Judged(answer=np.array([0, 0]), truth=np.array([1, 0]), data=data)
    # Three of ten said red: seven of them see three others, three see two: (7 + 3 * 2/3) / 10 = 0.9.
    assert official(judged)["official"]["percent"] == 95.0
    assert judged.majority == 50.0
    nobody = Judged(answer=np.array([0, 0]), truth=np.array([-1, 0]), data=data)
    assert (nobody.accuracy.percent, nobody.majority) == (50.0, 50.0)


def test_the_mean_over_five_parts():
    part = {"recalls": {"tr_r1": {"percent": 10.0}, "ir_r1": {"percent": 20.0}}}
    other = {"recalls": {"tr_r1": {"percent": 30.0}, "ir_r1": {"percent": 60.0}}}
    found = folds({"test": other, "fold1": part, "fold2": other})
    assert found == {"folds": {"galleries": 2, "recalls": {"tr_r1": 20.0, "ir_r1": 40.0}}}
    assert folds({"test": part}) == {}


def test_options_of_a_suite_are_checked_with_their_line():
    head = 'title = "x"\n[[matrix]]\narch = "clip"\nmeasure = "retrieval"\nsize = "tiny"\nbudget = 1\ndata = "coco"\n'
    suite = parse_suite(head + 'data_options = [{ faulty = "skip" }, { captions = "all" }]\n', Path("x.toml"))
    assert [cell.data_options for cell in suite.cells] == [(("faulty", "skip"),), (("captions", "all"),)]
    with pytest.raises(SuiteError, match=r"x\.toml:8: unknown data option 'fauly': did you mean 'faulty'"):
        parse_suite(head + 'data_options = { fauly = "skip" }\n', Path("x.toml"))
    with pytest.raises(SuiteError, match=r"x\.toml:8: data_options = 'skip' must be a table"):
        parse_suite(head + 'data_options = "skip"\n', Path("x.toml"))
