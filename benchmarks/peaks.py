"""What a run finds out once before it times anything: how fast the machine multiplies matrices at best, and how much
work each call is. MFU is the share of the first that the second makes of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from vlpbench.benchmarks.measures.base import MeasureSpec, Samples
from vlpbench.benchmarks.worker import Job
from vlpbench.results.record import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vlpbench.benchmarks.pool import Pool
    from vlpbench.results.record import Cell

SIDE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices: large enough that more of them are no faster."""
SAMPLES = 10
SECONDS = 2.0
"""After which no further product is begun."""
SPEC = MeasureSpec(name="peak", target=f"{__name__}:Peak", kind="cost", quantities=("peak_flops",))
WORK = MeasureSpec(name="work", target="vlpbench.benchmarks.work:Work", kind="count", quantities=("flops_forward",))
Key = tuple[str, str, int | None]


def key_of(cell: Cell) -> Key:
    """Cells with the same key share a peak: device, type, threads."""
    return cell.device, cell.dtype, cell.threads


def measure(pool: Pool, cells: Iterable[Cell], *, limit: float) -> dict[Key, dict[str, Any]]:
    """The peak for every kind of cell, each measured alone, as records keep it in their detail.

    Args:
        pool: has nothing else running.
        cells: what is about to be timed.
        limit: seconds that one process may take.
    """
    found: dict[Key, dict[str, Any]] = {}
    for cell in cells:
        key = key_of(cell)
        if key not in found:
            pool.start(Job(cell=cell, measure=SPEC, subject=f"{__name__}:Bare"), limit)
            ((_, outcome),) = pool.wait()
            if outcome.status is Status.OK:
                rates = outcome.samples["peak_flops"].values
                found[key] = {"flops_per_second": max(rates), "samples": list(rates), **outcome.detail}
            else:
                found[key] = {"reason": outcome.reason.splitlines()[0]}
    return found


def count_work(
    pool: Pool, cells: Sequence[Cell], *, limit: float, width: int, subject: str
) -> dict[str, dict[str, Any]]:
    """Cell id -> FLOPs and bytes of one call, as records keep them; where they cannot be counted, the reason.

    Args:
        pool: has nothing else running.
        cells: what is about to be timed.
        limit: seconds that one process may take.
        width: processes at once.
        subject: ``module:class`` that builds what is counted.
    """
    found: dict[str, dict[str, Any]] = {}

    def start(cell: Cell) -> None:
        pool.start(Job(cell=cell, measure=WORK, subject=subject, threads=1), limit)

    for running, outcome in pool.keep_busy(cells, width, start):
        ok = outcome.status is Status.OK
        found[running.job.cell.id] = outcome.detail if ok else {"reason": outcome.reason.splitlines()[0]}
    return found


class Bare:
    """In place of a model: a peak has none."""

    @classmethod
    def build(cls, cell: Cell, *, meta: bool = False) -> Self:  # noqa: ARG003
        """Nothing."""
        return cls()


class Peak:
    """FLOP per second of products of two square matrices under the cell's settings."""

    def run(self, subject: Bare, cell: Cell) -> Samples:
        """One sample a product; the first, which chooses kernels, is left out."""
        import torch
        from vlpbench.benchmarks import clock, settings

        device = settings.usable(cell)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(cell.dtype, torch.float32)
        side = SIDE[device.type]
        with settings.applied(cell, device), torch.inference_mode():
            left, right = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
            out = torch.empty_like(left)

            def multiply() -> None:
                torch.mm(left, right, out=out)
                clock.synchronize(device)

            multiply()
            rates: list[float] = []
            began = time.perf_counter()
            while not rates or (len(rates) < SAMPLES and time.perf_counter() - began < SECONDS):
                rates += [2 * side**3 / seconds for seconds in clock.wall((multiply,), 1)[0]]
        return Samples(values={"peak_flops": rates}, detail={"side": side, "dtype": cell.dtype, "device": str(device)})
