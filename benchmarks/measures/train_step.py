"""One training step, and its phases: forward, backward, optimiser, momentum."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.measures.base import Samples

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

LIMITS = clock.Limits(seconds=3.0, least=2, most=50, warm_most=50)
LEARNING_RATE = 1e-4
PHASES = ("step_forward", "step_backward", "step_optimizer", "step_momentum")


class TrainStep:
    """Seconds of a step with the cell's objectives and momentum, AdamW, at the cell's batch."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Phases are told apart by events on CUDA and by the wall clock on a CPU, with no wait between them."""
        step = Step(subject)
        with subject.settings():
            timing = clock.measure(step.phases, limits=LIMITS, device=subject.device)
        flags, loss = timing.flags(), float(step.loss.detach())
        if not math.isfinite(loss):
            flags.append(f"loss: it ended at {loss}, and arithmetic on such numbers may take another time")
        phases = dict(zip(PHASES, map(list, timing.phases), strict=True))
        return Samples(
            values={"step": timing.total, **phases},
            detail=timing.detail() | {"pairs_per_step": cell.batch, "optimizer": "AdamW"},
            flags=flags,
        )


class Step:
    """A training step in four parts. Inputs and masked tokens lie on the device beforehand, as a loader would put them.

    Mixed precision is torch's own: autocast over the forward, and a scaled loss in fp16.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.learner = subject.learner()
        trained = [parameter for parameter in self.learner.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        self.scaler = torch.amp.GradScaler(subject.device.type, enabled=subject.cell.dtype == "fp16")
        self.loss: Tensor
        self.phases = (self.forward, self.backward, self.optimize, self.momentum)
        self._inputs = itertools.cycle([(batch, subject.draws(self.learner, batch)) for batch in subject.batches])

    def forward(self) -> None:
        """Student, and teacher where there is one, draw of hard negatives, losses."""
        batch, draws = next(self._inputs)
        with self.subject.autocast():
            self.loss = self.learner.total(self.learner(batch, draws=draws))

    def backward(self) -> None:
        """Gradients."""
        self.scaler.scale(self.loss).backward()

    def optimize(self) -> None:
        """AdamW; gradients are dropped, not zeroed."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def momentum(self) -> None:
        """Moves the teacher and writes the queue; nothing without them."""
        self.learner.after_step()
