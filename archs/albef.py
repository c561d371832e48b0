"""ALBEF (Li et al., NeurIPS 2021, arXiv:2107.07651): a ViT and the lower half of BERT, fused by the upper half of BERT.

Losses, temperature, heads, momentum model and queue are objectives (`vlpbench.archs.objectives`). Parameters carry the
names of the official code without the prefix ``bert.``, which is how its fine-tuning models name them.

Shape letters: B batch, L text tokens, N image tokens (class token included), D width, E joint embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.blocks import (
    BertEmbeddings,
    BertLayer,
    BertPredictionHead,
    BertShape,
    KeyValue,
    init_bert,
    init_by_fan_in,
)
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text
from vlpbench.archs.vit import vit

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class AlbefConfig:
    """The defaults are the paper's base model (section 3.1) with ViT-B/16 at 224 pixels."""

    image_size: tuple[int, int] = (224, 224)
    """Height, width in pixels, multiples of ``patch``."""
    patch: int = 16
    stem: Literal["patch", "conv"] = "patch"
    """``patch`` is the paper's linear projection; ``conv`` is the stem of the size-matched models."""
    image_width: int = 768
    image_layers: int = 12
    image_heads: int = 12
    text_len: int = 25
    vocab_size: int = 30522
    positions: int = 512
    pad: int = 0
    """Token id whose word embedding stays zero."""
    width: int = 768
    heads: int = 12
    text_layers: int = 6
    fusion_layers: int = 6
    embed_dim: int = 256
    image_mlp_ratio: float = 4.0
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    """Of BERT; the ViT has none."""

    @property
    def bert(self) -> BertShape:
        """The shape of the text and fusion layers."""
        return BertShape(
            width=self.width,
            heads=self.heads,
            hidden=int(self.width * self.mlp_ratio),
            dropout=self.dropout,
        )


_SMALL = AlbefConfig(
    image_size=(32, 32),
    stem="conv",
    image_width=96,
    image_layers=3,
    image_heads=4,
    text_len=16,
    vocab_size=40,
    positions=32,
    width=96,
    heads=4,
    text_layers=2,
    fusion_layers=2,
    embed_dim=64,
    image_mlp_ratio=2.0,
    mlp_ratio=2.0,
    dropout=0.0,
)
SIZES: Mapping[str, AlbefConfig] = {
    "tiny": replace(
        _SMALL,
        image_width=32,
        image_layers=1,
        image_heads=2,
        width=32,
        heads=2,
        text_layers=1,
        fusion_layers=1,
        embed_dim=16,
    ),
    "small": _SMALL,
    "medium": replace(
        _SMALL,
        image_size=(64, 64),
        image_width=384,
        image_layers=4,
        image_heads=6,
        width=384,
        heads=6,
        text_layers=3,
        fusion_layers=3,
        embed_dim=256,
        image_mlp_ratio=4.0,
        mlp_ratio=4.0,
    ),
    "base": AlbefConfig(),
}
"""``small`` and ``medium`` match the other architectures' parameters within 10 %."""


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """A ViT's output, and what the fusion layers need of it once it is prepared."""

    cls: Tensor
    """(B, D) class token."""
    tokens: Tensor | None
    """(B, N, D) all tokens, class token first; None once ``keys_values`` replaces them."""
    keys_values: tuple[KeyValue, ...] | None = None
    """Keys and values (B, N, D) of each fusion layer's cross-attention."""


@dataclass(frozen=True, kw_only=True)
class TextState:
    """The output of BERT's text layers."""

    tokens: Tensor
    """(B, L, D)."""
    mask: Tensor
    """(B, L) bool, True at tokens."""


