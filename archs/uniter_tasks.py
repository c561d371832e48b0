"""What UNITER is trained on: the five losses of its pre-training, its task heads, and its official checkpoints.

Shape letters: B batch, L text tokens, R regions, F features of a region, D width, M masked tokens or regions,
C classes or answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.blocks import init_bert
from vlpbench.archs.objectives.base import Recipe, at_least_float32
from vlpbench.archs.pretrained import Layout
from vlpbench.archs.regions import AnswerHead, Regions
from vlpbench.archs.transport import transport_distance
from vlpbench.archs.types import Masked, Text
from vlpbench.archs.uniter import Tokens, Uniter

RECIPE = Recipe(objectives=("itm", "mlm"), negatives="replace")
"""The part of the pre-training that needs no detector's targets: half of the pairs have another image (section 3.2)."""
WRA_WEIGHT = 0.1
"""Of word-region alignment beside matching."""
MARGIN = 0.2
"""Of retrieval by ranking."""


@dataclass(frozen=True, kw_only=True)
class MaskedRegions:
    """Which regions of a batch are hidden, and what is to be predicted of them, in row order."""

    mask: Tensor
    """(B, R) bool, M of them True."""
    features: Tensor
    """(M, F) features before they were hidden."""
    classes: Tensor
    """(M, C) the detector's distribution over its classes; class 0 is the background."""


class Pretraining(nn.Module):
    """The pre-training model: MLM, ITM with word-region alignment, and three losses on masked regions.

    The released code draws one of the tasks for each step; every method here is the loss of one of them, a mean.
    """

    def __init__(self, model: Uniter, classes: int = 1601) -> None:
        """Thaws the embedding of masked regions; ``classes`` are the detector's: 1600 of Visual Genome, and none."""
        super().__init__()
        self.model = model
        model.img_embeddings.mask_embedding.requires_grad_(True)
        self.cls = model.mlm_head()
        self.feat_regress = FeatureRegression(model)
        self.region_classifier = nn.ModuleDict({"net": AnswerHead(model.width, classes, hidden=model.width)})
        self.itm_output = nn.Linear(model.width, 2)
        init_bert(self.region_classifier)
        init_bert(self.itm_output)

    def mlm_logits(self, image: Tokens, masked: Masked) -> Tensor:
        """(M, V) at the masked words."""
        x = self.model.joint(image, self.model.encode_text(masked.text))[:, : masked.text.ids.shape[1]]
        return at_least_float32(self.cls(x.flatten(0, 1).index_select(0, masked.position)))

    def mlm(self, image: Tokens, masked: Masked) -> Tensor:
        """Cross-entropy of the original words (equation 1)."""
        return F.cross_entropy(self.mlm_logits(image, masked), masked.label)

    def matching(self, image: Tokens, text: Text) -> tuple[Tensor, Tensor]:
        """Logits (B, 2), class 1 is a match, and transport distances (B,) between words and regions."""
        joint = self.model.fuse_tokens(image, self.model.encode_text(text))
        tokens, regions = at_least_float32(joint.text), at_least_float32(joint.image)
        return self.itm_output(joint.pooled), transport_distance(tokens, regions, joint.text_mask, joint.image_mask)

    def itm(self, image: Tokens, text: Text, match: Tensor, alignment: float = WRA_WEIGHT) -> Tensor:
        """Matching (equation 2), and alignment (equation 3): distances of matches are pulled in, of others pushed out.

        Args:
            image: regions, some of another picture.
            text: B texts.
            match: (B,) int64, 1 where the two belong together.
            alignment: its weight.
        """
        logits, distance = self.matching(image, text)
        aligned = torch.where(match == 1, distance, -distance).mean()
        return F.cross_entropy(at_least_float32(logits), match) + alignment * aligned

    def hidden(self, regions: Regions, text: Text, masked: MaskedRegions) -> Tensor:
        """(M, D) of the masked regions behind all layers."""
        image = self.model.embed_regions(regions, masked.mask)
        x = self.model.joint(image, self.model.encode_text(text))[:, text.ids.shape[1] :]
        return x[masked.mask]

    def mrfr(self, regions: Regions, text: Text, masked: MaskedRegions) -> Tensor:
        """Squared error of the features (section 3.2, masked region feature regression)."""
        found = self.feat_regress(self.hidden(regions, text, masked))
        return F.mse_loss(at_least_float32(found), masked.features)

    def class_logits(self, regions: Regions, text: Text, masked: MaskedRegions) -> Tensor:
        """(M, C) of the masked regions."""
        return at_least_float32(self.region_classifier["net"](self.hidden(regions, text, masked)))

    def mrc(self, regions: Regions, text: Text, masked: MaskedRegions) -> Tensor:
        """Cross-entropy of the detector's best class, the background aside."""
        best = masked.classes[:, 1:].argmax(dim=1) + 1
        return F.cross_entropy(self.class_logits(regions, text, masked), best)

    def mrc_kl(self, regions: Regions, text: Text, masked: MaskedRegions) -> Tensor:
        """Kullback-Leibler divergence from the detector's distribution: the mean over regions and classes."""
        found = self.class_logits(regions, text, masked).log_softmax(dim=1)
        return F.kl_div(found, masked.classes, reduction="none").mean()


