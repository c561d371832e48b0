"""ViLT's: the released code's, with the heads of pre-training or of retrieval, and transformers'."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlpbench.archs.formats import start
from vlpbench.archs.formats.base import Format, Grid, scored_alone
from vlpbench.archs.formats.names import joined, renamed, with_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_PARTS = ("transformer", "pooler", "text_embeddings", "token_type_embeddings")
_TABLE = "model.transformer.pos_embed"
_RANKED = {f"objectives.itm.head.{name}": (f"rank_output.{name}", scored_alone) for name in ("weight", "bias")}
_TASK = "the head of another task"
_HF = (
    (r"^vilt\.embeddings\.text_embeddings\.", "text_embeddings."),
    (r"^vilt\.embeddings\.cls_token$", "transformer.cls_token"),
    (r"^vilt\.embeddings\.position_embeddings$", "transformer.pos_embed"),
    (r"^vilt\.embeddings\.patch_embeddings\.projection\.", "transformer.patch_embed.proj."),
    (r"^vilt\.embeddings\.token_type_embeddings\.", "token_type_embeddings."),
    (r"^vilt\.layernorm\.", "transformer.norm."),
    (r"^vilt\.pooler\.", "pooler."),
    (r"^vilt\.encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"transformer.blocks.\1.attn.proj."),
    (r"^vilt\.encoder\.layer\.(\d+)\.layernorm_before\.", r"transformer.blocks.\1.norm1."),
    (r"^vilt\.encoder\.layer\.(\d+)\.layernorm_after\.", r"transformer.blocks.\1.norm2."),
    (r"^vilt\.encoder\.layer\.(\d+)\.intermediate\.dense\.", r"transformer.blocks.\1.mlp.fc1."),
    (r"^vilt\.encoder\.layer\.(\d+)\.output\.dense\.", r"transformer.blocks.\1.mlp.fc2."),
)
_ATTENTION = r"^vilt\.encoder\.layer\.(?P<layer>\d+)\.attention\.attention\.(?P<part>query|key|value)\."


def _of_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    whole = r"transformer.blocks.\g<layer>.attn.qkv."
    found = renamed(joined(state, _ATTENTION, ("query", "key", "value"), whole), _HF)
    return with_positions(found, "text_embeddings")


_PRETRAIN = Format(
    name="vilt_pretrain",
    marks=("transformer.blocks", "text_embeddings", "itm_score"),
    without=("rank_output", "itc_text_proj"),
    rules={f"model.{part}": part for part in _PARTS}
    | {"objectives.itm.head": "itm_score.fc", "objectives.mlm.head": "mlm_score", "objectives.mpp.head": "mpp_score"},
    apart=dict.fromkeys(("vqa_classifier", "nlvr2_classifier"), _TASK),
    grids={_TABLE: Grid(field="position_size")},
    sizes={
        "vocab_size": ("text_embeddings.word_embeddings.weight", 0, 0),
        "text_len": ("text_embeddings.position_embeddings.weight", 0, 0),
        "image_types": ("token_type_embeddings.weight", 0, -1),
    },
)
_RETRIEVAL = replace(
    _PRETRAIN,
    name="vilt_irtr",
    marks=("transformer.blocks", "text_embeddings", "rank_output"),
    without=("itc_text_proj",),
    rules={key: name for key, name in _PRETRAIN.rules.items() if key != "objectives.itm.head"},
    made=_RANKED,
    apart={**_PRETRAIN.apart, "itm_score": "the head of pre-training, in whose place `rank_output` scores pairs"},
)
_HF_RETRIEVAL = replace(
    _RETRIEVAL,
    name="transformers ViltForImageAndTextRetrieval",
    marks=("vilt.embeddings", "rank_output"),
    without=(),
    translate=_of_transformers,
)
FORMATS = (
    _PRETRAIN,
    _RETRIEVAL,
    _HF_RETRIEVAL,
    replace(
        _HF_RETRIEVAL,
        name="transformers ViltModel",
        marks=("vilt.embeddings",),
        made={},
        absent={"objectives": "of no model of transformers but that of retrieval"},
        apart=dict.fromkeys(("classifier", "mlm_score"), _TASK),
        part="the transformer",
    ),
    start.image("model.transformer", {_TABLE: Grid(field="position_size")}),
)
"""A released retrieval model scores pairs by one number, here the log-odds of "match"."""