class Bert(nn.Module):
    """BERT whose layers from ``text_layers`` on attend to an image after themselves."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        shape = config.bert
        self.text_layers = config.text_layers
        self.embeddings = BertEmbeddings(
            shape, vocab_size=config.vocab_size, positions=config.positions, pad=config.pad
        )
        text = [BertLayer(shape) for _ in range(config.text_layers)]
        fusion = [BertLayer(shape, source_width=config.image_width) for _ in range(config.fusion_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(text + fusion)})
        init_bert(self)

    @property
    def layers(self) -> list[BertLayer]:
        """All layers, text layers first."""
        return list(self.encoder["layer"].children())  # pyright: ignore[reportReturnType]

    def encode(self, text: Text) -> TextState:
        """Embeddings and text layers."""
        hidden = self.embeddings(text.ids)
        for layer in self.layers[: self.text_layers]:
            hidden = layer(hidden, text.mask[:, None, None])
        return TextState(tokens=hidden, mask=text.mask)

    def keys_values(self, image_tokens: Tensor) -> tuple[KeyValue, ...]:
        """(B, N, image width) -> keys and values of every fusion layer."""
        return tuple(layer.crossattention.self.keys_values(image_tokens) for layer in self.layers[self.text_layers :])

    def fuse(self, text: TextState, keys_values: tuple[KeyValue, ...], first: int | None = None) -> Tensor:
        """Fusion layers: (B, L, D), or (B, ``first``, D). Image tokens are never padding, so nothing masks them."""
        hidden, mask = text.tokens, text.mask[:, None, None]
        *layers, last = self.layers[self.text_layers :]
        for layer, source in zip(layers, keys_values, strict=False):
            hidden = layer(hidden, mask, source=source)
        return last(hidden, mask, source=keys_values[-1], first=first)


class Albef(VLModel[ImageState, TextState]):
    """See the module's docstring."""

    can = Can.EMBED | Can.FUSE | Can.MASK
    components: ClassVar[Mapping[str, str]] = {
        "visual_encoder": "image",
        "visual_encoder.cls_token": "embedding",
        "visual_encoder.pos_embed": "embedding",
        "visual_encoder.patch_embed": "embedding",
        "text_encoder.embeddings": "embedding",
        "vision_proj": "projection",
        "text_proj": "projection",
    }

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        if config.fusion_layers < 1:
            raise ValueError(f"{config.fusion_layers} fusion layers cannot fuse; take clip to go without")
        self.config = config
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim = config.width, config.embed_dim
        self.visual_encoder = vit(config)
        self.text_encoder = Bert(config)
        self.vision_proj = nn.Linear(config.image_width, config.embed_dim)
        self.text_proj = nn.Linear(config.width, config.embed_dim)
        if config.stem == "conv":
            init_by_fan_in(self)

    @property
    def positions(self) -> Tensor:
        """(1, N, D) position embedding of the ViT."""
        return self.visual_encoder.get_parameter("pos_embed")

    def encode_image(self, image: Tensor) -> ImageState:
        """The whole ViT."""
        tokens = self.visual_encoder.forward_features(image)
        return ImageState(cls=tokens[:, 0], tokens=tokens)

    def encode_text(self, text: Text) -> TextState:
        """The text layers of BERT."""
        return self.text_encoder.encode(text)

    def prepare_image(self, image: ImageState) -> ImageState:
        """Replaces the tokens by the keys and values of the fusion layers."""
        if image.tokens is None:
            return image
        return ImageState(cls=image.cls, tokens=None, keys_values=self.text_encoder.keys_values(image.tokens))

    def embed_image(self, image: ImageState) -> Tensor:
        """Projected class token."""
        return F.normalize(self.vision_proj(image.cls), dim=-1)

    def embed_text(self, text: TextState) -> Tensor:
        """Projected [CLS] of the text layers."""
        return F.normalize(self.text_proj(text.tokens[:, 0]), dim=-1)

    def fuse(self, image: ImageState, text: TextState) -> Fused:
        """The fusion layers; [CLS] is the pair."""
        hidden = self.text_encoder.fuse(text, self.prepare_image(image).keys_values or ())
        return Fused(pooled=hidden[:, 0], text=hidden)

    def fuse_pooled(self, image: ImageState, text: TextState) -> Tensor:
        """The fusion layers, the last of them for [CLS] alone."""
        return self.text_encoder.fuse(text, self.prepare_image(image).keys_values or (), first=1)[:, 0]

    def word_embedding(self) -> nn.Embedding:
        """BERT's."""
        return self.text_encoder.embeddings.word_embeddings

    def mlm_head(self) -> nn.Module:
        """BERT's, tied to the word embedding."""
        return BertPredictionHead(self.word_embedding(), eps=self.text_encoder.embeddings.LayerNorm.eps)

    def structure(self) -> Structure:
        """Text positions may be more than a text has."""
        layers = self.text_encoder.layers
        fusion = sum(hasattr(layer, "crossattention") for layer in layers)
        return Structure(
            image_tokens=self.positions.shape[1],
            text_tokens=self.text_len,
            width=self.word_embedding().embedding_dim,
            image_layers=len(self.visual_encoder.blocks),
            text_layers=len(layers) - fusion,
            fusion_layers=fusion,
            notes=(f"{self.text_encoder.embeddings.position_embeddings.num_embeddings} text positions",),
        )

    def component(self, parameter: str) -> str:
        """As in the interface; the layers of the one BERT are text or fusion by their number."""
        numbered = parameter.removeprefix("text_encoder.encoder.layer.")
        if numbered == parameter:
            return super().component(parameter)
        return "text" if int(numbered.partition(".")[0]) < self.text_encoder.text_layers else "fusion"


def build(size: str, changes: Mapping[str, Any]) -> Albef:
    """ALBEF with random weights.

    Raises:
        UnknownName: for a field that `AlbefConfig` does not have.
    """
    return Albef(changed(SIZES[size], changes, owner=f"albef {size}"))
