"""Random weights in a fraction of the time, for models whose cost is measured and whose answers are not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK = 1 << 16
"""Values drawn; a larger tensor repeats them."""


class _Tiled(TorchDispatchMode):
    """Runs the random and the slow in-place fills on the first `BLOCK` values and repeats the result.

    The distribution of each value stays the initialiser's own: `torch.nn.init.trunc_normal_` is a uniform draw, then
    the inverse error function, both elementwise, so a periodic tensor stays periodic.
    """

    FILLS = (
        torch.ops.aten.normal_.default,
        torch.ops.aten.uniform_.default,
        torch.ops.aten.erfinv_.default,
    )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.FILLS or not _large(args[0]):
            return func(*args, **kwargs)
        flat = args[0].view(-1)
        block = func(flat[:BLOCK], *args[1:], **kwargs)
        whole = flat.numel() // BLOCK
        flat[BLOCK : whole * BLOCK].view(whole - 1, BLOCK).copy_(block.expand(whole - 1, BLOCK))
        rest = flat[whole * BLOCK :]
        rest.copy_(block[: rest.numel()])
        return args[0]


def _large(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and tensor.numel() >= 4 * BLOCK


def tiled_init() -> TorchDispatchMode:
    """Context under which a model on the CPU is built with large weights of repeating blocks.

    Building stays what it is in every other way: buffers, norms, ties and small tensors are the model's own.
    """
    return _Tiled()
