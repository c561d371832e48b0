"""CoCa's configuration and sizes, and attention over open_clip's blocks with keys and values that can be kept.

Shape letters: B images, R texts (B times beams), L text tokens, P tokens before them (of a prompt, or written),
N image tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from vlpbench.archs.blocks import ConvStem, KeyValue
from vlpbench.archs.vit import require_patches

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class CocaConfig:
    """The defaults are the paper's base model (Table 1). Positions are learnt for exactly ``image_size``."""

    image_size: tuple[int, int] = (288, 288)
    """Height, width in pixels, multiples of ``patch``."""
    patch: int = 18
    stem: Literal["patch", "conv"] = "patch"
    """``patch`` is the paper's linear projection; ``conv`` is the stem of the size-matched models."""
    image_width: int = 768
    image_layers: int = 12
    image_heads: int = 12
    image_mlp_ratio: float = 4.0
    pooling: Literal["cascade", "shared"] = "cascade"
    """``cascade`` is the paper's: one pooler for captions, and behind it one of a single query for contrast; ``shared``
    is that of open_clip's weights: one pooler whose first query is for contrast and whose others are for captions."""
    queries: int = 256
    """Of the pooler that captions read."""
    pooler_heads: int = 8
    text_len: int = 76
    vocab_size: int = 64000
    width: int = 768
    """D of both halves of the text decoder, of the poolers and of the joint space."""
    heads: int = 12
    text_layers: int = 12
    """Of the unimodal half."""
    fusion_layers: int = 12
    """Of the multimodal half."""
    feed_forwards: int = 1
    """In a multimodal layer: 1 as in the paper, behind cross-attention; 2 as in open_clip, behind each attention."""
    mlp_ratio: float = 4.0
    """Of the text decoder; open_clip's has no other than 4."""
    code: Literal["clean", "official"] = "clean"
    """What a text's summary token sees: the text and itself; or with ``official`` what it sees in open_clip, whose mask
    of padding is shifted by one token: the text, the padding behind it, and itself only where there is none."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is written, a prompt included: keys and values (R, tokens, D) of self-attention in every layer."""

    unimodal: tuple[KeyValue, ...]
    multimodal: tuple[KeyValue, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What every step of writing reads."""

    keys_values: tuple[KeyValue, ...]
    """Of the image, (B, N, D) each."""
    prompt: Past | None = None
    seen: Tensor | None = None
    """(B, P) bool, False at the prompt's padding."""


def _published(name: str) -> CocaConfig:
    """Reads the sizes that open_clip ships under this name."""
    found = open_clip.get_model_config(name)
    if found is None:
        raise ValueError(f"open_clip {open_clip.__version__} has no configuration {name!r}")
    vision, text, decoder = found["vision_cfg"], found["text_cfg"], found["multimodal_cfg"]
    return CocaConfig(
        image_size=(vision["image_size"], vision["image_size"]),
        patch=vision["patch_size"],
        image_width=vision["width"],
        image_layers=vision["layers"],
        image_heads=vision["width"] // vision.get("head_width", 64),
        pooling="shared",
        pooler_heads=vision["attn_pooler_heads"],
        text_len=text["context_length"],
        vocab_size=text["vocab_size"],
        width=text["width"],
        heads=text["heads"],
        text_layers=text["layers"],
        fusion_layers=decoder["layers"],
        feed_forwards=2,
        code="official",
    )


_SMALL = CocaConfig(
    image_size=(32, 32),
    patch=16,
    stem="conv",
    image_width=96,
    image_layers=2,
    image_heads=4,
    image_mlp_ratio=2.0,
    queries=4,
    pooler_heads=4,
    text_len=16,
    vocab_size=40,
    width=96,
    heads=4,
    text_layers=2,
    fusion_layers=2,
    mlp_ratio=2.0,
)
SIZES: Mapping[str, CocaConfig] = {
    "tiny": replace(
        _SMALL, image_width=32, image_layers=1, image_heads=2, pooler_heads=2, width=32, heads=2, text_layers=1
    ),
    "small": _SMALL,
    "medium": replace(
        _SMALL,
        image_size=(64, 64),
        image_width=384,
        image_layers=3,
        image_heads=6,
        image_mlp_ratio=4.0,
        queries=16,
        pooler_heads=6,
        width=384,
        heads=6,
        text_layers=3,
        fusion_layers=3,
        mlp_ratio=4.0,
    ),
    "base": CocaConfig(),
    "b32": _published("coca_ViT-B-32"),
    "large": _published("coca_ViT-L-14"),
}
"""``b32`` and ``large`` are open_clip's, whose weights are released. ``small`` and ``medium`` match the other
architectures' parameters within 10 %."""


def image_encoder(config: CocaConfig) -> VisionTransformer:
    """open_clip's ViT with its poolers.

    Raises:
        ValueError: for numbers that do not fit one another.
    """
    require_patches(config.image_size, config.patch)
    if config.pooling == "cascade" and config.image_width != config.width:
        raise ValueError(
            f"poolers in cascade are normed before they project, so the image must be as wide as the text: "
            f"image_width {config.image_width} is not width {config.width}"
        )
    if config.feed_forwards not in (1, 2):
        raise ValueError(f"a multimodal layer has 1 or 2 feed-forwards, not {config.feed_forwards}")
    visual = VisionTransformer(
        image_size=cast("int", config.image_size),
        patch_size=config.patch,
        width=config.image_width,
        layers=config.image_layers,
        heads=config.image_heads,
        mlp_ratio=config.image_mlp_ratio,
        attentional_pool=cast("bool", "cascade" if config.pooling == "cascade" else True),
        attn_pooler_queries=config.queries,
        attn_pooler_heads=config.pooler_heads,
        output_dim=config.width,
    )
    if config.stem == "conv":
        visual.conv1 = cast("nn.Conv2d", ConvStem(config.image_width, config.patch))
    return visual


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def keys_values(attention: nn.MultiheadAttention, source: Tensor) -> KeyValue:
    """(B, N, D) -> keys and values (B, N, D)."""
    D = attention.embed_dim
    weight, bias = cast("Tensor", attention.in_proj_weight), cast("Tensor", attention.in_proj_bias)
    key, value = F.linear(source, weight[D:], bias[D:]).chunk(2, dim=-1)
    return key, value


def attend(
    attention: nn.MultiheadAttention, x: Tensor, source: KeyValue, look: Tensor | None, *, causal: bool = False
) -> Tensor:
    """(B, L, D); ``look`` is True where attention may look and broadcasts to (B, heads, L, N)."""
    D, heads = attention.embed_dim, attention.num_heads
    query = F.linear(x, cast("Tensor", attention.in_proj_weight)[:D], cast("Tensor", attention.in_proj_bias)[:D])
    q, k, v = (_split(part, heads) for part in (query, *source))
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=look, is_causal=causal)
    return attention.out_proj(context.transpose(1, 2).flatten(2))


