"""VLMo's: the released code's."""

from __future__ import annotations

from collections.abc import Mapping

from vlpbench.archs.formats.base import Format, Grid, inverse_exponential, without
from vlpbench.archs.vlmo_tasks import PRETRAIN

_CONTRAST = {
    "objectives.itc.temperature": ("logit_scale", inverse_exponential),
    "objectives.itc_vl.temperature": ("logit_scale", inverse_exponential),
    "objectives.itc_vl.temperature_vl": ("logit_vl_scale", inverse_exponential),
}
_SIZES = {
    "vocab_size": ("text_embeddings.word_embeddings.weight", 0, 0),
    "text_len": ("text_embeddings.position_embeddings.weight", 0, 0),
    "image_types": ("token_type_embeddings.weight", 0, -1),
}
_APART: Mapping[str, str] = {
    **dict.fromkeys(("vqa_classifier", "nlvr2_classifier"), "the head of another task"),
    **dict.fromkeys(
        ("relative_position_index", "text_relative_position_index", "text_imag_relative_position_index"), "a constant"
    ),
}
FORMATS = (
    Format(
        name="vlmo",
        marks=("transformer.blocks", "itc_text_proj", "text_embeddings"),
        rules=without(PRETRAIN.rules, "momentum"),
        made=_CONTRAST,
        apart=_APART,
        grids={"model.transformer.pos_embed": Grid()},
        sizes=_SIZES,
    ),
)
"""A table of relative positions is for one size of images, and is not resized: name that size."""
