"""How a size trains: the defaults of every size in one table, and the schedules over steps. No torch: plans read it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vlpbench.archs.registry import UnknownName, nearest

if TYPE_CHECKING:
    from vlpbench.results.record import Cell


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a size trains with where a cell says nothing."""

    lr: float
    warmup: int
    """Steps of linear warm-up; never more than an eighth of the budget."""
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    """Largest global gradient norm."""
    mlm_probability: float
    queue_size: int
    momentum_rate: float
    alpha: float = 0.4
    temperature: float = 0.07
    finetune: int
    """Steps of fine-tuning on a task."""
    finetune_lr: float
    finetune_batch: int


_FAST = Defaults(
    lr=1.5e-3,
    warmup=100,
    weight_decay=0.05,
    mlm_probability=0.2,
    queue_size=512,
    momentum_rate=0.99,
    finetune=300,
    finetune_lr=5e-4,
    finetune_batch=64,
)
_PAPER = Defaults(
    lr=1e-4,
    warmup=1000,
    weight_decay=0.02,
    mlm_probability=0.15,
    queue_size=65536,
    momentum_rate=0.995,
    finetune=10_000,
    finetune_lr=2e-5,
    finetune_batch=256,
)
SIZES: dict[str, Defaults] = {
    "tiny": Defaults(
        lr=3e-3,
        warmup=10,
        weight_decay=0.05,
        mlm_probability=0.2,
        queue_size=64,
        momentum_rate=0.95,
        finetune=10,
        finetune_lr=1e-3,
        finetune_batch=16,
    ),
    "small": _FAST,
    "medium": Defaults(
        lr=5e-4,
        warmup=500,
        weight_decay=0.05,
        mlm_probability=0.2,
        queue_size=8192,
        momentum_rate=0.995,
        finetune=2000,
        finetune_lr=1e-4,
        finetune_batch=256,
    ),
    "base": _PAPER,
    "b32": _PAPER,
    "b16": _PAPER,
    "l14": _PAPER,
    "large": _PAPER,
}
"""Size -> defaults. ``base`` and up are ALBEF's pre-training (section 3.6 of arXiv:2107.07651).
The small sizes are chosen so that a budget of minutes shows the differences, and are equal for every architecture."""


def defaults(size: str) -> Defaults:
    """Raises `UnknownName` for a size without a row."""
    if size not in SIZES:
        raise UnknownName(nearest("size", size, list(SIZES)))
    return SIZES[size]


OFFICIAL_BETAS = (0.9, 0.999)
"""ALBEF's released code leaves AdamW's defaults, and clips no gradient."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training: everything the loop needs beside what is trained and on what."""

    steps: int
    batch: int
    lr: float
    warmup: int
    weight_decay: float
    betas: tuple[float, float]
    clip: float
    seed: int
    dtype: str = "fp32"
    """Type that autocast computes in; weights and optimiser stay in fp32."""
    decay: Literal["cosine", "linear"] = "cosine"
    """How the rate falls to 0 after the warm-up."""
    code: Literal["clean", "official"] = "clean"
    """Whose parameters decay: ours, or those of the released code."""

    def lr_at(self, step: int) -> float:
        """Learning rate of a step (from 0): linear warm-up, then half a cosine, or a line, to 0 at the last step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.decay == "linear":
            return self.lr * max(0.0, 1 - done)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def pretraining(cell: Cell) -> TrainConfig:
    """The cell's pre-training.

    Raises:
        ValueError: for a cell without a budget, or with a batch that holds no negatives.
    """
    if cell.budget is None:
        raise ValueError(f"cell {cell.id} ({cell.arch}, {cell.measure}) trains but names no budget; set budget = STEPS")
    if cell.batch < 2:
        raise ValueError(
            f"cell {cell.id} trains with batch = {cell.batch}: no row has a negative; set batch = 64 or so"
        )
    row = defaults(cell.size)
    return _config(row, steps=cell.budget, batch=cell.batch, lr=cell.lr or row.lr, cell=cell)


def vision_steps(cell: Cell) -> int:
    """Steps for which the image side is trained alone, before pre-training."""
    if cell.vision_init == "random":
        return 0
    return cell.vision_steps or max(1, (cell.budget or 0) // 2)


def seeing(cell: Cell) -> TrainConfig:
    """The training of the image side alone: as pre-training, for steps of its own."""
    return pretraining(cell.model_copy(update={"budget": vision_steps(cell)}))


def finetuning(cell: Cell) -> TrainConfig:
    """The cell's fine-tuning on a task; what it leaves open is the size's, the same for every architecture."""
    row = defaults(cell.size)
    steps = cell.finetune or row.finetune
    config = _config(
        row,
        steps=steps,
        batch=cell.finetune_batch or row.finetune_batch,
        lr=cell.finetune_lr or row.finetune_lr,
        cell=cell,
    )
    warmup = config.warmup if cell.finetune_warmup is None else round(cell.finetune_warmup * steps)
    return replace(config, warmup=warmup, decay=cell.finetune_decay)


def _config(row: Defaults, *, steps: int, batch: int, lr: float, cell: Cell) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch=batch,
        lr=lr,
        warmup=warmup_steps(row, steps),
        weight_decay=row.weight_decay,
        betas=row.betas if cell.code == "clean" else OFFICIAL_BETAS,
        clip=row.clip if cell.code == "clean" else math.inf,
        seed=cell.seed,
        dtype=cell.dtype,
        code=cell.code,
    )


def warmup_steps(row: Defaults, steps: int | None) -> int:
    """Steps that a training of so many warms up; of a training without end the size's."""
    return row.warmup if steps is None else min(row.warmup, steps // 8)


def alpha_at(step: int, alpha: float, *, epoch: int, steps: int) -> float:
    """Weight of soft targets at a step: from 0 to ``alpha`` over the first epoch (ALBEF, section 3.6).

    A budget of less than an epoch would never get there, so the ramp ends after 40 % of the steps at the latest.
    """
    ramp = max(1.0, min(float(epoch), 0.4 * steps))
    return alpha * min(1.0, step / ramp)


@dataclass(frozen=True, kw_only=True)
class OfficialSchedule:
    """ALBEF's own rates: a warm-up in stairs inside the first epoch, then half a cosine over epochs, in stairs as well.

    Beside ours: the rate rises every 100 iterations and from ``warmup_lr`` instead of 0, after that changes between
    epochs alone, and ends at ``min_lr``. A warm-up that is longer than the first epoch ends with it.
    """

    lr: float
    min_lr: float
    warmup_lr: float
    warmup: int
    """Stairs of 100 iterations."""
    epochs: int
    """Length of the cosine, which the warm-up is not part of."""
    epoch_steps: int
    """Iterations of an epoch."""

    def lr_at(self, step: int) -> float:
        """Learning rate of a step (from 0)."""
        epoch, iteration = divmod(step, self.epoch_steps)
        stairs = max(0, iteration - 1) // 100  # the rate is set after the optimiser's step of every 100th iteration
        if epoch == 0 and stairs < self.warmup:
            return self.warmup_lr + (self.lr - self.warmup_lr) * stairs / self.warmup
        done = min(1.0, epoch / self.epochs)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * done))
