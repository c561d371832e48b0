"""What every objective is, how one is built by name, and how a training is described (`Recipe`).

Shape letters: B batch, L text tokens, M masked tokens, V vocabulary.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from vlpbench.archs.objectives import table
from vlpbench.archs.types import Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlpbench.archs.model import Pass, VLModel
    from vlpbench.archs.objectives.queue import Queue


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids that mean something to an objective."""

    pad: int
    cls: int
    sep: int | None
    mask: int
    vocab_size: int
    inside: frozenset[int] = frozenset()
    """Tokens that go on with the word before them; none where every token is a word."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train: everything a cell says about it, with the paper's numbers as defaults (ALBEF, section 3.6)."""

    objectives: tuple[str, ...]
    weights: tuple[float, ...] = ()
    """Loss weights in the order of ``objectives``; empty means 1 each."""
    momentum: Literal["off", "queue", "distill"] = "off"
    distilled: tuple[str, ...] = ()
    """Objectives whose targets ``distill`` softens; empty means all that can be."""
    negatives: Literal["hard", "uniform", "replace"] = "hard"
    """How matching draws its negatives; ``hard`` needs a contrastive objective to rank them, and is uniform without;
    ``replace`` gives every second pair another image instead of adding wrong pairs (ViLT, section 3.2)."""
    queue_size: int = 65536
    momentum_rate: float = 0.995
    alpha: float = 0.4
    """Weight of soft targets."""
    mlm_probability: float = 0.15
    whole_words: bool = False
    """Whether masked language modelling chooses words instead of tokens (ViLT, section 3.3)."""
    positives: Literal["image", "pair"] = "image"
    """What belongs together: all pairs that show the same image, or each pair alone (ALBEF's released pre-training)."""
    temperature: float = 0.07
    hinge_warmup: int = 0
    """Steps in which a triplet loss is over all negatives, before it is over the hardest."""
    label_smoothing: float = 0.0
    """Of language modelling; BLIP's is 0.1."""
    code: Literal["clean", "official"] = "clean"
    """``official`` replays the released code where ours differs on purpose: the teacher is updated at the start of a
    training forward instead of after the step, and keeps its dropout active; matching is scored by one logit. The table
    of all such differences is `vlpbench.archs.differences`."""


@dataclass(frozen=True, kw_only=True)
class TeacherView:
    """The momentum model's view of the batch that the student sees. Nothing in it carries a gradient."""

    view: Pass[Any, Any]
    heads: Mapping[str, nn.Module]
    """Momentum copies of objectives' heads, by objective; empty unless targets are softened."""
    queue: Queue | None
    """Embeddings of earlier batches; None where no objective is contrastive."""


class Objective(nn.Module):
    """One training loss with its own head. It sees a model only through `Pass`, so it serves all that are capable.

    An objective draws nothing: masked tokens and negatives come with the pass.
    """

    name: ClassVar[str]
    """Key in the table of objectives, which says what it needs and whether it can be distilled or queued."""
    masks: ClassVar[bool] = False
    """Whether it reads the pass's masked text."""
    matches: ClassVar[bool] = False
    """Whether it reads the pass's negatives."""
    hides: ClassVar[bool] = False
    """Whether it reads the pass's hidden patches."""

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        """Builds the head that ``model`` and ``recipe`` ask for; the model itself is not kept."""
        super().__init__()

    def twin(self) -> nn.Module | None:
        """The head that a momentum teacher needs a copy of to soften this objective's targets."""
        return None

    def similarity(self, view: Pass[Any, Any], teacher: TeacherView | None) -> tuple[Tensor, Tensor] | None:
        """Logits (B, B) of image b against the batch's texts, and of text b against its images; None if it has none."""
        return None

    def prepare(self, view: Pass[Any, Any]) -> None:
        """Leaves in the pass what it computes anyway and others would compute apart; called before any `forward`."""

    def after_step(self) -> None:
        """Called once the optimiser has moved the weights."""

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """The scalar float32 loss of one batch.

        Args:
            view: the model over the batch.
            teacher: its momentum model over the same batch; None trains without one.
            alpha: weight of the teacher's soft targets against the hard ones.
        """
        raise NotImplementedError


def build(name: str, model: VLModel[Any, Any], recipe: Recipe) -> Objective:
    """The objective of this name in the table, for this model.

    Raises:
        UnknownName: for an unknown objective, with the nearest.
        Unsupported: for an objective that the model lacks a capability for.
    """
    spec = table.spec(name)
    missing = spec.needs & ~model.can
    if missing:
        raise Unsupported(f"{name} needs {' and '.join(missing.names())}, which {type(model).__name__} lacks")
    module, _, attribute = spec.target.partition(":")
    return getattr(importlib.import_module(module), attribute)(model, recipe)


def at_least_float32(x: Tensor) -> Tensor:
    """What losses are computed in: float32 where autocast computed in less; a float64 model keeps its precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def no_autocast(device: torch.device) -> torch.autocast:
    """Products in the type of their factors. Meta tensors, on which work is counted, know no autocast of their own."""
    return torch.autocast("cpu" if device.type == "meta" else device.type, enabled=False)
