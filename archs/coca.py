"""CoCa (Yu et al., TMLR 2022, arXiv:2205.01917): contrast and captions from one decoder in two halves.

The lower half of the text decoder sees no image; its summary token is contrasted with the pooled image. The upper half
reads the image by cross-attention and predicts the next word. Both losses take one pass over the text (section 3.2).
Modules are open_clip's, so parameters carry the names of its released checkpoints; ours are the cut into verbs and
attention with keys and values that can be kept (`vlpbench.archs.coca_parts`).

Shape letters: B images, R texts (B times beams), L text tokens, P tokens of a prompt, N image tokens, D width,
V vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from open_clip.transformer import MultimodalTransformer, TextTransformer
from torch import Tensor, nn
from vlpbench.archs.blocks import KeyValue
from vlpbench.archs.coca_parts import (
    SIZES,
    CocaConfig,
    Past,
    Source,
    attend_image,
    attend_itself,
    image_encoder,
    keys_values,
    text_look,
    written_look,
)
from vlpbench.archs.model import VLModel, take
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_OURS: Mapping[str, str] = {
    "logit_scale": "the temperature of the contrastive loss, which belongs to the objective",
}
"""Keys of released checkpoints that the model has no parameter for, and why."""


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """An image behind the poolers, and what cross-attention needs of it once it is prepared."""

    pooled: Tensor
    """(B, D), for contrast."""
    tokens: Tensor | None
    """(B, N, D), for captions; None once ``keys_values`` replaces them."""
    keys_values: tuple[KeyValue, ...] | None = None
    """(B, N, D) each, of every multimodal layer."""


@dataclass(frozen=True, kw_only=True)
class TextState:
    """A text behind the unimodal half."""

    text: Text
    tokens: Tensor
    """(B, L, D)."""
    summary: Tensor
    """(B, D), the token behind the text."""


class Coca(VLModel[ImageState, TextState]):
    """See the module's docstring. A text's summary token stands at the last position, whatever the text's length."""

    can = Can.EMBED | Can.FUSE | Can.DECODE
    components: ClassVar[Mapping[str, str]] = {
        "visual": "image",
        "visual.conv1": "embedding",
        "visual.class_embedding": "embedding",
        "visual.positional_embedding": "embedding",
        "visual.proj": "projection",
        "text": "text",
        "text.token_embedding": "embedding",
        "text.positional_embedding": "embedding",
        "text.cls_emb": "embedding",
        "text.text_projection": "projection",
        "text_decoder": "fusion",
        "text_decoder.text_projection": "head",
    }

    def __init__(self, config: CocaConfig) -> None:
        super().__init__()
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width = self.embed_dim = config.width
        self.official = config.code == "official"
        self.visual: Any = image_encoder(config)
        self.text: Any = TextTransformer(
            context_length=config.text_len,
            vocab_size=config.vocab_size,
            width=config.width,
            heads=config.heads,
            layers=config.text_layers,
            mlp_ratio=config.mlp_ratio,
            output_dim=config.width,
            embed_cls=True,
        )
        self.text_decoder: Any = MultimodalTransformer(
            width=config.width,
            layers=config.fusion_layers,
            heads=config.heads,
            context_length=config.text_len,
            mlp_ratio=config.mlp_ratio,
            output_dim=config.vocab_size,
        )
        # open_clip leaves this one as the memory was.
        nn.init.normal_(self.text_decoder.text_projection, std=config.width**-0.5)
        if config.feed_forwards == 1:
            for block in self.text_decoder.resblocks:
                del block.ln_2, block.mlp

    def encode_image(self, image: Tensor) -> ImageState:
        """The whole ViT and the poolers."""
        visual = self.visual
        patches = visual.conv1(image)
        if patches.ndim == 4:
            patches = patches.flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        pooled, tokens = visual._pool(visual.transformer(visual.ln_pre(x)))
        # The pooler of one query gives one token.
        return ImageState(pooled=pooled if pooled.ndim == 2 else pooled[:, 0], tokens=tokens)

    def encode_text(self, text: Text) -> TextState:
        """The unimodal half over the text and its summary token."""
        length = text.ids.shape[1]
        # Official summaries see padding, whose token is 0 in every released vocabulary.
        ids = text.ids * text.mask if self.official else text.ids
        look = text_look(text.mask, self.text_len, official=self.official)
        x = self._words(ids, start=0)
        if look.shape[2] == length + 2:
            x = torch.cat([x, self._words(ids.new_zeros(len(ids), 1), start=length)], dim=1)
        place = self.text.positional_embedding[self.text_len]
        summary = (self.text.cls_emb + place).to(x.dtype).expand(len(x), 1, -1)
        x, _ = self._unimodal(torch.cat([x, summary], dim=1), look)
        return TextState(text=text, tokens=x[:, :length], summary=x[:, -1])

    def prepare_image(self, image: ImageState) -> ImageState:
        """Replaces the tokens by the keys and values of cross-attention."""
        if image.tokens is None:
            return image
        blocks = self.text_decoder.cross_attn
        found = tuple(keys_values(block.attn, block.ln_1_kv(image.tokens)) for block in blocks)
        return ImageState(pooled=image.pooled, tokens=None, keys_values=found)

    def embed_image(self, image: ImageState) -> Tensor:
        """The projected query for contrast."""
        return F.normalize(image.pooled @ self.visual.proj, dim=-1)

    def embed_text(self, text: TextState) -> Tensor:
        """The projected summary token."""
        return F.normalize(self.text.ln_final(text.summary) @ self.text.text_projection, dim=-1)

    def fuse(self, image: ImageState, text: TextState) -> Fused:
        """The multimodal half; pooled is the last token that is not padding."""
        hidden, _ = self._multimodal(text.tokens, self.prepare_image(image).keys_values or ())
        last = (text.text.mask.sum(dim=1) - 1).clamp(min=0)
        return Fused(pooled=hidden[torch.arange(len(hidden), device=last.device), last], text=hidden)

    def decode(self, image: ImageState, target: TextState, prompt: TextState | None = None) -> Tensor:
        """As in the interface; a prompt stands before the text, and the text's positions follow its tokens."""
        if prompt is not None:
            return self.decode_step(self.prepare_decode(image, prompt), target.text.ids)[0]
        hidden, _ = self._multimodal(target.tokens, self.prepare_image(image).keys_values or ())
        return hidden @ self.text_decoder.text_projection

    def prepare_decode(self, image: ImageState, prompt: TextState | None = None) -> Source:
        """Keys and values of the image, and of the prompt in both halves."""
        source = self.prepare_image(image).keys_values or ()
        if prompt is None:
            return Source(keys_values=source)
        x, unimodal = self._unimodal(self._words(prompt.text.ids, start=0))
        _, multimodal = self._multimodal(x, source)
        past = Past(unimodal=unimodal, multimodal=multimodal)
        return Source(keys_values=source, prompt=past, seen=prompt.text.mask)

    def decode_step(
        self, source: Source, ids: Tensor, past: Past | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Past]:
        """As in the interface; keeps keys and values of self-attention.

        Raises:
            ValueError: for a text that, with its prompt, is longer than the model was built for.
        """
        seen = source.seen
        if source.prompt is not None:
            rows = torch.arange(len(ids), device=ids.device) // beams
            seen = take(source.seen, rows)
            past = take(source.prompt, rows) if past is None else past
        asked = 0 if seen is None else seen.shape[1]
        before = 0 if past is None else past.unimodal[0][0].shape[1]
        look = written_look(seen, before, ids)
        start = before if seen is None else seen.sum(dim=1) + (before - asked)
        x = self._words(ids, start=start)
        x, unimodal = self._unimodal(x, look, None if past is None else past.unimodal)
        x, multimodal = self._multimodal(x, source.keys_values, look, None if past is None else past.multimodal)
        return x @ self.text_decoder.text_projection, Past(unimodal=unimodal, multimodal=multimodal)

    def taught(self) -> Coca:
        """All but the multimodal half, which no teacher runs: captions are not distilled."""
        encoder = copy.copy(self)
        encoder._modules = {name: part for name, part in self._modules.items() if name != "text_decoder"}
        return encoder

    def word_embedding(self) -> nn.Embedding:
        """The unimodal half's; what predicts words is not tied to it."""
        return self.text.token_embedding

    def structure(self) -> Structure:
        """Image tokens are the ViT's; what the poolers make of them is in the notes."""
        queries = cast("Tensor", self.visual.attn_pool.query).shape[0]
        return Structure(
            image_tokens=self.visual.positional_embedding.shape[0],
            text_tokens=self.text_len,
            width=self.text.positional_embedding.shape[1],
            image_layers=len(self.visual.transformer.resblocks),
            text_layers=len(self.text.transformer.resblocks),
            fusion_layers=len(self.text_decoder.resblocks),
            notes=(f"{queries} queries pool the image; causal text",),
        )

    def _words(self, ids: Tensor, start: int | Tensor) -> Tensor:
        """(R, L) -> (R, L, D), the first at position ``start``, one for all or (R,)."""
        x, table, length = self.text.token_embedding(ids), self.text.positional_embedding, ids.shape[1]
        if isinstance(start, int):
            self._check_length(start + length)
            return x + table[start : start + length].to(x.dtype)
        if not start.is_meta:
            self._check_length(int(start.max()) + length)
        return x + F.embedding(start[:, None] + torch.arange(length, device=ids.device), table).to(x.dtype)

    def _check_length(self, length: int) -> None:
        if length > self.text_len:
            raise ValueError(f"text of {length} tokens is longer than the {self.text_len} this model was built for")

    def _unimodal(
        self, x: Tensor, look: Tensor | None = None, past: tuple[KeyValue, ...] | None = None
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        kept = []
        for number, block in enumerate(self.text.transformer.resblocks):
            x, own = attend_itself(block, x, look, None if past is None else past[number])
            kept.append(own)
        return x, tuple(kept)

    def _multimodal(
        self,
        x: Tensor,
        source: tuple[KeyValue, ...],
        look: Tensor | None = None,
        past: tuple[KeyValue, ...] | None = None,
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        decoder, kept = self.text_decoder, []
        for number, (block, cross) in enumerate(zip(decoder.resblocks, decoder.cross_attn, strict=True)):
            x, own = attend_itself(block, x, look, None if past is None else past[number])
            x = attend_image(cross, x, source[number])
            kept.append(own)
        return decoder.ln_final(x), tuple(kept)


def build(size: str, changes: Mapping[str, Any]) -> Coca:
    """CoCa with random weights.

    Raises:
        UnknownName: for a field that `CocaConfig` does not have.
    """
    return Coca(changed(SIZES[size], changes, owner=f"coca {size}"))


def load_official(model: Coca, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loads a checkpoint in open_clip's layout, every key of it.

    Returns:
        The entries of the checkpoint that are in `NOT_OURS`.

    Raises:
        RuntimeError: for a key that is missing, unknown or of another shape.
    """
    model.load_state_dict({key: value for key, value in state.items() if key not in NOT_OURS})
    return {key: value for key, value in state.items() if key in NOT_OURS}
