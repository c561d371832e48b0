"""VLMo (Bao et al., NeurIPS 2022, arXiv:2111.02358): one transformer encodes images, texts and pairs.

Attention is shared by all; every block has a feed-forward expert for images and one for texts, and the top blocks have
one for pairs. Parameters carry the names of the released code. Task heads and the stages of pre-training are in
`vlpbench.archs.vlmo_tasks`.

Shape letters: B batch, L text tokens, N image tokens (class token included), S tokens of a sequence, D width,
E joint embedding size (D), A attention heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.blocks import BertEmbeddings, BertShape, MaskedHead, init_bert, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text
from vlpbench.archs.vit import require_patches
from vlpbench.archs.vlmo_parts import MultiwayTransformer, RelativePositions, VlmoConfig, Way, WordEmbeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_SMALL = VlmoConfig(
    image_size=(32, 32),
    stem="conv",
    text_len=16,
    vocab_size=40,
    width=96,
    heads=4,
    layers=5,
    vl_layers=1,
    mlp_ratio=2.0,
    text_positions=32,
    layer_scale=None,
    drop_path=0.0,
)
_BASE = VlmoConfig()
SIZES: Mapping[str, VlmoConfig] = {
    "tiny": replace(_SMALL, width=32, heads=2, layers=2),
    "small": _SMALL,
    "medium": replace(_SMALL, image_size=(64, 64), width=384, heads=6, layers=6, vl_layers=1, mlp_ratio=4.0),
    "base": _BASE,
    "base_plus": replace(_BASE, width=544, heads=16, layers=24, vl_layers=3, positions="absolute", layer_scale=None),
    "large": replace(_BASE, width=1024, heads=16, layers=24, vl_layers=3),
}
"""``small`` and ``medium`` match the other architectures' parameters within 10 %, all experts counted; they have no
layer scale, which would start every narrow sub-layer near zero."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A text before the first block."""

    x: Tensor
    """(B, L, D)."""
    mask: Tensor
    """(B, L) bool, True at tokens."""


