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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.blip_config import SIZES, BlipConfig, bert
from vlpbench.archs.blip_text import DecoderSource, Past, TextDecoder, led_by
from vlpbench.archs.blocks import BertPredictionHead, KeyValue, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text, Unsupported
from vlpbench.archs.vit import vit

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        self.visual_encoder = vit(config, drop_path=config.drop_path)
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
        """BERT's, tied to the word embedding, for the grounded encoder; the paper has LM in its place."""
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


def build(size: str, changes: Mapping[str, Any]) -> Blip:
    """BLIP with random weights.

    Raises:
        UnknownName: for a field that `BlipConfig` does not have.
    """
    return Blip(changed(SIZES[size], changes, owner=f"blip {size}"))
