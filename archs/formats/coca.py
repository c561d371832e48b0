"""CoCa's: open_clip's form, the only one there are weights in."""

from __future__ import annotations

from vlpbench.archs.formats.base import Format, Grid, inverse_exponential

FORMATS = (
    Format(
        name="open_clip CoCa",
        marks=("visual", "text.token_embedding", "text_decoder", "logit_scale"),
        rules={f"model.{part}": part for part in ("visual", "text", "text_decoder")},
        made={"objectives.itc.temperature": ("logit_scale", inverse_exponential)},
        grids={"model.visual.positional_embedding": Grid(antialias=True)},
        sizes={"vocab_size": ("text.token_embedding.weight", 0, 0), "text_len": ("text.positional_embedding", 0, -1)},
    ),
)
"""The last position is that of the token that sums a text up."""
