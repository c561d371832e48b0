"""BLIP's configuration and sizes, and the image and text transformers that they describe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vlpbench.archs.blip_text import Bert
from vlpbench.archs.blocks import BertShape

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_TOKENS = 2
"""[DEC] and [ENC], whose ids follow those of the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class BlipConfig:
    """The defaults are the released base model as it is pre-trained: ViT-B/16 at 224 pixels."""

    image_size: tuple[int, int] = (224, 224)
    """Height, width in pixels, multiples of ``patch``."""
    patch: int = 16
    stem: Literal["patch", "conv"] = "patch"
    """``patch`` is the paper's linear projection; ``conv`` is the stem of the size-matched models."""
    image_width: int = 768
    image_layers: int = 12
    image_heads: int = 12
    text_len: int = 30
    vocab_size: int = 30522
    """Ids that a text may hold; the word table has two rows more, for [DEC] and [ENC]."""
    positions: int = 512
    pad: int = 0
    """Token id whose word embedding stays zero."""
    width: int = 768
    heads: int = 12
    layers: int = 12
    """Of the one BERT."""
    embed_dim: int = 256
    image_mlp_ratio: float = 4.0
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    """Of BERT."""
    drop_path: float = 0.0
    """Share of residual branches that is dropped in the ViT's last layer; the first drops none."""

    @property
    def bert(self) -> BertShape:
        """The shape of BERT's layers."""
        hidden = int(self.width * self.mlp_ratio)
        return BertShape(width=self.width, heads=self.heads, hidden=hidden, dropout=self.dropout)


_SMALL = BlipConfig(
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
    layers=3,
    embed_dim=64,
    image_mlp_ratio=2.0,
    mlp_ratio=1.0,
    dropout=0.0,
)
SIZES: Mapping[str, BlipConfig] = {
    "tiny": replace(_SMALL, image_width=32, image_layers=1, image_heads=2, width=32, heads=2, layers=2, embed_dim=16),
    "small": _SMALL,
    "medium": replace(
        _SMALL,
        image_size=(64, 64),
        image_width=384,
        image_layers=4,
        image_heads=6,
        width=384,
        heads=6,
        layers=4,
        embed_dim=256,
        image_mlp_ratio=4.0,
        mlp_ratio=4.0,
    ),
    "base": BlipConfig(),
    "large": BlipConfig(image_width=1024, image_layers=24, image_heads=16, drop_path=0.1),
}
"""``small`` and ``medium`` match the other architectures' parameters within 10 %, the decoder's own counted."""


def bert(config: BlipConfig, *, source_width: int) -> Bert:
    """A BERT of the configured shape whose cross-attention reads tokens of this width."""
    return Bert(
        config.bert,
        layers=config.layers,
        vocab_size=config.vocab_size + OWN_TOKENS,
        positions=config.positions,
        pad=config.pad,
        source_width=source_width,
    )
