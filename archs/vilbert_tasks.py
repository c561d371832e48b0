"""What ViLBERT is trained on: the losses of its pre-training, the heads of the multi-task model, official checkpoints.

Shape letters: B batch, L text tokens, N image tokens (the whole image in front), D and C widths of the text and of the
image stream, E width of pairs, K numbers to predict of a region, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.blocks import BertTransform, init_bert
from vlpbench.archs.objectives.base import Recipe, at_least_float32
from vlpbench.archs.pretrained import Layout
from vlpbench.archs.regions import AnswerHead
from vlpbench.archs.types import Masked
from vlpbench.archs.vilbert import Joined, Stream, Vilbert

RECIPE = Recipe(objectives=("itm", "mlm"), negatives="replace")
"""The part of the pre-training that needs no detector's targets."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What pre-training predicts of a batch."""

    masked: Masked
    """Words."""
    region: Tensor
    """(B, N - 1) bool, regions whose features were zeroed; the whole image never is."""
    region_target: Tensor
    """(B, N - 1, K) the detector's distribution over classes, or the features."""
    mismatch: Tensor
    """(B,) int64, 0 where text and image belong together and 1 where not, the other way round than ITM here."""


class RegionHead(nn.Module):
    """(B, N, C) -> (B, N, K)."""

    def __init__(self, width: int, targets: int) -> None:
        super().__init__()
        self.transform, self.decoder = BertTransform(width, eps=1e-12), nn.Linear(width, targets)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.decoder(self.transform(image))


class Heads(nn.Module):
    """Of pre-training: words, regions and alignment."""

    def __init__(self, model: Vilbert, targets: int) -> None:
        super().__init__()
        width = model.v_embeddings.image_embeddings.out_features
        self.predictions = model.mlm_head()
        self.imagePredictions = RegionHead(width, targets)
        self.bi_seq_relationship = nn.Linear(model.width, 2)
        init_bert(self.imagePredictions)
        init_bert(self.bi_seq_relationship)


class Pretraining(nn.Module):
    """Masked words, masked regions and alignment in one pass (section 3.2)."""

    def __init__(self, model: Vilbert, targets: int = 1601, *, visual: Literal["kl", "mse"] = "kl") -> None:
        """``targets`` is K; ``kl`` predicts the detector's distribution over its classes, ``mse`` its features."""
        super().__init__()
        self.model, self.cls, self.visual = model, Heads(model, targets), visual

    def forward(self, image: Stream, text: Stream) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of words (B, L, V), predictions of regions (B, N, K), logits of mismatch (B, 2)."""
        joined = self.model.join(image, text)
        return (
            at_least_float32(self.cls.predictions(joined.text)),
            at_least_float32(self.cls.imagePredictions(joined.image)),
            at_least_float32(self.cls.bi_seq_relationship(joined.pooled)),
        )

    def losses(self, image: Stream, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """Of words, regions and alignment; training takes their sum."""
        words, regions, mismatch = self(image, self.model.encode_text(targets.masked.text))
        chosen = words.flatten(0, 1).index_select(0, targets.masked.position)
        return (
            F.cross_entropy(chosen, targets.masked.label),
            self._region_loss(regions[:, 1:], targets),
            F.cross_entropy(mismatch, targets.mismatch),
        )

    def _region_loss(self, found: Tensor, targets: Targets) -> Tensor:
        """Mean over masked regions of the divergence, or over their numbers of the squared error."""
        found, target = found[targets.region], targets.region_target[targets.region]
        if self.visual == "mse":
            return F.mse_loss(found, target)
        return F.kl_div(found.log_softmax(dim=1), target, reduction="batchmean")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What the multi-task model says of a batch."""

    vqa: Tensor
    """(B, answers)."""
    gqa: Tensor
    """(B, answers)."""
    retrieval: Tensor
    """(B, 1) score of a pair."""
    pair: Tensor | None
    """(B / 2, 2) NLVR2 of consecutive rows; None for an odd batch."""
    entailment: Tensor
    """(B, 3)."""
    regions: Tensor
    """(B, N, K)."""
    grounding: Tensor
    """(B, N, 1) score of each region; -10000 where there is none."""
    words: Tensor
    """(B, L, V)."""
    word: Tensor
    """(B, L, 1) score of each word."""


class SimpleClassifier(nn.Module):
    """An `AnswerHead` under the name of the released code."""

    def __init__(self, width: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.logit_fc = AnswerHead(width, classes, hidden=hidden)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, width) -> (B, classes)."""
        return self.logit_fc(pooled)


class MultiTask(nn.Module):
    """All task heads over one model (12-in-1, Lu et al., CVPR 2020, section 3)."""

    def __init__(self, model: Vilbert, *, targets: int = 1601, vqa: int = 3129, gqa: int = 1533) -> None:
        super().__init__()
        E, C, D = model.width, model.v_embeddings.image_embeddings.out_features, model.text_width
        self.model, self.cls = model, Heads(model, targets)
        self.vil_prediction = SimpleClassifier(E, vqa, 2 * E)
        self.vil_prediction_gqa = SimpleClassifier(E, gqa, 2 * E)
        self.vil_binary_prediction = SimpleClassifier(2 * E, 2, 2 * E)
        self.vil_logit, self.vil_tri_prediction = nn.Linear(E, 1), nn.Linear(E, 3)
        self.vision_logit, self.linguisic_logit = nn.Linear(C, 1), nn.Linear(D, 1)

    def forward(self, image: Stream, text: Stream) -> Predictions:
        """Every head over every pair."""
        joined: Joined = self.model.join(image, text)
        pooled = joined.pooled
        even = len(pooled) % 2 == 0
        return Predictions(
            vqa=self.vil_prediction(pooled),
            gqa=self.vil_prediction_gqa(pooled),
            retrieval=self.vil_logit(pooled),
            pair=self.vil_binary_prediction(pooled.reshape(len(pooled) // 2, -1)) if even else None,
            entailment=self.vil_tri_prediction(pooled),
            regions=self.cls.imagePredictions(joined.image),
            grounding=self.vision_logit(joined.image) - 10000.0 * (~image.mask)[..., None],
            words=self.cls.predictions(joined.text),
            word=self.linguisic_logit(joined.text),
        )


_MODEL = {
    f"model.{name}": f"bert.{name}" for name in ("embeddings", "v_embeddings", "encoder", "t_pooler", "v_pooler")
} | {"cls": "cls"}
ABSENT = {
    "model.embeddings.position_ids": "a constant, which the released code makes in every forward",
    "model.v_embeddings.input": "the stem of the size-matched models; the official model is given features",
    "cls.predictions.decoder.bias": "the same tensor as `cls.predictions.bias`, the released code's only name for it",
}
"""Our tensors that the official layouts have not, and why."""
PRETRAIN = Layout(name="vilbert_pretrain", rules=_MODEL, absent=ABSENT)
TASKS = Layout(
    name="vilbert_vltasks",
    rules=_MODEL
    | {
        name: name
        for name in (
            "vil_prediction",
            "vil_prediction_gqa",
            "vil_binary_prediction",
            "vil_logit",
            "vil_tri_prediction",
            "vision_logit",
            "linguisic_logit",
        )
    },
    absent=ABSENT,
)
