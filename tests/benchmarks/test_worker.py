"""What a process makes of what happens in it."""

from __future__ import annotations

import pytest
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import worker
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.measures import base as measures
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.results.record import Cell, Status


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_memory_that_runs_out_is_oom_whoever_says_so():
    import torch

    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 46)
    for error in (
        real.value,
        MemoryError("x"),
        torch.OutOfMemoryError("CUDA out of memory"),
        OSError(12, "Cannot allocate memory"),
    ):
        status, reason = worker.classify(raised(error))
        assert status is Status.OOM, error
        assert "memory" in reason.lower()


def test_other_errors_keep_a_sentence_and_the_tail_of_the_traceback():
    status, reason = worker.classify(raised(RuntimeError("mat1 and mat2 do not fit\nmore")))
    lines = reason.splitlines()
    assert status is Status.ERROR
    assert lines[0] == "RuntimeError: mat1 and mat2 do not fit"
    assert "Traceback (most recent call last):" in lines
    assert len(lines) <= 1 + worker.TAIL


def test_expected_errors_are_one_sentence():
    assert worker.classify(raised(DataError("a.jpg is broken"))) == (Status.ERROR, "a.jpg is broken")
    assert worker.classify(raised(Unsupported("cannot fuse"))) == (Status.UNSUPPORTED, "cannot fuse")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "the measure brought back no samples"),
        ({"latency": []}, "the measure brought back no samples"),
        ({"speed": [1.0]}, "the measure brought back 'speed', which has no unit; add it to UNITS"),
        ({"latency": [1.0, float("nan")]}, "sample 1 of latency is nan, which is no measurement"),
        ({"latency": [float("inf")]}, "sample 0 of latency is inf, which is no measurement"),
    ],
)
def test_samples_that_are_none_are_refused(values, problem):
    found = worker._problem(Samples(values=values))
    assert found is not None
    assert found.startswith(problem)


def test_good_samples_are_taken():
    assert worker._problem(Samples(values={"latency": [1.0], "first_call": []})) is None


@pytest.mark.parametrize(("arch", "said"), [("vilt", None), ("uniter", {"input": "regions", "detector": "excluded"})])
def test_a_record_says_whose_work_is_left_out(arch: str, said: dict[str, str] | None) -> None:
    cell = Cell(arch=arch, size="tiny", measure="params")
    detail = worker.run(worker.Job(cell=cell, measure=measures.spec("params"))).detail
    assert {name: detail[name] for name in ("input", "detector") if name in detail} == (said or {})
