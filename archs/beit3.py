"""BEiT-3 (Wang et al., 2022, arXiv:2208.10442): an image is a foreign language to one multiway encoder.

In the released code (torchscale's layout) attention and feed-forward have one set of weights for image tokens and one
for text tokens, and attention mixes the two; experts for pairs, which the paper's largest model has at the top, are not
in it. Parameters carry the official names. Task heads are in `vlpbench.archs.beit3_tasks`, masked data modelling in
`vlpbench.archs.beit3_masked`.

Shape letters: B batch, L text tokens, N image tokens (class token included), Q prompt tokens, S tokens of a sequence,
D width, E joint embedding size (D), V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.beit3_decode import Context, context, step
from vlpbench.archs.beit3_parts import FIRST, Backbone, Beit3Config, Pooler, Words
from vlpbench.archs.blocks import KeyValue, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text
from vlpbench.archs.vit import require_patches

if TYPE_CHECKING:
    from collections.abc import Mapping


_SMALL = Beit3Config(
    image_size=(32, 32),
    stem="conv",
    text_len=16,
    vocab_size=40,
    width=96,
    heads=4,
    layers=4,
    hidden=168,
    text_positions=64,
    drop_path=0.0,
)
_BASE = Beit3Config()
SIZES: Mapping[str, Beit3Config] = {
    "tiny": replace(_SMALL, width=32, heads=2, layers=2, hidden=64),
    "small": _SMALL,
    "medium": replace(_SMALL, image_size=(64, 64), width=384, heads=6, layers=5, hidden=1664),
    "base": _BASE,
    "large": replace(_BASE, width=1024, heads=16, layers=24, hidden=4096),
}
"""``small`` and ``medium`` match the other architectures' parameters within 10 %, both sets of weights counted."""


