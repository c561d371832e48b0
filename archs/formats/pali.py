"""PaLI's: it was not released; its language model is transformers' mT5."""

from __future__ import annotations

from vlpbench.archs.formats.base import Format
from vlpbench.archs.pali import MT5

FORMATS = (
    Format(
        name="mt5",
        marks=("shared", "encoder.block", "decoder.block"),
        rules={f"model.{own}": theirs for own, theirs in MT5.rules.items()},
        absent={f"model.{own}": why for own, why in MT5.absent.items()} | {"objectives": "mT5 is trained to write"},
        sizes={"vocab_size": ("shared.weight", 0, 0)},
        part="the encoder and the decoder of texts",
    ),
)
