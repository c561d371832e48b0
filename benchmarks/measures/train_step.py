"""One training step, and its phases: forward, backward, optimiser, momentum."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from vlpbench.benchmarks import clock
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from vlpbench.archs.learner import Draws
    from vlpbench.archs.types import Batch
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

LIMITS = clock.Limits(seconds=3.0, least=1, most=50, warm_most=50)
"""One sample is enough of a step that is slow: every round brings another, from a process of its own."""
LEARNING_RATE = 1e-4
PHASES = ("step_forward", "step_backward", "step_optimizer", "step_momentum")
VERBS = ("encode_image", "encode_text", "prepare_image", "embed_image", "embed_text", "fuse", "fuse_pooled", "decode")
"""What a teacher is asked for. Where one of them calls another the outermost counts."""
PARTS = ("step_teacher", "step_ema", "step_queue")
"""Of the forward the first; of the momentum phase the others."""


class TrainStep:
    """Seconds of a step with the cell's objectives and momentum, AdamW, at the cell's batch."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Phases are told apart by events on CUDA and by the wall clock on a CPU, with no wait between them."""
        step = Step(subject)
        spans = _watched(step)
        with subject.settings():
            timing = clock.measure(step.phases, limits=LIMITS, device=subject.device)
        flags, loss = timing.flags(), float(step.loss.detach())
        if not math.isfinite(loss):
            flags.append(f"loss: it ended at {loss}, and arithmetic on such numbers may take another time")
        phases = {name: list(seconds) for name, seconds in zip(PHASES, timing.phases, strict=True)}
        if step.learner.momentum is not None:
            phases |= {name: spans.seconds(name, len(timing.total)) for name in PARTS}
        return Samples(
            values={"step": timing.total, **phases},
            detail=timing.detail() | {"pairs_per_step": cell.batch, "optimizer": "AdamW"},
            flags=flags,
        )


def _watched(step: Step) -> Spans:
    """Puts stamps around what momentum adds to the step: the teacher's forward, its move, the queue."""
    spans, momentum = Spans(step.subject.device), step.learner.momentum
    if momentum is not None:
        twin: Any = momentum.twin
        spans.wrap("step_teacher", twin["model"], VERBS)
        for head in twin["heads"].values():
            spans.wrap("step_teacher", head, ("forward",))
        spans.wrap("step_ema", momentum, ("update",))
        spans.wrap("step_queue", momentum, ("enqueue",))
    forward, *rest = step.phases

    def begin() -> None:
        spans.begin_call()
        forward()

    step.phases = (begin, *rest)
    return spans


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
        self.phases: tuple[Callable[[], None], ...] = (self.forward, self.backward, self.optimize, self.momentum)
        self._inputs: Iterator[tuple[Batch, Draws]] = itertools.cycle(
            [(batch, subject.draws(self.learner, batch)) for batch in subject.batches]
        )

    def feed(self, batch: Batch, draws: Draws) -> None:
        """Sets the inputs of the steps from here on."""
        self._inputs = itertools.repeat((batch, draws))

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