class Beit3(VLModel[Tensor, Words]):
    """`encode_image` and `encode_text` only embed; the encoder runs over an image, a text, or both."""

    can = Can.EMBED | Can.FUSE | Can.MASK | Can.DECODE
    components: ClassVar[Mapping[str, str]] = {
        "beit3.text_embed": "embedding",
        "beit3.vision_embed": "embedding",
        "beit3.encoder.embed_positions": "embedding",
        "pooler": "fusion",
        "vision_head": "projection",
        "language_head": "projection",
        "vocabulary": "head",
    }

    def __init__(self, config: Beit3Config) -> None:
        super().__init__()
        require_patches(config.image_size, config.patch)
        if config.layers < 1:
            raise ValueError(f"{config.layers} layers cannot fuse; take 1 or more")
        if config.text_len + 2 > config.text_positions:
            raise ValueError(
                f"texts of {config.text_len} tokens need text_positions of 2 more, not {config.text_positions}"
            )
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width = self.embed_dim = config.width
        self.patches = (config.image_size[0] // config.patch) * (config.image_size[1] // config.patch)
        self.beit3 = Backbone(config, self.patches)
        self.pooler = Pooler(config.width)
        self.vision_head, self.language_head = (nn.Linear(config.width, config.width, bias=False) for _ in range(2))
        self.vocabulary = nn.Linear(config.width, config.vocab_size)
        self._init(config)

    def encode_image(self, image: Tensor, *, masked: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, N, D): class token and patches with their positions.

        ``masked`` (B, N - 1) bool is True at patches that the mask token replaces.
        """
        x = self.beit3.vision_embed(image, masked)
        return x + self._positions("A")[FIRST : FIRST + x.shape[1]]

    def encode_text(self, text: Text) -> Words:
        """Word embeddings; positions depend on what stands before a text, so they are added later.

        Raises:
            ValueError: for a text that is longer than the model was built for.
        """
        if text.ids.shape[1] > self.text_len:
            raise ValueError(f"a text of {text.ids.shape[1]} tokens is longer than the model's {self.text_len}")
        return self.beit3.words(text)

    def embed_image(self, image: Tensor) -> Tensor:
        """The class token behind the encoder with the weights for images; projected."""
        first = self.beit3.encoder(image, None, image.shape[1], first=1)
        return F.normalize(self.vision_head(self.beit3.encoder.layer_norm.A(first[:, 0])), dim=-1)

    def embed_text(self, text: Words) -> Tensor:
        """The first token behind the encoder with the weights for texts; projected."""
        first = self.beit3.encoder(self.beit3.placed(text), text.mask[:, None, None], 0, first=1)
        return F.normalize(self.language_head(self.beit3.encoder.layer_norm.B(first[:, 0])), dim=-1)

    def tokens(self, image: Tensor | None, text: Words | None) -> Tensor:
        """(B, S, D) of an image, a text, or [image; text], before the norm of the output.

        Raises:
            ValueError: for neither.
        """
        sides = [*(() if image is None else (image,)), *(() if text is None else (self.beit3.placed(text),))]
        if not sides:
            raise ValueError("there is neither an image nor a text to encode")
        split = 0 if image is None else image.shape[1]
        return self.beit3.encoder(torch.cat(sides, dim=1), _look(split, text), split)

    def fuse(self, image: Tensor, text: Words) -> Fused:
        """The whole encoder over [image; text]; pooled is the image's class token through norm and tanh layer."""
        x = self.tokens(image, text)
        return Fused(pooled=self.pooler(x), text=self.beit3.encoder.layer_norm.B(x[:, image.shape[1] :]))

    def fuse_pooled(self, image: Tensor, text: Words) -> Tensor:
        """The same, the last layer for the image's class token alone."""
        split = image.shape[1]
        x = torch.cat([image, self.beit3.placed(text)], dim=1)
        return self.pooler(self.beit3.encoder(x, _look(split, text), split, first=1))

    def decode(self, image: Tensor, target: Words, prompt: Words | None = None) -> Tensor:
        """The encoder over [image; prompt; target] (B, L, V): the target is causal, what stands before it is not."""
        split = image.shape[1]
        after = None if prompt is None else prompt.mask.sum(dim=1)
        sides = [image, *(() if prompt is None else (self.beit3.placed(prompt),)), self.beit3.placed(target, after)]
        seen = [target.mask.new_ones(image.shape[:2]), *(() if prompt is None else (prompt.mask,)), target.mask]
        x = torch.cat(sides, dim=1)
        length, context = x.shape[1], x.shape[1] - target.mask.shape[1]
        place = torch.arange(length, device=x.device)
        ordered = (place < context) | (place <= place[:, None])  # (S, S): a column may be seen from a row
        x = self.beit3.encoder(x, torch.cat(seen, dim=1)[:, None, None] & ordered, split)
        return self.vocabulary(self.beit3.encoder.layer_norm.B(x[:, context:]))

    def prepare_decode(self, image: Tensor, prompt: Words | None = None) -> Context:
        """Keys and values of image and prompt, which see no target, for all layers."""
        return context(self.beit3, image, prompt)

    def decode_step(
        self, source: Context, ids: Tensor, past: tuple[KeyValue, ...] | None = None, *, beams: int = 1
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """As in the interface; keeps the keys and values of the texts."""
        return step(self.beit3, self.vocabulary, source, ids, past, beams)

    def word_embedding(self) -> nn.Embedding:
        """That of texts."""
        return self.beit3.text_embed

    def mlm_head(self) -> nn.Module:
        """One linear layer, not tied to the word table, as that of captioning."""
        return nn.Linear(self.width, self.vocab_size)

    def structure(self) -> Structure:
        """The layers are counted three times: images, texts and pairs go through the same ones."""
        layers = len(self.beit3.encoder.layers)
        return Structure(
            image_tokens=self._positions("A").shape[0] - FIRST,
            text_tokens=self.text_len,
            width=self.word_embedding().embedding_dim,
            image_layers=layers,
            text_layers=layers,
            fusion_layers=layers,
            notes=(f"the same {layers} layers serve images, texts and pairs, with weights for each modality",),
        )

    def component(self, parameter: str) -> str:
        """As in the interface; the encoder's weights for image tokens are image, those for text tokens text."""
        if ".A." in parameter and not parameter.startswith("beit3.encoder.embed_positions"):
            return "image"
        if ".B." in parameter and not parameter.startswith("beit3.encoder.embed_positions"):
            return "text"
        return super().component(parameter)

    def _positions(self, way: Literal["A", "B"]) -> Tensor:
        return self.beit3.encoder.embed_positions.get_parameter(f"{way}.weight")

    @torch.no_grad()
    def _init(self, config: Beit3Config) -> None:
        """Normal weights of deviation 0.02, by fan-in at the narrow sizes, with the gain of sub-LN (Magneto).

        Embeddings start at the deviation of torchscale's word table. The released code starts positions at 1; it is
        never run without a checkpoint.
        """
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=config.width**-0.5)
        if config.stem == "conv":
            init_by_fan_in(self)
        nn.init.trunc_normal_(self.beit3.vision_embed.cls_token, std=0.02)
        nn.init.trunc_normal_(self.beit3.vision_embed.mask_token, std=0.02)
        gain = math.sqrt(math.log(2 * config.layers))
        for name, parameter in self.beit3.encoder.layers.named_parameters():
            if any(part in name for part in ("fc1.weight", "fc2.weight", "out_proj", "v_proj")):
                parameter.mul_(gain)


def _look(split: int, text: Words | None) -> Tensor | None:
    """(B, 1, 1, S), True where anybody may look: at all image tokens, and at text that is not padding."""
    if text is None:
        return None
    mask = text.mask
    return (torch.cat([mask.new_ones(len(mask), split), mask], dim=1) if split else mask)[:, None, None]


def build(size: str, changes: Mapping[str, Any]) -> Beit3:
    """BEiT-3 with random weights.

    Raises:
        UnknownName: for a field that `Beit3Config` does not have.
    """
    return Beit3(changed(SIZES[size], changes, owner=f"beit3 {size}"))
