"""Late fusion: a small head that gives a model with two separate embeddings a joint one, so that it can take the tasks
of models that fuse. What it cannot do is look at a word and a patch together: that is the point of comparing it.

Shape letters: B batch, D width, E joint embedding size.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from vlpbench.archs.model import VLModel
from vlpbench.archs.types import Can, Fused, Structure, Text, Unsupported


class LateFusion(VLModel[Any, Any]):
    """Adds `fuse` to a model that embeds and does not fuse; everything else is that model's.

    Pooled is a two-layer perceptron over [image, text, image * text] of the two embeddings, of width 2 * E. There are
    no fused tokens, so nothing masked can be predicted.

    Raises:
        Unsupported: if ``model`` cannot embed, or fuses already.
    """

    def __init__(self, model: VLModel[Any, Any]) -> None:
        super().__init__()
        if Can.EMBED not in model.can or Can.FUSE in model.can:
            raise Unsupported(
                f"late fusion is for models that embed and do not fuse; {type(model).__name__} can "
                f"{'|'.join(model.can.names()) or 'neither'}"
            )
        self.can = model.can | Can.FUSE
        self.model = model
        self.image_size, self.text_len, self.vocab_size = model.image_size, model.text_len, model.vocab_size
        self.embed_dim, self.width = model.embed_dim, 2 * model.embed_dim
        self.fusion = nn.Sequential(
            nn.Linear(3 * self.embed_dim, self.width), nn.GELU(), nn.Linear(self.width, self.width)
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The model's."""
        return self.model.image_shape

    def encode_image(self, image: Tensor) -> Any:
        """The model's."""
        return self.model.encode_image(image)

    def encode_text(self, text: Text) -> Any:
        """The model's."""
        return self.model.encode_text(text)

    def prepare_image(self, image: Any) -> Any:
        """The model's."""
        return self.model.prepare_image(image)

    def embed_image(self, image: Any) -> Tensor:
        """The model's."""
        return self.model.embed_image(image)

    def embed_text(self, text: Any) -> Tensor:
        """The model's."""
        return self.model.embed_text(text)

    def fuse(self, image: Any, text: Any) -> Fused:
        """The pair as one vector; no text tokens."""
        # A unit vector's entries are of size E ** -0.5 and their product of 1 / E: scaled, all three parts start equal.
        scale = self.embed_dim**0.5
        i, t = self.embed_image(image) * scale, self.embed_text(text) * scale
        return Fused(pooled=self.fusion(torch.cat([i, t, i * t], dim=-1)), text=None)

    def decode(self, image: Any, target: Any, prompt: Any = None) -> Tensor:
        """The model's."""
        return self.model.decode(image, target, prompt)

    def word_embedding(self) -> nn.Embedding:
        """The model's."""
        return self.model.word_embedding()

    def structure(self) -> Structure:
        """The model's, with a note: the head is no transformer layer."""
        inner = self.model.structure()
        return dataclasses.replace(inner, notes=(*inner.notes, f"late fusion by a perceptron of width {self.width}"))

    def component(self, parameter: str) -> str:
        """The model's for its own parameters, ``fusion`` for the head."""
        if parameter.startswith("fusion."):
            return "fusion"
        return self.model.component(parameter.removeprefix("model."))
