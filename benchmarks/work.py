"""What a timed call has to do, counted on meta once a run: FLOPs, and the bytes that it cannot do without moving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from vlpbench.benchmarks.measures import base as measures
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.flops import components, step
from vlpbench.benchmarks.measures.params import touched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
"""Of a number, in the type that a cell computes in."""


class Work:
    """FLOPs, bytes and intensity of one call at the cell's batch: an inference, or a training step without its
    optimiser, which has no FLOPs by our count."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """``subject`` is on the meta device; the detail is what records keep."""
        with subject.settings():
            found = _step(subject) if measures.spec(cell.measure).trains else _inference(subject)
        return Samples(values={"flops_forward": [found["flops"]]}, detail=found)


def _inference(subject: Subject) -> dict[str, Any]:
    flops = sum(part.flops for part in components(subject).values())
    weights, outputs = _read(subject)
    size = BYTES[subject.cell.dtype]
    moved = size * (weights + outputs) + _inputs(subject)
    return {"flops": flops, "bytes": moved, "intensity": flops / moved}


def _step(subject: Subject) -> dict[str, Any]:
    learner = subject.learner()
    flops = step(subject, learner)["total"]
    teacher = () if learner.momentum is None else learner.momentum.twin.parameters()
    copies = sum(parameter.numel() for parameter in teacher)
    trained = sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)
    # Read forward and backward, and as many gradients written; a teacher's are read once.
    moved = BYTES[subject.cell.dtype] * (3 * trained + copies) + _inputs(subject)
    return {"flops": flops, "bytes": moved, "intensity": flops / moved}


def _read(subject: Subject) -> tuple[int, int]:
    """Weights that an inference reads, of a table the rows that are looked up; numbers that it gives out."""
    batch, found = subject.batch(), []
    with torch.no_grad():
        used = touched(subject.model, lambda: found.extend(subject.forward(batch)))
    named = dict(subject.model.named_parameters())
    tables = {id(m.weight) for m in subject.model.modules() if isinstance(m, nn.Embedding)}
    looked_up = batch.text.ids.numel()
    sizes = {name: named[name].numel() for name in used}
    for name in used:
        if id(named[name]) in tables:
            sizes[name] = min(sizes[name], looked_up * named[name].shape[-1])
    return sum(sizes.values()), sum(tensor.numel() for tensor in found)


def _inputs(subject: Subject) -> int:
    batch = subject.batch()
    return _bytes((batch.image, batch.text.ids, batch.text.mask))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
