"""BEiT-3's configuration and parts: multiway modules, and the block with sub-layer norms, in torchscale's layout.

``A`` serves images, ``B`` serves texts; in a pair each token keeps the modules of its own modality.

Shape letters: B batch, S tokens of a sequence, of which the first ``split`` are an image's, D width, A attention heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn
from vlpbench.archs.blocks import ConvStem, KeyValue
from vlpbench.archs.types import Text

M = TypeVar("M", bound=nn.Module)
EPS = 1e-5
"""Of every LayerNorm."""
FIRST = 2
"""Row of the first position in a table of positions."""


@dataclass(frozen=True, kw_only=True)
class Beit3Config:
    """The defaults are the released base model at the image size of its pre-training."""

    image_size: tuple[int, int] = (224, 224)
    """Height, width in pixels, multiples of ``patch``."""
    patch: int = 16
    stem: Literal["patch", "conv"] = "patch"
    """``patch`` is the paper's linear projection; ``conv`` is the stem of the size-matched models."""
    text_len: int = 64
    vocab_size: int = 64010
    width: int = 768
    heads: int = 12
    layers: int = 12
    hidden: int = 3072
    """Width of the feed-forward experts."""
    text_positions: int = 1024
    """Rows of the table, two more than the longest text (with its prompt) has tokens."""
    drop_path: float = 0.1
    """Share of residual branches that is dropped in the last layer; the first drops none (paper, table 12)."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """A text before positions are added."""

    x: Tensor
    """(B, L, D) word embeddings, zero at padding."""
    mask: Tensor
    """(B, L) bool, True at tokens."""


class Memory:
    """Keys and values of tokens that stand before the ones that are computed, layer by layer, first layer first."""

    def __init__(self, before: Iterable[tuple[KeyValue, ...]] = ()) -> None:
        """``before`` has for each layer what it saw, (B, S', D) each, in order; none is an empty memory."""
        self.kept: list[KeyValue] = []
        """Keys and values of the tokens that were computed, without those before."""
        self._before = iter(before)

    def exchange(self, key: Tensor, value: Tensor) -> KeyValue:
        """Keeps the next layer's keys and values (B, S, D), and gives them behind those before."""
        self.kept.append((key, value))
        before = next(self._before, ())
        return torch.cat([*(k for k, _ in before), key], dim=1), torch.cat([*(v for _, v in before), value], dim=1)


class Multiway(nn.Module, Generic[M]):
    """Two modules alike: ``A`` for the image tokens in front, ``B`` for the text tokens behind them."""

    A: M
    B: M

    def __init__(self, build: Callable[[], M]) -> None:
        super().__init__()
        self.A, self.B = build(), build()

    def forward(self, x: Tensor, split: int) -> Tensor:
        """(B, S, D) -> (B, S, D'); the first ``split`` tokens go through ``A``."""
        if split >= x.shape[1]:
            return self.A(x)
        if split == 0:
            return self.B(x)
        return torch.cat([self.A(x[:, :split]), self.B(x[:, split:])], dim=1)


class Attention(nn.Module):
    """Multiway self-attention over all tokens together, with a norm before the output projection (sub-LN)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (
            Multiway(lambda: nn.Linear(width, width)) for _ in range(4)
        )
        self.inner_attn_ln = Multiway(lambda: nn.LayerNorm(width, eps=EPS))

    def forward(
        self, x: Tensor, look: Tensor | None, split: int, first: int | None = None, memory: Memory | None = None
    ) -> Tensor:
        """(B, S, D) -> (B, S, D), or (B, ``first``, D).

        Args:
            x: the sequence; its first ``split`` tokens are an image's.
            look: True where attention may look, broadcast to (B, A, S, S); what a memory holds comes first.
            split: see `Multiway`.
            first: computes only this many tokens of the output.
            memory: gives keys and values of tokens before these, and keeps those of these.
        """
        key, value = self.k_proj(x, split), self.v_proj(x, split)
        if memory is not None:
            key, value = memory.exchange(key, value)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj(x[:, :first], split), key, value)
        )
        if look is not None and first is not None and look.shape[-2] > 1:
            look = look[..., :first, :]
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=look).transpose(1, 2).flatten(2)
        return self.out_proj(self.inner_attn_ln(context, split), split)


class FeedForward(nn.Module):
    """One expert: linear, GELU, norm (sub-LN), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.ffn_layernorm = nn.LayerNorm(hidden, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x))))


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, all of it multiway."""

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = Multiway(lambda: nn.LayerNorm(width, eps=EPS))
        self.ffn = Multiway(lambda: FeedForward(width, hidden))
        self.final_layer_norm = Multiway(lambda: nn.LayerNorm(width, eps=EPS))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, look: Tensor | None, split: int, first: int | None = None, memory: Memory | None = None
    ) -> Tensor:
        """As `Attention.forward`."""
        attended = self.self_attn(self.self_attn_layer_norm(x, split), look, split, first, memory)
        x = x[:, :first] + self.drop_path(attended)
        return x + self.drop_path(self.ffn(self.final_layer_norm(x, split), split))


class Encoder(nn.Module):
    """Position embeddings, layers, and the norm of the output, which not every head reads."""

    def __init__(self, config: Beit3Config, image_positions: int) -> None:
        super().__init__()
        width = config.width
        # The first two rows are never read: positions start at `FIRST`, as in fairseq.
        self.embed_positions = nn.ModuleDict(
            {"A": nn.Embedding(image_positions + FIRST, width), "B": nn.Embedding(config.text_positions, width)}
        )
        drops = torch.linspace(0, config.drop_path, config.layers, device="cpu").tolist()
        self.layers = nn.ModuleList(EncoderLayer(width, config.heads, config.hidden, drop) for drop in drops)
        self.layer_norm = Multiway(lambda: nn.LayerNorm(width, eps=EPS))

    def forward(
        self, x: Tensor, look: Tensor | None, split: int, first: int | None = None, memory: Memory | None = None
    ) -> Tensor:
        """(B, S, D) with positions -> (B, S, D), or (B, ``first``, D), before the norm of the output.

        The arguments are those of `Attention.forward`.
        """
        for index, layer in enumerate(self.layers):
            x = layer(x, look, split, first if index == len(self.layers) - 1 else None, memory)
        return x


class VisionEmbedding(nn.Module):
    """Class token and patches; a patch may be replaced by the mask token."""

    def __init__(self, stem: nn.Module, width: int) -> None:
        super().__init__()
        # Only masked image modelling reads the mask token, and it thaws it.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width), requires_grad=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.proj = stem

    def forward(self, image: Tensor, masked: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + patches, D); ``masked`` (B, patches) bool is True at patches to hide."""
        x = self.proj(image)
        if x.ndim == 4:
            x = x.flatten(2).transpose(1, 2)
        if masked is not None:
            x = torch.where(masked[..., None], self.mask_token.to(x.dtype), x)
        return torch.cat([self.cls_token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)


class Pooler(nn.Module):
    """Norm, linear, tanh over the first token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, D)."""
        return torch.tanh(self.dense(self.norm(x[:, 0])))


class Backbone(nn.Module):
    """Everything that all released models share, under the prefix ``beit3``."""

    def __init__(self, config: Beit3Config, patches: int) -> None:
        super().__init__()
        stem = (
            ConvStem(config.width, config.patch)
            if config.stem == "conv"
            else nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        )
        self.text_embed = nn.Embedding(config.vocab_size, config.width)
        self.vision_embed = VisionEmbedding(stem, config.width)
        self.encoder = Encoder(config, patches + 1)

    def words(self, text: Text) -> Words:
        """A text without positions."""
        return Words(x=self.text_embed(text.ids), mask=text.mask)

    def placed(self, text: Words, after: Tensor | None = None) -> Tensor:
        """(B, L, D) with positions, which count on from ``after`` tokens (B,) of a text before this one."""
        place = torch.arange(text.x.shape[1], device=text.x.device) + FIRST
        if after is not None:
            place = place + after[:, None]
        return (text.x + self.encoder.embed_positions["B"](place)) * text.mask[..., None]
