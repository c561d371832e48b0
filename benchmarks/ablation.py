"""Which cells an ablation is: the factorial of the objectives, ALBEF's ladder, and sweeps. Rows are data; no torch
unless the depth of a model is swept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from vlpbench.archs import registry
from vlpbench.archs.objectives.table import MOMENTUM, OBJECTIVES, impossible
from vlpbench.archs.objectives.table import spec as objective_spec
from vlpbench.archs.registry import UnknownName, nearest
from vlpbench.archs.types import Can, Unsupported
from vlpbench.benchmarks.fields import SuiteError
from vlpbench.benchmarks.possible import MATCHING
from vlpbench.benchmarks.suite import Suite
from vlpbench.results.ablation import LADDER, Row, cell_of, objectives_name
from vlpbench.results.record import Cell

NAME = "ablation"
PARTS = ("factorial", "ladder", "sweep")
STANDARD = ("itc", "itm", "mlm")
"""Objectives of the factorial where none are named, as far as the architecture can be trained with them."""
BUDGETS = {"tiny": 200, "small": 1200, "medium": 10_000}
"""Pre-training steps where none are named. At ``small``: binding is learnt between 500 and 1,000 steps, and the ladder
with three seeds ends within the hour on two cores."""
BATCHES = {"tiny": 16, "small": 64, "medium": 256}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One field taken through values, in the momentum states in which it matters."""

    field: str
    values: tuple[Any, ...] = ()
    """Empty: read off the built model."""
    momentum: tuple[str, ...]
    without: bool = False
    """Whether momentum ``off`` is the sweep's zero."""


SWEEPS: dict[str, Sweep] = {
    "queue_size": Sweep(field="queue_size", values=(64, 512, 4096, 65_536), momentum=("queue",), without=True),
    "momentum_rate": Sweep(field="momentum_rate", values=(0.0, 0.9, 0.99, 0.995, 0.999), momentum=("distill",)),
    "alpha": Sweep(field="alpha", values=(0.0, 0.2, 0.4, 0.6, 0.8), momentum=("distill",)),
    "noise": Sweep(field="noise", values=(0.0, 0.25, 0.5), momentum=MOMENTUM),
    "fusion_depth": Sweep(field="changes", momentum=("off",)),
    "depth_ratio": Sweep(field="changes", momentum=("off",)),
}
"""Contrast after fusion is not among them: fused states of a pair have seen each other, so telling pairs apart by them
is no task, and scoring all pairs of a batch by fusion is matching with another loss at a multiple of the work."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for; None and empty take the defaults above."""

    arch: str
    objectives: tuple[str, ...] = ()
    momentum: tuple[str, ...] = ()
    """States of the factorial (default: off) and of sweeps (default: the sweep's)."""
    sweeps: tuple[str, ...] = ()
    parts: tuple[str, ...] = PARTS
    noise: tuple[float, ...] = ()
    """Levels of the noise sweep."""
    seeds: int = 3
    size: str = "small"
    budget: int | None = None
    finetune: int | None = None
    data: str = "scenes"
    device: str = "cpu"

    @property
    def steps(self) -> int:
        """Pre-training steps."""
        return BUDGETS[self.size] if self.budget is None else self.budget


def suite_of(wish: Wish) -> Suite:
    """The cells of everything that is asked for, equal ones once.

    Raises:
        UnknownName: for a name that no table knows.
        SuiteError: for a size without a default budget where none is named, or without any row.
        Unsupported: if the architecture has none of the objectives, or lacks what the named part needs.
    """
    _check(wish)
    cells: dict[str, Cell] = {}
    reasons = [_impossible(row, wish.arch) for row in rows(wish)]
    if reasons and all(reasons):
        raise Unsupported("; ".join(dict.fromkeys(filter(None, reasons))))
    for row in rows(wish):
        for cell in cells_of(row, wish):
            cells.setdefault(cell.id, cell)
    if not cells:
        raise SuiteError(f"nothing is left to ablate of {', '.join(wish.parts)}: name a --sweep, or other objectives")
    spec = registry.get(wish.arch)
    return Suite(name=NAME, title=f"Ablation of {spec.title}, {wish.size}", cells=tuple(cells.values()))


def rows(wish: Wish) -> Iterator[Row]:
    """The rows of every part, in the order of the report."""
    if "ladder" in wish.parts and not without_ladder(wish):
        yield from LADDER
    if "factorial" in wish.parts:
        for state in wish.momentum or ("off",):
            yield from factorial(objectives_of(wish), state)
    if "sweep" in wish.parts:
        for name in wish.sweeps:
            yield from sweep(name, wish)


