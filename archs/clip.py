"""CLIP (Radford et al., 2021, arXiv:2103.00020): two towers, one joint space, no fusion.

The towers are open_clip's own modules, so parameters carry the names of the released checkpoints. What is ours is the
cut into `encode` and `embed`, and text pooling by mask.

Shape letters: B batch, L text tokens, N image tokens (class token included), D width, E joint embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vlpbench.archs.blocks import ConvStem
from vlpbench.archs.model import VLModel
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Structure, Text
from vlpbench.archs.vit import require_patches

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Sizes of both towers. Positions are learnt for exactly ``image_size``; another size is another model."""

    image_size: tuple[int, int] = (224, 224)
    """Height, width in pixels, multiples of ``patch``."""
    patch: int
    stem: Literal["patch", "conv"] = "patch"
    """``patch`` is the paper's linear projection; ``conv`` is the stem of the size-matched models."""
    image_width: int
    image_layers: int
    image_heads: int
    text_len: int
    vocab_size: int
    text_width: int
    text_layers: int
    text_heads: int
    embed_dim: int
    mlp_ratio: float = 4.0
    quick_gelu: bool = False
    """x * sigmoid(1.702 x), which OpenAI's released weights were trained with; open_clip's own use the exact GELU."""


def _published(name: str) -> ClipConfig:
    """Reads the sizes that open_clip ships under this name, which are those of the paper's Table 20."""
    found = open_clip.get_model_config(name)
    if found is None:
        raise ValueError(f"open_clip {open_clip.__version__} has no configuration {name!r}")
    vision, text = found["vision_cfg"], found["text_cfg"]
    return ClipConfig(
        image_size=(vision["image_size"], vision["image_size"]),
        patch=vision["patch_size"],
        image_width=vision["width"],
        image_layers=vision["layers"],
        image_heads=vision["width"] // vision.get("head_width", 64),
        text_len=text["context_length"],
        vocab_size=text["vocab_size"],
        text_width=text["width"],
        text_layers=text["layers"],
        text_heads=text["heads"],
        embed_dim=found["embed_dim"],
    )


SIZES: Mapping[str, ClipConfig] = {
    "tiny": ClipConfig(
        image_size=(32, 32),
        patch=16,
        stem="conv",
        image_width=32,
        image_layers=2,
        image_heads=2,
        text_len=16,
        vocab_size=40,
        text_width=32,
        text_layers=2,
        text_heads=2,
        embed_dim=16,
        mlp_ratio=2.0,
    ),
    "small": ClipConfig(
        image_size=(32, 32),
        patch=16,
        stem="conv",
        image_width=96,
        image_layers=4,
        image_heads=4,
        text_len=16,
        vocab_size=40,
        text_width=96,
        text_layers=3,
        text_heads=4,
        embed_dim=64,
        mlp_ratio=2.5,
    ),
    "medium": ClipConfig(
        image_size=(64, 64),
        patch=16,
        stem="conv",
        image_width=384,
        image_layers=6,
        image_heads=6,
        text_len=16,
        vocab_size=40,
        text_width=384,
        text_layers=5,
        text_heads=6,
        embed_dim=256,
    ),
    "base": _published("ViT-B-16"),
    "b32": _published("ViT-B-32"),
    "b16": _published("ViT-B-16"),
    "l14": _published("ViT-L-14"),
}
"""``base`` is B/16, whose image tower is the one ALBEF has (ADR-0002). ``small`` and ``medium`` match the other
architectures' parameters within 10 %."""

NOT_OURS: Mapping[str, str] = {
    "logit_scale": "the temperature of the contrastive loss, which belongs to the objective",
    "input_resolution": "a number that OpenAI's archives store beside the weights",
    "context_length": "a number that OpenAI's archives store beside the weights",
    "vocab_size": "a number that OpenAI's archives store beside the weights",
}
"""Keys of released checkpoints that the model has no parameter for, and why."""


