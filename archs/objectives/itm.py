"""Image-text matching (ALBEF, section 3.2, equation 4): does this text belong to this image?

Shape letters: B batch, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.objectives.base import Objective, Recipe, TeacherView, at_least_float32
from vlpbench.archs.types import Negatives

if TYPE_CHECKING:
    from vlpbench.archs.model import Pass, VLModel


class ITM(Objective):
    """Two-way classification of B matching pairs, B texts with a wrong image and B images with a wrong text.

    All 3B pairs go through fusion as one batch. With negatives that replace (ViLT, section 3.2), B pairs do, of which
    about half have a wrong image.
    """

    name: ClassVar[str] = "itm"
    matches: ClassVar[bool] = True

    def __init__(self, model: VLModel[Any, Any], recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self.head = nn.Linear(model.width, 2)
        self.official = recipe.code == "official"

    def match_logits(self, pooled: Tensor) -> Tensor:
        """(B,) score of each pooled pair (B, D), larger is a better match.

        It is the log-odds of "match", which order like its probability. The released ALBEF code ranks by the logit of
        "match" alone, which a shift of both logits moves.
        """
        logits = at_least_float32(self.head(pooled))
        return logits[:, 1] if self.official else logits[:, 1] - logits[:, 0]

    def logits(self, view: Pass[Any, Any]) -> Tensor:
        """(3B, 2): matching pairs; text b with its wrong image; image b with its wrong text. (B, 2) if replaced."""
        return at_least_float32(self.head(view.fused_pairs))

    def forward(self, view: Pass[Any, Any], *, teacher: TeacherView | None = None, alpha: float = 0.0) -> Tensor:
        """See the class; matching is not distilled."""
        logits = self.logits(view)
        return F.cross_entropy(logits, matching(view, len(logits)).long())


def matching(view: Pass[Any, Any], rows: int) -> Tensor:
    """(rows,) bool, which of a pass's fused pairs belong together."""
    if view.negatives is not None and view.negatives.replaced is not None:
        return ~view.negatives.replaced
    return torch.arange(rows, device=view.batch.image.device) < view.size


def draw_negatives(
    sample_id: Tensor,
    similarity: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator | None = None,
    *,
    replace: bool = False,
    candidates: Tensor | None = None,
) -> Negatives:
    """One negative image for each text and one negative text for each image, never of the same ``sample_id``.

    They are drawn from the batch, or from C pairs of which ``candidates`` (C,) are the sample ids: those of all ranks.

    ``similarity`` holds image-to-text and text-to-image logits (B, C): negatives are then drawn in proportion to their
    softmax (ALBEF's hard negatives), else uniformly. A row that shares its ``sample_id`` with the whole batch has no
    negative and gets row 0.

    The draw is `torch.multinomial`'s for one sample, an exponential race, but over logarithms and without its check of
    the weights: it cannot underflow at a low temperature and never waits for the device.

    With ``replace``, half of the pairs on average are marked to have their image replaced.

    Raises:
        ValueError: for fewer than two rows.
    """
    candidates = sample_id if candidates is None else candidates
    size = len(sample_id)
    if len(candidates) < 2:
        raise ValueError(f"a batch of {size} has no negatives; matching needs a batch of at least 2")
    device = sample_id.device
    source = device if generator is None else generator.device
    race = torch.empty(2, size, len(candidates), device=source).exponential_(generator=generator).log_()
    score = -race.to(device, non_blocking=True)
    if similarity is not None:
        to_text, to_image = similarity
        score = score + torch.stack([to_image.detach(), to_text.detach()]).float()
    score = score.masked_fill(sample_id[:, None] == candidates, -torch.inf)
    image, text = score.argmax(dim=-1).unbind()
    if not replace:
        return Negatives(image=image, text=text)
    coin = torch.empty(size, device=source).uniform_(generator=generator) < 0.5
    return Negatives(image=image, text=text, replaced=coin.to(device, non_blocking=True))
