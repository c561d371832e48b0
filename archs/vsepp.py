"""VSE++ (Faghri et al., BMVC 2018, arXiv:1707.05612): a CNN and a GRU, one joint space, no fusion.

What makes it itself is the loss, the hinge against the hardest negative of a batch: the objective ``triplet``
(equation 6), with ``triplet_sum`` for the sum over all negatives (equation 5, VSE0).

Shape letters: B batch, L text tokens, N places of the CNN's last map, F image features, W word vector,
E joint embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from timm.models.resnet import resnet152
from torch import Tensor, nn
from torch.nn import functional as F
from vlpbench.archs.blocks import ConvStem
from vlpbench.archs.model import VLModel
from vlpbench.archs.pretrained import Layout
from vlpbench.archs.registry import changed
from vlpbench.archs.types import Can, Structure, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

STRIDE = 32
"""Pixels between two places of a ResNet's last map."""


@dataclass(frozen=True, kw_only=True)
class VseppConfig:
    """The defaults are the paper's best model: ResNet-152, one GRU, a joint space of 1024 (section 4)."""

    image_size: tuple[int, int] = (224, 224)
    """Height, width in pixels."""
    cnn: Literal["resnet152", "conv", "features"] = "resnet152"
    """``conv`` is the convolutional stem of the size-matched models, taken for the whole CNN; with ``features`` there
    is no CNN, and images are given as features (B, F) that one has computed before."""
    features: int = 2048
    """F; a ResNet-152 has 2048."""
    patch: int = 16
    """Stride of ``conv``."""
    text_len: int = 30
    """Tokens that a text is padded to; a GRU has no longest text."""
    vocab_size: int = 11755
    """The released code's vocabulary of COCO: words that its captions have at least four times."""
    word_width: int = 300
    embed_dim: int = 1024


_SMALL = VseppConfig(
    image_size=(32, 32),
    cnn="conv",
    features=256,
    text_len=16,
    vocab_size=40,
    word_width=96,
    embed_dim=224,
)
SIZES: Mapping[str, VseppConfig] = {
    "tiny": replace(_SMALL, features=32, word_width=16, embed_dim=16),
    "small": _SMALL,
    "medium": replace(_SMALL, image_size=(64, 64), features=1536, word_width=300, embed_dim=1024),
    "base": VseppConfig(),
}
"""``small`` and ``medium`` match the other architectures' parameters within 10 %."""

OFFICIAL = Layout(
    name="vsepp",
    rules={"cnn": "img_enc.cnn", "fc": "img_enc.fc", "embed": "txt_enc.embed", "rnn": "txt_enc.rnn"},
)
"""The released code's two state dicts, image and text encoder, under ``img_enc`` and ``txt_enc``; without a CNN those
of its models on precomputed features."""


class Vsepp(VLModel[Tensor, Tensor]):
    """Image state (B, F) is what the CNN pools; text state (B, E) is the GRU's state behind the last token."""

    can = Can.EMBED
    components: ClassVar[Mapping[str, str]] = {
        "cnn": "image",
        "fc": "projection",
        "embed": "embedding",
        "rnn": "text",
    }

    def __init__(self, config: VseppConfig) -> None:
        super().__init__()
        self.image_size, self.text_len, self.vocab_size = config.image_size, config.text_len, config.vocab_size
        self.width, self.embed_dim = 0, config.embed_dim
        self.cnn = _cnn(config)
        stride = config.patch if config.cnn == "conv" else STRIDE
        self.grid = tuple(-(-side // stride) for side in config.image_size)
        self.fc = nn.Linear(config.features, config.embed_dim)
        self.embed = nn.Embedding(config.vocab_size, config.word_width)
        self.rnn = nn.GRU(config.word_width, config.embed_dim, batch_first=True)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)

    def encode_image(self, image: Tensor) -> Tensor:
        """Pixels -> pooled features of norm 1; a model of precomputed features takes them as they are.

        Raises:
            ValueError: for pixels in a model without a CNN.
        """
        if self.cnn is None:
            if image.ndim != 2:
                raise ValueError(f"this model reads features (B, {self.fc.in_features}), not {tuple(image.shape)}")
            return image
        features = self.cnn(image)
        # A map of places, from a model that does not pool by itself, is averaged as a ResNet's is.
        return F.normalize(features if features.ndim == 2 else features.mean(dim=1), dim=-1)

    def encode_text(self, text: Text) -> Tensor:
        """The GRU's state at the last token that is not padding; what follows that token cannot change it."""
        states_BLE, _ = self.rnn(self.embed(text.ids))
        last = (text.mask.sum(dim=1) - 1).clamp(min=0)
        return states_BLE[torch.arange(len(states_BLE), device=last.device), last]

    def embed_image(self, image: Tensor) -> Tensor:
        """Projected features."""
        return F.normalize(self.fc(image), dim=-1)

    def embed_text(self, text: Tensor) -> Tensor:
        """The state itself, on the unit sphere: the GRU is as wide as the joint space."""
        return F.normalize(text, dim=-1)

    def word_embedding(self) -> nn.Embedding:
        """Word vectors, learnt from scratch as the paper's."""
        return self.embed

    def structure(self) -> Structure:
        """Image tokens are the places that are averaged; layers are convolutions on the longest path, and GRUs."""
        modules = [] if self.cnn is None else self.cnn.named_modules()
        layers = sum(isinstance(part, nn.Conv2d) and "downsample" not in name for name, part in modules)
        return Structure(
            image_tokens=self.grid[0] * self.grid[1],
            text_tokens=self.text_len,
            width=self.rnn.hidden_size,
            image_layers=layers,
            text_layers=self.rnn.num_layers,
            fusion_layers=0,
            notes=(f"no attention: a CNN averaged to {self.fc.in_features} features, and a GRU",),
        )


def _cnn(config: VseppConfig) -> nn.Module | None:
    if config.cnn == "features":
        return None
    if config.cnn == "conv":
        return ConvStem(config.features, config.patch)
    if config.features != 2048:
        raise ValueError(f"a ResNet-152 gives 2048 features, not {config.features}; leave features as it is")
    return resnet152(pretrained=False, num_classes=0)


def build(size: str, changes: Mapping[str, Any]) -> Vsepp:
    """VSE++ with random weights.

    Raises:
        UnknownName: for a field that `VseppConfig` does not have.
    """
    return Vsepp(changed(SIZES[size], changes, owner=f"vsepp {size}"))
