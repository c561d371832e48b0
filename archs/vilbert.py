"""ViLBERT (Lu et al., NeurIPS 2019, arXiv:1908.02265): a stream of words and one of regions, joined by co-attention.

Parameters carry the names of the released code. The streams are in `vlpbench.archs.vilbert_streams`; what ViLBERT is
trained on, its task heads and its official checkpoints in `vlpbench.archs.vilbert_tasks`; how an image comes as regions
in `vlpbench.archs.regions`.

Shape letters: B batch, L text tokens, R regions, N image tokens (R + 1), F features of a region, D and C widths of the
text and of the image stream, E width of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from vlpbench.archs.blocks import BertEmbeddings, BertPredictionHead, init_bert, init_by_fan_in
from vlpbench.archs.model import VLModel
from vlpbench.archs.regions import BOX, Regions, with_area
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text
from vlpbench.archs.vilbert_streams import SIZES, ImageEmbeddings, Streams, VilbertConfig, whole_image

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One side, below the first connection."""

    x: Tensor
    """(B, L, D) or (B, N, C)."""
    mask: Tensor
    """(B, L or N) bool, False where nobody may look."""

    @property
    def seen(self) -> Tensor:
        """(B, 1, 1, L or N)."""
        return self.mask[:, None, None]


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Both sides behind all layers, and their product."""

    image: Tensor
    """(B, N, C)."""
    text: Tensor
    """(B, L, D)."""
    pooled: Tensor
    """(B, E)."""


class Vilbert(VLModel[Stream, Stream]):
    """`encode_text` runs the text layers that see no image, half of them at paper size; `fuse` runs the rest."""

    can = Can.FUSE | Can.MASK
    components: ClassVar[Mapping[str, str]] = {
        "embeddings": "embedding",
        "v_embeddings": "embedding",
        "encoder.layer": "text",
        "encoder.v_layer": "image",
        "encoder.c_layer": "fusion",
        "t_pooler": "fusion",
        "v_pooler": "fusion",
    }

    def __init__(self, config: VilbertConfig) -> None:
        super().__init__()
        if config.text_len > config.positions:
            raise ValueError(f"texts of {config.text_len} tokens need as many positions, not {config.positions}")
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim = config.pair_width, 0
        self._image_shape = (config.regions, config.features + BOX)
        self.embeddings = BertEmbeddings(config.text, vocab_size=config.vocab_size, positions=config.positions)
        self.v_embeddings = ImageEmbeddings(config)
        self.encoder = Streams(config)
        self.t_pooler = nn.ModuleDict({"dense": nn.Linear(config.width, config.pair_width)})
        self.v_pooler = nn.ModuleDict({"dense": nn.Linear(config.image_width, config.pair_width)})
        self.dropout = nn.Dropout(config.dropout)
        init_bert(self)
        if config.crop is not None:
            init_by_fan_in(self)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(R, F + 4)."""
        return self._image_shape

    @property
    def text_width(self) -> int:
        """D."""
        return self.word_embedding().embedding_dim

    def encode_image(self, image: Tensor) -> Stream:
        """(B, R, F + 4) -> the whole image and its regions, embedded."""
        features, box, mask = self.v_embeddings.input(image)
        features, place, mask = whole_image(features, with_area(box), mask)
        return self.embed_regions(Regions(features=features, place=place, mask=mask))

    def embed_regions(self, regions: Regions) -> Stream:
        """N regions of which the first is the whole image -> the image state."""
        x = self.v_embeddings(regions.features, regions.place)
        seen = regions.mask[:, None, None]
        return Stream(x=self.encoder.alone(x, seen, text=False), mask=regions.mask)

    def encode_text(self, text: Text) -> Stream:
        """BERT's embeddings and the layers below the first connection."""
        seen = text.mask[:, None, None]
        return Stream(x=self.encoder.alone(self.embeddings(text.ids), seen, text=True), mask=text.mask)

    def fuse(self, image: Stream, text: Stream) -> Fused:
        """The rest of both streams; pooled is the product of what both first tokens become."""
        joined = self.join(image, text)
        return Fused(pooled=joined.pooled, text=joined.text)

    def fuse_pooled(self, image: Stream, text: Stream) -> Tensor:
        """The same, the last layers for the first tokens alone."""
        return self.join(image, text, first=1).pooled

    def join(self, image: Stream, text: Stream, first: int | None = None) -> Joined:
        """The same, with the image tokens; only the ``first`` tokens of both, where no more are read."""
        v, t = self.encoder(image.x, image.seen, text.x, text.seen, first)
        pooled = torch.relu(self.t_pooler["dense"](t[:, 0])) * torch.relu(self.v_pooler["dense"](v[:, 0]))
        return Joined(image=v, text=t, pooled=self.dropout(pooled))

    def word_embedding(self) -> nn.Embedding:
        """BERT's."""
        return self.embeddings.word_embeddings

    def mlm_head(self) -> BertPredictionHead:
        """BERT's, tied to the word embeddings."""
        return BertPredictionHead(self.word_embedding(), eps=1e-12)

    def structure(self) -> Structure:
        """Image tokens are regions and the whole image; width is that of the text stream."""
        return Structure(
            image_tokens=self._image_shape[0] + 1,
            text_tokens=self.text_len,
            width=self.text_width,
            image_layers=len(self.encoder.v_layer),
            text_layers=len(self.encoder.layer),
            fusion_layers=len(self.encoder.c_layer),
            notes=(
                "reads regions: the time and the parameters of a detector are not in it",
                f"text layers below the first connection, which see no image: {self.encoder.text_connects[0]}",
            ),
        )


def build(size: str, changes: Mapping[str, Any]) -> Vilbert:
    """ViLBERT with random weights.

    Raises:
        UnknownName: for a field that `VilbertConfig` does not have.
    """
    return Vilbert(changed(SIZES[size], changes, owner=f"vilbert {size}"))
