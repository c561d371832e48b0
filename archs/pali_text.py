"""T5's encoder and decoder (Raffel et al. 2020; mT5: Xue et al. 2021), run over the modules of transformers.

Parameters and their names are transformers'; what runs them is here, so that attention is
`torch.nn.functional.scaled_dot_product_attention`, and keys and values can be kept while a text is written. T5 does not
scale scores: its bias of relative positions is added to them, from one table for all layers of a stack.

Shape letters: B sources, R texts (B times beams), S source tokens, L text tokens, P tokens written before, D width,
A attention heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from vlpbench.archs.blocks import KeyValue

Past = tuple[KeyValue, ...]
"""Keys and values (R, P, A * head width) of each layer's self-attention over what is already written."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the decoder reads; it stays the same while a text is written."""

    keys_values: tuple[KeyValue, ...]
    """(B, S, A * head width) each, of every layer's cross-attention."""
    seen: Tensor | None
    """(B, S) bool, False at padding; None where there is none."""


def encode(stack: Any, x: Tensor, seen: Tensor | None) -> Tensor:
    """The encoder over embedded tokens (B, S, D); ``seen`` (B, S) is False at padding."""
    length = x.shape[1]
    look = _bias(stack, length, start=0)
    if seen is not None:
        look = look.masked_fill(~seen[:, None, None], -torch.inf)
    x = stack.dropout(x)
    for block in stack.block:
        own, feed_forward = block.layer
        normed = own.layer_norm(x)
        x = x + own.dropout(_attend(own.SelfAttention, normed, _keys_values(own.SelfAttention, normed), look))
        x = feed_forward(x)
    return stack.dropout(stack.final_layer_norm(x))


def source(stack: Any, states: Tensor, seen: Tensor | None) -> Source:
    """Keys and values of the encoder's output (B, S, D) in all layers of the decoder."""
    found = tuple(_keys_values(block.layer[1].EncDecAttention, states) for block in stack.block)
    return Source(keys_values=found, seen=seen)


def write(stack: Any, x: Tensor, reads: Source, past: Past | None = None) -> tuple[Tensor, Past]:
    """The decoder over embedded tokens (R, L, D) behind those of ``past``, and all that is written then.

    R is a multiple of B: queries of all texts of a source meet its keys in one product, so that nothing of it is
    copied. Texts are right-padded, so no mask is needed: a token never sees the padding behind it.
    """
    length, start = x.shape[1], 0 if past is None else past[0][0].shape[1]
    back = torch.ones(length, start + length, dtype=torch.bool, device=x.device).tril(start)
    look = _bias(stack, length, start=start).masked_fill(~back, -torch.inf)
    across = None if reads.seen is None else reads.seen[:, None, None]
    x, kept = stack.dropout(x), []
    for number, block in enumerate(stack.block):
        own, cross, feed_forward = block.layer
        normed = own.layer_norm(x)
        pair = _keys_values(own.SelfAttention, normed)
        if past is not None:
            pair = torch.cat([past[number][0], pair[0]], dim=1), torch.cat([past[number][1], pair[1]], dim=1)
        kept.append(pair)
        x = x + own.dropout(_attend(own.SelfAttention, normed, pair, look))
        keys_values = reads.keys_values[number]
        grouped = cross.layer_norm(x).reshape(len(keys_values[0]), -1, x.shape[-1])
        x = x + cross.dropout(_attend(cross.EncDecAttention, grouped, keys_values, across)).view_as(x)
        x = feed_forward(x)
    return stack.dropout(stack.final_layer_norm(x)), tuple(kept)


def _bias(stack: Any, length: int, *, start: int) -> Tensor:
    """(1, A, L, start + L): what scores of L tokens behind ``start`` others get for how far apart two tokens are."""
    attention = stack.block[0].layer[0].SelfAttention
    table = attention.relative_attention_bias
    place = torch.arange(start + length, device=table.weight.device)
    bucket = attention._relative_position_bucket(
        place[None] - place[start:, None],
        bidirectional=not attention.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    return table(bucket).permute(2, 0, 1)[None]


def _keys_values(attention: Any, x: Tensor) -> KeyValue:
    return attention.k(x), attention.v(x)


def _attend(attention: Any, x: Tensor, keys_values: KeyValue, look: Tensor | None) -> Tensor:
    """``look`` is added to scores, or boolean and True where attention may look."""
    query, key, value = (
        part.unflatten(-1, (attention.n_heads, -1)).transpose(1, 2) for part in (attention.q(x), *keys_values)
    )
    if look is not None and look.dtype != torch.bool:
        look = look.to(query.dtype)
    dropout = attention.dropout if attention.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=look, dropout_p=dropout, scale=1.0)
    return attention.o(context.transpose(1, 2).flatten(2))
