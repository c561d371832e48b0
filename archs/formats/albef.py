"""ALBEF's: pre-training and retrieval (released code), and its parts before pre-training: DeiT and BERT."""

from __future__ import annotations

from vlpbench.archs.formats import start
from vlpbench.archs.formats.base import Format, Grid, without
from vlpbench.archs.pretrained import ALBEF_PRETRAIN, ALBEF_RETRIEVAL

_GRIDS = {"model.visual_encoder.pos_embed": Grid()}
_QUEUE = dict.fromkeys(
    ("image_queue", "text_queue", "queue_ptr", "idx_queue"), "negatives of the momentum model, which are made anew"
)


def _sizes(text: str) -> dict[str, tuple[str, int, int]]:
    return {
        "vocab_size": (f"{text}.embeddings.word_embeddings.weight", 0, 0),
        "positions": (f"{text}.embeddings.position_embeddings.weight", 0, 0),
    }


_MOMENTUM = {
    f"{name}_m": "the momentum copy" for name in ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
}
FORMATS = (
    Format(
        name="albef_pretrain",
        marks=("text_encoder.bert", "visual_encoder"),
        rules=without(ALBEF_PRETRAIN.rules, "momentum"),
        apart=_MOMENTUM | _QUEUE,
        grids=_GRIDS,
        sizes=_sizes("text_encoder.bert"),
    ),
    Format(
        name="albef_retrieval",
        marks=("text_encoder.embeddings", "visual_encoder", "text_proj"),
        rules=without(ALBEF_RETRIEVAL.rules, "momentum"),
        apart=_MOMENTUM | _QUEUE,
        grids=_GRIDS,
        sizes=_sizes("text_encoder"),
    ),
    start.image_and_text("model.visual_encoder", "model.text_encoder", _GRIDS),
    start.image("model.visual_encoder", _GRIDS),
    start.text("model.text_encoder"),
)
