"""The search for the largest batch: on made-up memory whose answer is known, and on small models with a limit."""

from __future__ import annotations

import json
from statistics import fmean

import pytest
import torch
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import batchsearch
from vlpbench.benchmarks.batchsearch import search
from vlpbench.benchmarks.measures import max_batch
from vlpbench.benchmarks.measures.max_batch import MaxBatch, limit_bytes
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell

GB = 2**30


class Machine:
    """Memory that grows with the batch from a fixed share, straight or bent, so that ``most`` rows are what fits."""

    def __init__(self, most: int, *, fixed: float, bend: float = 0.0, limit: int = 8 * GB) -> None:
        self.most, self.fixed, self.bend, self.limit = most + 0.5, fixed, bend, limit
        self.asked: list[int] = []

    def __call__(self, batch: int) -> int | None:
        self.asked.append(batch)
        x = batch / self.most
        peak = self.limit * (self.fixed + (1 - self.fixed) * (x + self.bend * x * x) / (1 + self.bend))
        return int(peak) if peak <= self.limit else None


@pytest.mark.parametrize("bend", [0.0, 0.1, -0.1])
def test_four_trials_find_nine_tenths_of_what_fits(bend: float) -> None:
    found, shares = [], []
    for most in range(2, 257):
        for fixed in (0.05, 0.2, 0.5, 0.8):
            machine = Machine(most, fixed=fixed, bend=bend)
            one = search(machine, machine.limit)
            assert one.batch <= most
            assert [batch for batch, _ in one.trials] == machine.asked
            found.append(one)
            shares.append(one.batch / most)
    assert max(len(one.trials) for one in found) <= 4
    assert fmean(shares) >= 0.90
    assert min(shares) >= 0.75  # three of four rows; from ten on
    assert fmean(one.failures for one in found) <= 0.38  # halving after a failure has 1.9


def test_the_second_probe_fits_wherever_memory_is_a_line() -> None:
    # 1 GB fixed and 0.5 GB a row: two rows take 2 GB, so eight are sure to fit in 8 GB; fourteen do.
    asked: list[int] = []

    def trial(batch: int) -> int | None:
        asked.append(batch)
        peak = GB + batch * GB // 2
        return peak if peak <= 8 * GB else None

    found = search(trial, 8 * GB)
    assert asked == [2, 8, 12, 13]  # 0.91 of 14 first, since the line might bend; then 0.97 of it
    assert (found.batch, found.peak, found.failures) == (13, 15 * GB // 2, 0)


def test_what_a_batch_took_that_did_not_fit_says_where_the_limit_is() -> None:
    # 64 MB a row, and from 40 rows on four times as much: 8 GB hold 62 rows.
    def trial(batch: int) -> int:
        return (batch + 3 * max(0, batch - 40)) * GB // 16

    found = search(trial, 8 * GB)
    assert found.trials == ((2, 2 * GB // 16), (128, 392 * GB // 16), (41, 44 * GB // 16), (60, 120 * GB // 16))


def test_after_a_failure_the_search_goes_on_between() -> None:
    # The line from 2 and 8 rows promises much, but from ten rows on everything takes twice as much.
    found = search(lambda b: b * GB // 16 if b < 60 else None, 8 * GB)
    assert found.trials[-1][1] is not None or found.failures
    assert found.batch < 60
    assert found.batch == max(batch for batch, peak in found.trials if peak is not None)


def test_where_nothing_fits_the_answer_is_zero() -> None:
    found = search(lambda _: None, GB)
    assert (found.batch, found.trials) == (0, ((2, None),))


def test_growth_below_the_noise_does_not_divide_by_zero() -> None:
    found = search(lambda b: 100 if b < 1000 else 900, 1000)
    assert found.batch >= 1000
    assert len(found.trials) == batchsearch.MOST


@pytest.mark.parametrize(("text", "size"), [("8GiB", 8 * GB), ("1.5GiB", 3 * GB // 2), ("512MiB", GB // 2)])
def test_limits_are_read(text: str, size: int) -> None:
    assert limit_bytes(Cell(arch="clip", measure="max_batch", memory_limit=text)) == size


def test_a_processor_needs_a_limit_and_a_gpu_has_one() -> None:
    with pytest.raises(Unsupported, match="8GiB"):
        limit_bytes(Cell(arch="clip", measure="max_batch"))
    assert limit_bytes(Cell(arch="clip", measure="max_batch", device="cuda")) is None


@pytest.mark.parametrize("text", ["8", "8GB", "eight GiB", "-1GiB"])
def test_a_limit_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="memory_limit"):
        Cell(arch="clip", measure="max_batch", memory_limit=text)


def test_an_answer_short_of_what_is_expected_is_flagged() -> None:
    assert max_batch._flags("training", {"batch": 90, "expected": 100}) == []
    (flag,) = max_batch._flags("training", {"batch": 89, "expected": 100})
    assert flag.startswith("short: training was seen to fit at batch 89, and 100")


def _run(**fields) -> max_batch.Samples:
    cell = Cell(arch="clip", size="tiny", measure="max_batch", objectives=("itc",), **fields)
    return MaxBatch().run(Subject.build(cell, meta=True), cell)


@pytest.mark.slow
def test_a_processors_limit_is_nearly_filled() -> None:
    found = _run(memory_limit="900MiB")
    for what in ("inference", "training"):
        detail = found.detail[what]
        assert found.values[f"max_batch_{what}"] == [detail["batch"]]
        assert len(detail["trials"]) <= 4
        # A model of 0.1 MB in a process of 400: the allocator's habits may bend the line, and then a flag says so.
        assert detail["reached"] <= 1
        assert detail["reached"] >= 0.6 or any(flag.startswith(f"short: {what}") for flag in found.flags)
        assert detail["peak"] <= detail["room"] < 900 * 2**20
    assert found.values["max_batch_training"] < found.values["max_batch_inference"]
    assert json.loads(json.dumps(found.detail)) is not None


@pytest.mark.slow
def test_where_not_even_two_pairs_fit_the_cell_is_out_of_memory() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="not even batch 2 fits"):
        _run(memory_limit="64MiB")
