"""Training throughput: what the loader costs is in one number and not in the other."""

from __future__ import annotations

import json
import time

import pytest
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.measures import base, train_throughput
from vlpbench.benchmarks.measures.train_step import Step
from vlpbench.benchmarks.measures.train_throughput import Feed, TrainThroughput
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell

FIELDS = {"arch": "clip", "size": "tiny", "measure": "train_throughput", "batch": 8, "objectives": ("itc",)}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = clock.Limits(seconds=0.5, most=4, warm_seconds=0.2, warm_most=4)
    monkeypatch.setattr(train_throughput, "LIMITS", limits)
    monkeypatch.setattr(train_throughput, "BURST", 0.05)


def test_a_slow_loader_slows_one_throughput_and_not_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Feed._load

    def slow(self: Feed):
        time.sleep(0.05)
        return load(self)

    monkeypatch.setattr(Feed, "_load", slow)
    cell = Cell(**FIELDS, data="scenes")
    found = TrainThroughput().run(Subject.build(cell), cell)
    assert set(found.values) == set(base.spec("train_throughput").quantities)
    assert all(wait >= 0.05 for wait in found.values["loader_wait"])
    assert max(found.values["train_throughput"]) < 8 / 0.05  # a batch of 8 takes at least the wait
    assert max(found.values["train_throughput"]) < min(found.values["train_throughput_model"])
    assert 0.3 < found.detail["loader_share"] < 1
    assert len(found.values["loader_wait"]) == found.detail["steps_per_burst"] * len(found.values["train_throughput"])
    assert json.loads(json.dumps(found.detail)) == found.detail


def test_rows_are_those_of_the_data_in_epochs_without_repetition() -> None:
    cell = Cell(**FIELDS, data="scenes")
    subject = Subject.build(cell)

    class Pairs:
        def __len__(self) -> int:
            return 20

        def order(self, rng):
            return rng.permutation(20)

    rows = train_throughput._rows(Pairs(), cell)  # pyright: ignore[reportArgumentType]
    first, second, third, _ = (next(rows) for _ in range(4))
    assert len({*first, *second}) == 16  # two batches of 8 in an epoch of 20; four rows are left out
    assert len({*third}) == 8
    assert subject.cell.data == "scenes"


def test_a_step_takes_the_batch_that_it_is_fed() -> None:
    cell = Cell(**FIELDS)
    subject = Subject.build(cell)
    step = Step(subject)
    batch = subject.batches[1]
    step.feed(batch, subject.draws(step.learner, batch))
    assert [next(step._inputs)[0] for _ in range(3)] == [batch] * 3


def test_random_words_are_none_of_the_special_tokens() -> None:
    from vlpbench.archs.learner import SpecialTokens
    from vlpbench.benchmarks.subject import _words

    assert _words(SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30_522)) == (104, 30_522)  # BERT
    assert _words(SpecialTokens(pad=0, cls=49_406, sep=49_407, mask=-1, vocab_size=49_408)) == (1, 49_406)  # CLIP
    assert _words(SpecialTokens(pad=1, cls=0, sep=2, mask=64_002, vocab_size=64_003)) == (3, 64_002)  # XLM-R
    assert _words(SpecialTokens(pad=0, cls=0, sep=1, mask=-1, vocab_size=9)) == (2, 9)  # T5


def test_random_inputs_have_no_loader() -> None:
    with pytest.raises(Unsupported, match="scenes"):
        TrainThroughput().run(Subject.build(Cell(**FIELDS)), Cell(**FIELDS))
