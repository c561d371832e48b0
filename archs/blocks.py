"""Building blocks that three or more architectures share: the convolutional stem and BERT's parts.

Parameter names are those of the official BERT checkpoints, so that layouts load by renaming prefixes. All attention
runs through `torch.nn.functional.scaled_dot_product_attention`; its backend is the caller's choice (`sdpa_kernel`).

Shape letters: B batch, L text tokens, N image tokens, D width, A attention heads, V vocabulary, M masked tokens,
H image height, W image width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]
"""Keys and values (B, N, D) each, before they are split into heads: what cross-attention needs of its source."""


class ConvStem(nn.Module):
    """The image front end of the small, size-matched models: pixels to patch tokens by strided convolutions.

    A linear patch projection needs far more images than a controlled run has; log2(patch) blocks of 3x3 convolution
    with stride 2, group norm and GELU learn in minutes. Channels double up to ``width``. Class token and positions are
    the architecture's own affair.

    Raises:
        ValueError: if ``patch`` is no power of two, or ``width`` cannot be halved often enough.
    """

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        stages = patch.bit_length() - 1
        if patch < 2 or patch != 1 << stages:
            raise ValueError(f"a convolutional stem halves the image at each stage; patch {patch} is no power of two")
        groups = 4
        if width % (groups << (stages - 1)):
            raise ValueError(
                f"width {width} must be a multiple of {groups << (stages - 1)} for a stem of {stages} stages"
            )
        channels = [3, *(width >> (stages - 1 - stage) for stage in range(stages))]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
                    nn.GroupNorm(groups, after),
                    nn.GELU(),
                )
                for before, after in pairwise(channels)
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, (H / patch) * (W / patch), D), row by row."""
        return self.blocks(image).flatten(2).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class BertShape:
    """The numbers of a BERT transformer (Devlin et al. 2019); the defaults are BERT-base's."""

    width: int = 768
    heads: int = 12
    hidden: int = 3072
    """Width of the feed-forward layer."""
    dropout: float = 0.1
    """On attention weights and on the output of every sub-layer."""
    eps: float = 1e-12
    """Of LayerNorm."""


class BertEmbeddings(nn.Module):
    """Word + position + token-type embeddings, then LayerNorm and dropout; with ``types`` 0 there is no type to add."""

    position_ids: Tensor

    def __init__(self, shape: BertShape, *, vocab_size: int, positions: int, types: int = 2, pad: int = 0) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, shape.width, padding_idx=pad)
        self.position_embeddings = nn.Embedding(positions, shape.width)
        if types:
            self.token_type_embeddings = nn.Embedding(types, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.dropout = nn.Dropout(shape.dropout)
        self.register_buffer("position_ids", torch.arange(positions)[None])  # (1, positions); official layouts keep it

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """(B, L) -> (B, L, D); all tokens are of type 0, and the first stands at position ``start``.

        Raises:
            ValueError: for a text longer than there are positions.
        """
        length, positions = start + ids.shape[1], self.position_embeddings.num_embeddings
        if length > positions:
            raise ValueError(f"a text of {length} tokens is longer than the {positions} positions of the model")
        # Positions and types are the same for every row, so they are read as slices and not looked up B * L times.
        place = self.position_embeddings.weight[start:length]
        if hasattr(self, "token_type_embeddings"):
            place = place + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + place))


