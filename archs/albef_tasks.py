"""ALBEF's fine-tuning on VQA, SNLI-VE and NLVR2, and text assignment, its extra pre-training for NLVR2 (section 4).

Fine-tuning on retrieval is `vlpbench.archs.learner.Learner` with the objectives ``itc`` and ``itm``.

Shape letters: B batch, L tokens, N image tokens, D width, V vocabulary, K candidates, P answers of a batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.albef import Albef, AlbefConfig, Bert
from vlpbench.archs.blocks import BertPredictionHead, KeyValue
from vlpbench.archs.model import take
from vlpbench.archs.objectives.base import at_least_float32
from vlpbench.archs.objectives.momentum import Momentum
from vlpbench.archs.types import Text

IGNORED = -100
"""Label of a token that is not predicted."""
SIMILAR = 0.07
"""Temperature at which text assignment ranks images as negatives; fixed in the official code."""


class TaskLearner(nn.Module):
    """A network with an optional momentum teacher that softens its targets; the teacher is run in training only.

    A network maps a batch to logits; its ``loss(logits, batch, soft, alpha)`` takes a teacher's probabilities or None.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        distill: bool = True,
        rate: float = 0.995,
        code: Literal["clean", "official"] = "clean",
    ) -> None:
        """``code`` is the recipe's."""
        super().__init__()
        self.network = network
        self.code = code
        self.momentum = Momentum(network, rate=rate, dropout=code == "official") if distill else None

    def forward(self, batch: Labelled | Answered, alpha: float = 0.0) -> Tensor:
        """Scalar float32 loss; ``alpha`` weighs the soft targets."""
        network: Any = self.network
        soft = None
        if self.momentum is not None and self.training:
            if self.code == "official":
                self.momentum.update(self.network)
            if alpha > 0:
                soft = at_least_float32(self.momentum.twin(batch)).softmax(dim=-1)
        return network.loss(at_least_float32(network(batch)), batch, soft, alpha)

    def after_step(self) -> None:
        """Moves the teacher towards the student; call it after the optimiser's step."""
        if self.momentum is not None and self.code == "clean":
            self.momentum.update(self.network)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Texts about one image each (SNLI-VE) or about two (NLVR2: first all left images, then all right ones)."""

    image: Tensor
    """(B, 3, H, W), or (2B, 3, H, W)."""
    text: Text
    target: Tensor
    """(B,) int64 class."""


class Classifying(nn.Module):
    """[CLS] of the fused text through a two-layer head: 3 classes for SNLI-VE."""

    def __init__(self, model: Albef, classes: int) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Sequential(nn.Linear(model.width, model.width), nn.ReLU(), nn.Linear(model.width, classes))

    def forward(self, batch: Labelled) -> Tensor:
        """Logits (B, C)."""
        keys_values = self.keys_values(self.model.visual_encoder.forward_features(batch.image))
        text = self.model.encode_text(batch.text)
        return self.head(self.model.text_encoder.fuse(text, keys_values, first=1)[:, 0])

    def keys_values(self, image_tokens: Tensor) -> tuple[KeyValue, ...]:
        """What each fusion layer attends to."""
        return self.model.text_encoder.keys_values(image_tokens)

    def loss(self, logits: Tensor, batch: Labelled, soft: Tensor | None, alpha: float) -> Tensor:
        """Cross-entropy, mixed with that against ``soft``."""
        hard = F.cross_entropy(logits, batch.target)
        return hard if soft is None else torch.lerp(hard, F.cross_entropy(logits, soft), alpha)


class PairClassifying(Classifying):
    """NLVR2: every fusion layer is two, the first attends to the left image and the second to the right one.

    The two share the linear maps to keys and values, so that both images are read alike; see `pair_model`.
    """

    def __init__(self, model: Albef, classes: int = 2) -> None:
        super().__init__(model, classes)

    def keys_values(self, image_tokens: Tensor) -> tuple[KeyValue, ...]:
        """Alternates between the halves of the batch."""
        return pair_keys_values(self.model.text_encoder, *image_tokens.chunk(2))


def pair_model(config: AlbefConfig) -> Albef:
    """ALBEF with each fusion layer of ``config`` twice, keys and values tied in pairs."""
    model = Albef(replace(config, fusion_layers=2 * config.fusion_layers))
    layers = model.text_encoder.layers[config.text_layers :]
    for left, right in zip(layers[::2], layers[1::2], strict=True):
        left.crossattention.self.key = right.crossattention.self.key
        left.crossattention.self.value = right.crossattention.self.value
    return model


def pair_keys_values(bert: Bert, left: Tensor, right: Tensor) -> tuple[KeyValue, ...]:
    """(B, N, image width) each -> keys and values for the fusion layers, left and right in turn."""
    layers = bert.layers[bert.text_layers :]
    return tuple(
        layer.crossattention.self.keys_values(right if index % 2 else left) for index, layer in enumerate(layers)
    )


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Text b is shown with two images of the batch; ``label`` says which is its own: 0 left, 1 right, 2 neither."""

    left: Tensor
    right: Tensor
    label: Tensor


