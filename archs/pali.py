"""PaLI (Chen et al., ICLR 2023, arXiv:2209.06794): a ViT's tokens and a prompt into an encoder-decoder that writes.

Every task is text to text (section 3): the encoder reads [image tokens; prompt], the decoder writes the answer or the
caption. There is no contrast and no matching; `fuse` pools the encoder, for tasks that classify. The ViT is timm's, the
encoder-decoder has the modules of transformers' T5 (`vlpbench.archs.pali_text`).

Shape letters: B batch, R texts (B times beams), L text tokens, N image tokens, D width, V vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from vlpbench.archs.blocks import MaskedHead, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.pali_text import Past, Source, encode, source, write
from vlpbench.archs.pretrained import Layout
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text
from vlpbench.archs.vit import vit

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class PaliConfig:
    """The defaults are PaLI-3B: ViT-G/14 (Zhai et al. 2022) and mT5-large, at 224 pixels."""

    image_size: tuple[int, int] = (224, 224)
    """Height, width in pixels, multiples of ``patch``."""
    patch: int = 14
    stem: Literal["patch", "conv"] = "patch"
    """``patch`` is the paper's linear projection; ``conv`` is the stem of the size-matched models."""
    image_width: int = 1664
    image_layers: int = 48
    image_heads: int = 16
    image_mlp_ratio: float = 64 / 13
    """8192 of 1664."""
    text_len: int = 64
    """Tokens that a text is padded to; relative positions know no longest text."""
    vocab_size: int = 250112
    width: int = 1024
    """D of encoder and decoder."""
    heads: int = 16
    head_width: int = 64
    hidden: int = 2816
    """Width of the gated feed-forward layers."""
    encoder_layers: int = 24
    decoder_layers: int = 24
    dropout: float = 0.1
    """Of encoder and decoder."""


_SMALL = PaliConfig(
    image_size=(32, 32),
    patch=16,
    stem="conv",
    image_width=96,
    image_layers=3,
    image_heads=4,
    image_mlp_ratio=2.0,
    text_len=16,
    vocab_size=40,
    width=96,
    heads=4,
    head_width=24,
    hidden=128,
    encoder_layers=2,
    decoder_layers=2,
    dropout=0.0,
)
SIZES: Mapping[str, PaliConfig] = {
    "tiny": replace(
        _SMALL,
        image_width=32,
        image_layers=1,
        image_heads=2,
        width=32,
        heads=2,
        head_width=16,
        hidden=48,
        encoder_layers=2,
        decoder_layers=1,
    ),
    "small": _SMALL,
    "medium": replace(
        _SMALL,
        image_size=(64, 64),
        image_width=384,
        image_layers=3,
        image_heads=6,
        image_mlp_ratio=4.0,
        width=384,
        heads=6,
        head_width=64,
        hidden=1024,
        encoder_layers=4,
        decoder_layers=3,
    ),
    "base": PaliConfig(),
}
"""``small`` and ``medium`` match the other architectures' parameters within 10 %."""

_VISION = "the checkpoint is of the language model alone"
MT5 = Layout(
    name="mt5",
    rules={name: name for name in ("shared", "encoder", "decoder", "lm_head")},
    absent={"visual": _VISION, "projection": _VISION},
)
"""transformers' mT5, which PaLI starts from."""


