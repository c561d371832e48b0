"""Parameters: stored, trainable, and touched by the inference of a pair, by component. Counted on meta."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vlpbench.archs.model import parameter_count
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vlpbench.archs.learner import Learner
    from vlpbench.results.record import Cell


class Params:
    """Numbers of weights, every tied tensor once."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Counts on the meta device; a subject that lives elsewhere is built again there."""
        if subject.device.type != "meta":
            subject = Subject.build(cell, meta=True)
        model, batch = subject.model, subject.batch()
        named = dict(model.named_parameters())
        with subject.settings(), torch.no_grad():
            used = touched(model, lambda: subject.forward(batch))
        detail: dict[str, Any] = {
            "by_component": _by_component(subject, named),
            "touched_by_component": _by_component(subject, {name: p for name, p in named.items() if name in used}),
            "untouched": sorted(set(named) - used),
        }
        if cell.objectives:
            detail["learner"] = of_learner(subject.learner())
        return Samples(
            values={
                "params_stored": [float(_numel(named.values()))],
                "params_trainable": [float(_numel(p for p in named.values() if p.requires_grad))],
                "params_touched": [float(_numel(named[name] for name in used))],
            },
            detail=detail,
        )


def touched(module: nn.Module, call: Callable[[], object]) -> set[str]:
    """Names of the module's parameters that an operator read during the call, whichever module or function ran it."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    with _Readers(set(names)) as readers:
        call()
    return {names[found] for found in readers.found}


class _Readers(TorchDispatchMode):
    """Notes which of the wanted tensors (by identity) are arguments of an operator."""

    def __init__(self, wanted: set[int]) -> None:
        super().__init__()
        self.wanted = wanted
        self.found: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.found |= self.wanted & {id(leaf) for leaf in tree_leaves((args, kwargs))}
        return func(*args, **(kwargs or {}))


def _by_component(subject: Subject, named: dict[str, nn.Parameter]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, parameter in named.items():
        found[subject.model.component(name)] += parameter.numel()
    return dict(found)


def of_learner(learner: Learner) -> dict[str, int]:
    """What training adds to the model: heads, the momentum copy of both, and the queue's buffers."""
    model = parameter_count(learner.model)
    momentum = learner.momentum
    copies = 0 if momentum is None else parameter_count(momentum)
    queue = None if momentum is None else momentum.queue
    return {
        "model": model,
        "objectives": parameter_count(learner) - model - copies,
        "momentum": copies,
        "queue": 0 if queue is None else _numel(queue.buffers()),
    }


def _numel(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)
