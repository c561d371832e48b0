"""BLIP's models for matching, captions, VQA and NLVR2 (section 5), and the official layouts of all of its checkpoints.

Fine-tuning on retrieval is `vlpbench.archs.learner.Learner` with the objectives ``itc`` and ``itm``.

Shape letters: B batch, L tokens, N image tokens, D width, E joint embedding size, V vocabulary, K texts for an image,
P answers of a batch, C classes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.albef_tasks import Answered, Labelled
from vlpbench.archs.blip import Blip
from vlpbench.archs.blip_config import BlipConfig, bert
from vlpbench.archs.blip_text import DecoderSource, Past, TextDecoder, led_by
from vlpbench.archs.blocks import BertSelfAttention, BertShape, KeyValue, init_bert
from vlpbench.archs.model import take
from vlpbench.archs.objectives.base import at_least_float32
from vlpbench.archs.objectives.lm import IGNORED, labels, text_loss
from vlpbench.archs.pretrained import Layout
from vlpbench.archs.types import Text
from vlpbench.archs.vit import vit

SMOOTHING = 0.1
"""Share of a target that the released code spreads over the vocabulary, in training and in ranking answers."""
MERGED = 6
"""First layer in which NLVR2 merges its two images by a linear layer instead of averaging them."""


class Matching(nn.Module):
    """Cosines and matching logits of pairs, as the released ``blip_itm`` has them."""

    def __init__(self, model: Blip, *, code: Literal["clean", "official"] = "clean") -> None:
        """With ``official`` a text keeps [CLS] where it is fused, although the head was trained on [ENC]."""
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.width, 2)
        self.lead = code == "clean"

    def forward(self, image: Tensor, text: Text) -> tuple[Tensor, Tensor]:
        """Matching logits (B, 2) of row b with row b, and cosines (B, B) of all images with all texts."""
        model = self.model
        state = model.encode_image(image)
        pooled = model.ground(state, text, first=1, lead=self.lead)[:, 0]
        return self.head(pooled), model.embed_image(state) @ model.embed_text(text).T


class Captioning(nn.Module):
    """An image encoder and a decoder alone: what the released captioning checkpoints hold."""

    def __init__(self, config: BlipConfig) -> None:
        super().__init__()
        self.decoder_token = config.vocab_size
        self.visual_encoder = vit(config, drop_path=config.drop_path)
        self.text_decoder = TextDecoder(bert(config, source_width=config.image_width))

    def forward(self, image: Tensor, caption: Text) -> Tensor:
        """Next-token logits (B, L, V)."""
        return self.decode_step(self.prepare_decode(image), caption.ids)[0]

    def loss(self, image: Tensor, caption: Text, *, prompt: int = 1) -> Tensor:
        """Mean over the tokens behind the first ``prompt`` ones, which are given: "a picture of" in the paper."""
        label = labels(caption)
        label[:, : prompt - 1] = IGNORED
        logits = at_least_float32(self(image, caption))[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), label.flatten(), label_smoothing=SMOOTHING, ignore_index=IGNORED)

    def prepare_decode(self, image: Tensor) -> DecoderSource:
        """See `vlpbench.archs.model.VLModel`; takes pixels."""
        return DecoderSource(
            keys_values=self.text_decoder.bert.keys_values(self.visual_encoder.forward_features(image))
        )

    def decode_step(
        self, source: DecoderSource, ids: Tensor, past: Past | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Past]:
        """See `vlpbench.archs.model.VLModel`."""
        return self.text_decoder(source, led_by(self.decoder_token, ids) if past is None else ids, past, beams=beams)


class Answering(nn.Module):
    """VQA as generation: a decoder of its own weights reads the fused tokens of image and question (section 5.4)."""

    def __init__(self, model: Blip, config: BlipConfig) -> None:
        """``config`` is the model's. The model's own decoder is left unused, and is no part of the official layout."""
        super().__init__()
        self.model = model
        self.decoder = TextDecoder(bert(config, source_width=config.width))

    def states(self, image: Tensor, question: Text) -> Tensor:
        """(B, L, D) fused question tokens."""
        return self.model.ground(self.model.encode_image(image), question)

    def forward(self, batch: Answered) -> Tensor:
        """Next-token logits (P, L - 1, V)."""
        # Keys and values are those of the question: computed once, gathered for each of its answers.
        source = take(self.source(batch.image, batch.question), batch.owner)
        return self.decode_step(source, batch.answer.ids)[0][:, :-1]

    def loss(self, logits: Tensor, batch: Answered, smoothing: float = SMOOTHING) -> Tensor:
        """Sum over tokens of each answer, weighted sum over answers, mean over questions."""
        loss = text_loss(logits, batch.answer, smoothing)
        return (batch.weight * loss).sum() / len(batch.image)

    def source(self, image: Tensor, question: Text, *, padding: bool = False) -> DecoderSource:
        """What the decoder reads; with ``padding`` the states at a question's padding too, as the official generation.

        The official ranking and training do not read them.
        """
        keys_values = self.decoder.bert.keys_values(self.states(image, question))
        return DecoderSource(keys_values=keys_values, mask=None if padding else question.mask)

    def decode_step(
        self, source: DecoderSource, ids: Tensor, past: Past | None = None, *, beams: int = 1
    ) -> tuple[Tensor, Past]:
        """See `vlpbench.archs.model.VLModel`."""
        start = led_by(self.model.decoder_token, ids) if past is None else ids
        return self.decoder(source, start, past, beams=beams)


class PairAttention(nn.Module):
    """Cross-attention to two images at once, in place of a `BertAttention`."""

    def __init__(self, shape: BertShape, source_width: int, *, merge: bool) -> None:
        super().__init__()
        self.self0, self.self1 = (BertSelfAttention(shape, source_width) for _ in range(2))
        self.output = PairOutput(shape, merge=merge)

    def forward(
        self, hidden: Tensor, mask: Tensor | None, *, source: tuple[KeyValue, KeyValue], first: int | None = None
    ) -> Tensor:
        """(B, L, D) -> (B, L, D); ``source`` has the keys and values of the left and of the right image."""
        left, right = self.self0(hidden, source[0], mask), self.self1(hidden, source[1], mask)
        return self.output(left, right, hidden)

    def keys_values(self, left: Tensor, right: Tensor) -> tuple[KeyValue, KeyValue]:
        """(B, N, image width) each -> ``source``."""
        return self.self0.keys_values(left), self.self1.keys_values(right)


class PairOutput(nn.Module):
    """Projects what was read from each image, averages or merges the two, adds and normalises."""

    def __init__(self, shape: BertShape, *, merge: bool) -> None:
        super().__init__()
        self.dense0, self.dense1 = (nn.Linear(shape.width, shape.width) for _ in range(2))
        if merge:
            self.merge_layer = nn.Linear(2 * shape.width, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, left: Tensor, right: Tensor, residual: Tensor) -> Tensor:
        """(B, L, D) each -> (B, L, D)."""
        left, right = self.dense0(left), self.dense1(right)
        both = self.merge_layer(torch.cat([left, right], -1)) if hasattr(self, "merge_layer") else (left + right) / 2
        return self.LayerNorm(residual + self.dropout(both))


class PairClassifying(nn.Module):
    """NLVR2: every layer of the encoder attends to both images (section 5.5)."""

    def __init__(self, config: BlipConfig, classes: int = 2, *, merged: int = MERGED) -> None:
        """Layers from ``merged`` on merge their two images by a linear layer."""
        super().__init__()
        self.encoder_token = config.vocab_size + 1
        self.visual_encoder = vit(config, drop_path=config.drop_path)
        self.text_encoder = bert(config, source_width=config.image_width)
        for number, layer in enumerate(self.text_encoder.layers):
            pair: Any = PairAttention(config.bert, config.image_width, merge=number >= merged)
            init_bert(pair)
            layer.crossattention = pair
        self.head = nn.Sequential(nn.Linear(config.width, config.width), nn.ReLU(), nn.Linear(config.width, classes))

    def forward(self, batch: Labelled) -> Tensor:
        """Logits (B, C); images are first all left, then all right ones."""
        left, right = self.visual_encoder.forward_features(batch.image).chunk(2)
        attention: list[Any] = [layer.crossattention for layer in self.text_encoder.layers]
        sources: Any = tuple(one.keys_values(left, right) for one in attention)
        ids = led_by(self.encoder_token, batch.text.ids)
        return self.head(self.text_encoder(ids, batch.text.mask, sources=sources, first=1)[:, 0])

    def loss(self, logits: Tensor, batch: Labelled) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(at_least_float32(logits), batch.target)


_TOWERS = {"model.visual_encoder": "visual_encoder", "model.text_encoder": "text_encoder"}
_PROJECTIONS = {"model.vision_proj": "vision_proj", "model.text_proj": "text_proj"}
_LEARNER = (
    _TOWERS
    | _PROJECTIONS
    | {
        **{f"momentum.twin.{own}": f"{official}_m" for own, official in (_TOWERS | _PROJECTIONS).items()},
        "objectives.itc.temperature": "temp",
        "objectives.itm.head": "itm_head",
        "momentum.queue.image": "image_queue",
        "momentum.queue.text": "text_queue",
    }
)
_NO_DECODER = {"model.text_decoder": "the official model of this task has no such decoder; ours keeps its weights"}

PRETRAIN = Layout(
    name="blip_pretrain",
    rules=_LEARNER
    | {
        "model.text_decoder.bert": "text_decoder.bert",
        "model.text_decoder.cls": "text_decoder.cls.predictions",
        "momentum.queue.pointer": "queue_ptr",
    },
    absent={"momentum.queue.ids": "only the official retrieval fine-tuning keeps sample ids in its queue"},
)
"""`Learner` of ``itc``, ``itm``, ``lm`` with momentum ``distill``."""
RETRIEVAL = Layout(
    name="blip_retrieval",
    rules=_LEARNER | {"momentum.queue.ids": "idx_queue", "momentum.queue.pointer": "ptr_queue"},
    absent=_NO_DECODER,
)
"""`Learner` of ``itc`` and ``itm`` with momentum ``queue`` or ``distill``."""
MATCHING = Layout(name="blip_itm", rules=_TOWERS | _PROJECTIONS | {"head": "itm_head"}, absent=_NO_DECODER)
CAPTIONING = Layout(
    name="blip_decoder",
    rules={
        "visual_encoder": "visual_encoder",
        "text_decoder.bert": "text_decoder.bert",
        "text_decoder.cls": "text_decoder.cls.predictions",
    },
)
VQA = Layout(
    name="blip_vqa",
    rules=_TOWERS | {"decoder.bert": "text_decoder.bert", "decoder.cls": "text_decoder.cls.predictions"},
    absent=_NO_DECODER
    | dict.fromkeys(_PROJECTIONS, "the task embeds nothing, so the official model has no projections"),
)
NLVR = Layout(
    name="blip_nlvr",
    rules={"visual_encoder": "visual_encoder", "text_encoder": "text_encoder", "head": "cls_head"},
)
