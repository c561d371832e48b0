"""VLMo's configuration and parts: the multiway block, and attention that knows relative positions.

Parameters carry the names of the released code.

Shape letters: B batch, L text tokens, N image tokens (class token included), S tokens of a sequence, D width,
A attention heads, P rows of the table of relative positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn
from vlpbench.archs.blocks import BertEmbeddings, BertShape, ConvStem

Way = Literal["imag", "text", "vl"]
"""Which experts a sequence goes through: an image's, a text's, or those of a pair. The first two are official names."""
EPS = 1e-6
"""Of the transformer's LayerNorm."""


@dataclass(frozen=True, kw_only=True)
class VlmoConfig:
    """The defaults are the paper's base model (section 4.1) at the image size of its pre-training."""

    image_size: tuple[int, int] = (224, 224)
    """Height, width in pixels, multiples of ``patch``."""
    patch: int = 16
    stem: Literal["patch", "conv"] = "patch"
    """``patch`` is the paper's linear projection; ``conv`` is the stem of the size-matched models."""
    text_len: int = 40
    vocab_size: int = 30522
    width: int = 768
    heads: int = 12
    layers: int = 12
    vl_layers: int = 2
    """Top layers with experts for pairs."""
    mlp_ratio: float = 4.0
    positions: Literal["relative", "absolute"] = "relative"
    """``relative`` is one table of attention biases for all layers; ``absolute`` adds embeddings to the input."""
    text_positions: int = 196
    """Longest text that relative positions are learnt for."""
    layer_scale: float | None = 0.1
    """Initial scale of every residual branch; None has no scales."""
    drop_path: float = 0.1
    """Share of residual branches that is dropped in the last layer; the first drops none. Also BERT's dropout, as in
    the released code."""
    image_types: int = 1
    """Images that one text can go with: 2 for statements about a pair, each with a modality type of its own."""


class Attention(nn.Module):
    """Self-attention that all modalities share; keys have no bias, since softmax would not see it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, look: Tensor | None, first: int | None = None) -> Tensor:
        """(B, S, D) -> (B, S, D), or (B, ``first``, D).

        ``look`` is True where attention may look, or what is added to its logits; broadcasts to (B, A, S, S).
        """
        query, key, value = self.qkv.weight.chunk(3)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (F.linear(x[:, :first], query, self.q_bias), F.linear(x, key), F.linear(x, value, self.v_bias))
        )
        if look is not None and look.dtype != torch.bool:
            look = look.to(q.dtype)
        if look is not None and first is not None and look.shape[-2] > 1:
            look = look[..., :first, :]
        return self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=look).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """One expert: linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A multiway block (section 3.2): one attention for all, then the feed-forward expert of the modality.

    A pair goes through the vision-language expert where there is one, and else word by word and patch by patch through
    the experts of text and image.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        hidden: int,
        vl: bool,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.gamma_1, self.gamma_2 = (
            None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale)) for _ in range(2)
        )
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads)
        self.drop_path = DropPath(drop_path)
        for way in ("text", "imag", *(("vl",) if vl else ())):
            self.add_module(f"norm2_{way}", nn.LayerNorm(width, eps=EPS))
            self.add_module(f"mlp_{way}", Mlp(width, hidden))
        self.vl = vl

    def forward(self, x: Tensor, look: Tensor | None, way: Way, *, split: int = 0, first: int | None = None) -> Tensor:
        """(B, S, D) -> (B, S, D), or (B, ``first``, D).

        Args:
            x: the sequence; of a pair the text comes first.
            look: see `Attention`.
            way: the experts to take.
            split: number of text tokens of a pair.
            first: computes only this many tokens of the output, where no more are read.
        """
        x = x[:, :first] + self._branch(self.attn(self.norm1(x), look, first), self.gamma_1)
        if way != "vl" or self.vl:
            return x + self._expert(x, way)
        text, image = x[:, :split], x[:, split:]
        return torch.cat([text + self._expert(text, "text"), image + self._expert(image, "imag")], dim=1)

    def _expert(self, x: Tensor, way: Way) -> Tensor:
        norm, mlp = self.get_submodule(f"norm2_{way}"), self.get_submodule(f"mlp_{way}")
        return self._branch(mlp(norm(x)), self.gamma_2)

    def _branch(self, x: Tensor, gamma: nn.Parameter | None) -> Tensor:
        return self.drop_path(x if gamma is None else gamma * x)


