"""BLIP's mixture of encoder and decoder (arXiv:2201.12086, section 3.1): BERT with cross-attention in every layer.

Shape letters: B batch, K texts for a source, L text tokens, N source tokens, P tokens written before, D width,
V vocabulary (with [DEC] and [ENC]).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from vlpbench.archs.blocks import (
    BertAttention,
    BertEmbeddings,
    BertLayer,
    BertPredictionHead,
    BertShape,
    KeyValue,
    init_bert,
)

Past = tuple[KeyValue, ...]
"""Keys and values (B * K, P, D) of each layer's self-attention over what is already written."""


@dataclass(frozen=True, kw_only=True)
class DecoderSource:
    """What a decoder's cross-attention reads; it stays the same while a text is written."""

    keys_values: tuple[KeyValue, ...]
    """Keys and values (B, N, D) of each layer."""
    mask: Tensor | None = None
    """(B, N) bool, True where attention may look; None is everywhere."""


class Bert(nn.Module):
    """BERT without token types. Its layers attend to a source after themselves, if they are given one."""

    def __init__(
        self, shape: BertShape, *, layers: int, vocab_size: int, positions: int, pad: int, source_width: int
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"a BERT of {layers} layers cannot fuse; take 1 or more")
        self.shape = shape
        self.embeddings = BertEmbeddings(shape, vocab_size=vocab_size, positions=positions, types=0, pad=pad)
        stack = [BertLayer(shape, source_width=source_width) for _ in range(layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(stack)})
        init_bert(self)

    @property
    def layers(self) -> list[BertLayer]:
        """All layers."""
        return list(self.encoder["layer"].children())  # pyright: ignore[reportReturnType]

    def sharing_all_but_attention(self) -> Bert:
        """Another BERT of the same tensors, but for new self-attention in every layer."""
        other, stack = copy.copy(self), []
        for layer in self.layers:
            shared = copy.copy(layer)
            shared._modules = dict(layer._modules)
            shared.attention = BertAttention(self.shape)
            init_bert(shared.attention)
            stack.append(shared)
        other._modules = self._modules | {"encoder": nn.ModuleDict({"layer": nn.ModuleList(stack)})}
        return other

    def keys_values(self, source: Tensor) -> tuple[KeyValue, ...]:
        """(B, N, source width) -> keys and values of every layer's cross-attention."""
        return tuple(layer.crossattention.self.keys_values(source) for layer in self.layers)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        *,
        sources: tuple[KeyValue, ...] | None = None,
        source_mask: Tensor | None = None,
        first: int | None = None,
    ) -> Tensor:
        """Bidirectional: ids (B, L) and mask (B, L) -> (B, L, D), or (B, ``first``, D).

        Without ``sources`` cross-attention is left out. ``source_mask`` (B, N) is True where it may look.
        """
        hidden, look = self.embeddings(ids), mask[:, None, None]
        across = None if source_mask is None else source_mask[:, None, None]
        *layers, last = list(zip(self.layers, sources or [None] * len(self.layers), strict=True))
        for layer, source in layers:
            hidden = layer(hidden, look, source=source, source_mask=across)
        layer, source = last
        return layer(hidden, look, source=source, source_mask=across, first=first)

    def write(
        self, source: DecoderSource, ids: Tensor, past: Past | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Past]:
        """Causal: appends ids (B * K, L) to what is written -> their (B * K, L, D), and what is written then.

        Rows are texts, ``beams`` = K consecutive ones for each of B sources: their queries meet the source's keys in
        one product, so that nothing of a source is ever copied. Texts are right-padded, so no mask is needed: a token
        never sees the padding behind it.
        """
        rows, length = ids.shape
        start = 0 if past is None else past[0][0].shape[1]
        look = None
        if past is not None and length > 1:
            look = torch.ones(length, start + length, dtype=torch.bool, device=ids.device).tril(start)
        across = None if source.mask is None else source.mask[:, None, None]
        hidden, written = self.embeddings(ids, start=start), []
        for number, layer in enumerate(self.layers):
            own = layer.attention.self.keys_values(hidden)
            if past is not None:
                own = torch.cat([past[number][0], own[0]], dim=1), torch.cat([past[number][1], own[1]], dim=1)
            written.append(own)
            hidden = layer.attention(hidden, look, source=own, causal=past is None)
            grouped = hidden.reshape(rows // beams, beams * length, -1)
            hidden = layer.crossattention(grouped, across, source=source.keys_values[number]).view_as(hidden)
            hidden = layer.output(layer.intermediate(hidden), hidden)
        return hidden, tuple(written)


class TextDecoder(nn.Module):
    """A causal BERT and the head that predicts words, tied to its word table."""

    def __init__(self, bert: Bert) -> None:
        super().__init__()
        self.bert = bert
        self.cls = BertPredictionHead(bert.embeddings.word_embeddings, eps=bert.embeddings.LayerNorm.eps)

    def forward(
        self, source: DecoderSource, ids: Tensor, past: Past | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Past]:
        """Next-token logits (B * K, L, V), and what is written; see `Bert.write`."""
        hidden, written = self.bert.write(source, ids, past, beams=beams)
        return self.cls(hidden), written


def led_by(token: int, ids: Tensor) -> Tensor:
    """(B, L) ids with another first token."""
    return torch.cat([ids.new_full((len(ids), 1), token), ids[:, 1:]], dim=1)