class FeatureRegression(nn.Module):
    """(M, D) -> (M, F); the last projection is that of the regions, transposed."""

    def __init__(self, model: Uniter) -> None:
        super().__init__()
        D, self.weight = model.width, model.img_embeddings.img_linear.weight
        self.net = nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.LayerNorm(D, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(self.weight.shape[1]))
        init_bert(self.net)

    def forward(self, hidden: Tensor) -> Tensor:
        """See the class."""
        return F.linear(self.net(hidden), self.weight.T, self.bias)


class Answering(nn.Module):
    """VQA as a choice among C answers."""

    def __init__(self, model: Uniter, answers: int) -> None:
        super().__init__()
        self.model, self.vqa_output = model, AnswerHead(model.width, answers)

    def forward(self, image: Tokens, question: Text) -> Tensor:
        """Logits (B, C)."""
        return self.vqa_output(self.model.fuse_pooled(image, self.model.encode_text(question)))

    def loss(self, logits: Tensor, share: Tensor) -> Tensor:
        """Binary cross-entropy with the (B, C) shares of people who gave an answer: summed over answers, mean of B."""
        return F.binary_cross_entropy_with_logits(at_least_float32(logits), share) * share.shape[1]


class Ranking(nn.Module):
    """Retrieval: a score in (0, 1) of each pair, trained by triplets of one right and some wrong pairs."""

    def __init__(self, model: Uniter, margin: float = MARGIN) -> None:
        super().__init__()
        self.model, self.margin = model, margin
        self.itm_output = nn.Linear(model.width, 2)
        self.rank_output = nn.Linear(model.width, 1)
        init_bert(self.itm_output)
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """Sets the score to the logit of "match" that pre-training learnt."""
        self.rank_output.weight.copy_(self.itm_output.weight[1:])
        self.rank_output.bias.copy_(self.itm_output.bias[1:])

    def forward(self, image: Tokens, text: Text) -> Tensor:
        """Logits (B, 1), of which the score is the sigmoid."""
        return self.rank_output(self.model.fuse_pooled(image, self.model.encode_text(text)))

    def hinges(self, logits: Tensor, sample: int) -> Tensor:
        """(B / sample, sample - 1): of each ``sample`` consecutive pairs the first is right, the others are wrong."""
        score = at_least_float32(logits).sigmoid().view(-1, sample)
        return (self.margin + score[:, 1:] - score[:, :1]).clamp(min=0)


class PairClassifying(nn.Module):
    """NLVR2, "pair": the text with each of two images, both pooled vectors side by side. ``image_types`` must be 2."""

    def __init__(self, model: Uniter, classes: int = 2) -> None:
        super().__init__()
        self.model = _of_two(model)
        self.nlvr2_output = nn.Linear(2 * model.width, classes)
        init_bert(self.nlvr2_output)

    def forward(self, left: Regions, right: Regions, text: Text) -> Tensor:
        """Logits (B, C)."""
        words = self.model.encode_text(text)
        images = (self.model.embed_regions(regions, types=kind) for kind, regions in ((1, left), (2, right)))
        return self.nlvr2_output(torch.cat([self.model.fuse_pooled(image, words) for image in images], dim=1))


