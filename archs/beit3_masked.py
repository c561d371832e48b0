"""Masked data modelling, BEiT-3's one pre-training task (arXiv:2208.10442, section 2.2).

Images, texts and pairs are masked alike: words become [MASK], patches the mask token, and what stood there is
predicted, a word of the vocabulary or a visual token. Visual tokens (BEiT v2's) are given; no tokeniser of images is
part of this code.

Shape letters: B batch, L text tokens, P patches, D width, M masked tokens, V vocabulary, K visual tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.objectives.base import at_least_float32
from vlpbench.archs.types import Masked

if TYPE_CHECKING:
    from vlpbench.archs.beit3 import Beit3
    from vlpbench.archs.types import Text

TEXT_ALONE, TEXT_OF_PAIR, IMAGE = 0.15, 0.5, 0.4
"""Shares of tokens that are masked: of a text alone, of a text beside an image, of an image."""
SMALLEST = 16
"""Patches of the smallest block, as in BEiT."""


@dataclass(frozen=True, kw_only=True)
class MaskedImage:
    """An image of which some patches are hidden."""

    image: Tensor
    """(B, 3, H, W)."""
    hidden: Tensor
    """(B, P) bool, True at patches to hide and to predict; row by row."""
    token: Tensor
    """(B, P) int64 visual tokens of all patches."""


class MaskedData(nn.Module):
    """Heads for words and for visual tokens over one encoder; each method gives a scalar loss, to be summed."""

    def __init__(self, model: Beit3, visual_tokens: int = 8192) -> None:
        """Builds two linear heads and lets the model's mask token learn; ``visual_tokens`` is K."""
        super().__init__()
        self.model = model
        self.words = model.mlm_head()
        self.patches = nn.Linear(model.width, visual_tokens)
        model.beit3.vision_embed.mask_token.requires_grad_(True)

    def text(self, masked: Masked) -> Tensor:
        """Words of a text alone."""
        words = self.model.encode_text(masked.text)
        return self._words(self.model.tokens(None, words), 0, masked)

    def image(self, masked: MaskedImage) -> Tensor:
        """Visual tokens of an image alone."""
        return self._patches(self.model.tokens(self._hide(masked), None), masked)

    def pair(self, image: MaskedImage | Tensor, text: Masked | Text) -> Tensor:
        """Words, visual tokens or both of a pair; a side that is not masked is what the other is predicted from.

        Raises:
            ValueError: if neither side is masked.
        """
        state = self._hide(image) if isinstance(image, MaskedImage) else self.model.encode_image(image)
        words = self.model.encode_text(text.text if isinstance(text, Masked) else text)
        x, losses = self.model.tokens(state, words), []
        if isinstance(image, MaskedImage):
            losses.append(self._patches(x, image))
        if isinstance(text, Masked):
            losses.append(self._words(x, state.shape[1], text))
        if not losses:
            raise ValueError("a pair needs a masked side, or there is nothing to predict")
        return torch.stack(losses).sum()

    def _hide(self, masked: MaskedImage) -> Tensor:
        return self.model.encode_image(masked.image, masked=masked.hidden)

    def _words(self, x: Tensor, start: int, masked: Masked) -> Tensor:
        """Mean cross-entropy; the text's tokens start at ``start``."""
        hidden = x[:, start:].flatten(0, 1).index_select(0, masked.position)
        return F.cross_entropy(
            at_least_float32(self.words(self.model.beit3.encoder.layer_norm.B(hidden))), masked.label
        )

    def _patches(self, x: Tensor, masked: MaskedImage) -> Tensor:
        """Mean cross-entropy over the hidden patches."""
        hidden = self.model.beit3.encoder.layer_norm.A(x[:, 1 : 1 + masked.hidden.shape[1]][masked.hidden])
        return F.cross_entropy(at_least_float32(self.patches(hidden)), masked.token[masked.hidden])


def draw_blocks(
    count: int,
    grid: tuple[int, int],
    share: float = IMAGE,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hides rectangles of patches until ``share`` of each image is hidden (BEiT, Bao et al. 2022, algorithm 1).

    A rectangle has between `SMALLEST` patches (fewer on a small grid) and as many as are still to be hidden, and an
    aspect ratio between 0.3 and 1 / 0.3; the last one is cut so that every image hides the same number.

    Args:
        count: B.
        grid: rows and columns of patches.
        share: of the patches of an image, rounded, at least one.
        generator: on the CPU.

    Returns:
        (B, P) bool, on the CPU.
    """
    return torch.stack([_blocks(grid, share, generator) for _ in range(count)]).flatten(1)


def _blocks(grid: tuple[int, int], share: float, generator: torch.Generator | None) -> Tensor:
    rows, columns = grid
    hidden = torch.zeros(rows, columns, dtype=torch.bool, device="cpu")
    wanted = max(1, round(share * rows * columns))
    while (left := wanted - int(hidden.sum())) > 0:
        size, ratio, down, right = torch.rand(4, generator=generator, device="cpu").tolist()
        smallest = min(SMALLEST, left)
        area = smallest + size * (left - smallest)
        aspect = math.exp(math.log(0.3) * (1 - 2 * ratio))
        height = min(rows, max(1, round(math.sqrt(area * aspect))))
        width = min(columns, max(1, round(math.sqrt(area / aspect))))
        top, start = int(down * (rows - height + 1)), int(right * (columns - width + 1))
        block = torch.zeros_like(hidden)
        block[top : top + height, start : start + width] = True
        fresh = (block & ~hidden).flatten().nonzero().squeeze(1)[:left]
        hidden.view(-1)[fresh] = True
    return hidden
