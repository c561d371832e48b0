"""VSE++'s: the two state dicts of the released code, as `vlpbench.archs.weights` names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlpbench.archs.formats.base import Format
from vlpbench.archs.vsepp import OFFICIAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def _of_one_gpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The CNN was trained on several GPUs, of which its names tell."""
    return {key.replace("cnn.module.", "cnn."): tensor for key, tensor in state.items()}


FORMATS = (
    Format(
        name="vsepp",
        marks=("img_enc.fc", "txt_enc.rnn"),
        rules={f"model.{own}": theirs for own, theirs in OFFICIAL.rules.items()},
        sizes={"vocab_size": ("txt_enc.embed.weight", 0, 0)},
        translate=_of_one_gpu,
    ),
)
