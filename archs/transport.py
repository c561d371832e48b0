"""Alignment of words and image tokens by optimal transport (UNITER, section 3.2; ViLT, section 3.2).

The plan comes from IPOT, an inexact proximal point method (Xie et al., UAI 2019, algorithm 1), and is a constant: the
gradient flows through the costs alone.

Shape letters: B batch, L text tokens, N image tokens, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_NOWHERE = 1e4
"""Added to the denominator of a padded token, whose weight is then nearly zero."""


def transport_distance(
    text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor, *, beta: float = 0.5, steps: int = 50
) -> Tensor:
    """(B,) cost of moving a text's tokens, uniformly weighted, to those of its image, each at one minus the cosine.

    Args:
        text: (B, L, D), float32 for exact results.
        image: (B, N, D).
        text_mask: (B, L) bool, True at tokens; padding takes no part.
        image_mask: (B, N) bool.
        beta: step size of the proximal method.
        steps: of it; the paper's 50.
    """
    a, b = (F.normalize(x, dim=-1, eps=1e-5) for x in (text, image))
    both = text_mask[:, :, None] & image_mask[:, None, :]
    cost = (1 - a @ b.transpose(1, 2)).masked_fill(~both, 0)
    return (cost * transport_plan(cost.detach(), text_mask, image_mask, beta=beta, steps=steps)).sum(dim=(1, 2))


@torch.no_grad()
def transport_plan(cost: Tensor, text_mask: Tensor, image_mask: Tensor, *, beta: float, steps: int) -> Tensor:
    """(B, L, N) mass moved from each text token to each image token, in all 1 for a pair; zero at padding."""
    both = text_mask[:, :, None] & image_mask[:, None, :]
    rows, columns = (mask.sum(dim=1).clamp(min=1).to(cost.dtype)[:, None] for mask in (text_mask, image_mask))
    no_row, no_column = ((~mask).to(cost.dtype) * _NOWHERE for mask in (text_mask, image_mask))
    kernel = torch.exp(-cost / beta).masked_fill(~both, 0)
    plan = both.to(cost.dtype)
    left = text_mask.to(cost.dtype) / rows
    for _ in range(steps):
        step = kernel * plan
        right = 1 / (columns * (left[:, None] @ step).squeeze(1) + no_column)
        left = 1 / (rows * (step @ right[..., None]).squeeze(2) + no_row)
        plan = left[..., None] * step * right[:, None]
    return plan.masked_fill(~both, 0)
