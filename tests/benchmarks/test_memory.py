"""Peak memory: the meters against known allocations, and the parts of a training step by hand."""

from __future__ import annotations

import json

import psutil
import pytest
import torch
from vlpbench.benchmarks.measures import memory
from vlpbench.benchmarks.measures.memory import CpuMeter, CudaMeter, Memory
from vlpbench.benchmarks.measures.train_step import Step
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell

MB = 2**20
ALL = ("itc", "itm", "mlm")


def resident() -> int:
    return psutil.Process().memory_info().rss


def hold(size: int) -> torch.Tensor:
    return torch.ones(size // 4)  # written, so that the kernel really gives the pages


def test_the_meter_sees_the_peak_of_a_call_that_gave_everything_back() -> None:
    meter = CpuMeter(resident())
    meter.reset()
    del_me = hold(200 * MB)
    del del_me
    found = meter.read()
    assert 190 * MB < found["peak"] < 260 * MB
    assert found["total"] - found["baseline"] == found["peak"]


def test_a_reset_forgets_the_peak_before() -> None:
    meter = CpuMeter(resident())
    if not meter.resettable:
        pytest.skip("the kernel does not let a process reset its high-water mark here")
    before = hold(300 * MB)
    del before
    meter.reset()
    now = hold(100 * MB)
    found = meter.read()["peak"]
    del now
    assert 90 * MB < found < 160 * MB


def test_where_the_mark_cannot_be_reset_the_record_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_high_water", lambda: False)
    assert "cannot be reset" in CpuMeter(0).method


def test_without_proc_the_mark_comes_from_getrusage(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    by_proc = memory._high_water()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "absent")
    assert memory._high_water() >= 0.9 * by_proc  # never reset, so at least as high


def run(**fields) -> tuple[memory.Samples, Subject]:
    defaults = {"arch": "albef", "size": "tiny", "measure": "memory", "batch": 4, "objectives": ALL}
    cell = Cell(**defaults | fields)
    built = Subject.build(cell)
    return Memory().run(built, cell), built


def test_parts_of_a_training_step_by_hand() -> None:
    found, built = run(momentum="distill", queue_size=24)
    parts, learner = found.detail["training_parts"], built.learner()
    assert learner.momentum is not None
    copy = sum(p.numel() for p in learner.momentum.parameters())
    trained = sum(p.numel() for p in learner.parameters()) - copy
    buffers = sum(b.numel() * b.element_size() for b in learner.buffers())
    held = sum(b.numel() * b.element_size() for b in learner.momentum.buffers())
    tensors = sum(1 for p in learner.parameters() if p.requires_grad)
    assert parts["weights"] == 4 * trained + buffers - held
    assert parts["momentum copy and queue"] == 4 * copy + held
    assert parts["gradients"] == 4 * trained
    assert parts["optimizer state"] == 8 * trained + 4 * tensors  # two moments and a step count
    height, width = built.model.image_size
    pair = 3 * height * width * 4 + built.model.text_len * (8 + 1) + 8
    assert parts["inputs"] == len(built.batches) * 4 * pair


def test_without_momentum_nothing_is_charged_to_it() -> None:
    found, _ = run(momentum="off")
    assert found.detail["training_parts"]["momentum copy and queue"] == 0


def test_the_record_has_both_peaks_and_can_be_stored() -> None:
    found, built = run(arch="clip", objectives=("itc",))
    assert set(found.values) == {"memory_inference", "memory_training"}
    assert json.loads(json.dumps(found.detail)) == found.detail
    assert found.detail["inference"]["baseline"] == built.baseline
    assert "high-water" in found.detail["method"]


def test_weights_are_in_the_peak() -> None:
    # The word table is allocated after the baseline, so it counts.
    found, _ = run(arch="clip", objectives=("itc",), changes=(("vocab_size", 1_000_000),))
    table = 1_000_000 * 32 * 4
    assert table < found.values["memory_inference"][0] < 1.5 * table + 64 * MB
    assert found.values["memory_training"][0] > 3 * table  # weights, gradients, two moments


def test_cuda_is_asked_after_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers = {
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "mem_get_info": (60, 100),
        "max_memory_allocated": 7,
        "max_memory_reserved": 9,
        "memory_stats": {"num_alloc_retries": 2},
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name, answer=answer: (asked.append(name), answer)[1])
    meter = CudaMeter(torch.device("cuda:0"))
    meter.reset()
    assert asked == ["synchronize", "empty_cache", "reset_peak_memory_stats"]
    assert meter.read() == {"peak": 7, "reserved": 9, "device_used": 40, "allocation_retries": 2}
    assert asked[3] == "synchronize"


def test_the_peak_is_that_of_the_second_call() -> None:
    order: list[str] = []

    class Recorder:
        method = ""

        def reset(self) -> None:
            order.append("reset")

        def read(self) -> dict[str, int]:
            order.append("read")
            return {}

    memory.second(lambda: order.append("call"), Recorder())
    assert order == ["call", "reset", "call", "read"]


def test_half_a_step_is_enough_to_weigh_gradients() -> None:
    cell = Cell(arch="clip", size="tiny", measure="memory", batch=4, objectives=("itc",))
    step = Step(Subject.build(cell))
    for phase in step.phases:
        phase()
    assert memory._parts(step)["gradients"] == 4 * sum(p.numel() for p in step.learner.parameters())
