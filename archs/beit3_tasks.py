"""BEiT-3's heads for retrieval, VQA, NLVR2, captioning and image classification, and its official checkpoints.

Retrieval is `vlpbench.archs.learner.Learner` with the objective ``itc``. Masked data modelling is in
`vlpbench.archs.beit3_masked`.

Shape letters: B batch, L text tokens, N image tokens (class token included), D width, M masked tokens, V vocabulary,
C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.beit3_parts import EPS
from vlpbench.archs.heads import ClassifierHead
from vlpbench.archs.objectives.base import at_least_float32
from vlpbench.archs.pretrained import Layout, load, save
from vlpbench.archs.types import Masked, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlpbench.archs.beit3 import Beit3
    from vlpbench.archs.learner import Learner


class Answering(nn.Module):
    """VQA as a choice among C answers."""

    def __init__(self, model: Beit3, answers: int) -> None:
        super().__init__()
        self.model = model
        self.head = ClassifierHead(model.width, answers)

    def forward(self, image: Tensor, question: Text) -> Tensor:
        """Logits (B, C)."""
        return self.head(self.model.fuse_pooled(self.model.encode_image(image), self.model.encode_text(question)))

    def loss(self, logits: Tensor, share: Tensor) -> Tensor:
        """Binary cross-entropy with the (B, C) shares of people who gave an answer: summed over answers, mean of B."""
        return F.binary_cross_entropy_with_logits(at_least_float32(logits), share) * share.shape[1]


class PairHead(nn.Module):
    """Norm, linear, norm, GELU, linear: reads the four first tokens of two image-text pairs."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(4 * width)
        self.dense1 = nn.Linear(4 * width, 2 * width)
        self.norm2 = nn.LayerNorm(2 * width)
        self.dense2 = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4 * D) -> (B, C)."""
        return self.dense2(F.gelu(self.norm2(self.dense1(self.norm1(x)))))


class PairClassifying(nn.Module):
    """NLVR2: the text with each of two images; the first image and text token of both pairs side by side."""

    def __init__(self, model: Beit3, classes: int = 2) -> None:
        super().__init__()
        self.model = model
        self.head = PairHead(model.width, classes)

    def forward(self, left: Tensor, right: Tensor, text: Text) -> Tensor:
        """(B, 3, H, W) each -> logits (B, C)."""
        model = self.model
        both = Text(ids=text.ids.repeat(2, 1), mask=text.mask.repeat(2, 1))
        image = model.encode_image(torch.cat([left, right]))
        x, split = model.tokens(image, model.encode_text(both)), image.shape[1]
        norm = model.beit3.encoder.layer_norm
        pair = torch.cat([norm.A(x[:, 0]), norm.B(x[:, split])], dim=-1)
        return self.head(torch.cat(pair.chunk(2), dim=-1))


class ImageClassifying(nn.Module):
    """An image alone: the mean of its patches, class token left out."""

    def __init__(self, model: Beit3, classes: int) -> None:
        super().__init__()
        self.model = model
        self.fc_norm = nn.LayerNorm(model.width, eps=EPS)
        self.head = nn.Linear(model.width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C)."""
        return self.head(self.fc_norm(self.model.tokens(self.model.encode_image(image), None)[:, 1:].mean(dim=1)))


class Captioning(nn.Module):
    """Captions by masked words: causal attention, and the word at a [MASK] is predicted from what stands before it.

    `Beit3.decode` under the objective ``lm`` predicts the next word from a word instead; the released captioning
    checkpoints are trained as here.
    """

    def __init__(self, model: Beit3) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, text: Text) -> Tensor:
        """Logits (B, L, V) of the word in each place."""
        return self.model.decode(self.model.encode_image(image), self.model.encode_text(text))

    def loss(self, image: Tensor, masked: Masked) -> Tensor:
        """Mean cross-entropy of the original words at the masked places."""
        logits = at_least_float32(self(image, masked.text).flatten(0, 1).index_select(0, masked.position))
        return F.cross_entropy(logits, masked.label)

    def next_word(self, image: Tensor, text: Text, mask: int) -> Tensor:
        """Logits (B, V) of the word behind each text, which is not padded; ``mask`` is the id of [MASK]."""
        asked = F.pad(text.ids, (0, 1), value=mask)
        return self(image, Text(ids=asked, mask=torch.ones_like(asked, dtype=torch.bool)))[:, -1]


_UNPOOLED = {"pooler": "only the official VQA model has a pooler"}
_UNEMBEDDED: dict[str, str] = dict.fromkeys(
    ("vision_head", "language_head"), "only the official retrieval model has projections"
)
_SILENT = {"vocabulary": "only the official captioning model predicts words"}
_NORMED = {
    "beit3.encoder.layer_norm": "official models that norm the encoder's output in their head have none before it"
}


def _layout(name: str, own: Mapping[str, str], *absent: Mapping[str, str], heads: Mapping[str, str]) -> Layout:
    """A task whose ``model`` is a `Beit3` with parts that the official model lacks."""
    lacking = {f"model.{part}": why for table in absent for part, why in table.items()}
    rules = {f"model.{ours}": official for ours, official in {"beit3": "beit3", **own}.items()}
    return Layout(name=name, rules=rules | dict(heads), absent=lacking)


VQA = _layout("beit3_vqa", {"pooler": "pooler"}, _UNEMBEDDED, _SILENT, _NORMED, heads={"head": "head"})
NLVR2 = _layout("beit3_nlvr2", {}, _UNPOOLED, _UNEMBEDDED, _SILENT, heads={"head": "head"})
CAPTIONING = _layout("beit3_captioning", {"vocabulary": "mlm_head"}, _UNPOOLED, _UNEMBEDDED, heads={})
IMAGE_CLASSIFICATION = _layout(
    "beit3_imagecls",
    {},
    _UNPOOLED,
    _UNEMBEDDED,
    _SILENT,
    _NORMED,
    heads={"fc_norm": "fc_norm", "head": "head"},
)
RETRIEVAL = Layout(
    name="beit3_retrieval",
    rules={f"model.{part}": part for part in ("beit3", "vision_head", "language_head")},
    absent={f"model.{part}": why for table in (_UNPOOLED, _SILENT) for part, why in table.items()}
    | {"objectives.itc.temperature": "the official logit_scale is the logarithm of its inverse"},
)
"""`Learner` with the objective ``itc``. The temperature is converted; every other tensor is as official."""
_SCALE = "logit_scale"


def load_retrieval(learner: Learner, state: Mapping[str, Tensor]) -> None:
    """Loads a retrieval checkpoint of the released code, every key of it; other tasks need `pretrained.load` alone.

    Raises:
        CheckpointError: for missing and unexpected keys.
        RuntimeError: for a shape that differs, from torch.
        KeyError: for a checkpoint without ``logit_scale``.
    """
    load(learner, {key: tensor for key, tensor in state.items() if key != _SCALE}, RETRIEVAL)
    learner.objectives["itc"].get_parameter("temperature").data.copy_((-state[_SCALE]).exp())


def save_retrieval(learner: Learner) -> dict[str, Tensor]:
    """The state in the layout of the released code: as it was loaded, up to the rounding of the temperature."""
    temperature = learner.objectives["itc"].get_parameter("temperature").detach()
    return save(learner, RETRIEVAL) | {_SCALE: -temperature.log()}
