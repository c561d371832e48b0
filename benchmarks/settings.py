"""The state of torch that decides what a step costs, taken from a cell and put back afterwards."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from vlpbench.archs.types import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vlpbench.results.record import Cell

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def usable(cell: Cell) -> torch.device:
    """The cell's device.

    Raises:
        Unsupported: if it is not there, or cannot compute in the cell's type.
    """
    try:
        device = torch.device(cell.device)
    except RuntimeError as error:
        raise Unsupported(f"{cell.device!r} is no device; use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise Unsupported(f"device {cell.device!r} is not measured here; use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Unsupported(f"device {cell.device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    if cell.dtype == "tf32" and device.type != "cuda":
        raise Unsupported(f"tf32 is a mode of CUDA matrix units; {cell.device} has none, use fp32 or bf16")
    return device


def autocast(cell: Cell, device: torch.device) -> torch.autocast:
    """Mixed precision in the cell's type: weights stay fp32, matrix products run in ``dtype``.

    Entered anew for every step: torch keeps casts of the weights until the context ends, and an optimiser step in
    between would go unnoticed.
    """
    dtype = None if device.type == "meta" else _AUTOCAST.get(cell.dtype)
    kind = "cpu" if dtype is None else device.type
    return torch.autocast(kind, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


@contextmanager
def applied(cell: Cell, device: torch.device) -> Iterator[None]:
    """Sets what is global in torch: threads, TF32, attention and the choice of kernels.

    Scaled dot product attention takes any fused kernel that serves (``sdpa``) or none (``eager``). cuDNN's autotuning
    is off: it chooses kernels by a race. The fused inference path of `torch.nn.MultiheadAttention` is off: only some
    architectures would take it, and no counter sees into it.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    backends = [*(fused if cell.attention == "sdpa" else []), SDPBackend.MATH]
    tf32 = cell.dtype == "tf32"
    precision = "high" if tf32 else "highest"
    mha = torch.backends.mha
    with ExitStack() as stack:
        _set(stack, torch.get_num_threads, torch.set_num_threads, cell.threads or torch.get_num_threads())
        _set(stack, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, precision)
        _set(stack, mha.get_fastpath_enabled, mha.set_fastpath_enabled, False)
        _set_attribute(stack, torch.backends.cudnn, "allow_tf32", tf32)
        _set_attribute(stack, torch.backends.cudnn, "benchmark", False)
        stack.enter_context(sdpa_kernel(backends))
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        yield


def _set(stack: ExitStack, get: Callable[[], Any], put: Callable[[Any], None], value: Any) -> None:
    stack.callback(put, get())
    put(value)


def _set_attribute(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)
