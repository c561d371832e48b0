"""Measures that do something known, for tests of the runner. Run as a script it is `vlpbench` with them registered.

Each visit adds a line to the file ``log`` in the cache folder, so a test sees what was really measured, when and beside
what. A seed of 40 or more takes half a second, any other a hundredth.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

from vlpbench.benchmarks.measures.base import MEASURES, MeasureSpec, Samples
from vlpbench.benchmarks.worker import CACHE_VARIABLE


def _log(event: str, cell) -> None:
    folder = Path(os.environ[CACHE_VARIABLE])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("a") as file:
        file.write(f"{event} {cell.measure} {cell.arch} {cell.seed} {os.getpid()} {time.monotonic()}\n")


class Subject:
    """Stands for the real one, which takes seconds to import."""

    @classmethod
    def build(cls, cell, *, meta=False):
        return cls()


class Fake:
    """Brings back two latencies and the process's id."""

    def run(self, subject, cell) -> Samples:
        import torch

        _log("begin", cell)
        time.sleep(0.5 if cell.seed >= 40 else 0.01)
        _log("end", cell)
        return Samples(
            values={"latency": [1.0, 2.0], "first_call": [float(os.getpid())]},
            detail={"fixed": "same", "pid": os.getpid(), "torch_threads": torch.get_num_threads()},
            flags=["scattered"],
        )


class Bad(Fake):
    """Ends as the seed says."""

    def run(self, subject, cell) -> Samples:
        import torch
        from vlpbench.archs.types import Unsupported
        from vlpbench.benchmarks.data.base import DataError

        brought = super().run(subject, cell)
        match cell.seed:
            case 1:
                raise ValueError("the value 7 is not what it should be")
            case 2:
                torch.empty(1 << 46)
            case 3:
                os.kill(os.getpid(), 9)
            case 4:
                time.sleep(60)
            case 5:
                brought.values["latency"] = [1.0, float("nan")]
            case 6:
                raise Unsupported("this model cannot do it")
            case 7:
                os.write(2, b"last words\n")
                os.abort()
            case 8:
                brought.values = {}
            case 9:
                brought.values["speed"] = [1.0]
            case 10:
                raise DataError("photo.jpg is no picture")
            case 11:
                brought.detail["object"] = object()
            case 12:
                raise MemoryError("no more")
            case 13:
                sys.exit(3)
        return brought


SPECS = {
    f"fake_{kind}": MeasureSpec(
        name=f"fake_{kind}",
        target="fake_measures:Fake",
        kind=kind,
        quantities=("latency", "first_call"),
        trains=kind == "accuracy",
    )
    for kind in ("count", "memory", "cost", "accuracy")
} | {
    name: MeasureSpec(name=name, target="fake_measures:Bad", kind=kind, quantities=("latency",))
    for name, kind in (("bad", "memory"), ("bad_cost", "cost"))
}

if multiprocessing.parent_process() is not None:
    MEASURES.update(SPECS)

if __name__ == "__main__":
    from vlpbench.benchmarks import runner
    from vlpbench.benchmarks.cli import main

    MEASURES.update(SPECS)
    runner.SUBJECT, runner.modules = "fake_measures:Subject", lambda cells: ["torch"]
    sys.exit(main())
