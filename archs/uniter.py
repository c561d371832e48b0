"""UNITER (Chen et al., ECCV 2020, arXiv:1909.11740): one transformer over the regions of an image and the words.

Parameters carry the names of the released code. What it is trained on, its task heads and its official checkpoints
are in `vlpbench.archs.uniter_tasks`; how an image comes as regions is in `vlpbench.archs.regions`.

Shape letters: B batch, L text tokens, R regions, F features of a region, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from vlpbench.archs.blocks import BertEmbeddings, BertLayer, BertPredictionHead, BertShape, init_bert, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.regions import BOX, RegionInput, Regions, with_sides
from vlpbench.archs.registry import CROP, changed
from vlpbench.archs.types import Can, Fused, Joint, Structure, Text

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class UniterConfig:
    """Sizes of the one transformer and of what feeds it; the defaults are UNITER-base's."""

    image_size: tuple[int, int] = (600, 1000)
    """Of the pixels that a detector would read. The model reads regions, so nothing in it depends on this."""
    regions: int = 36
    """Regions of an image that costs are measured with; any number can be read (10 to 100 in the paper)."""
    features: int = 2048
    """Numbers that describe a region."""
    crop: int | None = None
    """Side in pixels where ``features`` are the pixels of each box: the size-matched models."""
    text_len: int = 60
    positions: int = 512
    vocab_size: int = 28996
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    image_types: int = 1
    """Images that one text can go with: 2 for statements about a pair, each with a token type of its own."""


_BASE = UniterConfig()
_SMALL = replace(
    _BASE,
    image_size=(32, 32),
    regions=3,
    features=3 * CROP * CROP,
    crop=CROP,
    text_len=16,
    positions=32,
    vocab_size=40,
    width=96,
    layers=7,
    heads=4,
    mlp_ratio=2.5,
    dropout=0.0,
)
SIZES: Mapping[str, UniterConfig] = {
    "tiny": replace(_SMALL, width=32, layers=2, heads=2, mlp_ratio=2.0),
    "small": _SMALL,
    "medium": replace(_SMALL, image_size=(64, 64), regions=4, width=384, layers=11, heads=6, mlp_ratio=4.0),
    "base": _BASE,
    "large": replace(_BASE, width=1024, layers=24, heads=16),
}
"""``base``, ``large``: section 4 and the released configurations; 36 regions and 60 words as in ViLT's table 6.
``small`` and ``medium`` match the other architectures' parameters within 10 %."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One side's input to the transformer."""

    x: Tensor
    """(B, R or L, D)."""
    mask: Tensor
    """(B, R or L) bool, False where nobody may look."""


class RegionEmbeddings(nn.Module):
    """Features and place, each projected and normed; their sum and the token type, normed."""

    def __init__(self, config: UniterConfig) -> None:
        super().__init__()
        self.input = RegionInput(config.features, config.crop, config.width)
        self.img_linear = nn.Linear(self.input.out, config.width)
        self.img_layer_norm, self.pos_layer_norm, self.LayerNorm = (
            nn.LayerNorm(config.width, eps=1e-12) for _ in range(3)
        )
        self.pos_linear = nn.Linear(7, config.width)
        self.mask_embedding = nn.Embedding(2, self.input.out, padding_idx=0).requires_grad_(False)
        """Row 1 stands for a masked region; learnt by `uniter_tasks.Pretraining`, frozen elsewhere."""
        self.dropout = nn.Dropout(config.dropout)

    def regions(self, image: Tensor) -> Regions:
        """(B, R, F + 4) -> regions with their places."""
        features, box, mask = self.input(image)
        return Regions(features=features, place=with_sides(box), mask=mask)

    def forward(self, regions: Regions, types: Tensor, masked: Tensor | None = None) -> Tensor:
        """(B, R, D); ``types`` broadcasts to it. Regions are hidden where ``masked`` (B, R) is True."""
        features = regions.features
        if masked is not None:
            features = torch.where(masked[..., None], self.mask_embedding.weight[1], features)
        x = self.img_layer_norm(self.img_linear(features)) + self.pos_layer_norm(self.pos_linear(regions.place))
        return self.dropout(self.LayerNorm(x + types))


