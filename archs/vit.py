"""The image encoder that several architectures share: timm's ViT, with patches or with a convolutional stem.

Shape letters: D width.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, Protocol

from timm.models.vision_transformer import VisionTransformer
from torch import nn
from vlpbench.archs.blocks import ConvStem


class VitConfig(Protocol):
    """What `vit` reads of an architecture's configuration."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height, width in pixels."""
        ...

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        ...

    @property
    def stem(self) -> Literal["patch", "conv"]:
        """What makes patch tokens of pixels."""
        ...

    @property
    def image_width(self) -> int:
        """D."""
        ...

    @property
    def image_layers(self) -> int:
        """Blocks."""
        ...

    @property
    def image_heads(self) -> int:
        """Heads of a block."""
        ...

    @property
    def image_mlp_ratio(self) -> float:
        """Hidden over outer width of a block."""
        ...


def require_patches(image_size: tuple[int, int], patch: int) -> None:
    """Raises `ValueError` for an image that is no whole number of patches."""
    if any(side % patch for side in image_size):
        raise ValueError(f"image size {image_size} must be a multiple of the patch size {patch}")


def vit(config: VitConfig, *, drop_path: float = 0.0, class_token: bool = True) -> VisionTransformer:
    """timm's ViT as an image encoder, with the configured stem.

    Raises:
        ValueError: for an image that is no whole number of patches.
    """
    require_patches(config.image_size, config.patch)
    encoder = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch,
        num_classes=0,
        class_token=class_token,
        global_pool="token" if class_token else "",
        embed_dim=config.image_width,
        depth=config.image_layers,
        num_heads=config.image_heads,
        mlp_ratio=config.image_mlp_ratio,
        drop_path_rate=drop_path,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # pyright: ignore[reportArgumentType]
    )
    if config.stem == "conv":
        encoder.patch_embed = ConvStem(config.image_width, config.patch)
    return encoder
