"""Heads that tasks put on a model's pooled vector. Heads of objectives are the objectives' own."""

from __future__ import annotations

from torch import nn


class ClassifierHead(nn.Sequential):
    """(B, D) -> (B, classes): linear, layer norm, GELU, linear.

    ViLT's fine-tuning head (section 4.2, hidden size 2 * D), which is UNITER's for VQA; the layers carry the
    numbers 0, 1 and 3 of the released checkpoints.

    Args:
        width: D.
        classes: answers to choose from.
        hidden: width in between; 2 * D by default.
    """

    def __init__(self, width: int, classes: int, hidden: int | None = None) -> None:
        hidden = 2 * width if hidden is None else hidden
        super().__init__(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, classes))
