"""Masked language modelling with the image as context (ALBEF, section 3.2, equation 3; with soft targets, equation 7).

Shape letters: B batch, L text tokens, D width, M masked tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.objectives.base import Objective, Recipe, SpecialTokens, TeacherView, at_least_float32
from vlpbench.archs.types import Masked, Text

if TYPE_CHECKING:
    from vlpbench.archs.model import Pass, VLModel


class MLM(Objective):
    """Cross-entropy of the original tokens at the masked positions, where alone the head runs."""

    name: ClassVar[str] = "mlm"
    masks: ClassVar[bool] = True

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self.head = model.mlm_head()

    def twin(self) -> nn.Module:
        """The whole head."""
        return self.head

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class; soft targets are the teacher's softmax over the vocabulary, given the same masked text."""
        logits, label = predict(view, self.head)
        loss = F.cross_entropy(logits, label)
        if teacher is None or alpha == 0:
            return loss
        soft, _ = predict(teacher.view, teacher.heads[self.name])
        return torch.lerp(loss, F.cross_entropy(logits, soft.softmax(dim=1)), alpha)


def predict(view: Pass[Any, Any], head: nn.Module) -> tuple[Tensor, Tensor]:
    """Float32 logits (M, V) at the masked positions, and the original ids (M,)."""
    hidden, masked = view.fused_masked.text, view.masked
    if hidden is None or masked is None:
        raise ValueError(f"{type(view.model).__name__} fuses no text tokens to predict from")
    return at_least_float32(head(hidden.flatten(0, 1).index_select(0, masked.position))), masked.label


def draw_masked(
    text: Text,
    tokens: SpecialTokens,
    probability: float,
    generator: torch.Generator | None = None,
    *,
    whole_words: bool = False,
) -> Masked:
    """Chooses tokens with this probability; of those 80 % become [MASK], 10 % a random word, 10 % stay (BERT).

    [CLS] and padding are never chosen. A batch in which none was drawn gets one: a mean over no token is undefined.
    With ``whole_words`` the choice is among words, and all tokens of a word are predicted or none: a token alone could
    be guessed from the rest of its word, without the image (ViLT, section 3.3).

    Draws are made on the CPU, where the number of masked tokens is needed; pass a text that lies there and move the
    result, and no step waits for a device.

    Raises:
        ValueError: for a text that holds nothing but [CLS] and padding.
    """
    ids, present = text.ids.cpu(), text.mask.cpu()
    maskable = present & (ids != tokens.pad) & (ids != tokens.cls)
    chosen = torch.rand(ids.shape, generator=generator) < probability
    replaced = torch.rand(ids.shape, generator=generator) < 0.8
    random = torch.rand(ids.shape, generator=generator) < 0.5
    words = torch.randint(tokens.vocab_size, ids.shape, generator=generator)
    first = first_of_word(ids, tokens.inside if whole_words else frozenset())
    if not (chosen.gather(1, first) & maskable).any():
        places = maskable.flatten().nonzero()
        if not len(places):
            raise ValueError(f"none of the {len(ids)} texts has a token that may be masked")
        row, place = divmod(int(places[torch.randint(len(places), (1,), generator=generator)]), ids.shape[1])
        chosen[row, first[row, place]] = True
    chosen = chosen.gather(1, first) & maskable
    return apply_masks(text, tokens, chosen, replaced=replaced, random=random, words=words)


def first_of_word(ids: Tensor, inside: frozenset[int]) -> Tensor:
    """(B, L) int64: at which place the word of each token begins; ``inside`` are tokens that go on with a word."""
    place = torch.arange(ids.shape[1]).expand_as(ids)
    if not inside:
        return place
    begins = ~torch.isin(ids, torch.tensor(sorted(inside)))
    return torch.where(begins, place, 0).cummax(dim=1).values


def apply_masks(
    text: Text, tokens: SpecialTokens, chosen: Tensor, *, replaced: Tensor, random: Tensor, words: Tensor
) -> Masked:
    """The masked text that these draws make, on the text's device.

    Args:
        text: the original.
        tokens: gives [MASK].
        chosen: (B, L) bool, tokens to predict.
        replaced: (B, L) bool, where a chosen token becomes [MASK].
        random: (B, L) bool, where a chosen token that is not replaced becomes ``words``.
        words: (B, L) int64.
    """
    ids = text.ids.cpu()
    masked = torch.where(chosen & random, words, ids)
    masked = torch.where(chosen & replaced, tokens.mask, masked)
    position = chosen.flatten().nonzero().squeeze(1)
    label = ids.flatten()[position]
    device = text.ids.device
    return Masked(
        text=Text(ids=masked.to(device, non_blocking=True), mask=text.mask),
        position=position.to(device, non_blocking=True),
        label=label.to(device, non_blocking=True),
    )
