"""ViLBERT's sizes and its two streams: BERT's layers for words, thinner ones for regions, co-attention between them.

Parameters carry the names of the released code, where 1 is the image and 2 the text.

Shape letters: B batch, L text tokens, N image tokens (regions, and the whole image in front), D and C widths of the
text and of the image stream, E width that pairs are attended and pooled in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.blocks import BertIntermediate, BertLayer, BertOutput, BertShape
from vlpbench.archs.regions import RegionInput
from vlpbench.archs.registry import CROP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, kw_only=True)
class VilbertConfig:
    """Sizes of both streams; the defaults are the released 6-layer, 6-connection model's."""

    image_size: tuple[int, int] = (600, 1000)
    """Of the pixels that a detector would read. The model reads regions, so nothing in it depends on this."""
    regions: int = 36
    """Regions of an image that costs are measured with; any number can be read (10 to 36 in the paper)."""
    features: int = 2048
    """Numbers that describe a region."""
    crop: int | None = None
    """Side in pixels where ``features`` are the pixels of each box: the size-matched models."""
    text_len: int = 36
    positions: int = 512
    vocab_size: int = 30522
    width: int = 768
    """D."""
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    image_width: int = 1024
    """C."""
    image_layers: int = 6
    image_heads: int = 8
    image_hidden: int = 1024
    pair_width: int = 1024
    """E."""
    pair_heads: int = 8
    text_connects: tuple[int, ...] = (6, 7, 8, 9, 10, 11)
    """Of each co-attention layer, the number of text layers below it; those below the first one see no image."""
    image_connects: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    """The same of the image layers."""
    dropout: float = 0.1
    released_weights: bool = True
    """Has the two projections of each co-attention layer that released checkpoints hold and nothing reads."""

    @property
    def text(self) -> BertShape:
        """Shape of a text layer."""
        return BertShape(width=self.width, heads=self.heads, hidden=self.hidden, dropout=self.dropout)

    @property
    def image(self) -> BertShape:
        """Shape of an image layer."""
        return BertShape(width=self.image_width, heads=self.image_heads, hidden=self.image_hidden, dropout=self.dropout)


_SMALL = VilbertConfig(
    image_size=(32, 32),
    regions=3,
    features=3 * CROP * CROP,
    crop=CROP,
    text_len=16,
    positions=32,
    vocab_size=40,
    width=96,
    layers=3,
    heads=4,
    hidden=192,
    image_width=96,
    image_layers=2,
    image_heads=4,
    image_hidden=96,
    pair_width=96,
    pair_heads=4,
    text_connects=(1, 2),
    image_connects=(0, 1),
    dropout=0.0,
    released_weights=False,
)
SIZES: Mapping[str, VilbertConfig] = {
    "tiny": replace(
        _SMALL,
        width=32,
        layers=2,
        heads=2,
        hidden=64,
        image_width=32,
        image_layers=1,
        image_heads=2,
        image_hidden=32,
        pair_width=32,
        pair_heads=2,
        text_connects=(1,),
        image_connects=(0,),
    ),
    "small": _SMALL,
    "medium": replace(
        _SMALL,
        image_size=(64, 64),
        regions=4,
        width=384,
        layers=5,
        heads=6,
        hidden=1536,
        image_width=384,
        image_layers=3,
        image_heads=6,
        image_hidden=384,
        pair_width=384,
        pair_heads=6,
        text_connects=(2, 3, 4),
        image_connects=(0, 1, 2),
    ),
    "base": VilbertConfig(),
}
"""``base``: BERT-base for text, 1024 wide for regions (section 3.1). ``small`` and ``medium`` match the other
architectures' parameters within 10 %, and have no parameter that nothing reads."""


class ImageEmbeddings(nn.Module):
    """Features and place, each projected; their sum, normed."""

    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        self.input = RegionInput(config.features, config.crop, config.image_width)
        self.image_embeddings = nn.Linear(self.input.out, config.image_width)
        self.image_location_embeddings = nn.Linear(5, config.image_width)
        self.LayerNorm = nn.LayerNorm(config.image_width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, place: Tensor) -> Tensor:
        """(B, N, F), (B, N, 5) -> (B, N, C)."""
        return self.dropout(self.LayerNorm(self.image_embeddings(features) + self.image_location_embeddings(place)))


class BiAttention(nn.Module):
    """Each stream's queries over the other's keys and values, in a space of width E."""

    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        E, self.heads, self.dropout = config.pair_width, config.pair_heads, config.dropout
        self.query1, self.key1, self.value1 = (nn.Linear(config.image_width, E) for _ in range(3))
        self.query2, self.key2, self.value2 = (nn.Linear(config.width, E) for _ in range(3))

    def forward(self, image: Tensor, image_seen: Tensor, text: Tensor, text_seen: Tensor) -> tuple[Tensor, Tensor]:
        """What the image takes from the text (B, N, E), and the text from the image (B, L, E)."""
        to_image = self._attend(self.query1(image), self.key2(text), self.value2(text), text_seen)
        to_text = self._attend(self.query2(text), self.key1(image), self.value1(image), image_seen)
        return to_image, to_text

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        parts = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(*parts, attn_mask=seen, dropout_p=dropout)
        return found.transpose(1, 2).flatten(2)


