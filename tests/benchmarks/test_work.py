"""Work and peaks: bytes and FLOPs by hand, and a rate that is work over time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from vlpbench.benchmarks import clock, peaks, work
from vlpbench.benchmarks.pool import Pool
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell, Series, Status

TINY = {"arch": "clip", "size": "tiny", "measure": "latency"}


def counted(cell: Cell) -> dict[str, float]:
    return work.Work().run(Subject.build(cell, meta=True), cell).detail


def test_an_inference_moves_weights_inputs_and_outputs() -> None:
    cell = Cell(**TINY, batch=2)
    model = Subject.build(cell, meta=True).model
    table = model.word_embedding().weight
    rows = 2 * model.text_len * table.shape[1]  # two texts are looked up
    unused = 1  # the temperature of the loss is no part of the model; all else is read
    numbers = sum(p.numel() for p in model.parameters()) - table.numel() + min(rows, table.numel())
    outputs = 2 * 2 * model.embed_dim
    height, width = model.image_size
    inputs = 2 * (3 * height * width * 4 + model.text_len * (8 + 1))
    found = counted(cell)
    assert found["bytes"] == pytest.approx(4 * (numbers + outputs) + inputs, abs=4 * unused)
    assert found["intensity"] == found["flops"] / found["bytes"]
    half = counted(cell.model_copy(update={"dtype": "bf16"}))
    assert half["flops"] == found["flops"]
    assert half["bytes"] - inputs == pytest.approx((found["bytes"] - inputs) / 2)


def test_a_step_reads_twice_and_writes_gradients_and_a_teacher_is_read_once() -> None:
    fields = {"arch": "albef", "size": "tiny", "measure": "train_step", "objectives": ("itc", "itm", "mlm"), "batch": 2}
    off = Subject.build(Cell(**fields), meta=True)
    trained = sum(p.numel() for p in off.learner().parameters() if p.requires_grad)
    with_teacher = Subject.build(Cell(**fields, momentum="distill"), meta=True).learner()
    assert with_teacher.momentum is not None
    copy = sum(p.numel() for p in with_teacher.momentum.twin.parameters())
    plain, distilled = counted(Cell(**fields)), counted(Cell(**fields, momentum="distill"))
    assert plain["bytes"] > 12 * trained
    assert distilled["bytes"] - plain["bytes"] == 4 * copy
    assert distilled["flops"] > plain["flops"]


def test_work_is_counted_side_by_side_and_what_cannot_be_counted_says_why() -> None:
    pool = FakePool()
    cells = [Cell(**TINY, seed=seed) for seed in range(3)] + [Cell(**TINY, dtype="tf32")]
    found = peaks.count_work(pool, cells, limit=5, width=2, subject="here:Thing")  # pyright: ignore[reportArgumentType]
    assert pool.most == 2
    assert {job.measure.target for job in pool.started} == {"vlpbench.benchmarks.work:Work"}
    assert {job.subject for job in pool.started} == {"here:Thing"}
    assert found == {cell.id: {"side": 8} for cell in cells[:3]} | {cells[3].id: {"reason": "tf32 is a mode of CUDA"}}


def test_a_peak_is_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peaks.SIDE, "cpu", 64)
    monkeypatch.setattr(clock, "wall", lambda phases, calls: ([phase() for phase in phases], [[0.001]])[1])
    found = peaks.Peak().run(peaks.Bare(), Cell(**TINY))
    assert found.values["peak_flops"] == pytest.approx([2 * 64**3 / 0.001] * peaks.SAMPLES)
    assert found.detail == {"side": 64, "dtype": "fp32", "device": "cpu"}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_peak_is_measured_in_the_cells_type(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peaks.SIDE, "cpu", 32)
    seen: list[torch.dtype] = []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, out: (seen.append(a.dtype), multiply(a, b, out=out))[1])
    assert min(peaks.Peak().run(peaks.Bare(), Cell(**TINY, dtype=dtype)).values["peak_flops"]) > 0
    assert set(seen) == {{"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]}


class FakePool:
    """Answers jobs in the order in which they were started, one at a time."""

    keep_busy = Pool.keep_busy

    def __init__(self) -> None:
        self.started: list[peaks.Job] = []
        self.running: list[peaks.Job] = []
        self.most = 0

    def __len__(self) -> int:
        return len(self.running)

    def start(self, job: peaks.Job, limit: float) -> None:
        self.started.append(job)
        self.running.append(job)
        self.most = max(self.most, len(self))

    def wait(self):
        job = self.running.pop(0)
        running = SimpleNamespace(job=job)
        if job.cell.dtype == "tf32":
            return [(running, peaks_outcome(Status.UNSUPPORTED, reason="tf32 is a mode of CUDA\nand more"))]
        series = Series(unit="FLOP/s", values=(1e9, 3e9, 2e9))
        return [(running, peaks_outcome(Status.OK, samples={"peak_flops": series}, detail={"side": 8}))]


def peaks_outcome(status: Status, **fields):
    from vlpbench.benchmarks.worker import Outcome

    return Outcome(status=status, **fields)


def test_each_type_and_number_of_threads_has_one_peak_and_the_fastest_counts() -> None:
    pool = FakePool()
    one, other = Cell(**TINY), Cell(**TINY, seed=1)
    two, tf32 = Cell(**TINY, threads=2), Cell(**TINY, dtype="tf32")
    found = peaks.measure(pool, [one, other, two, tf32], limit=5)  # pyright: ignore[reportArgumentType]
    assert [job.cell for job in pool.started] == [one, two, tf32]
    assert found[peaks.key_of(other)] == {"flops_per_second": 3e9, "samples": [1e9, 3e9, 2e9], "side": 8}
    assert found[peaks.key_of(tf32)] == {"reason": "tf32 is a mode of CUDA"}
