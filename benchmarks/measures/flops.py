"""FLOPs of a pair: forward, forward + backward, by component, by two counters. On meta, where nothing is computed."""

from __future__ import annotations

import functools
import operator
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from vlpbench.archs.types import Batch, Can, Text
from vlpbench.benchmarks import flopcount
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.learner import Learner
    from vlpbench.results.record import Cell

TOLERANCE = 0.01
"""Relative disagreement of the two counters, on what both count, that flags a record."""


class Flops:
    """Work per pair at the cell's batch, image size and text length."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Counts on the meta device; a subject that lives elsewhere is built again there."""
        flopcount.self_test()
        if subject.device.type != "meta":
            subject = Subject.build(cell, meta=True)
        with subject.settings():
            parts = components(subject)
            forward = functools.reduce(operator.add, parts.values())
            check = _cross_check(subject)
            trained = training(subject)
        pairs = cell.batch
        return Samples(
            values={
                "flops_forward": [forward.flops / pairs],
                "flops_forward_backward": [trained["total"] / pairs],
            },
            detail={
                "by_component": {name: part.flops / pairs for name, part in parts.items()},
                "by_operator": {name: flops / pairs for name, flops in forward.by_operator.items()},
                "causal_attention": "counted as full",
                "training": {name: value / pairs for name, value in trained.items()},
                "counters": _counters(forward, check, pairs),
                "image_size": list(subject.model.image_size),
                "text_len": subject.model.text_len,
                "pairs": pairs,
            },
            flags=_flags(forward, check),
        )


def components(subject: Subject) -> dict[str, flopcount.Count]:
    """The verbs of the interface, counted one by one; together they are `Subject.forward`."""
    model, batch = subject.model, subject.batch()
    state: dict[str, Any] = {}

    def encode_image() -> None:
        state["image"] = model.encode_image(batch.image)

    def encode_text() -> None:
        state["text"] = model.encode_text(batch.text)

    def embed() -> None:
        if Can.EMBED in model.can:
            model.embed_image(state["image"])
            model.embed_text(state["text"])

    def fuse() -> None:
        if Can.FUSE in model.can:
            model.fuse(state["image"], state["text"])

    with torch.no_grad():
        verbs = {"image": encode_image, "text": encode_text, "head": embed, "fusion": fuse}
        return {name: flopcount.count(verb) for name, verb in verbs.items()}


def training(subject: Subject) -> dict[str, int]:
    """Work of a training step without its optimiser: of the cell's objectives, or else of the forward's outputs.

    ``momentum`` is what the momentum model adds: the step counted with and without it.
    """
    cell = subject.cell
    if not cell.objectives:
        with flopcount.counting() as so_far:
            outputs = subject.forward(subject.batch())
            forward = so_far().flops
            torch.stack([output.sum() for output in outputs]).sum().backward()
            return {"forward": forward, "total": so_far().flops, "momentum": 0}
    found = step(subject, subject.learner())
    if cell.momentum == "off":
        return found | {"momentum": 0}
    without = replace(subject, cell=cell.model_copy(update={"momentum": "off", "distilled": ()}))
    return found | {"momentum": found["total"] - step(without, without.learner())["total"]}


def step(subject: Subject, learner: Learner) -> dict[str, int]:
    """Work of one forward of the learner, and of it with its backward."""
    batch = subject.batch()
    with flopcount.counting() as so_far:
        loss = learner.total(learner(batch, draws=subject.draws(learner, batch)))
        forward = so_far().flops
        loss.backward()
        return {"forward": forward, "total": so_far().flops}


def _cross_check(subject: Subject) -> flopcount.CrossCheck:
    batch = subject.batch()

    def infer(image: Tensor, ids: Tensor, mask: Tensor, sample_id: Tensor) -> tuple[Tensor, ...]:
        return subject.forward(Batch(image=image, text=Text(ids=ids, mask=mask), sample_id=sample_id))

    inputs = (batch.image, batch.text.ids, batch.text.mask, batch.sample_id)
    return flopcount.cross_check(infer, *inputs, module=subject.model)


def _counters(forward: flopcount.Count, check: flopcount.CrossCheck, pairs: int) -> dict[str, Any]:
    return {
        "torch": {"version": torch.__version__, "flops": forward.flops / pairs, "uncounted": forward.uncounted},
        "fvcore": {
            "version": version("fvcore"),
            "flops": check.flops / pairs,
            "macs": check.flops / pairs / 2,
            "norms_and_pooling": check.others / pairs,
            "uncounted": check.uncounted,
        },
        "disagreement": _disagreement(forward, check),
    }


def _disagreement(forward: flopcount.Count, check: flopcount.CrossCheck) -> float:
    return abs(check.flops - forward.flops) / forward.flops


def _flags(forward: flopcount.Count, check: flopcount.CrossCheck) -> list[str]:
    found = []
    if (apart := _disagreement(forward, check)) > TOLERANCE:
        found.append(
            f"counters disagree by {apart:.1%}; not counted by torch: {_names(forward.uncounted)}; "
            f"by fvcore: {_names(check.uncounted)}"
        )
    elif forward.uncounted or check.uncounted:
        found.append(f"operators not counted: {_names(forward.uncounted | check.uncounted)}")
    return found


def _names(operators: dict[str, int]) -> str:
    return ", ".join(f"{name} x{times}" for name, times in sorted(operators.items())) or "none known"
