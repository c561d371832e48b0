"""Looks at a training: they change nothing, cost what they may, repeat after a kill, and see what they should."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from vlpbench.benchmarks import scoring, validation
from vlpbench.benchmarks.checkpoint import StateFile
from vlpbench.benchmarks.curve import WINDOW, Curve, Diverged
from vlpbench.benchmarks.data.base import Swaps
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.loop import fit
from vlpbench.benchmarks.schedule import TrainConfig, pretraining
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import Pretrained, Pretraining, pretrain
from vlpbench.results.record import Cell

CPU = torch.device("cpu")
CELL = Cell(
    arch="albef",
    size="tiny",
    measure="retrieval",
    objectives=("itc", "itm", "mlm"),
    momentum="distill",
    batch=16,
    threads=1,
    data="scenes",
    budget=60,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# When to look


def test_looks_are_evenly_spaced_ends_of_windows() -> None:
    assert validation.look_steps(1000, most=99) == list(range(100, 1001, 100))
    assert validation.look_steps(1010, most=4) == [250, 500, 750, 1010]
    assert validation.look_steps(60, most=99) == [25, 50, 60]
    assert validation.look_steps(20, most=99) == [20]
    assert validation.look_steps(1000, most=1) == [1000]
    assert validation.look_steps(1000, most=0) == []
    for steps in range(1, 700, 7):
        for most in range(1, 12):
            found = validation.look_steps(steps, most=most)
            assert 1 <= len(found) <= most
            assert found == sorted(set(found))
            assert found[-1] == steps
            assert all(step % WINDOW == 0 for step in found[:-1])


def test_looks_take_no_more_than_their_share_of_the_work() -> None:
    # 40 images with 40 texts are 40 pairs to encode; 64 pictures with 4 statements each are 64 * 5 / 2 = 160.
    # The queue's probes are 64 more. A step takes 4 forwards of 16 pairs (matching runs two), times three: 192.
    found = planned(CELL)
    assert sorted(found.steps) == [25, 50, 60]
    assert 264 * 3 <= 0.1 * 60 * 192
    assert found.what == {
        "gallery": "val",
        "scorer": "embed",
        "images": 40,
        "texts": 40,
        "whole": None,
        "foils": 64,
        "attributes": ["colour", "shape"],
        "probes": 64,
    }
    few = planned(CELL.model_copy(update={"budget": 21}))  # 0.1 * 21 * 192 = 403: room for one
    assert sorted(few.steps) == [21]
    none = planned(CELL.model_copy(update={"budget": 10}))
    assert (none.steps, none.look(10)) == (frozenset(), {})
    assert none.what == {"none": "one look is a tenth of the work of 14 steps, and there are 10"}


def test_a_model_that_only_matches_is_scored_by_matching() -> None:
    # 40 * 40 fusions and 40 encodings, 64 * (4 fusions + 2.5): 1,640 + 416 = 2,056; a step takes 9 * 16 = 144.
    cell = CELL.model_copy(update={"arch": "vilt", "objectives": ("itm", "mlm"), "momentum": "off", "budget": 290})
    found = planned(cell)
    assert found.what["scorer"] == "match"
    assert sorted(found.steps) == [150, 290]
    assert 2 * 2056 <= 0.1 * 290 * 144 < 3 * 2056
    assert "trains no score" in planned(cell.model_copy(update={"objectives": ("mlm",)})).what["none"]


def test_only_the_part_that_all_scorers_rank_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "IMAGES", 12)
    found = planned(CELL)
    assert isinstance(found, validation.Watch)
    assert (found.part.images, found.what["whole"]) == (12, [40, 40])
    seen = found.look(1)
    assert {"recall", "recall_whole", "binding"} < set(seen)
    whole, part = open_source("scenes", size="tiny").gallery("val"), found.part
    assert torch.equal(part.image_batch(np.arange(12)), whole.image_batch(np.arange(12)))
    assert seen["binding"] == (seen["swap_colour"] + seen["swap_shape"]) / 2


class Interleaved:
    """Three images; texts of one lie apart."""

    owner = np.array([2, 0, 1, 0])
    images, texts = 3, 4

    def image_batch(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows)

    def text_batch(self, rows: np.ndarray) -> Any:
        return rows.tolist()


def test_a_part_of_a_gallery_keeps_the_texts_of_its_images() -> None:
    part = validation.First(Interleaved(), 2)
    assert (part.images, part.texts, part.owner.tolist()) == (2, 3, [0, 1, 0])
    assert part.text_batch(np.array([0, 2])) == [1, 3]
    assert validation.First(Interleaved(), 60).images == 3


def test_swaps_are_counted_on_the_first_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("scenes", size="tiny")
    assert isinstance(source, Swaps)
    asked = []

    def scores(engine: Any, image: Tensor, texts: list[Any], scorer: str) -> Tensor:
        asked.append(len(image))
        rows = torch.zeros(len(image), len(texts))
        rows[:, 1] = -1.0  # beats the first kind always, ties with the second, loses to the third
        rows[:, 3] = 1.0
        return rows

    monkeypatch.setattr(scoring, "score_pairs", scores)
    monkeypatch.setattr(validation, "BATCH", 8)
    engine: Any = None
    rates = validation.swap_rates(engine, source.foils(), "embed", 20)
    assert asked == [8, 8, 4]
    assert {kind: (rate.hits, rate.total) for kind, rate in rates.items()} == {
        "colour": (20, 20),
        "shape": (0, 20),
        "relation": (0, 20),
    }


def planned(cell: Cell) -> validation.Watch | validation.Blind:
    subject, source, config = Subject.build(cell), open_source("scenes", size="tiny"), pretraining(cell)
    task = Pretraining(module=subject.learner(), pairs=source.pairs("train"), device=CPU, config=config)
    return validation.watch(subject, task, source, config)


# Looking


def trained(cache: Path, cell: Cell = CELL) -> Pretrained:
    return pretrain(Subject.build(cell), open_source(cell.data, size=cell.size, seed=cell.seed), cache=cache)


def timeless(curve: Curve) -> dict[str, Any]:
    found = curve.as_dict()
    for part in (found, found["looks"]):
        for name in [name for name in part if name.endswith("_seconds")]:
            del part[name]
    return found


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_looking_changes_no_bit_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = trained(tmp_path / "seen")
    with monkeypatch.context() as patch:
        patch.setattr(validation, "LOOKS", 0)
        unseen = trained(tmp_path / "unseen")
    assert equal(seen.learner.state_dict(), unseen.learner.state_dict())
    assert seen.curve.looks.step == [25, 50, 60]
    assert unseen.curve.looks.step == []
    assert seen.curve.loss == unseen.curve.loss


def test_a_killed_training_is_looked_at_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole")
    step, steps = Pretraining.losses, iter(range(1, 200))

    def killed(self: Pretraining, rows: np.ndarray, number: int, generator: torch.Generator) -> dict[str, Tensor]:
        if number == 53:  # saved after 30 steps: the look at 25 is in the checkpoint, that at 50 is lost
            raise KeyboardInterrupt
        return step(self, rows, number, generator)

    with monkeypatch.context() as patch:
        patch.setattr(StateFile, "due", lambda self: next(steps) == 30)
        patch.setattr(Pretraining, "losses", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "torn")
    resumed = trained(tmp_path / "torn")
    assert not resumed.cached
    assert timeless(resumed.curve) == timeless(whole.curve)
    assert resumed.curve.looks.step == [25, 50, 60]
    assert equal(resumed.learner.state_dict(), whole.learner.state_dict())
    again = trained(tmp_path / "torn")
    assert again.cached
    assert again.curve == resumed.curve


class Slow:
    """A watch that takes its time, and draws."""

    steps = frozenset({25, 40})
    what: dict[str, Any] = {"scorer": "none"}  # noqa: RUF012

    def look(self, done: int) -> dict[str, float]:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            torch.rand(100)
        return {"recall": 50.0}


class Line:
    """Fits a line; gradients may overflow at a step."""

    def __init__(self, overflow: frozenset[int] = frozenset()) -> None:
        torch.manual_seed(7)
        self.module = nn.Linear(3, 1)
        self.x = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
        self.rows, self.overflow = 32, overflow
        self.after: list[int] = []
        self.skipped: list[int] = []
        self.weights: list[Tensor] = []
        self.now = 0

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.rows)

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.now = step
        self.weights.append(self.module.weight.detach().clone())
        output = self.module(self.x[rows])
        if step in self.overflow:
            output.register_hook(lambda gradient: gradient * float("inf"))
        return {"square": (output - self.x[rows].sum(1, keepdim=True)).square().mean()}

    def total(self, losses: Any) -> Tensor:
        return losses["square"]

    def after_step(self) -> None:
        self.after.append(self.now)

    def skip_step(self) -> None:
        self.skipped.append(self.now)


def config(**changes: Any) -> TrainConfig:
    given = {"steps": 40, "batch": 8, "lr": 0.01, "warmup": 5, "weight_decay": 0.05, "betas": (0.9, 0.98), "clip": 1.0}
    return TrainConfig(**{**given, "seed": 0, **changes})


def run(task: Line, watch: Any = None, **changes: Any) -> Curve:
    return fit(task, config(**changes), device=CPU, autocast=nullcontext, watch=watch)


def test_time_spent_looking_is_no_time_of_the_training() -> None:
    plain, curve = run(Line()), run(Line(), Slow())
    assert curve.loss == plain.loss
    looks = curve.looks
    assert (looks.step, looks.metrics, looks.what) == ([25, 40], {"recall": [50.0, 50.0]}, {"scorer": "none"})
    assert all(0.3 <= spent < 0.6 for spent in looks.spent_cpu_seconds)
    assert all(spent >= 0.2 for spent in looks.spent_wall_seconds)
    assert looks.cpu_seconds[1] == pytest.approx(curve.cpu_seconds[1], abs=0.01)
    assert curve.cpu_seconds[1] < 0.25  # forty steps of a line, and not two looks


def test_progress_is_told_what_was_seen() -> None:
    told: dict[int, dict[str, float]] = {}
    fit(
        Line(),
        config(),
        device=CPU,
        autocast=nullcontext,
        watch=Slow(),
        progress=lambda done, steps, means: told.update({done: means}),
    )
    assert {step: set(means) for step, means in told.items()} == {
        25: {"square", "total", "recall"},
        40: {"square", "total", "recall"},
    }


def test_weights_that_are_not_finite_are_not_looked_at() -> None:
    task = Line(overflow=frozenset({24}))  # the last step of a window: no loss has seen it yet
    with pytest.raises(Diverged, match="training diverged at step 25: weights are not finite"):
        run(task, Slow())


# fp16


def test_a_step_that_overflowed_moves_neither_weights_nor_teacher() -> None:
    task = Line(overflow=frozenset({7, 8}))
    curve = run(task, dtype="fp16")
    assert task.skipped == [7, 8]
    assert task.after == [step for step in range(40) if step not in (7, 8)]
    assert torch.equal(task.weights[7], task.weights[9])
    assert not torch.equal(task.weights[6], task.weights[7])
    assert not torch.equal(task.weights[9], task.weights[10])
    assert curve.skipped == [2, 0]
    assert curve.step == [25, 40]


def test_a_killed_fp16_training_keeps_its_scale_and_its_count(tmp_path: Path) -> None:
    whole = run(Line(overflow=frozenset({7, 33})), dtype="fp16")
    torn, saves = Line(overflow=frozenset({7, 33})), Tenth(path=tmp_path / "state", key="k")
    with pytest.raises(KeyboardInterrupt):
        fit(Killed(torn, 12), config(dtype="fp16"), device=CPU, autocast=nullcontext, checkpoint=saves)
    resumed = Line(overflow=frozenset({7, 33}))
    curve = fit(resumed, config(dtype="fp16"), device=CPU, autocast=nullcontext, checkpoint=saves)
    assert min(resumed.after) == 10
    assert timeless(curve) == timeless(whole)
    assert curve.skipped == [1, 1]


class Tenth(StateFile):
    """Saves after ten steps, instead of by the clock."""

    asked: int = 0

    def due(self) -> bool:
        self.asked += 1
        return self.asked == 10


class Killed:
    """A task that is killed before a step."""

    def __init__(self, task: Line, at: int) -> None:
        self.task, self.at, self.module, self.rows = task, at, task.module, task.rows
        self.order, self.total = task.order, task.total
        self.after_step, self.skip_step = task.after_step, task.skip_step

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == self.at:
            raise KeyboardInterrupt
        return self.task.losses(rows, step, generator)


def test_bf16_computes_in_bf16_and_keeps_weights_and_losses_in_fp32() -> None:
    cell = CELL.model_copy(update={"dtype": "bf16"})
    subject = Subject.build(cell)
    task = Pretraining(
        module=subject.learner(),
        pairs=open_source("scenes", size="tiny").pairs("train"),
        device=CPU,
        config=pretraining(cell),
    )
    seen: set[torch.dtype] = set()
    for module in subject.model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    short = config(steps=2, batch=16, dtype="bf16")
    curve = fit(task, short, device=CPU, autocast=subject.autocast)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in task.module.parameters()} == {torch.float32}
    assert curve.skipped == [0]
    with subject.autocast():
        losses = task.losses(np.arange(16), 0, torch.Generator().manual_seed(0))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_overflow_in_every_step_ends_the_training() -> None:
    with pytest.raises(Diverged, match="fp16 overflowed in all of the 25 steps before step 25; use bf16 or fp32"):
        run(Line(overflow=frozenset(range(40))), dtype="fp16")


def test_what_overflowed_never_becomes_a_negative() -> None:
    subject = Subject.build(CELL)
    learner = subject.learner()
    source = open_source(CELL.data, size=CELL.size)
    task = Pretraining(module=learner, pairs=source.pairs("train"), device=CPU, config=pretraining(CELL))
    before = {name: value.clone() for name, value in learner.momentum.state_dict().items()}  # pyright: ignore
    generator = torch.Generator().manual_seed(0)
    task.losses(np.arange(16), 0, generator)
    task.skip_step()
    assert equal(learner.momentum.state_dict(), before)  # pyright: ignore
    task.losses(np.arange(16, 32), 1, generator)
    task.after_step()
    kept = {name: value for name, value in learner.momentum.state_dict().items() if name.startswith("queue")}  # pyright: ignore
    other = Subject.build(CELL).learner()
    fresh = Pretraining(module=other, pairs=source.pairs("train"), device=CPU, config=pretraining(CELL))
    fresh.losses(np.arange(16, 32), 1, torch.Generator().manual_seed(0))
    fresh.after_step()
    assert equal({name: other.momentum.state_dict()[name] for name in kept}, kept)  # pyright: ignore