def _feed_forward(block: Any, x: Tensor) -> Tensor:
    return x + block.mlp(block.ln_2(x)) if hasattr(block, "mlp") else x


def attend_itself(block: Any, x: Tensor, look: Tensor | None, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
    """One of open_clip's blocks over (R, L, D) behind P tokens, and keys and values (R, P + L, D) of all of them.

    ``look`` broadcasts to (R, heads, L, P + L); without one a token sees what stands before it, and then there is no
    past or a single new token.
    """
    normed = block.ln_1(x)
    own = keys_values(block.attn, normed)
    if past is not None:
        own = torch.cat([past[0], own[0]], dim=1), torch.cat([past[1], own[1]], dim=1)
    x = x + attend(block.attn, normed, own, look, causal=look is None and past is None)
    return _feed_forward(block, x), own


def attend_image(block: Any, x: Tensor, source: KeyValue) -> Tensor:
    """One of open_clip's cross-attention blocks over (R, L, D); source (B, N, D), R a multiple of B.

    Queries of all texts for an image meet its keys in one product, so that nothing of an image is copied.
    """
    grouped = block.ln_1(x).reshape(len(source[0]), -1, x.shape[-1])
    return _feed_forward(block, x + attend(block.attn, grouped, source, None).view_as(x))


def text_look(mask: Tensor, text_len: int, *, official: bool) -> Tensor:
    """(B, 1, S, S), True where a token of [text; summary] may look: back, and the summary token at the text.

    S is L + 1, and with ``official`` L + 2 where a text of ``mask`` (B, L) is shorter than ``text_len``: the shifted
    mask shows the summary the first padding token, which the caller adds.
    """
    one = mask.new_ones(len(mask), 1)
    row = torch.cat([mask, one], dim=1)
    if official:
        row = torch.cat([one, mask], dim=1)
        if mask.shape[1] < text_len:
            row = torch.cat([row, ~one], dim=1)
    length = row.shape[1]
    back = torch.ones(length - 1, length, dtype=torch.bool, device=mask.device).tril()
    return torch.cat([back.expand(len(mask), -1, -1), row[:, None]], dim=1)[:, None]


def written_look(seen: Tensor | None, before: int, ids: Tensor) -> Tensor | None:
    """(R or 1, 1, L, before + L), True where a new token may look; None where it is all that stands before it."""
    rows, length = ids.shape
    if seen is None and (before == 0 or length == 1):
        return None
    back = torch.ones(length, before + length, dtype=torch.bool, device=ids.device).tril(before)
    if seen is None:
        return back[None, None]
    seen = torch.cat([seen, seen.new_ones(rows, before + length - seen.shape[1])], dim=1)
    return seen[:, None, None] & back
