"""What ViLT does to its patches, apart from timm's blocks: positions, which are kept, the last block for one token.

Shape letters: B batch, N patches, K patches kept, D width, h w patch rows and columns, P Q rows and columns of the
learnt position grid.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def resized_positions(learnt: Tensor, grid: tuple[int, int], valid: Tensor) -> Tensor:
    """(B, h * w, D), the position grid resampled to each image's valid rows and columns.

    Equals a bilinear resize with aligned corners image by image, as two products with interpolation weights: no size
    depends on the data, so it runs on the meta device and without a synchronisation.

    Args:
        learnt: (1, 1 + P * Q, D), that of the class token in front.
        grid: P, Q.
        valid: (B, h, w) bool.
    """
    P, Q = grid
    table = learnt[0, 1:]
    rows = _weights(valid[:, :, 0].sum(dim=1), valid.shape[1], P).to(table.dtype)
    columns = _weights(valid[:, 0, :].sum(dim=1), valid.shape[2], Q).to(table.dtype)
    tall = (rows @ table.view(P, -1)).unflatten(2, (Q, -1))
    # Back to the parameters' type: under autocast the products are of low precision, the residual stream is not.
    return (columns[:, None] @ tall).flatten(1, 2).to(table.dtype)


def kept_patches(valid: Tensor, keep: int | None, *, shuffled: bool) -> Tensor | None:
    """(B, K) int64 patches that are kept, K the smaller of ``keep`` and N; None where all are, in their own order.

    Valid ones come before padding, at random among themselves; without ``shuffled`` the chosen go back to their own
    order. Draws from torch's own generator.

    Args:
        valid: (B, N) bool, False at padding.
        keep: None is all.
        shuffled: whether the order is random too.
    """
    limit = valid.shape[1] if keep is None else min(keep, valid.shape[1])
    if limit == valid.shape[1] and not shuffled:
        return None
    lot = torch.rand(valid.shape, device=valid.device).masked_fill(~valid, 2.0)
    place = lot.argsort(dim=1)[:, :limit]
    return place if shuffled else place.sort(dim=1).values


def first_token(block: Any, x: Tensor, seen: Tensor) -> Tensor:
    """What a timm block gives for the first token, (B, 1, D): its query over all keys and values."""
    attention, first = block.attn, x[:, :1]
    width, (weight, bias) = x.shape[2], (attention.qkv.weight, attention.qkv.bias)
    normed = block.norm1(x)
    query = F.linear(normed[:, :1], weight[:width], bias[:width])
    key, value = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    query, key, value = (t.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in (query, key, value))
    dropout = attention.attn_drop.p if attention.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
    first = first + attention.proj_drop(attention.proj(context.transpose(1, 2).flatten(2)))
    return first + block.mlp(block.norm2(first))


def _weights(count: Tensor, target: int, source: int) -> Tensor:
    """Linear interpolation with aligned corners from ``source`` points to ``count`` (B,) points: (B, target, source).

    Rows from ``count`` on stand for padding and mean nothing.
    """
    step = (source - 1) / (count - 1).clamp(min=1)
    place = torch.arange(target, device=count.device) * step[:, None]
    return (1 - (place[:, :, None] - torch.arange(source, device=count.device)).abs()).clamp(min=0)