class TripletClassifying(nn.Module):
    """NLVR2, "triplet": the text with both images in one sequence. ``image_types`` must be 2."""

    def __init__(self, model: Uniter, classes: int = 2) -> None:
        super().__init__()
        self.model = _of_two(model)
        self.nlvr2_output = nn.Linear(model.width, classes)
        init_bert(self.nlvr2_output)

    def forward(self, left: Regions, right: Regions, text: Text) -> Tensor:
        """Logits (B, C)."""
        a, b = (self.model.embed_regions(regions, types=kind) for kind, regions in ((1, left), (2, right)))
        both = Tokens(x=torch.cat([a.x, b.x], dim=1), mask=torch.cat([a.mask, b.mask], dim=1))
        return self.nlvr2_output(self.model.fuse_pooled(both, self.model.encode_text(text)))


class PairAttention(nn.Module):
    """NLVR2, "pair-biattn": the two sequences attend to one another and are pooled by attention (section 4.1)."""

    def __init__(self, model: Uniter, heads: int, classes: int = 2, dropout: float = 0.1) -> None:
        """``heads`` and ``dropout`` are the model's."""
        super().__init__()
        D, self.model = model.width, _of_two(model)
        self.attn1, self.attn2 = (nn.MultiheadAttention(D, heads, dropout=dropout, batch_first=True) for _ in "12")
        self.fc = nn.Sequential(nn.Linear(2 * D, D), nn.ReLU(), nn.Dropout(dropout))
        self.attn_pool = nn.ModuleDict({"fc": nn.Sequential(nn.Linear(D, 1), nn.ReLU())})
        self.dropout = nn.Dropout(dropout)
        self.nlvr2_output = nn.Linear(2 * D, classes)
        for module in (self.fc, self.attn_pool, self.nlvr2_output):
            init_bert(module)

    def forward(self, left: Regions, right: Regions, text: Text) -> Tensor:
        """Logits (B, C)."""
        words = self.model.encode_text(text)
        a, b = (self.model.embed_regions(regions, types=kind) for kind, regions in ((1, left), (2, right)))
        return self.compare((a, words), (b, words))

    def compare(self, left: tuple[Tokens, Tokens], right: tuple[Tokens, Tokens]) -> Tensor:
        """Logits (B, C) of two images, each with the words that go with it."""
        a, b = (self.model.joint(image, words) for image, words in (left, right))
        no_a, no_b = (~torch.cat([words.mask, image.mask], dim=1) for image, words in (left, right))
        to_b, _ = self.attn1(a, b, b, key_padding_mask=no_b, need_weights=False)
        to_a, _ = self.attn2(b, a, a, key_padding_mask=no_a, need_weights=False)
        pooled = [self._pool(torch.cat(pair, dim=2), no) for pair, no in (((to_b, a), no_a), ((to_a, b), no_b))]
        return self.nlvr2_output(torch.cat(pooled, dim=1))

    def _pool(self, pair: Tensor, padding: Tensor) -> Tensor:
        x = self.fc(pair)
        score = self.attn_pool["fc"](x).squeeze(2).masked_fill(padding, -torch.inf)
        return (self.dropout(score.softmax(dim=1))[:, None] @ x).squeeze(1)


def _of_two(model: Uniter) -> Uniter:
    types: nn.Embedding = model.embeddings.token_type_embeddings
    if types.num_embeddings < 3:
        raise ValueError(f"statements about two images need a model with image_types 2, not {types.num_embeddings - 1}")
    return model


_MODEL = {f"model.{name}": f"uniter.{name}" for name in ("embeddings", "img_embeddings", "encoder", "pooler")}
ABSENT = {
    "model.embeddings.position_ids": "a constant, which the released code passes in with every batch",
    "model.img_embeddings.input": "the stem of the size-matched models; the official model is given features",
    "cls.decoder.bias": "the same tensor as `cls.bias`, under which name the released code has it alone",
}
"""Our tensors that the official layouts have not, and why."""


def _layout(name: str, *heads: str) -> Layout:
    return Layout(name=f"uniter_{name}", rules=_MODEL | {head: head for head in heads}, absent=ABSENT)


PRETRAIN = Layout(
    name="uniter_pretrain",
    rules=_MODEL
    | {"cls": "cls.predictions"}
    | {name: name for name in ("feat_regress", "region_classifier", "itm_output")},
    absent=ABSENT,
)
VQA = _layout("vqa", "vqa_output")
RANK = _layout("itm_rank", "itm_output", "rank_output")
NLVR2 = _layout("nlvr2", "nlvr2_output")
"""`PairClassifying` and `TripletClassifying`."""
NLVR2_ATTENTION = _layout("nlvr2_pairedattn", "attn1", "attn2", "fc", "attn_pool", "nlvr2_output")