class MultiwayTransformer(nn.Module):
    """The stem for images, all blocks, and the last norm."""

    def __init__(self, config: VlmoConfig) -> None:
        super().__init__()
        rows, columns = (side // config.patch for side in config.image_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        absolute = config.positions == "absolute"
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * columns + 1, config.width)) if absolute else None
        stem = (
            ConvStem(config.width, config.patch)
            if config.stem == "conv"
            else nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        )
        self.patch_embed = nn.ModuleDict({"proj": stem})
        drops = torch.linspace(0, config.drop_path, config.layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(
                width=config.width,
                heads=config.heads,
                hidden=int(config.width * config.mlp_ratio),
                vl=index >= config.layers - config.vl_layers,
                layer_scale=config.layer_scale,
                drop_path=drop,
            )
            for index, drop in enumerate(drops)
        )
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        for parameter in (self.cls_token, *(() if self.pos_embed is None else (self.pos_embed,))):
            nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def layers(self) -> list[Block]:
        """The blocks, first one first."""
        return list(self.blocks.children())  # pyright: ignore[reportReturnType]

    def embed(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D): class token and patches, with positions if they are absolute."""
        x = self.patch_embed["proj"](image)
        if x.ndim == 4:
            x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x if self.pos_embed is None else x + self.pos_embed


class _Unread(nn.Module):
    """A tensor that a layout carries and no code reads, so that a checkpoint is saved as it was loaded."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)


class WordEmbeddings(BertEmbeddings):
    """BERT's embeddings without positions, where attention knows relative ones.

    The released models store a table of absolute positions all the same; here it is a buffer that nobody reads.
    """

    def __init__(self, shape: BertShape, *, vocab_size: int, positions: int) -> None:
        super().__init__(shape, vocab_size=vocab_size, positions=positions)
        self.position_embeddings = _Unread(self.position_embeddings.weight.detach().clone())

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """(B, L) -> (B, L, D), the same from whatever place a text starts."""
        words = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(words))


class RelativePositions(nn.Module):
    """Which row of the table of relative positions a pair of tokens reads.

    The table holds, in this order: every offset between two patches; from the class token, to it, and itself; from
    text to image, from image to text; every offset between two words; from [CLS], to it, and itself.
    """

    image: Tensor
    text: Tensor

    def __init__(self, grid: tuple[int, int], *, text_len: int, text_positions: int) -> None:
        """
        Args:
            grid: rows and columns of patches.
            text_len: longest text.
            text_positions: longest text that the table has offsets for; the released models keep that of the stage
                that is trained on text alone.

        Raises:
            ValueError: for a table that is too short for the texts.
        """
        super().__init__()
        if text_len > text_positions:
            raise ValueError(f"texts of {text_len} tokens need text_positions of at least that, not {text_positions}")
        rows, columns = grid
        patches = (2 * rows - 1) * (2 * columns - 1) + 3
        self.across = (patches, patches + 1)
        """Rows for text looking at image, and for image looking at text."""
        self.rows = patches + 2 + 2 * text_positions
        """P."""
        self.register_buffer("image", _image_index(rows, columns), persistent=False)  # (N, N)
        offset = torch.arange(text_len - 1)
        offset = offset[None, :] - offset[:, None] + text_positions - 2 + patches + 2
        self.register_buffer("text", _with_first(offset, self.rows), persistent=False)  # (L, L)

    def index(self, way: Way, length: int) -> Tensor:
        """(S, S) for an image, for a text of ``length`` tokens, or for such a text in front of an image."""
        text, image = self.text[:length, :length], self.image
        if way != "vl":
            return image if way == "imag" else text
        to_image = text.new_full((length, len(image)), self.across[0])
        to_text = text.new_full((len(image), length), self.across[1])
        return torch.cat([torch.cat([text, to_image], dim=1), torch.cat([to_text, image], dim=1)])


def _image_index(rows: int, columns: int) -> Tensor:
    """(N, N): the offset between two patches by row and column, counted row by row."""
    place = torch.arange(rows * columns)
    row, column = place // columns, place % columns
    down, right = row[:, None] - row[None, :] + rows - 1, column[:, None] - column[None, :] + columns - 1
    return _with_first(down * (2 * columns - 1) + right, (2 * rows - 1) * (2 * columns - 1) + 3)


def _with_first(index: Tensor, end: int) -> Tensor:
    """The index with a first token before it, which has the last three rows before ``end`` to itself."""
    padded = F.pad(index, (1, 0, 1, 0), value=end - 2)
    own = torch.arange(len(padded), device=padded.device) == 0
    return torch.where(own[:, None], torch.where(own, end - 1, end - 3), padded)
