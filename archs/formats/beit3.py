"""BEiT-3's: retrieval, and the encoder alone as it is pre-trained (released code)."""

from __future__ import annotations

from dataclasses import replace

from vlpbench.archs.beit3_tasks import RETRIEVAL
from vlpbench.archs.formats.base import Format, Grid, inverse_exponential, without

_LACKING = without(RETRIEVAL.absent, "objectives")
_RETRIEVAL = Format(
    name="beit3_retrieval",
    marks=("beit3.encoder", "vision_head", "language_head"),
    rules=RETRIEVAL.rules,
    absent=_LACKING,
    made={"objectives.itc.temperature": ("logit_scale", inverse_exponential)},
    grids={"model.beit3.encoder.embed_positions.A.weight": Grid(extra=3)},
    sizes={
        "vocab_size": ("beit3.text_embed.weight", 0, 0),
        "text_positions": ("beit3.encoder.embed_positions.B.weight", 0, 0),
    },
)
FORMATS = (
    _RETRIEVAL,
    replace(
        _RETRIEVAL,
        name="beit3",
        marks=("beit3.encoder",),
        absent=_LACKING
        | {f"model.{name}": "projections for contrast come with retrieval" for name in ("vision_head", "language_head")}
        | {"objectives": "the released pre-training has no heads"},
        made={},
        apart=dict.fromkeys(("head", "pooler", "mlm_head", "fc_norm"), "the head of another task"),
        part="the encoder",
    ),
)
"""Rows of the table of image positions: two that torchscale leaves free, the class token's, those of the patches."""
