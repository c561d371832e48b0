"""Schedules, the loop, its files, and the cache of pre-training: above all, a killed run ends as if it had not been."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.checkpoint import StateFile, locked
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.loop import WINDOW, Diverged, adamw, fit
from vlpbench.benchmarks.schedule import TrainConfig, alpha_at
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import Pretraining, pretrain, pretrain_key
from vlpbench.results.record import Cell

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**changes: Any) -> TrainConfig:
    given = {"steps": 40, "batch": 8, "lr": 0.01, "warmup": 5, "weight_decay": 0.05, "betas": (0.9, 0.98), "clip": 1.0}
    return TrainConfig(**{**given, "seed": 0, **changes})


# Schedules


def test_rate_rises_linearly_and_falls_by_a_cosine() -> None:
    rate = config(steps=110, warmup=10, lr=2.0).lr_at
    assert [rate(0), rate(4), rate(9), rate(10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert rate(35) == pytest.approx(2.0 * (1 + 0.5**0.5) / 2)  # a quarter of the way: cos 45 degrees
    assert [rate(60), rate(110)] == pytest.approx([1.0, 0.0])


def test_soft_targets_ramp_over_an_epoch_or_two_fifths_of_a_short_budget() -> None:
    long = [alpha_at(step, 0.4, epoch=100, steps=1000) for step in (0, 50, 100, 999)]
    assert long == pytest.approx([0.0, 0.2, 0.4, 0.4])
    short = [alpha_at(step, 0.4, epoch=625, steps=800) for step in (0, 160, 320, 799)]
    assert short == pytest.approx([0.0, 0.2, 0.4, 0.4])


def test_a_cell_overrides_the_defaults_of_its_size() -> None:
    cell = Cell(arch="clip", size="small", measure="retrieval", batch=64, budget=1200, seed=3)
    assert schedule.pretraining(cell) == TrainConfig(
        steps=1200, batch=64, lr=1.5e-3, warmup=100, weight_decay=0.05, betas=(0.9, 0.98), clip=1.0, seed=3
    )
    assert schedule.pretraining(cell.model_copy(update={"lr": 1e-4})).lr == 1e-4
    assert schedule.pretraining(cell.model_copy(update={"budget": 80})).warmup == 10
    tuned = schedule.finetuning(cell)
    assert (tuned.steps, tuned.batch, tuned.lr) == (300, 64, 5e-4)
    assert schedule.finetuning(cell.model_copy(update={"finetune": 50})).steps == 50


def test_a_cell_that_cannot_be_trained_is_refused() -> None:
    cell = Cell(arch="clip", size="small", measure="retrieval", batch=64)
    with pytest.raises(ValueError, match="names no budget"):
        schedule.pretraining(cell)
    with pytest.raises(ValueError, match="batch = 1"):
        schedule.pretraining(Cell(arch="clip", size="small", measure="retrieval", budget=10))
    with pytest.raises(ValueError, match="unknown size 'smal': did you mean 'small'"):
        schedule.defaults("smal")


# The loop, on a task that draws from the generator and from dropout


class Once(StateFile):
    """Saves after one step of the run, instead of by the clock."""

    at: int = 10
    asked: int = 0

    def due(self) -> bool:
        self.asked += 1
        return self.asked == self.at


class Line:
    """Linear regression with a noisy input."""

    def __init__(self, rows: int = 36) -> None:
        torch.manual_seed(7)
        self.module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Dropout(0.2), nn.Linear(4, 1))
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(rows, 3, generator=generator)
        self.y = self.x.sum(1, keepdim=True)
        self.rows = rows
        self.seen: list[list[int]] = []
        self.stop_at: int | None = None
        self.scale: Callable[[int], float] = lambda step: 1.0

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.rows)

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(rows.tolist())
        x = self.x[rows] + 0.1 * torch.randn(len(rows), 3, generator=generator)
        return {"square": self.scale(step) * (self.module(x) - self.y[rows]).square().mean()}

    def total(self, losses: Any) -> Tensor:
        return losses["square"]

    def after_step(self) -> None:
        pass


def run(task: Line, checkpoint: StateFile | None = None, **changes: Any) -> dict[str, Any]:
    curve = fit(task, config(**changes), device=CPU, autocast=nullcontext, checkpoint=checkpoint)
    return {
        "step": curve.step,
        "loss": curve.loss,
        "weights": {name: value.tolist() for name, value in task.module.state_dict().items()},
    }


@pytest.mark.parametrize("stop_at", [1, 10, WINDOW, 39])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    whole = run(Line())
    checkpoint = Once(path=tmp_path / "state", key="k")
    checkpoint.at = stop_at
    torn = Line()
    torn.stop_at = min(stop_at + 2, 39)  # what was done since the last save is lost
    with pytest.raises(KeyboardInterrupt):
        run(torn, checkpoint)
    torch.manual_seed(99)  # whatever else happened in between
    resumed = Line()
    with torch.no_grad():
        for parameter in resumed.module.parameters():
            parameter.zero_()
    assert run(resumed, StateFile(path=tmp_path / "state", key="k")) == whole
    assert len(resumed.seen) == 40 - stop_at


def test_learns_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    task = Line()
    torch.manual_seed(5)
    curve = fit(task, config(steps=200), device=CPU, autocast=nullcontext)
    assert torch.equal(torch.rand(3), expected)
    assert curve.step == list(range(WINDOW, 201, WINDOW))
    assert curve.loss["square"] == curve.loss["total"]
    assert curve.loss["total"][-1] < 0.3 * curve.loss["total"][0]
    assert np.all(np.diff(curve.cpu_seconds) >= 0)
    assert len(curve.wall_seconds) == len(curve.step)


def test_epochs_are_new_permutations_without_repeats() -> None:
    first, again, other = Line(), Line(), Line()
    run(first)
    run(again)
    run(other, seed=1)
    assert first.seen == again.seen != other.seen
    # 36 rows make 4 batches of 8 an epoch, and 4 are left out.
    epochs = [tuple(row for batch in first.seen[start : start + 4] for row in batch) for start in range(0, 40, 4)]
    assert all(len(set(epoch)) == 32 for epoch in epochs)
    assert len(set(epochs)) == 10
    with pytest.raises(ValueError, match="a batch of 8 cannot be filled from 7 rows"):
        run(Line(rows=7))


def test_progress_is_told_of_every_window_and_of_the_end() -> None:
    told: list[tuple[int, int, set[str]]] = []

    def progress(done: int, steps: int, means: dict[str, float]) -> None:
        told.append((done, steps, set(means)))

    fit(Line(), config(steps=30), device=CPU, autocast=nullcontext, progress=progress)
    assert told == [(WINDOW, 30, {"square", "total"}), (30, 30, {"square", "total"})]


@pytest.mark.parametrize("scale", [lambda step: float("nan") if step == 30 else 1.0, lambda step: 1.2**step])
def test_a_worthless_loss_ends_the_training(scale: Callable[[int], float]) -> None:
    task = Line()
    task.scale = scale
    with pytest.raises(Diverged, match=r"diverged before step 50: square .*\(began at .*\); lower lr 0\.00"):
        run(task, steps=100)


def test_only_matrices_decay_and_only_the_trained_are_stepped() -> None:
    module = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 2), "norm": nn.LayerNorm(4), "frozen": nn.Linear(2, 2)})
    module["frozen"].requires_grad_(False)
    module.register_parameter("temperature", nn.Parameter(torch.tensor(0.07)))
    module.register_parameter("position_bias", nn.Parameter(torch.zeros(2, 2)))
    names = {id(p): name for name, p in module.named_parameters()}
    decayed, kept = adamw(module, config()).param_groups
    assert {names[id(p)] for p in decayed["params"]} == {"conv.weight"}
    assert {names[id(p)] for p in kept["params"]} == {
        "conv.bias",
        "norm.weight",
        "norm.bias",
        "temperature",
        "position_bias",
    }
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    officially = {names[id(p)] for p in adamw(module, config(code="official")).param_groups[0]["params"]}
    assert officially == {"conv.weight", "temperature", "position_bias"}


# Files


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    file = StateFile(path=tmp_path / "folder" / "state", key="k")
    assert file.load() is None
    file.save({"tensor": torch.arange(3), "step": 4, "curve": {"loss": [0.5]}})
    found = file.load()
    assert found is not None
    assert (found["tensor"].tolist(), found["step"], found["curve"]) == ([0, 1, 2], 4, {"loss": [0.5]})
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["state"]
    file.remove()
    assert file.load() is None


def test_a_torn_or_foreign_file_is_not_used_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = StateFile(path=tmp_path / "state", key="k")
    file.save({"tensor": torch.arange(1000)})
    assert StateFile(path=file.path, key="other").load() is None
    assert "belongs to another training" in caplog.text
    file.path.write_bytes(file.path.read_bytes()[:500])
    assert file.load() is None
    assert "cannot be read" in caplog.text


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(path=tmp_path / "state", key="k")
    file.save({"step": 1})

    def full(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space"):
            file.save({"step": 2})
    assert file.load() == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    entered = threading.Event()

    def wait() -> None:
        with locked(tmp_path / "lock"):
            entered.set()

    thread = threading.Thread(target=wait)
    with locked(tmp_path / "lock"):
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()


# Pre-training

CELL = Cell(
    arch="albef",
    size="tiny",
    measure="retrieval",
    objectives=("itc", "itm", "mlm"),
    momentum="distill",
    batch=16,
    threads=1,
    data="scenes",
    budget=20,
)
OTHER = {
    "arch": "clip",
    "size": "small",
    "objectives": ("itc",),
    "weights": (1.0, 2.0, 1.0),
    "momentum": "off",
    "negatives": "uniform",
    "queue_size": 32,
    "momentum_rate": 0.5,
    "alpha": 0.1,
    "batch": 8,
    "image": (64, 64),
    "text_len": 12,
    "dtype": "bf16",
    "device": "cuda",
    "threads": 2,
    "compile": True,
    "attention": "eager",
    "data": "scenes-few",
    "noise": 0.5,
    "captions": "capfilt",
    "budget": 21,
    "lr": 0.1,
    "seed": 1,
    "changes": (("depth", 2),),
    "measure": "vqa",
    "scorer": "match",
    "k": 4,
    "finetune": 10,
    "finetune_momentum": "distill",
    "distilled": ("itc",),
    "label_smoothing": 0.1,
    "positives": "pair",
    "whole_words": True,
    "augment": "randaugment",
    "boxes": "detected",
    "code": "official",
    "channels_last": True,
    "memory_limit": "1GiB",
    "checkpoint": "weights.pth@0123456789abcdef",
    "data_options": (("captions", "all"),),
    "vision_init": "labelled",
    "vision_steps": 5,
    "protocol": "zero_shot",
    "finetune_lr": 1e-5,
    "finetune_batch": 8,
    "finetune_warmup": 0.1,
    "finetune_decay": "linear",
}
AFTERWARDS = {"measure", "scorer", "k", "augment", "protocol"} | {name for name in OTHER if name.startswith("finetune")}


@pytest.mark.parametrize("name", sorted(Cell.model_fields))
def test_key_holds_what_determines_the_weights(name: str) -> None:
    same = pretrain_key(CELL) == pretrain_key(CELL.model_copy(update={name: OTHER[name]}))
    assert same == (name in AFTERWARDS)


def test_key_needs_no_torch() -> None:
    code = (
        "import sys; from vlpbench.benchmarks.train import pretrain_key; from vlpbench.results.record import Cell;"
        "print(pretrain_key(Cell.model_validate_json(sys.argv[1]))); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, CELL.model_dump_json()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, pretrain_key(CELL))


def weights(cache: Path) -> dict[str, Tensor]:
    source = open_source(CELL.data, size=CELL.size, seed=CELL.seed)
    return pretrain(Subject.build(CELL), source, cache=cache).learner.state_dict()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_pretraining_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(tmp_path / "whole")
    step, steps = Pretraining.losses, iter(range(1, 100))

    def killed(self: Pretraining, rows: np.ndarray, number: int, generator: torch.Generator) -> dict[str, Tensor]:
        if number == 12:
            raise KeyboardInterrupt
        return step(self, rows, number, generator)

    with monkeypatch.context() as patch:
        patch.setattr(StateFile, "due", lambda self: next(steps) == 10)
        patch.setattr(Pretraining, "losses", killed)
        with pytest.raises(KeyboardInterrupt):
            weights(tmp_path / "torn")
    assert {path.suffix for path in (tmp_path / "torn").iterdir()} == {".lock", ".checkpoint"}
    assert equal(weights(tmp_path / "torn"), whole)
    assert {path.suffix for path in (tmp_path / "torn").iterdir()} == {".lock", ".weights"}


def test_a_finished_pretraining_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, trained = open_source("scenes", size="tiny"), []
    step = Pretraining.after_step
    monkeypatch.setattr(Pretraining, "after_step", lambda self: (trained.append(1), step(self))[1])
    first = pretrain(Subject.build(CELL), source, cache=tmp_path)
    assert (len(trained), first.cached) == (20, False)
    found = pretrain(Subject.build(CELL), source, cache=tmp_path)
    assert (len(trained), found.cached, found.learner.training) == (20, True, False)
    assert equal(found.learner.state_dict(), first.learner.state_dict())
    assert found.curve == first.curve
    monkeypatch.setattr(type(source), "hash", "of other content")
    assert not pretrain(Subject.build(CELL), source, cache=tmp_path).cached
    (path,) = tmp_path.glob("*.weights")
    path.write_bytes(path.read_bytes()[:1000])
    assert not pretrain(Subject.build(CELL), source, cache=tmp_path).cached
