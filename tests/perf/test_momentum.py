"""The momentum update as one fused call against the official loop over parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from vlpbench.archs.objectives.momentum import Momentum

RATE = 0.995
LAYERS = 12
UPDATES = 6400
"""Over the width: 100 at 64, where one takes a quarter of a millisecond."""


def stack(width: int) -> nn.Module:
    """As many and as large parameters as ``LAYERS`` BERT layers have."""
    parts: list[nn.Module] = []
    for _ in range(LAYERS):
        parts += [nn.Linear(width, width) for _ in range(4)]
        parts += [nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.LayerNorm(width)]
    return nn.Sequential(*parts)


@torch.no_grad()
def by_parameter(teacher: nn.Module, student: nn.Module) -> None:
    """The official way: a new tensor for each parameter."""
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.data = mine.data * RATE + theirs.data * (1.0 - RATE)


def repeated(way: Callable[[], object], width: int) -> None:
    """One update takes a fraction of a millisecond, of which caches that the way before has emptied would be much."""
    for _ in range(UPDATES // width):
        way()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("width", "factor"), [(64, 6.0), (256, 2.5)])
def test_one_fused_update_is_faster_than_a_loop(width: int, factor: float, goals) -> None:
    student = stack(width)
    momentum, looped = Momentum(student, rate=RATE), Momentum(student, rate=RATE)
    loop = partial(repeated, partial(by_parameter, looped.twin, student), width)
    fused = partial(repeated, partial(momentum.update, student), width)
    goals.race("G6", fused, {f"EMA by parameter, width {width}": (loop, factor)}, rounds=20)


def test_both_updates_agree() -> None:
    student = stack(64)
    momentum = Momentum(stack(64), rate=RATE)
    looped = Momentum(momentum.twin, rate=RATE)
    momentum.update(student)
    by_parameter(looped.twin, student)
    for mine, theirs in zip(momentum.twin.parameters(), looped.twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=1e-6)
