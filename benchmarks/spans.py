"""Parts of a phase told apart without a wait: stamps around functions that run somewhere inside it."""

from __future__ import annotations

import time
from collections import defaultdict
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

P = ParamSpec("P")
R = TypeVar("R")


class Spans:
    """Time spent in wrapped functions, by name and call. Of nested ones with one name the outermost counts."""

    def __init__(self, device: torch.device) -> None:
        """On CUDA the stamps are events on the current stream, read at the end; elsewhere the wall clock."""
        self._cuda = device.type == "cuda"
        self._calls: list[dict[str, list[tuple[Any, Any]]]] = []
        self._open: set[str] = set()

    def begin_call(self) -> None:
        """What is stamped from here on belongs to a new call."""
        self._calls.append(defaultdict(list))

    def wrapped(self, name: str, function: Callable[P, R]) -> Callable[P, R]:
        """The function with a stamp before and after it."""

        @wraps(function)
        def stamped(*args: P.args, **kwargs: P.kwargs) -> R:
            if name in self._open or not self._calls:
                return function(*args, **kwargs)
            self._open.add(name)
            begin = self._stamp()
            try:
                return function(*args, **kwargs)
            finally:
                self._open.discard(name)
                self._calls[-1][name].append((begin, self._stamp()))

        return stamped

    def wrap(self, name: str, owner: object, methods: Iterable[str]) -> None:
        """Puts stamps around methods of one object, those that it has."""
        for method in methods:
            if hasattr(owner, method):
                setattr(owner, method, self.wrapped(name, getattr(owner, method)))

    def seconds(self, name: str, calls: int) -> list[float]:
        """Sum of a name's spans in each of the last calls. On CUDA the caller has waited for the device."""
        return [sum(self._between(*pair) for pair in call[name]) for call in self._calls[-calls:]]

    def _stamp(self) -> Any:
        if not self._cuda:
            return time.perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, begin: Any, end: Any) -> float:
        return begin.elapsed_time(end) / 1e3 if self._cuda else (end - begin) / 1e9
