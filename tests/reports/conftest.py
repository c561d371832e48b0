"""Made-up records, as like real ones as can be: six variants, all measures, and every way a cell can end."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from vlpbench.results.record import UNITS, Cell, Env, Record, Series, Status

HOST = Env(
    cpu="AMD EPYC 7B13",
    cores=2,
    memory=24 * 2**30,
    os="Linux 6.1",
    python="3.11.9",
    versions={"torch": "2.15.0", "timm": "1.0.31", "transformers": "5.23.0", "open_clip_torch": "3.3.0"},
    threads=2,
    cpu_flags=("avx2", "fma"),
    commit="0123456789abcdef0123456789abcdef01234567",
    dirty=False,
)
GPU_HOST = HOST.model_copy(
    update={"gpu": "NVIDIA H100 80GB HBM3", "gpu_memory": 80 * 2**30, "driver": "570.1", "cuda": "12.8"}
)

PARTS = {  # parameters and GFLOP by component, at base
    "clip": (
        {"image": 86.2e6, "text": 37.8e6, "embedding": 25.3e6, "projection": 0.7e6},
        {"image": 8.82, "text": 5.96, "fusion": 0.0, "head": 0.0},
    ),
    "vilt": (
        {"fusion": 85.6e6, "embedding": 25.9e6, "head": 1.3e6},
        {"image": 0.57, "text": 0.0, "fusion": 51.2, "head": 0.0},
    ),
    "albef": (
        {"image": 85.8e6, "text": 42.5e6, "fusion": 56.7e6, "embedding": 23.8e6, "projection": 0.4e6},
        {"image": 35.1, "text": 2.6, "fusion": 10.2, "head": 0.0},
    ),
}
SECONDS = {"clip": 0.112, "vilt": 0.436, "albef": 0.351}
RECALL = {
    "clip": {"embed": (62.0, 60.5)},
    "vilt": {"match": (38.0, 35.5)},
    "albef": {"embed": (69.0, 66.0), "match": (79.5, 77.0), "rerank": (80.0, 78.5)},
}
TYPES = {"colour": 900, "shape": 600, "exist": 600, "count": 500, "relation": 400}
VQA = {
    "clip+late": {"colour": 61.0, "shape": 62.5, "exist": 66.0, "count": 71.0, "relation": 50.5},
    "vilt": {"colour": 44.0, "shape": 47.0, "exist": 58.5, "count": 68.0, "relation": 51.0},
    "albef": {"colour": 99.0, "shape": 98.5, "exist": 97.0, "count": 78.0, "relation": 52.5},
}
OBJECTIVES = {"clip": ("itc",), "vilt": ("itm", "mlm"), "albef": ("itc", "itm", "mlm")}
STATES = {"clip": ("off",), "vilt": ("off",), "albef": ("off", "queue", "distill")}
STEP_FACTOR = {"off": 1.0, "queue": 1.27, "distill": 1.31}


def make(
    cell: Cell,
    values: dict[str, list[float]] | None = None,
    *,
    env: Env = HOST,
    status: Status = Status.OK,
    reason: str = "",
    detail: dict[str, Any] | None = None,
    flags: tuple[str, ...] = (),
    seconds: float = 12.0,
) -> Record:
    """A record of this cell."""
    name = hashlib.sha256(f"{cell.id} {env.id} {status}".encode()).hexdigest()[:16]
    return Record(
        id=name,
        cell=cell,
        status=status,
        reason=reason,
        samples={k: Series(unit=UNITS[k].unit, values=tuple(v)) for k, v in (values or {}).items()},
        detail=detail or {},
        flags=flags,
        env=env,
        code="9f2c51d0aa17",
        data="a" * 64 if cell.data != "random" else None,
        suite="quick",
        started="2026-11-20T09:15:00Z",
        seconds=seconds,
    )


def noisy(draw: random.Random, middle: float, n: int = 45) -> list[float]:
    """Timings in three rounds: a shift for each round, a spread within, a tail."""
    shifts = [draw.gauss(1, 0.006) for _ in range(3)]
    return [middle * shifts[i * 3 // n] * (1 + abs(draw.gauss(0, 0.02))) for i in range(n)]


def cost_records(env: Env = HOST, speed: float = 1.0) -> list[Record]:
    """Counts, timings and memory at base."""
    draw = random.Random(7)
    found = []
    rounds = {"rounds": [15, 15, 15], "warmup": 12}
    for arch, (params, flops) in PARTS.items():
        total, giga = sum(params.values()), sum(flops.values())
        counts: dict[str, Any] = {"by_component": params}
        values = {"params_stored": [total], "params_trainable": [total], "params_touched": [0.98 * total]}
        found.append(make(Cell(arch=arch, measure="params"), values, env=env, detail=counts, seconds=1.2))
        by = {key: value * 1e9 for key, value in flops.items()}
        detail = {"by_component": by, "counters": {"torch": giga * 1e9, "fvcore": 1.001 * giga * 1e9}}
        work = {"flops_forward": [giga * 1e9], "flops_forward_backward": [3 * giga * 1e9]}
        found.append(make(Cell(arch=arch, measure="flops"), work, env=env, detail=detail, seconds=1.9))
        time = SECONDS[arch] / speed
        flags = ("drift 6 % between the first and the last round",) if arch == "vilt" else ()
        timed = {"latency": noisy(draw, time), "first_call": [3 * time]}
        cell = Cell(arch=arch, measure="latency")
        found.append(make(cell, timed, env=env, detail=rounds | {"flags": list(flags)}, flags=flags))
        rate = {"throughput": [1 / t for t in noisy(draw, time * 0.72)]}
        found.append(make(Cell(arch=arch, measure="throughput", batch=8), rate, env=env, detail=rounds))
        for state in STATES[arch]:
            found += _training(draw, arch, state, time, env, total)
    return found


def _training(draw: random.Random, arch: str, state: str, time: float, env: Env, total: float) -> list[Record]:
    recipe: dict[str, Any] = {"arch": arch, "objectives": OBJECTIVES[arch], "momentum": state, "batch": 4}
    base = 9 * time
    shares = {"step_forward": 0.34, "step_backward": 0.55, "step_optimizer": 0.11}
    extra = STEP_FACTOR[state] - 1
    values = {name: noisy(draw, base * share, 15) for name, share in shares.items()}
    values["step_forward"] = [value + base * extra * 0.9 for value in values["step_forward"]]
    values["step_momentum"] = [base * extra * 0.1] * 15
    values["step"] = [sum(parts) for parts in zip(*values.values(), strict=True)]
    cell = Cell(measure="train_step", **recipe)
    step = make(cell, values, env=env, detail={"rounds": [5, 5, 5]}, seconds=60)
    cell = Cell(measure="memory", **recipe)
    if state == "distill" and env is HOST:
        reason = (
            "Out of memory: 26.1 GiB were asked for and 24.0 GiB are there.\nTraceback (most recent call last): ..."
        )
        return [step, make(cell, env=env, status=Status.OOM, reason=reason)]
    copies = 1 if state == "off" else 2
    peak = {"memory_inference": [total * 4 + 3e8], "memory_training": [total * 4 * (3 + copies) + 4e9]}
    return [step, make(cell, peak, env=env)]


def accuracy_records(env: Env = HOST, seeds: int = 1) -> list[Record]:
    """Retrieval and VQA at small, on scenes."""
    found = []
    for seed in range(seeds):
        for arch, scorers in RECALL.items():
            for state in STATES[arch]:
                recipe: dict[str, Any] = {"arch": arch, "momentum": state, "objectives": OBJECTIVES[arch]}
                recipe |= {"size": "small", "data": "scenes", "budget": 1200, "batch": 64, "threads": 1, "seed": seed}
                found += [_retrieval(recipe, scorer, env) for scorer in scorers]
                found += [_vqa(recipe, env), _learning(recipe, env)]
    return found


def _retrieval(recipe: dict[str, Any], scorer: str, env: Env) -> Record:
    tr, ir = RECALL[recipe["arch"]][scorer]
    tr -= 2.0 * (recipe["momentum"] == "distill")
    values = {"tr_r1": tr, "tr_r5": tr + 14, "tr_r10": tr + 18, "ir_r1": ir, "ir_r5": ir + 15, "ir_r10": ir + 19}
    values = {name: [min(value + recipe["seed"], 100.0)] for name, value in values.items()}
    values["recall_mean"] = [sum(v[0] for v in values.values()) / 6]
    steps = list(range(50, 1201, 50))
    fall = {"off": 250, "queue": 310, "distill": 280}[recipe["momentum"]]
    loss = {
        name: [0.4 + 3.5 * 2.0 ** (-s / (fall + 60 * i)) for s in steps] for i, name in enumerate(recipe["objectives"])
    }
    curve = {"step": steps, "loss": loss, "cpu_seconds": [0.09 * s for s in steps], "looks": looks(recipe)}
    rates = {
        name: {"percent": v[0], "total": 200 if name.startswith("tr") else 400}
        for name, v in values.items()
        if name != "recall_mean"
    }
    hard = {name: {"percent": rate["percent"] * 0.8, "total": rate["total"]} for name, rate in rates.items()}
    held_out = {name: rate | {"percent": rate["percent"] - 10} for name, rate in rates.items()}
    swaps = {kind: {"percent": p, "total": 800} for kind, p in {"colour": ir, "shape": ir, "relation": 50.0}.items()}
    detail = {
        "scorer": scorer,
        "k": 16 if scorer == "rerank" else None,
        "galleries": {"test": {"recalls": rates}, "hard": {"recalls": hard}, "comp": {"recalls": held_out}},
        "swaps": swaps,
        "pretraining": {"key": "0" * 16, "curve": curve},
    }
    k = 16 if scorer == "rerank" else None
    cell = Cell.model_validate(recipe | {"measure": "retrieval", "scorer": scorer, "k": k})
    return make(cell, values, env=env, detail=detail, seconds=118)


LEARNT = {"clip": (400, 0.11), "vilt": (2500, 0.21), "albef": (500, 0.16)}
"""Steps until half of what can be learnt is, and seconds of a step."""


def looks(recipe: dict[str, Any]) -> dict[str, Any]:
    """Ten looks at a pre-training, after the first of which nothing is known yet."""
    half, seconds = LEARNT[recipe["arch"]]
    half *= {"off": 1.0, "queue": 1.2, "distill": 1.1}[recipe["momentum"]] * (1 + 0.05 * recipe["seed"])
    steps = [120 * (i + 1) for i in range(10)]
    recall = [95.0 * (1 - 2 ** (-s / half)) for s in steps]
    binding = [50.0 + 45 * (1 - 2 ** -((s / half) ** 2)) for s in steps]
    times = [seconds * s for s in steps]
    what = {"scorer": "match" if recipe["arch"] == "vilt" else "embed", "images": 60, "texts": 60, "foils": 64}
    metrics = {"recall": recall, "binding": binding}
    return {"what": what, "step": steps, "cpu_seconds": times, "wall_seconds": times, "metrics": metrics}


def _learning(recipe: dict[str, Any], env: Env) -> Record:
    seen = looks(recipe)
    found: dict[str, Any] = {}
    for name, threshold in (("recall", 50.0), ("binding", 90.0)):
        place = next((i for i, value in enumerate(seen["metrics"][name][:-1]) if value >= threshold), None)
        found[name] = {"threshold": threshold, "within": 1200, "step": None, "after": None, "cpu_seconds": None}
        if place is not None:
            step = seen["step"][place]
            found[name] |= {"step": step, "after": step - 120, "cpu_seconds": seen["cpu_seconds"][place]}
    values = {
        "learning_recall": seen["metrics"]["recall"],
        "learning_binding": seen["metrics"]["binding"],
        "steps_to_recall": [found["recall"]["step"]],
        "cpu_seconds_to_recall": [found["recall"]["cpu_seconds"]],
        "steps_to_binding": [found["binding"]["step"]],
    }
    detail = {
        "pretraining": {"key": f"{recipe['arch']}-{recipe['momentum']}", "curve": {"looks": seen}},
        "reached": found,
        "flops_per_step": sum(PARTS[recipe["arch"]][1].values()) * 1e7 * 64,
        "looks_share": 0.031,
    }
    cell = Cell.model_validate(recipe | {"measure": "learning"})
    return make(cell, {k: v for k, v in values.items() if v != [None]}, env=env, detail=detail)


def _vqa(recipe: dict[str, Any], env: Env) -> Record:
    arch = "clip+late" if recipe["arch"] == "clip" else recipe["arch"]
    bound = ("colour", "shape", "exist")
    right = {kind: round(VQA[arch][kind] * n / 100) for kind, n in TYPES.items()}
    kinds = {kind: {"percent": 100 * right[kind] / n, "total": n} for kind, n in TYPES.items()}
    total = sum(TYPES.values())
    whole = 100 * sum(right.values()) / total
    values = {
        "vqa_accuracy": [whole],
        "vqa_binding": [sum(kinds[kind]["percent"] for kind in bound) / len(bound)],
    }
    test = {"accuracy": {"percent": whole, "total": total}, "majority": 38.2, "kinds": kinds}
    held_out = {"accuracy": {"percent": 0.9 * whole, "total": 1000}, "majority": 37.0, "kinds": {}}
    detail = {"splits": {"test": test, "comp": held_out}, "binding_kinds": list(bound)}
    cell = Cell.model_validate(recipe | {"arch": arch, "measure": "vqa", "finetune": 300})
    return make(cell, values, env=env, detail=detail, seconds=150)


def failed_records() -> list[Record]:
    """Cells that ended otherwise; one reason holds markup, as a plug-in's might."""
    hostile = "ValueError: <script>alert('x')</script> & <b>bold</b>\nTraceback: line 1"
    lacks = "clip cannot FUSE, which vqa needs; use clip+late"
    small: dict[str, Any] = {"size": "small", "data": "scenes", "budget": 1200, "batch": 64, "threads": 1}
    small |= {"finetune": 300}
    return [
        make(Cell(arch="clip", measure="vqa", objectives=("itc",), **small), status=Status.UNSUPPORTED, reason=lacks),
        make(Cell(arch="albef", measure="latency", batch=512), status=Status.TIMEOUT, reason="no end after 600 s"),
        make(Cell(arch="toy<i>", measure="latency"), status=Status.ERROR, reason=hostile),
    ]


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """A whole quick run."""
    return [*cost_records(), *accuracy_records(), *failed_records()]


@pytest.fixture(scope="session")
def two_machines() -> list[Record]:
    """The same costs on a second machine."""
    return [*cost_records(), *accuracy_records(), *cost_records(GPU_HOST, speed=9.0)]


@pytest.fixture(scope="session")
def three_seeds() -> list[Record]:
    """Accuracy alone, three seeds each."""
    return accuracy_records(seeds=3)


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    """Builds one record."""
    return make