def objectives_of(wish: Wish) -> tuple[str, ...]:
    """Those named, in the order of the table; else the standard ones that the architecture has capabilities for."""
    if wish.objectives:
        return tuple(name for name in OBJECTIVES if name in wish.objectives)
    can = registry.get(wish.arch).can
    found = tuple(name for name in STANDARD if objective_spec(name).needs in can)
    if not found:
        raise Unsupported(f"{wish.arch} can be trained with none of {', '.join(STANDARD)}; name --objectives")
    return found


def factorial(objectives: tuple[str, ...], momentum: str) -> Iterator[Row]:
    """Every set of objectives but the empty one, smaller sets first; matching draws uniform negatives in all of them,
    so that no objective's effect holds what its similarities do for another."""
    for size in range(1, len(objectives) + 1):
        for chosen in combinations(objectives, size):
            negatives = {"negatives": "uniform"} if MATCHING in chosen else {}
            yield Row(name=objectives_name(chosen), recipe={"objectives": chosen, "momentum": momentum} | negatives)


def sweep(name: str, wish: Wish) -> Iterator[Row]:
    """The rows of a sweep: each momentum state at each value."""
    chosen, objectives = SWEEPS[name], objectives_of(wish)
    values = chosen.values
    if name == "noise" and wish.noise:
        values = wish.noise
    elif chosen.field == "changes":
        from vlpbench.benchmarks.depths import depths

        values = depths(name, wish.arch, wish.size)
    recipe: dict[str, Any] = {"objectives": objectives}
    if MATCHING in objectives and not _embeds(objectives):
        recipe["negatives"] = "uniform"
    if chosen.without:
        yield Row(name=f"{name} 0", recipe=recipe)
    for state in wish.momentum or chosen.momentum:
        for value in values:
            yield Row(name=f"{name} {value}", recipe=recipe | {"momentum": state, chosen.field: value})


def cells_of(row: Row, wish: Wish) -> Iterator[Cell]:
    """Retrieval by the best protocol that the row trains, and questions, over the seeds; a step's time and FLOPs once.

    The seed decides initialisation, training set and order of batches, and nothing in a row changes these.
    """
    fields = {
        "arch": wish.arch,
        "size": wish.size,
        "data": wish.data,
        "device": wish.device,
        "batch": BATCHES.get(wish.size, 64),
        "budget": wish.steps,
        "finetune": wish.finetune,
        **row.recipe,
    }
    scorer = scorer_of(row.recipe["objectives"])
    for seed in range(wish.seeds):
        if scorer:
            yield cell_of("retrieval", fields | {"scorer": scorer, "seed": seed})
        yield cell_of("vqa", fields | {"seed": seed})
    yield cell_of("train_step", fields)
    yield cell_of("flops", fields)


def _impossible(row: Row, arch: str) -> str | None:
    recipe = row.recipe
    state = recipe.get("momentum", "off")
    return impossible(registry.get(arch), recipe["objectives"], state, recipe.get("distilled", ()))


def scorer_of(objectives: tuple[str, ...]) -> str | None:
    """The best way to score pairs that these objectives train; None if they train none."""
    if _embeds(objectives):
        return "rerank" if MATCHING in objectives else "embed"
    return "match" if MATCHING in objectives else None


def _embeds(objectives: tuple[str, ...]) -> bool:
    return any(Can.EMBED in objective_spec(name).needs for name in objectives)


def without_ladder(wish: Wish) -> str | None:
    """Why there is no ladder, in one sentence; None if there is."""
    wanted = LADDER[-1].recipe["objectives"]
    if missing := [name for name in wanted if name not in objectives_of(wish)]:
        return f"the ladder is over {', '.join(wanted)}, and {', '.join(missing)} is not among {wish.arch}'s objectives"
    return None


def _check(wish: Wish) -> None:
    spec = registry.get(wish.arch)
    for name in wish.objectives:
        objective_spec(name)
    for kind, given, known in (
        ("momentum state", wish.momentum, MOMENTUM),
        ("sweep", wish.sweeps, tuple(SWEEPS)),
        ("part", wish.parts, PARTS),
        ("size", (wish.size,), spec.sizes),
    ):
        for name in given:
            if name not in known:
                raise UnknownName(nearest(kind, name, list(known)))
    for name in ("seeds", "budget", "finetune"):
        if (number := getattr(wish, name)) is not None and number < 1:
            raise SuiteError(f"--{name} {number}: name a number from 1 on")
    if bad := [level for level in wish.noise if not 0 <= level <= 1]:
        raise SuiteError(f"--noise {bad[0]}: name shares of captions from 0 to 1")
    if wish.budget is None and wish.size not in BUDGETS:
        raise SuiteError(f"size {wish.size!r} has no default budget; name one with --budget STEPS")
    if wish.parts == ("ladder",) and (reason := without_ladder(wish)):
        raise Unsupported(reason)
