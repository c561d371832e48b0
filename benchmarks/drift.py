"""How far embeddings in a momentum queue are from what the momentum model would give now: looked at while it trains.

Shape letters: P probes, E joint embedding size, Q queue, B batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vlpbench.archs.model import Pass
from vlpbench.benchmarks.loop import Rows
from vlpbench.benchmarks.train import batch_to

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.objectives.momentum import Momentum
    from vlpbench.archs.objectives.queue import Queue
    from vlpbench.benchmarks.data.base import Pairs
    from vlpbench.benchmarks.loop import Task
    from vlpbench.benchmarks.schedule import TrainConfig
    from vlpbench.benchmarks.scoring import Engine

PROBES = 64
"""Entries of the queue that are encoded again, at even distances from the newest to the oldest."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Compares entries of a queue with the same pairs encoded anew by the momentum model as it is."""

    engine: Engine
    momentum: Momentum
    queue: Queue
    pairs: Pairs
    rows: Rows
    batch: int
    """B."""

    @classmethod
    def of(cls, engine: Engine, pairs: Pairs, task: Task, config: TrainConfig) -> Drift | None:
        """None without a queue, and in fp16: steps that overflow leave no entry, so that places tell nothing."""
        momentum = engine.learner.momentum
        if momentum is None or momentum.queue is None or config.dtype == "fp16":
            return None
        rows = Rows(task, config)
        return cls(engine=engine, momentum=momentum, queue=momentum.queue, pairs=pairs, rows=rows, batch=config.batch)

    def seen(self, done: int) -> dict[str, float]:
        """1 - cosine: means over the probes ``drift_image`` and ``drift_text``, and the oldest one's ``drift_oldest``.

        Args:
            done: steps done, each of which has put a batch into the queue.
        """
        number = entries(done, batch=self.batch, queue=self.queue.ids.shape[1])
        column = torch.from_numpy(number % self.queue.ids.shape[1])
        rows = np.array([self.rows.at(step)[place] for step, place in zip(*np.divmod(number, self.batch), strict=True)])
        batch = batch_to(self.pairs.batch(rows), self.engine.device)
        twin: Any = self.momentum.twin
        with self.engine.autocast():
            view = Pass(twin["model"], batch)
            now = view.image_embed.float(), view.text_embed.float()
        held = (side[:, column.to(side.device)].T for side in (self.queue.image, self.queue.text))
        image, text = (1 - _cosine(*pair) for pair in zip(now, held, strict=True))
        oldest = (image[0] + text[0]) / 2
        return {"drift_image": float(image.mean()), "drift_text": float(text.mean()), "drift_oldest": float(oldest)}


def entries(done: int, *, batch: int, queue: int) -> np.ndarray:
    """(P,) numbers of pairs, counted from the first of the training, whose embeddings the queue holds, oldest first.

    Pair n was row ``n % batch`` of step ``n // batch`` and lies in column ``n % queue``.
    """
    written = done * batch
    oldest = max(0, written - queue)
    return np.unique(np.linspace(oldest, written - 1, min(PROBES, written - oldest)).round().astype(np.int64))


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(one, other.to(one.dtype), dim=1)