class Clip(VLModel[Tensor, Tensor]):
    """Image state (B, D) is the normed class token; text state (B, D) the normed last token that is not padding."""

    can = Can.EMBED
    components: ClassVar[Mapping[str, str]] = {
        "visual": "image",
        "visual.conv1": "embedding",
        "visual.class_embedding": "embedding",
        "visual.positional_embedding": "embedding",
        "visual.proj": "projection",
        "transformer": "text",
        "ln_final": "text",
        "token_embedding": "embedding",
        "positional_embedding": "embedding",
        "text_projection": "projection",
    }

    attn_mask: Tensor
    """(L, L) causal, added to attention scores."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        require_patches(config.image_size, config.patch)
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim = 0, config.embed_dim
        towers = open_clip.CLIP(
            config.embed_dim,
            open_clip.CLIPVisionCfg(
                layers=config.image_layers,
                width=config.image_width,
                head_width=config.image_width // config.image_heads,
                mlp_ratio=config.mlp_ratio,
                patch_size=config.patch,
                image_size=config.image_size,
            ),
            open_clip.CLIPTextCfg(
                context_length=config.text_len,
                vocab_size=config.vocab_size,
                width=config.text_width,
                heads=config.text_heads,
                layers=config.text_layers,
                mlp_ratio=config.mlp_ratio,
            ),
            quick_gelu=config.quick_gelu,
        )
        # open_clip's container also holds the loss's temperature: its parts are adopted under their own names instead.
        self.visual: Any = towers.visual
        self.transformer: Any = towers.transformer
        self.token_embedding = cast("nn.Embedding", towers.token_embedding)
        self.positional_embedding = cast("nn.Parameter", towers.positional_embedding)
        self.ln_final = cast("nn.LayerNorm", towers.ln_final)
        self.text_projection = cast("nn.Parameter", towers.text_projection)
        self.register_buffer("attn_mask", cast("Tensor", towers.attn_mask), persistent=False)
        self.quick_gelu = config.quick_gelu
        if config.stem == "conv":
            self.visual.conv1 = ConvStem(config.image_width, config.patch)

    def encode_image(self, image: Tensor) -> Tensor:
        """The whole image tower up to its class token; only the projection is left to `embed_image`."""
        visual = self.visual
        patches = visual.conv1(image)
        if patches.ndim == 4:
            patches = patches.flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        x = visual.transformer(visual.ln_pre(x))
        # Only the class token is read, so only it is normed.
        return visual.ln_post(x[:, 0])

    def encode_text(self, text: Text) -> Tensor:
        """The whole text tower up to the last token that is not padding.

        On texts that end in the end-of-text token, as the paper's do, this is the paper's pooling; it also serves texts
        without one. Attention is causal, so padding on the right never reaches the pooled token.
        """
        length = text.ids.shape[1]
        if length > self.text_len:
            raise ValueError(f"text of {length} tokens is longer than the {self.text_len} this model was built for")
        x = self.token_embedding(text.ids)
        x = x + self.positional_embedding[:length].to(x.dtype)
        x = self.transformer(x, attn_mask=self.attn_mask[:length, :length])
        last = (text.mask.sum(dim=1) - 1).clamp(min=0)
        return self.ln_final(x[torch.arange(len(x), device=x.device), last])

    def embed_image(self, image: Tensor) -> Tensor:
        """Projected class token."""
        return F.normalize(image @ self.visual.proj, dim=-1)

    def embed_text(self, text: Tensor) -> Tensor:
        """Projected last token."""
        return F.normalize(text @ self.text_projection, dim=-1)

    def word_embedding(self) -> nn.Embedding:
        """The text tower's."""
        return self.token_embedding

    def structure(self) -> Structure:
        """The width is the image tower's; the text tower's is in the notes."""
        return Structure(
            image_tokens=self.visual.positional_embedding.shape[0],
            text_tokens=self.positional_embedding.shape[0],
            width=self.visual.positional_embedding.shape[1],
            image_layers=len(self.visual.transformer.resblocks),
            text_layers=len(self.transformer.resblocks),
            fusion_layers=0,
            notes=(f"text width {self.positional_embedding.shape[1]}, causal",),
        )


def build(size: str, changes: Mapping[str, Any]) -> Clip:
    """CLIP with random weights.

    Raises:
        UnknownName: for a field that `ClipConfig` does not have.
    """
    return Clip(changed(SIZES[size], changes, owner=f"clip {size}"))


def load_official(model: Clip, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loads a checkpoint in the layout of OpenAI and open_clip, every key of it.

    Returns:
        The entries of the checkpoint that are in `NOT_OURS`.

    Raises:
        ValueError: for OpenAI's weights in a model with the other activation.
        RuntimeError: for a key that is missing, unknown or of another shape.
    """
    if "input_resolution" in state and not model.quick_gelu:
        raise ValueError("these are OpenAI's weights, trained with quick GELU: build the model with quick_gelu=True")
    model.load_state_dict({key: value for key, value in state.items() if key not in NOT_OURS})
    return {key: value for key, value in state.items() if key in NOT_OURS}