class Uniter(VLModel[Tokens, Tokens]):
    """`encode_image` and `encode_text` only embed: every layer of attention is paid per pair, in `fuse`."""

    can = Can.FUSE | Can.MASK
    components: ClassVar[Mapping[str, str]] = {
        "embeddings": "embedding",
        "img_embeddings": "embedding",
        "encoder": "fusion",
        "pooler": "fusion",
    }

    def __init__(self, config: UniterConfig) -> None:
        super().__init__()
        if config.text_len > config.positions:
            raise ValueError(f"texts of {config.text_len} tokens need as many positions, not {config.positions}")
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim = config.width, 0
        self._image_shape = (config.regions, config.features + BOX)
        shape = BertShape(
            width=config.width,
            heads=config.heads,
            hidden=round(config.mlp_ratio * config.width),
            dropout=config.dropout,
        )
        self.embeddings = BertEmbeddings(
            shape, vocab_size=config.vocab_size, positions=config.positions, types=1 + config.image_types
        )
        self.img_embeddings = RegionEmbeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer(shape) for _ in range(config.layers))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.width, config.width)})
        init_bert(self)
        if config.crop is not None:
            init_by_fan_in(self)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(R, F + 4)."""
        return self._image_shape

    def encode_image(self, image: Tensor) -> Tokens:
        """(B, R, F + 4) -> embedded regions."""
        return self.embed_regions(self.img_embeddings.regions(image))

    def embed_regions(self, regions: Regions, masked: Tensor | None = None, types: Tensor | int = 1) -> Tokens:
        """Regions with features -> the image state.

        Args:
            regions: R of them an image.
            masked: (B, R) bool, regions whose features are hidden.
            types: which image of a pair each is of, from 1: a number for all, or (B, R).
        """
        kinds: nn.Embedding = self.embeddings.token_type_embeddings
        kind = kinds.weight[types] if isinstance(types, int) else kinds(types)
        return Tokens(x=self.img_embeddings(regions, kind, masked), mask=regions.mask)

    def encode_text(self, text: Text) -> Tokens:
        """BERT's word, position and segment embeddings."""
        return Tokens(x=self.embeddings(text.ids), mask=text.mask)

    def fuse(self, image: Tokens, text: Tokens) -> Fused:
        """The whole transformer over [text; regions]; pooled is the text's first token through a tanh layer."""
        x = self.joint(image, text)
        return Fused(pooled=self.pool(x), text=x[:, : text.x.shape[1]])

    def fuse_tokens(self, image: Tokens, text: Tokens) -> Joint:
        """The same with the regions; all tokens are aligned with them, [CLS] and [SEP] too."""
        x = self.joint(image, text)
        tokens, regions = x.split((text.x.shape[1], image.x.shape[1]), dim=1)
        return Joint(pooled=self.pool(x), text=tokens, image=regions, text_mask=text.mask, image_mask=image.mask)

    def fuse_pooled(self, image: Tokens, text: Tokens) -> Tensor:
        """The same, the last layer for the text's first token alone."""
        return self.pool(self.joint(image, text, first=1))

    def joint(self, image: Tokens, text: Tokens, first: int | None = None) -> Tensor:
        """(B, L + R, D) behind all layers, or the first tokens of it."""
        x = torch.cat([text.x, image.x], dim=1)
        seen = torch.cat([text.mask, image.mask], dim=1)[:, None, None]
        layers = list(self.encoder["layer"])  # pyright: ignore[reportArgumentType]
        for layer in layers[:-1]:
            x = layer(x, seen)
        return layers[-1](x, seen, first=first)

    def pool(self, x: Tensor) -> Tensor:
        """(B, L + R, D) -> (B, D)."""
        return torch.tanh(self.pooler["dense"](x[:, 0]))

    def word_embedding(self) -> nn.Embedding:
        """BERT's."""
        return self.embeddings.word_embeddings

    def mlm_head(self) -> BertPredictionHead:
        """BERT's, tied to the word embeddings."""
        return BertPredictionHead(self.word_embedding(), eps=1e-12)

    def structure(self) -> Structure:
        """Image tokens are regions."""
        return Structure(
            image_tokens=self.image_shape[0],
            text_tokens=self.text_len,
            width=self.word_embedding().embedding_dim,
            image_layers=0,
            text_layers=0,
            fusion_layers=len(self.encoder["layer"]),  # pyright: ignore[reportArgumentType]
            notes=("reads regions: the time and the parameters of a detector are not in it",),
        )


def build(size: str, changes: Mapping[str, Any]) -> Uniter:
    """UNITER with random weights.

    Raises:
        UnknownName: for a field that `UniterConfig` does not have.
    """
    return Uniter(changed(SIZES[size], changes, owner=f"uniter {size}"))
