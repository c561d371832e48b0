"""A thumbnail and a bag of words.

Shape letters: B batch, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Fused, Structure, Text

SIDE = 8
"""Of the thumbnail."""


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    image_size: tuple[int, int] = (32, 32)
    text_len: int = 16
    vocab_size: int = 40
    width: int = 32


class Toy(VLModel[Tensor, Tensor]):
    """Image and text states are (B, D)."""

    can = Can.EMBED | Can.FUSE
    components: ClassVar[Mapping[str, str]] = {
        "look": "image",
        "words": "embedding",
        "read": "text",
        "join": "fusion",
    }

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width = self.embed_dim = config.width
        self.look = nn.Linear(3 * SIDE * SIDE, config.width)
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.read = nn.Linear(config.width, config.width)
        self.join = nn.Sequential(nn.Linear(3 * config.width, config.width), nn.GELU())

    def encode_image(self, image: Tensor) -> Tensor:
        return self.look(F.adaptive_avg_pool2d(image, SIDE).flatten(1))

    def encode_text(self, text: Text) -> Tensor:
        share = text.mask / text.mask.sum(dim=1, keepdim=True)
        return self.read((self.words(text.ids) * share[..., None]).sum(dim=1))

    def embed_image(self, image: Tensor) -> Tensor:
        return F.normalize(image, dim=-1)

    def embed_text(self, text: Tensor) -> Tensor:
        return F.normalize(text, dim=-1)

    def fuse(self, image: Tensor, text: Tensor) -> Fused:
        return Fused(pooled=self.join(torch.cat([image, text, image * text], dim=-1)), text=None)

    def word_embedding(self) -> nn.Embedding:
        return self.words

    def structure(self) -> Structure:
        return Structure(
            image_tokens=SIDE * SIDE,
            text_tokens=self.text_len,
            width=self.words.embedding_dim,
            image_layers=1,
            text_layers=1,
            fusion_layers=1,
        )


def build(size: str, changes: Mapping[str, Any]) -> Toy:
    return Toy(changed(ToyConfig(), changes, owner=f"toy {size}"))