class Pali(VLModel[Tensor, Text]):
    """Image state (B, N, D) is the ViT's tokens as wide as words; text state is the text.

    The first token of a text that is decoded starts it, whichever it is; mT5's own is that of padding.
    """

    can = Can.FUSE | Can.MASK | Can.DECODE
    components: ClassVar[Mapping[str, str]] = {
        "visual": "image",
        "visual.pos_embed": "embedding",
        "visual.patch_embed": "embedding",
        "projection": "projection",
        "shared": "embedding",
        "encoder": "fusion",
        "decoder": "fusion",
        "lm_head": "head",
    }

    def __init__(self, config: PaliConfig) -> None:
        super().__init__()
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim = config.width, 0
        self.visual = vit(config, class_token=False)
        self.projection = nn.Linear(config.image_width, config.width)
        language = language_model(config)
        # The container's forward decides by itself what to keep; its parts are adopted under their own names.
        self.shared: nn.Embedding = language.shared
        self.encoder, self.decoder = language.encoder, language.decoder
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=config.width**-0.5)
        if config.stem == "conv":
            init_by_fan_in(self.visual)
            init_by_fan_in(self.projection)

    def encode_image(self, image: Tensor) -> Tensor:
        """All tokens of the ViT, none pooled, projected to the width of words."""
        return self.projection(self.visual.forward_features(image))

    def encode_text(self, text: Text) -> Text:
        """The text itself: it is a prompt to the encoder, or what the decoder writes."""
        return text

    def fuse(self, image: Tensor, text: Text) -> Fused:
        """The encoder over [image; text]; pooled is the mean of the text's tokens."""
        states = self._encode(image, text)[0][:, image.shape[1] :]
        share = text.mask / text.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return Fused(pooled=(states * share.to(states.dtype)[..., None]).sum(dim=1), text=states)

    def decode(self, image: Tensor, target: Text, prompt: Text | None = None) -> Tensor:
        """The decoder over the encoded image, or image and prompt."""
        return self.decode_step(self.prepare_decode(image, prompt), target.ids)[0]

    def prepare_decode(self, image: Tensor, prompt: Text | None = None) -> Source:
        """Keys and values of what the encoder makes of the image and the prompt."""
        return source(self.decoder, *self._encode(image, prompt))

    def decode_step(
        self, source: Source, ids: Tensor, past: Past | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Past]:
        """As in the interface; keeps keys and values of self-attention. How many beams there are shows in the rows."""
        hidden, written = write(self.decoder, self.shared(ids), source, past)
        return self.lm_head(hidden), written

    def taught(self) -> Pali:
        """All but the decoder, which no teacher runs: language modelling is not distilled."""
        reader = copy.copy(self)
        reader._modules = {name: part for name, part in self._modules.items() if name not in ("decoder", "lm_head")}
        return reader

    def word_embedding(self) -> nn.Embedding:
        """mT5's, for the encoder and the decoder; what predicts words is not tied to it."""
        return self.shared

    def mlm_head(self) -> MaskedHead:
        """BERT's, for the encoder's text; the paper has the decoder write masked spans in its place."""
        return MaskedHead(self.width, self.vocab_size)

    def structure(self) -> Structure:
        """Layers of the encoder are fusion layers, those of the decoder text layers."""
        return Structure(
            image_tokens=self.visual.get_parameter("pos_embed").shape[1],
            text_tokens=self.text_len,
            width=self.shared.embedding_dim,
            image_layers=len(self.visual.blocks),
            text_layers=len(self.decoder.block),
            fusion_layers=len(self.encoder.block),
            notes=("text layers are the decoder's",),
        )

    def _encode(self, image: Tensor, text: Text | None) -> tuple[Tensor, Tensor | None]:
        """The encoder's output over [image; text], and where it is no padding."""
        if text is None:
            return encode(self.encoder, image, None), None
        seen = torch.cat([text.mask.new_ones(image.shape[:2]), text.mask], dim=1)
        words = self.shared(text.ids)
        return encode(self.encoder, torch.cat([image.to(words.dtype), words], dim=1), seen), seen


def language_model(config: PaliConfig) -> Any:
    """transformers' model of mT5's form with random weights: gated GELU, no biases."""
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=config.vocab_size,
            d_model=config.width,
            d_kv=config.head_width,
            d_ff=config.hidden,
            num_layers=config.encoder_layers,
            num_decoder_layers=config.decoder_layers,
            num_heads=config.heads,
            dropout_rate=config.dropout,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,  # pyright: ignore[reportCallIssue]
        )
    )


def build(size: str, changes: Mapping[str, Any]) -> Pali:
    """PaLI with random weights.

    Raises:
        UnknownName: for a field that `PaliConfig` does not have.
    """
    return Pali(changed(SIZES[size], changes, owner=f"pali {size}"))
