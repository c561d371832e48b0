"""The one training loop: for pre-training and for fine-tuning, resumable to the same bits on a CPU.

Nothing random outlives a step: the order of the data follows from (seed, epoch) and every draw of a step from
(seed, step). So a state is the weights, the optimiser and the number of steps done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from vlpbench.archs.learner import decay_groups
from vlpbench.benchmarks.curve import WINDOW, Curve, Diverged, Meter, Watch
from vlpbench.benchmarks.data.ahead import expecting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from vlpbench.benchmarks.checkpoint import StateFile
    from vlpbench.benchmarks.schedule import TrainConfig

    Progress = Callable[[int, int, dict[str, float]], None]
    """Called with steps done, steps in all, mean losses since the last call and what a watch saw in between."""


class Task(Protocol):
    """What is trained, and on what."""

    @property
    def module(self) -> nn.Module:
        """Everything whose parameters and buffers make up the state."""
        ...

    @property
    def rows(self) -> int:
        """Training samples."""
        ...

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All rows once, in the order of an epoch."""
        ...

    def losses(self, rows: np.ndarray, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalar losses of a batch by name, unweighted."""
        ...

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The scalar that is minimised."""
        ...

    def after_step(self) -> None:
        """Called once the optimiser has moved the weights."""
        ...


@runtime_checkable
class Skips(Protocol):
    """A task that keeps something of a step until `Task.after_step`."""

    def skip_step(self) -> None:
        """Called instead of `Task.after_step` where fp16 overflowed and the weights did not move."""
        ...


@runtime_checkable
class Reading(Protocol):
    """A task whose data may be read ahead."""

    @property
    def reads(self) -> Any:
        """What the rows of a step are asked of."""
        ...


class Rows:
    """The batches of an endless run of epochs; the rows that do not fill a last batch are left out of their epoch."""

    def __init__(self, task: Task, config: TrainConfig) -> None:
        if task.rows < config.batch:
            raise ValueError(f"a batch of {config.batch} cannot be filled from {task.rows} rows; use a smaller batch")
        self._task, self._config = task, config
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def at(self, step: int) -> np.ndarray:
        """(batch,) rows of a step, counted from 0 over all epochs."""
        batch = self._config.batch
        epoch, place = divmod(step, self._task.rows // batch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._task.order(np.random.default_rng([self._config.seed, epoch]))
        return self._order[place * batch : (place + 1) * batch]


def fit(
    task: Task,
    config: TrainConfig,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    checkpoint: StateFile | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Curve:
    """Trains ``task.module`` in place, from the checkpoint's step on where it holds one.

    Args:
        task: its module is on ``device`` and in training mode.
        config: steps, rates and seed.
        device: where the module is.
        autocast: entered anew for the forward of every step.
        checkpoint: saved when due; it is left for the caller to remove.
        progress: called once a window.
        watch: asked at its steps; its time is no time of the training, and its draws are none of it.

    Raises:
        Diverged: for a loss that is not finite or has exploded, at most `WINDOW` steps later.
        ValueError: for fewer rows than a batch.
    """
    run = _Run(task, config, device, checkpoint)
    if watch:
        run.meter.curve.looks.what = watch.what
    rows = Rows(task, config)
    upcoming = (rows.at(step) for step in range(run.done, config.steps))
    with (
        expecting(task.reads if isinstance(task, Reading) else None, upcoming),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        for step in range(run.done, config.steps):
            losses, moved = run.step(step, autocast)
            run.meter.add(losses, moved=moved)
            if (step + 1) % WINDOW == 0 or step + 1 == config.steps:
                means = run.meter.look(step + 1, config.lr_at(step))
                if watch and step + 1 in watch.steps:
                    run.require_finite(step + 1)
                    means |= run.meter.watched(step + 1, watch)
                if progress:
                    progress(step + 1, config.steps, means)
            if checkpoint and checkpoint.due() and step + 1 < config.steps:
                checkpoint.save(run.state(step + 1))
    return run.meter.curve


class _Run:
    """The state of a training, and one step of it."""

    def __init__(self, task: Task, config: TrainConfig, device: torch.device, checkpoint: StateFile | None) -> None:
        self.task, self.config, self.device = task, config, device
        self.rows = Rows(task, config)
        self.parameters = [p for p in task.module.parameters() if p.requires_grad]
        self.optimizer = adamw(task.module, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.dtype == "fp16")
        self.generator = torch.Generator()
        self.done = 0
        state = checkpoint.load() if checkpoint else None
        if state:
            task.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.done = state["step"]
        self.meter = Meter(Curve.of(state["curve"]) if state else Curve(), state["meter"] if state else None)

    def step(self, step: int, autocast: Callable[[], AbstractContextManager[Any]]) -> tuple[dict[str, Tensor], bool]:
        """Forward, backward, clip, optimise; the detached losses and their ``total``, and whether the weights moved."""
        self.generator.manual_seed(_seed(self.config.seed, step, 0))
        self._seed_dropout(_seed(self.config.seed, step, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(step)
        with autocast():
            losses = self.task.losses(self.rows.at(step), step, self.generator)
            total = self.task.total(losses)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, self.config.clip, foreach=True)
        moved = self._optimise()
        self.optimizer.zero_grad(set_to_none=True)
        if moved:
            self.task.after_step()
        elif isinstance(self.task, Skips):
            self.task.skip_step()
        return {name: loss.detach().float() for name, loss in {**losses, "total": total}.items()}, moved

    def require_finite(self, done: int) -> None:
        """Raises `Diverged` for weights that the last step broke: its own loss cannot show it yet."""
        if not all(bool(p.isfinite().all()) for p in self.parameters):
            rate = self.config.lr_at(done - 1)
            raise Diverged(f"training diverged at step {done}: weights are not finite; lower lr {rate:.3g}")

    def _optimise(self) -> bool:
        """Whether the gradients were finite: the scaler leaves out a step that overflowed, and halves its scale."""
        if not self.scaler.is_enabled():
            self.optimizer.step()
            return True
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def _seed_dropout(self, seed: int) -> None:
        # torch.manual_seed also asks every backend that is not in use, which takes longer than some steps' optimiser.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def state(self, done: int) -> dict[str, Any]:
        """For a checkpoint after ``done`` steps."""
        return {
            "module": self.task.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "meter": self.meter.state(),
            "curve": self.meter.curve.as_dict(),
            "step": done,
        }


def adamw(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels only, not biases, gains and temperatures; or as the released code does."""
    kept, decayed = decay_groups(module, config.weight_decay, code=config.code)
    return torch.optim.AdamW([decayed, kept], lr=config.lr, betas=config.betas, fused=True)


def _seed(*path: int) -> int:
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0])