class BiOutput(nn.Module):
    """The end of co-attention in both streams: projection, dropout, residual sum, norm."""

    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        E, C, D = config.pair_width, config.image_width, config.width
        self.dense1, self.dense2 = nn.Linear(E, C), nn.Linear(E, D)
        self.LayerNorm1, self.LayerNorm2 = nn.LayerNorm(C, eps=1e-12), nn.LayerNorm(D, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        if config.released_weights:
            self.q_dense1 = nn.Linear(E, C).requires_grad_(False)
            self.q_dense2 = nn.Linear(E, D).requires_grad_(False)

    def forward(self, to_image: Tensor, image: Tensor, to_text: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Of both streams, what came from the other added to what was there."""
        image = self.LayerNorm1(image + self.dropout(self.dense1(to_image)))
        return image, self.LayerNorm2(text + self.dropout(self.dense2(to_text)))


class ConnectionLayer(nn.Module):
    """A co-attentional transformer layer (figure 2b)."""

    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        self.biattention, self.biOutput = BiAttention(config), BiOutput(config)
        self.v_intermediate = BertIntermediate(config.image)
        self.v_output = BertOutput(config.image, config.image_hidden)
        self.t_intermediate = BertIntermediate(config.text)
        self.t_output = BertOutput(config.text, config.hidden)

    def forward(self, image: Tensor, image_seen: Tensor, text: Tensor, text_seen: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, C) and (B, L, D); masks (B, 1, 1, N or L) are True where attention may look."""
        to_image, to_text = self.biattention(image, image_seen, text, text_seen)
        image, text = self.biOutput(to_image, image, to_text, text)
        return self.v_output(self.v_intermediate(image), image), self.t_output(self.t_intermediate(text), text)


class Streams(nn.Module):
    """All layers. What lies below the first connection depends on one side alone."""

    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        for kind, connects, layers in (
            ("text", config.text_connects, config.layers),
            ("image", config.image_connects, config.image_layers),
        ):
            if list(connects) != sorted(connects) or not connects or not 0 <= connects[0] <= connects[-1] <= layers:
                raise ValueError(f"{kind} connections {connects} must rise from 0 to at most {layers} layers")
        if len(config.text_connects) != len(config.image_connects):
            raise ValueError(f"connections {config.text_connects} and {config.image_connects} must be as many")
        self.text_connects, self.image_connects = config.text_connects, config.image_connects
        self.layer = nn.ModuleList(BertLayer(config.text) for _ in range(config.layers))
        self.v_layer = nn.ModuleList(BertLayer(config.image) for _ in range(config.image_layers))
        self.c_layer = nn.ModuleList(ConnectionLayer(config) for _ in config.text_connects)

    def alone(self, x: Tensor, seen: Tensor, *, text: bool) -> Tensor:
        """The layers of one stream below the first connection."""
        layers, connects = (self.layer, self.text_connects) if text else (self.v_layer, self.image_connects)
        for layer in layers[: connects[0]]:
            x = layer(x, seen)
        return x

    def forward(
        self, image: Tensor, image_seen: Tensor, text: Tensor, text_seen: Tensor, first: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """From the first connection on: (B, N, C) and (B, L, D), or only the ``first`` tokens of each."""
        image_ends, text_ends = (*self.image_connects[1:], None), (*self.text_connects[1:], None)
        for place, connection in enumerate(self.c_layer):
            last = place == len(self.c_layer) - 1
            image, text = connection(image, image_seen, text, text_seen)
            image_layers = self.v_layer[self.image_connects[place] : image_ends[place]]
            text_layers = self.layer[self.text_connects[place] : text_ends[place]]
            image = _through(image_layers, image, image_seen, first if last else None)
            text = _through(text_layers, text, text_seen, first if last else None)
        return image, text


def _through(layers: Iterable[nn.Module], x: Tensor, seen: Tensor, first: int | None) -> Tensor:
    """All tokens, or the ``first`` ones, which alone the last layer then computes."""
    stack = list(layers)
    for place, layer in enumerate(stack, start=1):
        x = layer(x, seen, first=first if place == len(stack) else None)
    return x[:, :first]


def whole_image(features: Tensor, place: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Puts the whole image in front of its regions: the mean of their features, and a box over everything."""
    weight = mask[..., None].to(features.dtype)
    mean = (features * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp(min=1)
    everywhere = place.new_tensor([0.0, 0.0, 1.0, 1.0, 1.0]).expand(len(place), 1, 5)
    first = mask.new_ones(len(mask), 1)
    return (
        torch.cat([mean, features], dim=1),
        torch.cat([everywhere, place], dim=1),
        torch.cat([first, mask], dim=1),
    )
