"""BLIP's: pre-training, retrieval and matching (released code), and transformers' model of matching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlpbench.archs.blip_tasks import PRETRAIN, RETRIEVAL
from vlpbench.archs.formats import start
from vlpbench.archs.formats.base import Format, Grid, without
from vlpbench.archs.formats.names import renamed, with_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_GRIDS = {"model.visual_encoder.pos_embed": Grid()}
_SIZES = {
    "vocab_size": ("text_encoder.embeddings.word_embeddings.weight", 0, -2),
    "positions": ("text_encoder.embeddings.position_embeddings.weight", 0, 0),
}
_APART = {
    f"{name}_m": "the momentum copy" for name in ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
} | dict.fromkeys(
    ("image_queue", "text_queue", "queue_ptr", "ptr_queue", "idx_queue"),
    "negatives of the momentum model, which are made anew",
)
_SILENT = {"model.text_decoder": "the task writes nothing"}
_MATCHING = without(RETRIEVAL.rules, "momentum", "objectives.itc")
_HF = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual_encoder.patch_embed.proj."),
    (r"^vision_model\.post_layernorm\.", "visual_encoder.norm."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.", r"visual_encoder.blocks.\1.attn.qkv."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\.", r"visual_encoder.blocks.\1.attn.proj."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.", r"visual_encoder.blocks.\1.norm\2."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.mlp\.", r"visual_encoder.blocks.\1.mlp."),
)


def _of_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return with_positions(renamed(state, _HF), "text_encoder.embeddings")


FORMATS = (
    Format(
        name="blip_pretrain",
        marks=("visual_encoder", "text_encoder", "text_decoder", "itm_head"),
        rules=without(PRETRAIN.rules, "momentum"),
        apart=_APART,
        grids=_GRIDS,
        sizes=_SIZES,
    ),
    Format(
        name="blip_retrieval",
        marks=("visual_encoder", "text_encoder", "itm_head", "temp"),
        without=("text_decoder",),
        rules=without(RETRIEVAL.rules, "momentum"),
        absent=_SILENT,
        apart=_APART,
        grids=_GRIDS,
        sizes=_SIZES,
    ),
    Format(
        name="blip_itm",
        marks=("visual_encoder", "text_encoder", "itm_head"),
        without=("text_decoder", "temp"),
        rules=_MATCHING,
        absent=_SILENT | {"objectives.itc": "a temperature, which ranks nothing"},
        grids=_GRIDS,
        sizes=_SIZES,
    ),
    Format(
        name="transformers BlipForImageTextRetrieval",
        marks=("vision_model", "text_encoder", "itm_head"),
        rules=_MATCHING,
        absent=_SILENT | {"objectives.itc": "a temperature, which ranks nothing"},
        grids=_GRIDS,
        sizes=_SIZES,
        translate=_of_transformers,
    ),
    start.image("model.visual_encoder", _GRIDS),
)
"""transformers' own matching begins with [CLS]; here it begins with [ENC], as the released retrieval does."""
