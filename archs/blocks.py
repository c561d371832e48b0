"""Building blocks that three or more architectures share.

Shape letters: B batch, L text tokens, N image tokens, D width, A attention heads, V vocabulary, H image height, W image width.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class ConvStem(nn.Module):
    """The image front end of the small, size-matched models: pixels to patch tokens by strided convolutions.

    A linear patch projection needs far more images than a controlled run has; log2(patch) blocks of 3x3 convolution with
    stride 2, group norm and GELU learn in minutes. Channels double up to ``width``. Class token and positions are the
    architecture's own affair.

    Raises:
        ValueError: if ``patch`` is no power of two, or ``width`` cannot be halved often enough.
    """

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        stages = patch.bit_length() - 1
        if patch < 2 or patch != 1 << stages:
            raise ValueError(f"a convolutional stem halves the image at each stage; patch {patch} is no power of two")
        groups = 4
        if width % (groups << (stages - 1)):
            raise ValueError(
                f"width {width} must be a multiple of {groups << (stages - 1)} for a stem of {stages} stages"
            )
        channels = [3, *(width >> (stages - 1 - stage) for stage in range(stages))]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
                    nn.GroupNorm(groups, after),
                    nn.GELU(),
                )
                for before, after in pairwise(channels)
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, (H / patch) * (W / patch), D), row by row."""
        return self.blocks(image).flatten(2).transpose(1, 2)
