"""The training step: it trains, its phases are whole, and momentum is charged where it belongs."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
import torch
from vlpbench.benchmarks import clock, spans
from vlpbench.benchmarks.measures import base, train_step
from vlpbench.benchmarks.measures.train_step import PHASES, Step, TrainStep
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell

ALL = ("itc", "itm", "mlm")


def subject(**fields) -> Subject:
    defaults = {"arch": "albef", "size": "tiny", "measure": "train_step", "batch": 4, "objectives": ALL}
    return Subject.build(Cell(**defaults | fields))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = clock.Limits(seconds=0.2, most=4, warm_seconds=0.1, warm_most=2)
    monkeypatch.setattr(train_step, "LIMITS", limits)


@pytest.mark.parametrize(
    ("arch", "objectives", "momentum"),
    [("clip", ("itc",), "off"), ("vilt", ("itm", "mlm"), "off"), ("albef", ALL, "distill")],
)
def test_phases_make_up_the_step(arch: str, objectives: tuple[str, ...], momentum: str) -> None:
    built = subject(arch=arch, objectives=objectives, momentum=momentum)
    found = TrainStep().run(built, built.cell)
    spec = base.spec("train_step")
    assert set(found.values) == {*spec.quantities, *(spec.sometimes if momentum != "off" else ())}
    for number, step in enumerate(found.values["step"]):
        assert step == pytest.approx(sum(found.values[name][number] for name in PHASES))
    assert json.loads(json.dumps(found.detail)) == found.detail
    assert not [flag for flag in found.flags if flag.startswith("loss")]


def test_a_step_trains_and_moves_teacher_and_queue() -> None:
    step = Step(subject(momentum="distill"))
    learner, momentum = step.learner, step.learner.momentum
    assert momentum is not None
    assert momentum.queue is not None
    student, teacher = list(learner.model.parameters()), list(momentum.parameters())
    before, before_teacher = [p.clone() for p in student], [p.clone() for p in teacher]
    for phase in step.phases[:3]:
        phase()
    assert any(not torch.equal(p, old) for p, old in zip(student, before, strict=True))
    assert all(torch.equal(p, old) for p, old in zip(teacher, before_teacher, strict=True))
    assert int(momentum.queue.pointer) == 0
    step.phases[3]()
    assert any(not torch.equal(p, old) for p, old in zip(teacher, before_teacher, strict=True))
    assert int(momentum.queue.pointer) == 4


def test_the_teacher_is_not_given_to_the_optimiser() -> None:
    step = Step(subject(momentum="distill"))
    held = {id(p) for group in step.optimizer.param_groups for p in group["params"]}
    assert step.learner.momentum is not None
    assert not held & {id(p) for p in step.learner.momentum.parameters()}
    assert held == {id(p) for p in step.learner.parameters() if p.requires_grad}


def test_gradients_are_dropped_after_a_step() -> None:
    step = Step(subject())
    step.forward()
    step.backward()
    assert any(p.grad is not None for p in step.learner.parameters())
    step.optimize()
    assert all(p.grad is None for p in step.learner.parameters())


def test_the_loss_falls_on_a_repeated_batch() -> None:
    built = subject(arch="clip", objectives=("itc",))
    built.batches[:] = built.batches[:1]
    step = Step(built)
    step.optimizer.param_groups[0]["lr"] = 3e-3
    losses = []
    for _ in range(30):
        for phase in step.phases:
            phase()
        losses.append(float(step.loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_equal_cells_take_equal_steps() -> None:
    first, second = (Step(subject(objectives=("itc", "mlm"), arch="albef")) for _ in range(2))
    for step in (first, second):
        torch.manual_seed(3)
        step.forward()
    assert torch.equal(first.loss, second.loss)


def test_inputs_and_masked_tokens_rotate() -> None:
    step = Step(subject())
    drawn = [next(step._inputs) for _ in range(3)]
    for (batch, draws), (other, others) in pairwise(drawn):
        assert batch is not other
        assert draws.masked is not None
        assert others.masked is not None
        assert not torch.equal(draws.masked.label, others.masked.label)


def test_a_loss_that_is_no_number_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    built = subject(arch="clip", objectives=("itc",))
    built.batches[0].image.fill_(torch.inf)
    found = TrainStep().run(built, built.cell)
    assert any("nan" in flag for flag in found.flags)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_mixed_precision_keeps_weights_in_fp32(dtype: str) -> None:
    step = Step(subject(arch="clip", objectives=("itc",), dtype=dtype))
    assert step.scaler.is_enabled() == (dtype == "fp16")
    before = [p.clone() for p in step.learner.parameters()]
    for _ in range(3):
        for phase in step.phases:
            phase()
    assert {p.dtype for p in step.learner.parameters()} == {torch.float32}
    assert torch.isfinite(step.loss)
    assert any(not torch.equal(p, old) for p, old in zip(step.learner.parameters(), before, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_phase_waits_for_the_device() -> None:
    step = Step(subject(momentum="distill", device="cuda"))
    for phase in step.phases:
        phase()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for phase in step.phases:
            phase()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("momentum", ["queue", "distill"])
def test_what_momentum_costs_is_told_apart(momentum: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part sleeps a time of its own, and the record says which slept how long."""
    built = subject(momentum=momentum)
    step = Step(built)
    teacher = step.learner.momentum
    assert teacher is not None
    asleep = {"step_teacher": 0.004, "step_ema": 0.003, "step_queue": 0.002}

    def slower(owner: object, method: str, seconds: float) -> None:
        before = getattr(owner, method)

        def slow(*args, **kwargs):
            time.sleep(seconds)
            return before(*args, **kwargs)

        monkeypatch.setattr(owner, method, slow)

    slower(teacher.twin["model"], "encode_image", asleep["step_teacher"])  # called once a step
    slower(teacher, "update", asleep["step_ema"])
    slower(teacher, "enqueue", asleep["step_queue"])
    monkeypatch.setattr(train_step, "Step", lambda _: step)
    found = TrainStep().run(built, built.cell).values
    for name, seconds in asleep.items():
        assert min(found[name]) >= seconds
    count = len(found["step"])
    assert all(len(found[name]) == count for name in asleep)
    for number in range(count):
        assert found["step_teacher"][number] < found["step_forward"][number]
        parts = found["step_ema"][number] + found["step_queue"][number]
        assert parts <= found["step_momentum"][number] <= parts + 0.002


def test_nested_spans_of_one_name_count_once_and_only_within_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [0]
    monkeypatch.setattr(spans.time, "perf_counter_ns", lambda: at[0])
    watch = spans.Spans(torch.device("cpu"))

    def work(seconds: int) -> None:
        at[0] += seconds * 10**9

    inner = watch.wrapped("a", work)
    outer = watch.wrapped("a", lambda: [work(1), inner(2)])
    other = watch.wrapped("b", lambda: work(5))
    outer()  # before the first call: for nobody
    for _ in range(2):
        watch.begin_call()
        outer()
        other()
        inner(10)
    assert watch.seconds("a", 2) == [13.0, 13.0]
    assert watch.seconds("b", 1) == [5.0]
    assert watch.seconds("c", 1) == [0]


def test_on_cuda_spans_are_events_and_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = next(clockwork)

        def elapsed_time(self, other: Event) -> float:
            return 1e3 * (other.at - self.at)

    clockwork = iter(range(10))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = spans.Spans(torch.device("cuda"))
    call = watch.wrapped("a", lambda: None)
    watch.begin_call()
    call()
    call()
    assert watch.seconds("a", 1) == [2.0]
