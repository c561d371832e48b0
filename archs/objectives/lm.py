"""Language modelling: the next token of a caption, given the image and the tokens before it (BLIP, arXiv:2201.12086,
section 3.2; CoCa, arXiv:2205.01917, section 3.2, calls it captioning).

Shape letters: B batch, L text tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor
from vlpbench.archs.objectives.base import Objective, Recipe, TeacherView, at_least_float32

if TYPE_CHECKING:
    from vlpbench.archs.model import Pass, VLModel
    from vlpbench.archs.types import Text

IGNORED = -100
"""Label of a token that is not predicted."""


class LM(Objective):
    """Cross-entropy of each token but the first from the logits at the one before it; the mean over a batch's tokens.

    The first token starts every text and is not predicted; padding is not predicted either. The recipe's
    ``label_smoothing`` spreads that share of a target over the vocabulary.
    """

    name: ClassVar[str] = "lm"

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self.smoothing = recipe.label_smoothing

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class; it is not distilled."""
        logits = at_least_float32(view.model.decode(view.image_prepared, view.text)[:, :-1])
        return F.cross_entropy(
            logits.flatten(0, 1),
            labels(view.batch.text).flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.smoothing,
        )


def labels(text: Text) -> Tensor:
    """(B, L - 1) the tokens after the first, `IGNORED` at padding; an index of tokens would wait for a device."""
    return text.ids[:, 1:].masked_fill(~text.mask[:, 1:], IGNORED)


def text_loss(logits: Tensor, text: Text, smoothing: float = 0.0) -> Tensor:
    """(B,) negative log-likelihood of each text's tokens after the first, from logits (B, L - 1, V) before them."""
    loss = F.cross_entropy(
        at_least_float32(logits).transpose(1, 2),
        labels(text),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="none",
    )
    return loss.sum(dim=1)
