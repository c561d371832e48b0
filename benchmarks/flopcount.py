"""Two independent counters of floating point work, and what each of them did not see.

`count` is the primary: torch's table of formulas over every operator that runs, two FLOPs for a multiply-add.
`cross_check` is fvcore over a traced graph, which counts multiply-adds once. Both count matrix products, convolutions
and attention; fvcore also counts norms and pooling, which is kept apart. Causal attention is counted as full by both.

Counted on the meta device, attention runs as its two batched products: on a CPU or GPU the backward pass of a fused
kernel recomputes the scores, so that the same mathematics would count 2.5 instead of 2 forwards.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # fvcore scripts functions when imported, which torch deprecates
    from fvcore.nn import FlopCountAnalysis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRODUCTS = frozenset(
    ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv", "einsum", "scaled_dot_product_attention", "gru")
)
"""Operators of fvcore that torch's counter counts too, by fvcore's names."""
_LOOKS_LIKE_PRODUCT = re.compile(r"attention|transformer|multi_head|mm$|matmul|conv|linear$|einsum|tensordot|lstm|gru")


class CounterBroken(RuntimeError):
    """A counter gave a wrong number for an operation whose work is known."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """Work of one call."""

    flops: int
    by_operator: dict[str, int]
    uncounted: dict[str, int]
    """Operator that looks like a product and was not counted -> times it ran. Empty, or the number is too small."""

    def __add__(self, other: Count) -> Count:
        return Count(
            flops=self.flops + other.flops,
            by_operator=dict(Counter(self.by_operator) + Counter(other.by_operator)),
            uncounted=dict(Counter(self.uncounted) + Counter(other.uncounted)),
        )


@dataclass(frozen=True, kw_only=True)
class CrossCheck:
    """fvcore's view of the same call, as FLOPs: two for each of its multiply-adds."""

    flops: int
    """Of the operators in `PRODUCTS`."""
    others: int
    """Of operators that only fvcore counts: norms and pooling."""
    by_operator: dict[str, int]
    uncounted: dict[str, int]
    """As in `Count`."""