class BertSelfAttention(nn.Module):
    """Multi-head attention of BERT without its output projection; keys and values may come from another sequence."""

    def __init__(self, shape: BertShape, source_width: int | None = None) -> None:
        super().__init__()
        if shape.width % shape.heads:
            raise ValueError(f"width {shape.width} is not divisible by {shape.heads} heads")
        self.heads = shape.heads
        self.dropout = shape.dropout
        source = shape.width if source_width is None else source_width
        self.query = nn.Linear(shape.width, shape.width)
        self.key = nn.Linear(source, shape.width)
        self.value = nn.Linear(source, shape.width)

    def keys_values(self, source: Tensor) -> KeyValue:
        """(B, N, source width) -> keys and values (B, N, D)."""
        return self.key(source), self.value(source)

    def forward(
        self, hidden_BLD: Tensor, keys_values: KeyValue, mask: Tensor | None, *, causal: bool = False
    ) -> Tensor:
        """(B, L, D). ``mask`` is True where attention may look and broadcasts to (B, A, L, N)."""
        q_BALE, k_BANE, v_BANE = (self._split(x) for x in (self.query(hidden_BLD), *keys_values))
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(
            q_BALE, k_BANE, v_BANE, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        return context.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class BertOutput(nn.Module):
    """The end of every sub-layer: projection, dropout, residual sum, and the sub-layer's LayerNorm."""

    def __init__(self, shape: BertShape, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """(B, L, inner width), (B, L, D) -> (B, L, D)."""
        return self.LayerNorm(residual + self.dropout(self.dense(inner)))


class BertAttention(nn.Module):
    """One attention sub-layer: ``self`` attends, ``output`` projects, adds and normalises."""

    def __init__(self, shape: BertShape, source_width: int | None = None) -> None:
        super().__init__()
        self.self = BertSelfAttention(shape, source_width)
        self.output = BertOutput(shape, shape.width)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        *,
        source: KeyValue | None = None,
        causal: bool = False,
        first: int | None = None,
    ) -> Tensor:
        """(B, L, D) -> (B, ``first``, D), all L by default; attends to ``source`` if given, else to all of itself."""
        queries, keys_values = hidden[:, :first], self.self.keys_values(hidden) if source is None else source
        return self.output(self.self(queries, keys_values, mask, causal=causal), queries)


class BertIntermediate(nn.Module):
    """First half of the feed-forward sub-layer, with the exact (erf) GELU."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.width, shape.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, hidden)."""
        return F.gelu(self.dense(hidden))


class BertLayer(nn.Module):
    """Self-attention, cross-attention if ``source_width`` is given, feed-forward."""

    def __init__(self, shape: BertShape, *, source_width: int | None = None) -> None:
        super().__init__()
        self.attention = BertAttention(shape)
        if source_width is not None:
            self.crossattention = BertAttention(shape, source_width)
        self.intermediate = BertIntermediate(shape)
        self.output = BertOutput(shape, shape.hidden)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        *,
        source: KeyValue | None = None,
        source_mask: Tensor | None = None,
        causal: bool = False,
        first: int | None = None,
    ) -> Tensor:
        """(B, L, D) -> (B, L, D), or (B, ``first``, D).

        Args:
            hidden: (B, L, D).
            mask: True where self-attention may look, broadcast to (B, A, L, L); None is everywhere.
            source: keys and values of the cross-attention, from ``crossattention.self.keys_values``.
            source_mask: True where cross-attention may look, broadcast to (B, A, L, N).
            causal: self-attention sees no later token; only with ``mask`` None.
            first: computes only this many tokens of the output, where no more are read; ``mask`` then broadcasts to
                (B, A, first, L).
        """
        hidden = self.attention(hidden, mask, causal=causal, first=first)
        if source is not None:
            hidden = self.crossattention(hidden, source_mask, source=source)
        return self.output(self.intermediate(hidden), hidden)


class BertTransform(nn.Module):
    """The dense layer before BERT's vocabulary projection: dense, GELU, LayerNorm."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """(M, D) -> (M, D)."""
        return self.LayerNorm(F.gelu(self.dense(hidden)))


class BertPredictionHead(nn.Module):
    """BERT's masked-token head. ``decoder.weight`` is the word table; ``decoder.bias`` and ``bias`` are one tensor."""

    def __init__(self, words: nn.Embedding, eps: float) -> None:
        super().__init__()
        vocab_size, width = words.weight.shape
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.transform = BertTransform(width, eps)
        self.decoder = nn.Linear(width, vocab_size, device="meta")  # replaced by the tied tensors at once
        self.decoder.weight, self.decoder.bias = words.weight, self.bias
        init_bert(self.transform)

    def forward(self, hidden: Tensor) -> Tensor:
        """(M, D) -> logits (M, V)."""
        return self.decoder(self.transform(hidden))


class MaskedHead(nn.Module):
    """BERT's masked-token head with a decoder of its own, not tied to the word embeddings (ViLT, VLMo)."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.transform = BertTransform(width, eps=1e-12)
        self.decoder = nn.Linear(width, vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        init_bert(self)

    def forward(self, text: Tensor) -> Tensor:
        """(M, D) -> logits (M, V)."""
        return self.decoder(self.transform(text)) + self.bias


def init_bert(module: nn.Module, std: float = 0.02) -> None:
    """BERT's initialisation: normal weights, zero biases, LayerNorm the identity, a zero row for padding."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()


def init_by_fan_in(module: nn.Module) -> None:
    """Normal weights of variance 1 / inputs in every linear layer, zero biases: for narrow models.

    BERT's and the ViT's standard deviation of 0.02 is meant for a width of 768. At a width of 96 it starts every
    sub-layer near zero, and a budget of minutes is spent before anything is learnt. CLIP's paper scales with width.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
