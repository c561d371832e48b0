"""UNITER's: pre-training, and what ranks pairs (released code)."""

from __future__ import annotations

from dataclasses import replace

from vlpbench.archs.formats import start
from vlpbench.archs.formats.base import Format, scored_alone
from vlpbench.archs.uniter_tasks import ABSENT, PRETRAIN

_RULES = {own: theirs for own, theirs in PRETRAIN.rules.items() if own.startswith("model.")}
_WORDS = {
    "objectives.mlm.head.decoder.bias": "the same tensor as `bias`, under which name the released code has it alone",
}
_PRETRAIN = Format(
    name="uniter_pretrain",
    marks=("uniter.embeddings", "itm_output", "cls.predictions"),
    without=("rank_output",),
    rules=_RULES | {"objectives.itm.head": "itm_output", "objectives.mlm.head": "cls.predictions"},
    absent={key: why for key, why in ABSENT.items() if key.startswith("model.")} | _WORDS,
    apart=dict.fromkeys(
        ("feat_regress", "region_classifier", "ot_loss"), "an objective on regions, which is no part of this learner"
    ),
    sizes={
        "vocab_size": ("uniter.embeddings.word_embeddings.weight", 0, 0),
        "positions": ("uniter.embeddings.position_embeddings.weight", 0, 0),
        "image_types": ("uniter.embeddings.token_type_embeddings.weight", 0, -1),
        "features": ("uniter.img_embeddings.img_linear.weight", 1, 0),
    },
)
FORMATS = (
    replace(
        _PRETRAIN,
        name="uniter_itm_rank",
        marks=("uniter.embeddings", "rank_output"),
        without=(),
        rules=_RULES,
        made={f"objectives.itm.head.{name}": (f"rank_output.{name}", scored_alone) for name in ("weight", "bias")},
        apart={**_PRETRAIN.apart, "itm_output": "the head that `rank_output` was made of"},
    ),
    _PRETRAIN,
    start.text("model"),
)