class _Counter(TorchDispatchMode):
    """Sums torch's formulas over the operators that run, after composite ones were taken apart.

    On meta nothing but shapes is computed, by functions in Python that take most of the time; as layers repeat, each is
    asked once and its answer given again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self._shapes: dict[Any, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func.overloadpacket)
        if formula is None and _composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        out = self._run(func, args, kwargs)
        name = _name(func.overloadpacket)
        if formula is not None:
            self.flops[name] += formula(*args, **kwargs, out_val=out)
        elif _LOOKS_LIKE_PRODUCT.search(name):
            self.missed[name] += 1
        return out

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _fresh(func):
            return func(*args, **kwargs)
        devices: list[torch.device] = []
        key = (func, _geometry(args, devices), _geometry(tuple(kwargs.items()), devices))
        if not devices or any(device.type != "meta" for device in devices):
            return func(*args, **kwargs)
        known = self._shapes.get(key)
        if known is None:
            out = func(*args, **kwargs)
            self._shapes[key] = tree_map_only(Tensor, _Like.of, out)
            return out
        return known.new() if isinstance(known, _Like) else tree_map_only(_Like, _Like.new, known)


@dataclass(frozen=True, kw_only=True)
class _Like:
    """What a tensor on meta is."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> _Like:
        return cls(shape=x.shape, stride=x.stride(), dtype=x.dtype)

    def new(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


@cache
def _composite(func: Any) -> bool:
    """Whether the operator is only a name for others; it reaches a counter under inference mode alone."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@cache
def _fresh(func: Any) -> bool:
    """Whether the operator returns new tensors, and none that it was given or a view of one."""
    schema = func._schema
    return not schema.is_mutable and all(result.alias_info is None for result in schema.returns)


def _geometry(value: Any, devices: list[torch.device]) -> Any:
    """All of an argument that a shape can depend on, hashable; the devices of its tensors are appended."""
    if isinstance(value, Tensor):
        devices.append(value.device)
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple(_geometry(item, devices) for item in value)
    return type(value), value  # a scalar's type decides the result's, and True equals 1


@contextmanager
def counting() -> Iterator[Callable[[], Count]]:
    """Counts what runs in the body; the function it gives may be called at any time for the count so far."""

    def so_far() -> Count:
        return Count(flops=counter.flops.total(), by_operator=dict(counter.flops), uncounted=dict(counter.missed))

    with _Counter() as counter:
        yield so_far


def count(call: Callable[[], object]) -> Count:
    """Work of one call of this function, by torch's counter."""
    with counting() as so_far:
        call()
        return so_far()


def cross_check(call: Callable[..., object], *inputs: Tensor, module: nn.Module | None = None) -> CrossCheck:
    """Work of ``call(*inputs)`` by fvcore, with a handle for attention, on any device, meta included.

    Args:
        call: what runs.
        inputs: its arguments.
        module: owner of all parameters that the call reads, where there are any.
    """
    with warnings.catch_warnings(), mock.patch.object(nn.Conv2d, "forward", _conv2d_as_product), _silent("fvcore"):
        warnings.simplefilter("ignore")  # tracing is deprecated in torch; fvcore knows no other way
        analysis = FlopCountAnalysis(_Callable(call, module), inputs)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        analysis.set_op_handle("aten::gru", _gru_macs)
        found = {name: 2 * int(macs) for name, macs in analysis.by_operator().items()}
        missed = {
            name: times
            for name, times in analysis.unsupported_ops().items()
            if _LOOKS_LIKE_PRODUCT.search(name.removeprefix("aten::"))
        }
    products = sum(flops for name, flops in found.items() if name in PRODUCTS)
    return CrossCheck(flops=products, others=sum(found.values()) - products, by_operator=found, uncounted=missed)


@cache
def self_test() -> None:
    """Counts attention of 2 heads over 8 tokens of width 4 by both counters: 2 x (2 * 8 * 8 * 4) multiply-adds.

    Counters have returned 0 for attention in several versions of torch, silently.

    Raises:
        CounterBroken: naming the version, if a count is not 2,048 FLOPs.
    """
    query = torch.empty(1, 2, 8, 4, device="meta")
    expected = 2 * 2 * (2 * 8 * 8 * 4)

    def attend(query: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, query, query)

    with torch.no_grad():
        primary = count(lambda: attend(query)).flops
    secondary = cross_check(attend, query).flops
    if (primary, secondary) != (expected, expected):
        raise CounterBroken(
            f"attention of {expected} FLOPs counts {primary} by torch {torch.__version__} and {secondary} by fvcore: "
            "install versions that agree"
        )


class _Callable(nn.Module):
    """fvcore traces modules; this makes one of a function.

    Parameters that it does not own would be copied as constants, which meta tensors cannot be.
    """

    def __init__(self, call: Callable[..., object], module: nn.Module | None) -> None:
        super().__init__()
        self.call = call
        self.module = module

    def forward(self, *inputs: Tensor) -> object:
        return self.call(*inputs)


def _conv2d_as_product(self: nn.Conv2d, image: Tensor) -> Tensor:
    """The work of a convolution as one matrix product of the same size, because tracing a convolution on meta fails.

    (B * H' * W', C_in / groups * kh * kw) x (that, C_out), the weights being the real ones and the rest only shape.
    """
    rows, (height, width) = int(image.shape[0]), _output_size(self, image)
    weight = self.weight.flatten(1)
    output = image.new_empty(rows, height * width, int(weight.shape[1])) @ weight.t()
    return output.transpose(1, 2).reshape(rows, int(weight.shape[0]), height, width)


def _output_size(conv: nn.Conv2d, image: Tensor) -> tuple[int, int]:
    if isinstance(conv.padding, str):
        raise ValueError(f"convolutions with padding={conv.padding!r} are not cross-checked; give it as numbers")
    height, width = (
        (int(size) + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, padding, dilation, kernel, stride in zip(
            image.shape[2:], conv.padding, conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    )
    return height, width


def _attention_macs(inputs: list[Any], _outputs: list[Any]) -> int:
    """Multiply-adds of scaled dot product attention: queries x keys, then weights x values."""
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _gru_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of a GRU's matrices, each of which every step of every row reads once."""
    steps = math.prod(outputs[0].type().sizes()[:2])
    weights = (tensor.type().sizes() for tensor in inputs[2].node().inputs())
    return steps * sum(math.prod(shape) for shape in weights if len(shape) == 2)


def _name(operator: Any) -> str:
    return str(getattr(operator, "__name__", operator))


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """fvcore logs every operator without a handle; those that matter are in `CrossCheck.uncounted`."""
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        yield
    finally:
        found.setLevel(level)
