"""ViLBERT's: pre-training (released code)."""

from __future__ import annotations

from vlpbench.archs.formats.base import Format
from vlpbench.archs.vilbert_tasks import ABSENT, PRETRAIN

FORMATS = (
    Format(
        name="vilbert_pretrain",
        marks=("bert.v_embeddings", "cls.bi_seq_relationship"),
        without=("vil_prediction",),
        rules={own: theirs for own, theirs in PRETRAIN.rules.items() if own.startswith("model.")}
        | {"objectives.mlm.head": "cls.predictions"},
        absent={key: why for key, why in ABSENT.items() if key.startswith("model.")}
        | {"objectives.mlm.head.decoder.bias": "the same tensor as `bias`"},
        made={
            f"objectives.itm.head.{name}": (f"cls.bi_seq_relationship.{name}", lambda rows: rows.flip(0))
            for name in ("weight", "bias")
        },
        apart={"cls.imagePredictions": "an objective on regions, which is no part of this learner"},
        sizes={
            "vocab_size": ("bert.embeddings.word_embeddings.weight", 0, 0),
            "positions": ("bert.embeddings.position_embeddings.weight", 0, 0),
            "features": ("bert.v_embeddings.image_embeddings.weight", 1, 0),
        },
    ),
)
"""Of its two rows the first is "match", as in BERT's next sentence; here it is the second."""
