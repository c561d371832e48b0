"""Our measures against other stopwatches on other people's models: run as a test, or as a script that writes the table.

    python tests/perf/test_fidelity.py --write

Latency and throughput of open_clip's ViT-B/32 and timm's ViT-B/16 on random weights and one thread, by the measures
themselves, by ``torch.utils.benchmark.Timer``, and by the rules of timm's benchmark script: a fixed input, some calls
to warm up, a time stamp around every call, for throughput around a loop of them. The three visit a model in turn, many
short visits each, and the best call of each counts: a mean would say how restless the machine was in its turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.benchmark import Timer
from vlpbench.benchmarks import env as environment
from vlpbench.benchmarks.measures.latency import Latency
from vlpbench.benchmarks.measures.throughput import BURST, Throughput
from vlpbench.results.record import Cell

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fidelity.md"
BEGIN, END = "<!-- measured -->", "<!-- end -->"
CALLS, WARM = 3, 2
"""Of a visit by other stopwatches; ours takes as many of calls that are this slow."""
ROUNDS = 10
BATCH = {"latency": 1, "throughput": 2}
BAND = 1.03
"""Larger over smaller of two best calls, at most."""
AA_MOST = 1.05


class Foreign:
    """Somebody else's model in the place of a subject. A cell of a tiny model stands for it where work is counted."""

    device = torch.device("cpu")

    def __init__(self, model: nn.Module, inputs: list[tuple[torch.Tensor, ...]]) -> None:
        self.model, self.inputs = model.eval(), inputs
        self._next = cycle(inputs)

    def prepare(self) -> None:
        """Inputs are there."""

    def settings(self) -> nullcontext[None]:
        return nullcontext()

    def batch(self) -> tuple[torch.Tensor, ...]:
        return next(self._next)

    def forward(self, batch: tuple[torch.Tensor, ...]) -> object:
        return self.model(*batch)


def open_clip_b32(batch: int) -> Foreign:
    import open_clip

    images = [torch.randn(batch, 3, 224, 224) for _ in range(2)]
    return Foreign(open_clip.create_model("ViT-B-32"), [(i, torch.ones(batch, 77, dtype=torch.long)) for i in images])


def timm_b16(batch: int) -> Foreign:
    import timm

    return Foreign(timm.create_model("vit_base_patch16_224"), [(torch.randn(batch, 3, 224, 224),) for _ in range(2)])


MODELS = {"open_clip ViT-B/32": open_clip_b32, "timm ViT-B/16": timm_b16}


def by_measure(foreign: Foreign, kind: str) -> float:
    """Seconds of the best call, as the measure that makes our records finds them."""
    cell = Cell(arch="clip", size="tiny", measure=kind, batch=BATCH[kind])
    subject: Any = foreign
    if kind == "latency":
        return min(Latency().run(subject, cell).values["latency"])
    return BATCH[kind] / max(Throughput().run(subject, cell).values["throughput"])


def burst(call: Callable[[], object], kind: str) -> int:
    """Warms up; calls that a stamp is to hold: one, or for throughput as many as fill one of our own bursts."""
    for _ in range(WARM):
        start = time.perf_counter()
        call()
    return 1 if kind == "latency" else max(1, ceil(BURST / (time.perf_counter() - start)))


@torch.inference_mode()
def by_timer(foreign: Foreign, kind: str) -> float:
    """Seconds of the best call by PyTorch's own stopwatch, which sets the threads itself."""
    batch = foreign.inputs[0]
    timer = Timer("forward(batch)", globals={"forward": foreign.forward, "batch": batch}, num_threads=1)
    number = burst(lambda: foreign.forward(batch), kind)
    return min(timer.timeit(number).mean for _ in range(CALLS))


@torch.no_grad()
def by_timm(foreign: Foreign, kind: str) -> float:
    """Seconds of the best call, or of one of the best loop's."""
    batch = foreign.inputs[0]
    number = burst(lambda: foreign.forward(batch), kind)
    taken = []
    for _ in range(CALLS):
        start = time.perf_counter()
        for _ in range(number):
            foreign.forward(batch)
        taken.append((time.perf_counter() - start) / number)
    return min(taken)


WAYS: dict[str, Callable[[Foreign, str], float]] = {"ours": by_measure, "Timer": by_timer, "timm's way": by_timm}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One model and one quantity: the best call of each way in seconds, and ours against ours."""

    model: str
    kind: str
    best: dict[str, float]
    aa: float

    def ratio(self, way: str) -> float:
        """Ours over the other's, of times."""
        return self.best["ours"] / self.best[way]


def measured(model: str, kind: str, rounds: int) -> Line:
    """Visits the model by each way in turn. Ours is visited twice a round, and the two are each other's control."""
    foreign = MODELS[model](BATCH[kind])
    taken: dict[str, list[float]] = {name: [] for name in (*WAYS, "again")}
    for _ in range(rounds):
        for name, way in (*WAYS.items(), ("again", by_measure)):
            taken[name].append(way(foreign, kind))
    best = {name: min(seconds) for name, seconds in taken.items()}
    low, high = sorted((best["ours"], best.pop("again")))
    return Line(model=model, kind=kind, best=best, aa=high / low)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", BATCH)
@pytest.mark.parametrize("model", MODELS)
def test_other_stopwatches_agree(model: str, kind: str, goals: Any) -> None:
    goals.needs_clock()
    line = measured(model, kind, ROUNDS)
    for way in ("Timer", "timm's way"):
        off = max(line.ratio(way), 1 / line.ratio(way))
        goals.value("fidelity", f"{kind} of {model}, off {way}", off, at_most=BAND, aa=line.aa)


def shown(line: Line, way: str) -> str:
    """Milliseconds, or pairs a second."""
    seconds = line.best[way]
    return f"{1e3 * seconds:.1f} ms" if line.kind == "latency" else f"{BATCH[line.kind] / seconds:.2f} /s"


def table(lines: list[Line], rounds: int) -> str:
    """As Markdown, with where and when it was measured."""
    env = environment.capture()
    heads = ("Model", "Quantity", *WAYS, "ours / Timer", "ours / timm's way", "A/A", "Verdict")
    rows = [heads, ("---",) * len(heads)]
    for line in lines:
        ratios = [line.ratio(way) for way in WAYS if way != "ours"]
        agree = all(1 / BAND <= ratio <= BAND for ratio in ratios)
        verdict = "inconclusive" if line.aa > AA_MOST else "agree" if agree else "differ"
        what = f"{line.kind}, batch {BATCH[line.kind]}"
        numbers = (*(f"{ratio:.3f}" for ratio in ratios), f"{line.aa:.3f}", verdict)
        rows.append((line.model, what, *(shown(line, way) for way in WAYS), *numbers))
    versions = ", ".join(f"{name} {env.versions[name]}" for name in ("torch", "timm", "open_clip_torch"))
    where = f"{env.cpu}, {env.cores} cores, {versions}, Python {env.python}, {time.strftime('%Y-%m-%d')}"
    return "\n".join([f"{where}; best of {rounds} rounds, one thread.", "", *(f"| {' | '.join(r)} |" for r in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares our stopwatch with others and prints the table.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"visits of each way (default: {ROUNDS})")
    parser.add_argument("--model", choices=MODELS, action="append", help="only this one")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{PAGE.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = options.model or list(MODELS)
    found = table([measured(model, kind, options.rounds) for model in chosen for kind in BATCH], options.rounds)
    print(found)
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{found}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