class Vlmo(VLModel[Tensor, Tokens]):
    """`encode_image` and `encode_text` only embed; an embedding and a pair are two ways through the same blocks."""

    can = Can.EMBED | Can.FUSE | Can.MASK
    components: ClassVar[Mapping[str, str]] = {
        "relative_position_bias": "fusion",
        "transformer": "fusion",
        "transformer.cls_token": "embedding",
        "transformer.pos_embed": "embedding",
        "transformer.patch_embed": "embedding",
        "text_embeddings": "embedding",
        "token_type_embeddings": "embedding",
        "pooler": "fusion",
        "itc_image_proj": "projection",
        "itc_text_proj": "projection",
    }

    def __init__(self, config: VlmoConfig) -> None:
        super().__init__()
        require_patches(config.image_size, config.patch)
        if not 1 <= config.vl_layers <= config.layers:
            raise ValueError(f"{config.vl_layers} of {config.layers} layers cannot serve pairs; take 1 or more")
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width = self.embed_dim = config.width
        self.vl_start = config.layers - config.vl_layers
        """First layer with an expert for pairs."""
        self.grid = (config.image_size[0] // config.patch, config.image_size[1] // config.patch)
        self.transformer = MultiwayTransformer(config)
        self.relative: RelativePositions | None = None
        self.relative_position_bias: nn.Parameter | None = None
        if config.positions == "relative":
            self.relative = RelativePositions(self.grid, text_len=config.text_len, text_positions=config.text_positions)
            self.relative_position_bias = nn.Parameter(torch.zeros(self.relative.rows, config.heads * config.layers))
        shape = BertShape(width=config.width, heads=config.heads, dropout=config.drop_path)
        words = WordEmbeddings if config.positions == "relative" else BertEmbeddings
        self.text_embeddings = words(shape, vocab_size=config.vocab_size, positions=config.text_len)
        self.token_type_embeddings = nn.Embedding(1 + config.image_types, config.width)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.width, config.width)})
        self.itc_image_proj, self.itc_text_proj = (
            nn.ModuleDict({"fc": nn.Linear(config.width, config.width, bias=False)}) for _ in range(2)
        )
        init_bert(self)
        if config.stem == "conv":
            init_by_fan_in(self)

    def encode_image(self, image: Tensor, *, image_type: int = 1) -> Tensor:
        """(B, 3, H, W) -> (B, N, D): class token and patches, positions if they are absolute, modality type.

        Args:
            image: of the model's size.
            image_type: which image of a pair this is, from 1.
        """
        return self.transformer.embed(image) + self.token_type_embeddings.weight[image_type]

    def encode_text(self, text: Text) -> Tokens:
        """BERT's embeddings and the modality type.

        Raises:
            ValueError: for a text that is longer than the model was built for.
        """
        if text.ids.shape[1] > self.text_len:
            raise ValueError(f"a text of {text.ids.shape[1]} tokens is longer than the model's {self.text_len}")
        return Tokens(x=self.text_embeddings(text.ids) + self.token_type_embeddings.weight[0], mask=text.mask)

    def embed_image(self, image: Tensor) -> Tensor:
        """The class token behind all blocks, each with the expert for images; projected."""
        return self.contrast(image)[0]

    def embed_text(self, text: Tokens) -> Tensor:
        """[CLS] behind all blocks, each with the expert for texts; projected."""
        return self.contrast(text)[0]

    def contrast(self, state: Tensor | Tokens, *, vl: bool = False) -> tuple[Tensor, ...]:
        """What one side of a pair is contrasted by: its embedding (B, E).

        With ``vl`` also its first token (B, D) behind the experts for pairs, where there are some; the blocks below
        them are run once for both.
        """
        way, x, seen = ("text", state.x, state.mask) if isinstance(state, Tokens) else ("imag", state, None)
        looks = self._looks(way, x.shape[1], seen)
        lower = self._run(x, looks, way, stop=self.vl_start)
        own = self._run(lower, looks, way, start=self.vl_start, first=1)[:, 0]
        embed = F.normalize((self.itc_text_proj if way == "text" else self.itc_image_proj)["fc"](own), dim=-1)
        return (embed, self._run(lower, looks, "vl", start=self.vl_start, first=1)[:, 0]) if vl else (embed,)

    def text_tokens(self, text: Tokens) -> Tensor:
        """(B, L, D) of a text alone: what the second stage of pre-training predicts masked words from."""
        return self._run(text.x, self._looks("text", text.x.shape[1], text.mask), "text")

    def fuse(self, image: Tensor, text: Tokens) -> Fused:
        """All blocks over [text; image]; pooled is the text's first token through a tanh layer."""
        x = self._joint(image, text)
        return Fused(pooled=self._pool(x), text=x[:, : text.x.shape[1]])

    def fuse_pooled(self, image: Tensor, text: Tokens) -> Tensor:
        """The same, the last block for the text's first token alone."""
        return self._pool(self._joint(image, text, first=1))

    def word_embedding(self) -> nn.Embedding:
        """BERT's."""
        return self.text_embeddings.word_embeddings

    def mlm_head(self) -> MaskedHead:
        """BERT's, with a decoder of its own."""
        return MaskedHead(self.width, self.vocab_size)

    def structure(self) -> Structure:
        """The blocks are counted three times: images, texts and pairs go through the same ones."""
        blocks = self.transformer.layers
        layers, experts = len(blocks), sum(block.vl for block in blocks)
        return Structure(
            image_tokens=self.grid[0] * self.grid[1] + 1,
            text_tokens=self.text_len,
            width=self.word_embedding().embedding_dim,
            image_layers=layers,
            text_layers=layers,
            fusion_layers=layers,
            notes=(f"the same {layers} blocks serve images, texts and pairs; the top {experts} with an own expert",),
        )

    def component(self, parameter: str) -> str:
        """As in the interface; experts are image or text, what is shared and the experts for pairs are fusion."""
        if parameter.startswith("transformer.blocks."):
            for expert, component in (("_imag.", "image"), ("_text.", "text")):
                if expert in parameter:
                    return component
        return super().component(parameter)

    def _joint(self, image: Tensor, text: Tokens, first: int | None = None) -> Tensor:
        """(B, L + N, D), or (B, ``first``, D)."""
        length = text.x.shape[1]
        seen = torch.cat([text.mask, text.mask.new_ones(image.shape[:2])], dim=1)
        looks = self._looks("vl", length, seen)
        return self._run(torch.cat([text.x, image], dim=1), looks, "vl", split=length, first=first)

    def _pool(self, x: Tensor) -> Tensor:
        return torch.tanh(self.pooler["dense"](x[:, 0]))

    def _looks(self, way: Way, length: int, seen: Tensor | None) -> Callable[[int], Tensor | None]:
        """Layer -> what its attention adds or may look at, (1 or B, A or 1, S or 1, S).

        Biases of all layers are looked up at once; the copy for a batch with padding is made layer by layer.
        """
        look = None if seen is None else seen[:, None, None]
        if self.relative is None or self.relative_position_bias is None:
            return lambda _: look
        rows = self.relative.index(way, length)
        biases = F.embedding(rows, self.relative_position_bias).permute(2, 0, 1).chunk(len(self.transformer.layers))
        if look is None:
            return lambda layer: biases[layer][None]
        return lambda layer: torch.where(look, biases[layer], -torch.inf)

    def _run(
        self,
        x: Tensor,
        looks: Callable[[int], Tensor | None],
        way: Way,
        *,
        start: int = 0,
        stop: int | None = None,
        split: int = 0,
        first: int | None = None,
    ) -> Tensor:
        """Blocks ``start`` to ``stop``; behind the last of all blocks the norm, and only ``first`` tokens."""
        blocks = self.transformer.layers
        stop = len(blocks) if stop is None else stop
        for layer in range(start, stop):
            last = layer == len(blocks) - 1
            x = blocks[layer](x, looks(layer), way, split=split, first=first if last else None)
        return self.transformer.norm(x[:, :first]) if stop == len(blocks) else x


def build(size: str, changes: Mapping[str, Any]) -> Vlmo:
    """VLMo with random weights.

    Raises:
        UnknownName: for a field that `VlmoConfig` does not have.
    """
    return Vlmo(changed(SIZES[size], changes, owner=f"vlmo {size}"))
