"""BLIP (Li et al., ICML 2022, arXiv:2201.12086): a ViT and one BERT in three modes that share their weights.

The modes (section 3.1): a text encoder without an image, for contrast; an encoder grounded in the image by
cross-attention in every layer, for matching; a causal decoder grounded the same way, with self-attention of its own,
for language modelling. Losses, momentum model and queue are objectives (`vlpbench.archs.objectives`), task models are
in `vlpbench.archs.blip_tasks`. Parameters carry the official names.

Shape letters: B batch, K texts for an image, L text tokens, N image tokens (class token included) or other tokens that
cross-attention reads, P tokens written before, D width, E joint embedding size, V vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vlpbench.archs.blip_text import Bert, DecoderSource, Past, TextDecoder
from vlpbench.archs.blocks import BertPredictionHead, BertShape, ConvStem, KeyValue, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text, Unsupported

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


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """A ViT's output, and what cross-attention needs of it once it is prepared."""

    cls: Tensor
    """(B, D) class token."""
    tokens: Tensor | None
    """(B, N, D) all tokens, class token first; None once ``keys_values`` replaces them."""
    keys_values: tuple[KeyValue, ...] | None = None
    """Keys and values (B, N, D) of each layer's cross-attention, the same for encoder and decoder."""


class Blip(VLModel[ImageState, Text]):
    """See the module's docstring. A text's first token is replaced by [ENC] where it is fused, by [DEC] to decode."""

    can = Can.EMBED | Can.FUSE | Can.MASK | Can.DECODE
    components: ClassVar[Mapping[str, str]] = {
        "visual_encoder": "image",
        "visual_encoder.cls_token": "embedding",
        "visual_encoder.pos_embed": "embedding",
        "visual_encoder.patch_embed": "embedding",
        "text_encoder": "text",
        "text_encoder.embeddings": "embedding",
        "text_decoder.bert": "fusion",
        "text_decoder.cls": "head",
        "vision_proj": "projection",
        "text_proj": "projection",
    }

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim = config.width, config.embed_dim
        self.visual_encoder = vit(config)
        self.text_encoder = bert(config, source_width=config.image_width)
        self.text_decoder = TextDecoder(self.text_encoder.sharing_all_but_attention())
        self.vision_proj = nn.Linear(config.image_width, config.embed_dim)
        self.text_proj = nn.Linear(config.width, config.embed_dim)
        if config.stem == "conv":
            for part in (
                self.visual_encoder,
                self.text_encoder,
                self.text_decoder.bert,
                self.text_decoder.cls.transform,
            ):
                init_by_fan_in(part)
            init_by_fan_in(nn.ModuleList([self.vision_proj, self.text_proj]))

    @property
    def decoder_token(self) -> int:
        """[DEC], the first token of what is decoded."""
        return self.vocab_size

    @property
    def encoder_token(self) -> int:
        """[ENC], the first token of what is fused."""
        return self.vocab_size + 1

    def encode_image(self, image: Tensor) -> ImageState:
        """The whole ViT."""
        tokens = self.visual_encoder.forward_features(image)
        return ImageState(cls=tokens[:, 0], tokens=tokens)

    def encode_text(self, text: Text) -> Text:
        """The text itself: each mode has another first token, so each runs all of BERT."""
        return text

    def prepare_image(self, image: ImageState) -> ImageState:
        """Replaces the tokens by the keys and values of cross-attention, which fusing and decoding share."""
        if image.tokens is None:
            return image
        return ImageState(cls=image.cls, tokens=None, keys_values=self.text_encoder.keys_values(image.tokens))

    def embed_image(self, image: ImageState) -> Tensor:
        """Projected class token."""
        return F.normalize(self.vision_proj(image.cls), dim=-1)

    def embed_text(self, text: Text) -> Tensor:
        """Projected [CLS] of BERT without an image."""
        return F.normalize(self.text_proj(self.text_encoder(text.ids, text.mask, first=1)[:, 0]), dim=-1)

    def fuse(self, image: ImageState, text: Text) -> Fused:
        """The encoder grounded in the image; [ENC] is the pair."""
        hidden = self.ground(image, text)
        return Fused(pooled=hidden[:, 0], text=hidden)

    def fuse_pooled(self, image: ImageState, text: Text) -> Tensor:
        """The encoder grounded in the image, its last layer for [ENC] alone."""
        return self.ground(image, text, first=1)[:, 0]

    def ground(self, image: ImageState, text: Text, *, first: int | None = None, lead: bool = True) -> Tensor:
        """(B, L, D) fused tokens, or (B, ``first``, D); without ``lead`` the text keeps its own first token."""
        ids = led_by(self.encoder_token, text.ids) if lead else text.ids
        return self.text_encoder(ids, text.mask, sources=self.prepare_image(image).keys_values, first=first)

    def decode(self, image: ImageState, target: Text, prompt: Text | None = None) -> Tensor:
        """As in the interface, for the vocabulary and then [DEC] and [ENC]."""
        return self.decode_step(self.prepare_decode(image, prompt), target.ids)[0]

    def prepare_decode(self, image: ImageState, prompt: Text | None = None) -> DecoderSource:
        """Cross-attention reads the image, or with a prompt the fused tokens of image and prompt (section 5.4).

        Raises:
            Unsupported: for a prompt where image and text differ in width, so that the shared cross-attention cannot
                read text.
        """
        if prompt is None:
            return DecoderSource(keys_values=self.prepare_image(image).keys_values or ())
        width = self.vision_proj.in_features
        if width != self.width:
            raise Unsupported(
                f"decoding after a prompt reads fused text, {self.width} wide, by cross-attention to images, {width} "
                "wide; blip_tasks.Answering has a decoder of its own"
            )
        states = self.ground(image, prompt)
        return DecoderSource(keys_values=self.text_encoder.keys_values(states), mask=prompt.mask)

    def decode_step(
        self, source: DecoderSource, ids: Tensor, past: Past | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Past]:
        """As in the interface; keeps keys and values of self-attention."""
        return self.text_decoder(source, led_by(self.decoder_token, ids) if past is None else ids, past, beams=beams)

    def taught(self) -> Blip:
        """All but the decoder, which no teacher runs: the official momentum model has none."""
        encoder = copy.copy(self)
        encoder._modules = {name: part for name, part in self._modules.items() if name != "text_decoder"}
        return encoder

    def word_embedding(self) -> nn.Embedding:
        """BERT's; the last two rows are [DEC] and [ENC]."""
        return self.text_encoder.embeddings.word_embeddings

    def mlm_head(self) -> nn.Module:
        """BERT's, tied to the word embedding, for the grounded encoder. The paper trains none: it has LM in its place."""
        return BertPredictionHead(self.word_embedding(), eps=self.text_encoder.embeddings.LayerNorm.eps)

    def structure(self) -> Structure:
        """The layers of the one BERT count as text layers without and as fusion layers with an image."""
        layers = self.text_encoder.layers
        return Structure(
            image_tokens=self.visual_encoder.get_parameter("pos_embed").shape[1],
            text_tokens=self.text_len,
            width=self.word_embedding().embedding_dim,
            image_layers=len(self.visual_encoder.blocks),
            text_layers=len(layers),
            fusion_layers=sum(hasattr(layer, "crossattention") for layer in layers),
            notes=("text, fusion and decoder layers share weights",),
        )

    def component(self, parameter: str) -> str:
        """As in the interface; cross-attention in the layers of the one BERT is fusion."""
        inside = parameter.startswith("text_encoder.") and ".crossattention." in parameter
        return "fusion" if inside else super().component(parameter)


def vit(config: BlipConfig) -> VisionTransformer:
    """The image encoder.

    Raises:
        ValueError: for an image that is no whole number of patches.
    """
    if any(side % config.patch for side in config.image_size):
        raise ValueError(f"image size {config.image_size} must be a multiple of the patch size {config.patch}")
    encoder = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch,
        num_classes=0,
        embed_dim=config.image_width,
        depth=config.image_layers,
        num_heads=config.image_heads,
        mlp_ratio=config.image_mlp_ratio,
        drop_path_rate=config.drop_path,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # pyright: ignore[reportArgumentType]
    )
    if config.stem == "conv":
        encoder.patch_embed = ConvStem(config.image_width, config.patch)
    return encoder


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


def led_by(token: int, ids: Tensor) -> Tensor:
    """(B, L) ids with another first token."""
    return torch.cat([ids.new_full((len(ids), 1), token), ids[:, 1:]], dim=1)


def build(size: str, changes: Mapping[str, Any]) -> Blip:
    """BLIP with random weights.

    Raises:
        UnknownName: for a field that `BlipConfig` does not have.
    """
    return Blip(changed(SIZES[size], changes, owner=f"blip {size}"))
