"""Every public format: miniatures that the very readers accept, and by hand what is peculiar to each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vlpbench.archs.inputs import PUBLISHED
from vlpbench.benchmarks.data.base import (
    DataError,
    Entailment,
    Hypotheses,
    Pairs,
    Questions,
    Reasoning,
    Source,
    Statements,
)
from vlpbench.benchmarks.data.catalogue import catalogue
from vlpbench.benchmarks.data.samples import write
from vlpbench.benchmarks.data.scored import Answered, Grouped
from vlpbench.benchmarks.data.sources import open_source

NAMES = list(catalogue())


@pytest.fixture(scope="module")
def minis(tmp_path_factory) -> Path:
    """A data root for each data set, with its miniature."""
    root = tmp_path_factory.mktemp("minis")
    for name, spec in catalogue().items():
        write(spec, root / name)
    return root


def opened(minis: Path, name: str, **options: Any) -> Any:
    folder = minis / name / catalogue()[name].folder
    return open_source(name, size="tiny", root=folder, inputs=PUBLISHED["clip"], options=options)


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_is_a_source_that_can_be_trained_on(minis, name):
    source, kind = opened(minis, name), catalogue()[name].kind
    assert isinstance(source, Source)
    rows = np.array([3, 0, 5])
    if kind in ("captions", "shards"):
        pairs = source.pairs("train")
        assert isinstance(pairs, Pairs)
        batch = pairs.batch(rows)
        assert batch.image.shape == (3, 3, 32, 32)
        assert batch.text.mask.any(1).all()
        assert len(pairs) >= 32
    if kind == "questions":
        questions = source.questions("train")
        assert isinstance(questions, Questions)
        batch = questions.batch(rows)
        assert {"yes", "no"} < set(questions.answers)
        assert batch.answer.min() >= 0
        assert source.questions("test").batch(rows).image.shape == (3, 3, 32, 32)
    if kind == "statements":
        assert isinstance(source, Reasoning)
        statements = source.reasoning("train")
        assert isinstance(statements, Statements)
        assert isinstance(statements, Grouped)
        batch = statements.batch(rows)
        assert batch.left.shape == (3, 3, 32, 96 if name == "nlvr" else 32)
        assert (batch.right is None) == (statements.sides == 1) == (name == "nlvr")
        assert set(source.reasoning("test").label.tolist()) == {0, 1}
    if kind == "hypotheses":
        assert isinstance(source, Entailment)
        hypotheses = source.entailment("train")
        assert isinstance(hypotheses, Hypotheses)
        assert np.bincount(hypotheses.label).tolist() == [len(hypotheses) // 3] * 3
    assert len(source.hash) == 64
    assert source.left_out() == {}


def test_a_source_refuses_what_it_does_not_hold(minis):
    with pytest.raises(DataError, match="holds questions and no captions, so nothing to pre-train on: leave"):
        opened(minis, "vqav2").pairs("train")
    with pytest.raises(DataError, match="nlvr2 has no split 'tset'; it has train, val, test, test2"):
        opened(minis, "nlvr2").reasoning("tset")


def test_the_data_set_beside_brings_what_is_trained_on(minis):
    source = opened(minis, "vlue-vqa")
    assert source.questions("test").answers == opened(minis, "vqav2").questions("train").answers
    assert len(source.questions("train")) == len(opened(minis, "vqav2").questions("train"))
    assert len(source.questions("test")) == 24
    assert opened(minis, "vlue-nlvr2").reasoning("train").sides == 2
    assert opened(minis, "vlue-itr").pairs("train").images == 32


def test_two_pictures_stand_in_their_places(minis):
    statements = opened(minis, "nlvr2").reasoning("train")
    batch, photos = statements.batch(np.array([4, 1])), statements.photos
    for place, row in enumerate((4, 1)):
        left, right = (photos.batch(np.array([photos.pictures.index(name)])) for name in statements.rows[row].pictures)
        assert batch.left[place].equal(left[0])
        assert batch.right[place].equal(right[0])
    assert statements.rows[4].pictures[0].endswith("-img0.png")


def test_questions_without_an_answer_on_the_list_are_not_trained_on_and_count_as_wrong(minis):
    few = opened(minis, "vqav2", least=12)
    train, test = few.questions("train"), few.questions("test")
    assert len(train) < 96
    assert (train.best >= 0).all()
    assert len(test) == 24
    assert (test.best < 0).any()
    worth = test.batch(np.arange(24)).worth
    assert worth is not None
    assert (worth.max(1).values > 0).tolist() == (test.best >= 0).tolist()
    assert isinstance(test, Answered)
    assert [len(a["answers"]) for a in test.annotations()] == [10] * 24
    assert few.questions("test2015").best.tolist() == [-1] * 12
    with pytest.raises(DataError, match="no answer is that of 500 questions; lower 'least'"):
        _ = opened(minis, "vqav2", least=500).answers


def test_reading_and_checking_import_no_torch(tmp_path):
    code = f"""
import sys
from pathlib import Path
from vlpbench.benchmarks.cli import main
root = Path({str(tmp_path)!r})
assert main(["data"]) == 0
for name in ("vqav2", "web"):
    assert main(["data", "sample", name, "--out", str(root)]) == 0
    assert main(["data", "check", name, "--root", str(root)]) == 0
print("loaded", [name for name in ("torch", "transformers", "open_clip") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "loaded []"