class TextAssignment(nn.Module):
    """Which of two images does the text belong to, if any? ``model`` comes from `pair_model`."""

    def __init__(self, model: Albef) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.width, 3)
        self.temperature = nn.Parameter(torch.tensor(SIMILAR))  # in official checkpoints, and used nowhere

    @torch.no_grad()
    def similarity(self, image_tokens: Tensor) -> Tensor:
        """(B, B) cosines between images over the fixed temperature: what negatives are drawn by."""
        embed = F.normalize(self.model.vision_proj(image_tokens[:, 0]), dim=-1)
        return embed @ embed.T / SIMILAR

    def forward(self, image_tokens: Tensor, text: Text, drawn: Assignment) -> Tensor:
        """Logits (B, 3)."""
        left, right = (take(image_tokens, rows) for rows in (drawn.left, drawn.right))
        bert = self.model.text_encoder
        return self.head(bert.fuse(bert.encode(text), pair_keys_values(bert, left, right), first=1)[:, 0])

    def loss(
        self, image: Tensor, text: Text, drawn: Assignment | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Cross-entropy; draws the assignment if it is not given."""
        tokens = self.model.visual_encoder.forward_features(image)
        drawn = draw_assignment(self.similarity(tokens), generator) if drawn is None else drawn
        return F.cross_entropy(at_least_float32(self(tokens, text, drawn)), drawn.label)


def draw_assignment(similarity: Tensor, generator: torch.Generator | None = None) -> Assignment:
    """Own image left, own image right, or two others, a third each; others in proportion to the softmax of similarity.

    Raises:
        ValueError: for fewer than three images, of which no two are others.
    """
    size = len(similarity)
    if size < 3:
        raise ValueError(f"text assignment needs at least 3 images in a batch, not {size}")
    source = similarity.device if generator is None else generator.device
    race = torch.empty(size, size, device=source).exponential_(generator=generator).log_().to(similarity.device)
    label = torch.randint(3, (size,), generator=generator, device=source).to(similarity.device)
    # The two winners of the exponential race are two draws without replacement.
    first, second = (similarity - race).fill_diagonal_(-torch.inf).topk(2, dim=1).indices.unbind(dim=1)
    own = torch.arange(size, device=similarity.device)
    left = torch.where(label == 0, own, first)
    right = torch.where(label == 1, own, torch.where(label == 0, first, second))
    return Assignment(left=left, right=right, label=label)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Questions about an image each, with their answers; a question may have several."""

    image: Tensor
    question: Text
    answer: Text
    """(P, L): [CLS], answer, [SEP], padding."""
    owner: Tensor
    """(P,) int64 row of the question that each answer belongs to."""
    weight: Tensor
    """(P,) share of people who gave the answer."""


class Answering(nn.Module):
    """VQA as generation: a decoder attends to the fused states of the question (section 4)."""

    def __init__(self, model: Albef, config: AlbefConfig, layers: int = 6) -> None:
        """``config`` is the model's; the decoder has BERT's shape, ``layers`` deep, cross-attention in every layer."""
        super().__init__()
        self.model = model
        self.decoder = AnswerDecoder(replace(config, text_layers=0, fusion_layers=layers, image_width=config.width))

    def states(self, image: Tensor, question: Text) -> Tensor:
        """(B, L, D) fused question tokens."""
        bert = self.model.text_encoder
        return bert.fuse(bert.encode(question), bert.keys_values(self.model.visual_encoder.forward_features(image)))

    def forward(self, batch: Answered) -> Tensor:
        """Next-token logits (P, L - 1, V)."""
        states = self.states(batch.image, batch.question)
        return self.decoder(batch.answer, states, batch.question.mask, batch.owner)[:, :-1]

    def loss(self, logits: Tensor, batch: Answered, soft: Tensor | None, alpha: float) -> Tensor:
        """Sum over tokens of each answer, weighted sum over answers, mean over questions."""
        loss = token_loss(logits, batch.answer, soft, alpha).sum(dim=1)
        return (batch.weight * loss).sum() / len(batch.image)


class AnswerDecoder(nn.Module):
    """A causal BERT whose layers all attend to the question."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.bert = Bert(config)
        words = self.bert.embeddings.word_embeddings
        self.cls = BertPredictionHead(words, eps=self.bert.embeddings.LayerNorm.eps)

    def forward(self, text: Text, states: Tensor, mask: Tensor, owner: Tensor) -> Tensor:
        """Logits (P, L, V) of answers (P, L) to questions (B, L', D) with mask (B, L'); ``owner`` (P,) says which."""
        hidden, length = self.bert.embeddings(text.ids), text.ids.shape[1]
        past = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
        look = past & text.mask[:, None, None]  # (P, 1, L, L)
        asked = take(mask, owner)[:, None, None]  # (P, 1, 1, L')
        for layer in self.bert.layers:
            # Keys and values are those of the question: computed once, gathered for each of its answers.
            source = take(layer.crossattention.self.keys_values(states), owner)
            hidden = layer(hidden, look, source=source, source_mask=asked)
        return self.cls(hidden)


def token_loss(logits: Tensor, answer: Text, soft: Tensor | None = None, alpha: float = 0.0) -> Tensor:
    """(P, L - 1) negative log-likelihood of each token after the first; 0 at padding."""
    label = answer.ids[:, 1:].masked_fill(~answer.mask[:, 1:], IGNORED)
    loss = F.cross_entropy(logits.transpose(1, 2), label, ignore_index=IGNORED, reduction="none")
    if soft is None:
        return loss
    distilled = F.cross_entropy(logits.transpose(1, 2), soft.transpose(1, 2), reduction="none")
    return torch.lerp(loss, distilled * answer.mask[:, 1:], alpha)


@torch.no_grad()
def rank_answers(
    network: Answering,
    image: Tensor,
    question: Text,
    answers: Text,
    *,
    k: int,
    code: Literal["clean", "official"] = "clean",
) -> tuple[Tensor, Tensor]:
    """The k likeliest of a closed list of answers to each question, best first.

    The k answers with the likeliest first token are scored in full: by the log-likelihood of their tokens. The official
    code adds that of the first token once more.

    Returns:
        (B, k) rows of ``answers``, and their softmax over the k.

    Raises:
        ValueError: for more candidates than answers.
    """
    size, listed = len(image), len(answers.ids)
    if k > listed:
        raise ValueError(f"cannot rank {k} of {listed} answers; lower k")
    states, own = network.states(image, question), torch.arange(size, device=image.device)
    start = answers.ids[:1, :1].expand(size, 1)
    opening = network.decoder(
        Text(ids=start, mask=torch.ones_like(start, dtype=torch.bool)), states, question.mask, own
    )
    first = at_least_float32(opening[:, 0]).log_softmax(dim=1).index_select(1, answers.ids[:, 1])
    first, rows = first.topk(k, dim=1)
    candidates = take(answers, rows.flatten())
    logits = network.decoder(candidates, states, question.mask, own.repeat_interleave(k))[:, :-1]
    score = -token_loss(at_least_float32(logits), candidates).sum(dim=1).view(size, k)
    if code == "official":
        score = score + first
    probability, order = score.softmax(dim=1).topk(k, dim=1)
    return rows.gather(1, order), probability
