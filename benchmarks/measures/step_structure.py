"""What one training step runs: forward passes by tower, of the model and of its momentum copy, and gradients."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from torch import Tensor
from vlpbench.benchmarks import flopcount
from vlpbench.benchmarks.measures.train_step import VERBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from vlpbench.archs.learner import Learner
    from vlpbench.benchmarks.subject import Subject

P = ParamSpec("P")
R = TypeVar("R")
PASSES = {
    "encode_image": "image",
    "encode_text": "text",
    "fuse": "fusion",
    "fuse_pooled": "fusion",
    "fuse_tokens": "fusion",
    "predict_patches": "fusion",
    "decode": "decoder",
}
"""Method -> the tower that a call of it is a forward pass of."""
METHODS = tuple(dict.fromkeys((*VERBS, *PASSES)))


@dataclass(frozen=True, kw_only=True)
class StepStructure:
    """Quantities of a step, and what explains them."""

    values: dict[str, float]
    detail: dict[str, Any]


class Watch:
    """Counts calls of a model's methods, the rows that came out of them, and their work. Of nested ones the outer."""

    def __init__(self, so_far: Callable[[], flopcount.Count]) -> None:
        """Takes the count of all work until now."""
        self.calls: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.flops = 0
        self._so_far, self._open = so_far, False

    def over(self, owner: object, methods: Iterable[str]) -> None:
        """Watches methods of one object, those that it has."""
        for method in methods:
            if hasattr(owner, method):
                setattr(owner, method, self._watched(method, getattr(owner, method)))

    def _watched(self, method: str, function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            if self._open:
                return function(*args, **kwargs)
            self._open, before = True, self._so_far().flops
            try:
                found = function(*args, **kwargs)
            finally:
                self._open = False
            self.flops += self._so_far().flops - before
            if tower := PASSES.get(method):
                self.calls[tower] += 1
                self.rows[tower] += _rows(found)
            return found

        return counted

    def passes(self, batch: int) -> dict[str, dict[str, float]]:
        """By tower: calls, and passes of a whole batch."""
        towers = dict.fromkeys(PASSES.values())
        return {name: {"calls": self.calls[name], "passes": self.rows[name] / batch} for name in towers}


def watched_step(subject: Subject) -> StepStructure:
    """Runs forward and backward of a step of the cell's recipe, with its soft targets at full weight."""
    learner, batch = subject.learner(), subject.batch()
    draws, momentum = subject.draws(learner, batch), learner.momentum
    with flopcount.counting() as so_far:
        online, teacher = Watch(so_far), Watch(so_far)
        online.over(learner.model, METHODS)
        if momentum is not None:
            twin: Any = momentum.twin
            teacher.over(twin["model"], METHODS)
            for head in twin["heads"].values():
                teacher.over(head, ("forward",))
        loss = learner.total(learner(batch, draws=draws))
        forward = so_far().flops
        loss.backward()
        total = so_far().flops
    rows = len(batch.image)
    own, copied, gradients = online.passes(rows), teacher.passes(rows), _gradients(learner)
    values = {f"forwards_{tower}": found["passes"] for tower, found in own.items()}
    values["gradients_trained"] = float(gradients["trained"]["with"])
    if momentum is not None:
        values |= {f"forwards_momentum_{tower}": found["passes"] for tower, found in copied.items()}
        values |= {f"gradients_{name}": float(gradients[name]["with"]) for name in ("momentum", "queue")}
        values["momentum_share"] = 100 * teacher.flops / forward
    detail = {
        "batch": rows,
        "objectives": list(learner.recipe.objectives),
        "forwards": {"online": own, "momentum": copied},
        "flops": {"forward": forward / rows, "momentum": teacher.flops / rows, "total": total / rows},
        "gradients": gradients,
    }
    return StepStructure(values=values, detail=detail)


def leaves(state: Any) -> Iterator[Tensor]:
    """The tensors of an encoder state: of tuples, lists, dicts and dataclasses."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, (tuple, list)):
        for item in state:
            yield from leaves(item)
    elif isinstance(state, dict):
        yield from leaves(list(state.values()))
    elif dataclasses.is_dataclass(state):
        for part in dataclasses.fields(state):
            yield from leaves(getattr(state, part.name))


def _gradients(learner: Learner) -> dict[str, dict[str, int]]:
    """Tensors that could get a gradient or got one, of all there are: what is trained, the copy, and the queue."""
    momentum = learner.momentum
    held = None if momentum is None else momentum.queue
    queue = [] if held is None else [*held.buffers(), *held.parameters()]
    copies = [] if momentum is None else [*momentum.parameters()]
    known = {id(parameter) for parameter in copies}
    trained = [parameter for parameter in learner.parameters() if id(parameter) not in known]
    return {
        "trained": {"with": sum(x.grad is not None for x in trained), "of": len(trained)},
        "momentum": {"with": _reached(copies), "of": len(copies)},
        "queue": {"with": _reached(queue), "of": len(queue)},
    }


def _reached(tensors: Sequence[Tensor]) -> int:
    return sum(x.requires_grad or x.grad is not None for x in tensors)


def _rows(found: Any) -> int:
    """Rows of what a method returned."""
    return len(next(leaves(found)))
