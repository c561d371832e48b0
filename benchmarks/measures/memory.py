"""Peak memory of an inference call and of a training step. It needs a process of its own: peaks are the process's."""

from __future__ import annotations

import itertools
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.train_step import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class Memory:
    """Bytes of weights, inputs and everything that a call adds at its worst moment."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Each peak is that of the second call, after the first has loaded what is loaded once."""
        subject.prepare()
        meter = CudaMeter(subject.device) if subject.device.type == "cuda" else CpuMeter(subject.baseline)
        with subject.settings():
            with torch.inference_mode():
                inference = second(lambda: subject.forward(subject.batch()), meter)
            step = Step(subject)
            training = second(lambda: [phase() for phase in step.phases], meter)
            parts = _parts(step)
        parts["activations and workspace"] = max(0, training["peak"] - sum(parts.values()))
        return Samples(
            values={"memory_inference": [float(inference["peak"])], "memory_training": [float(training["peak"])]},
            detail={
                "method": meter.method,
                "inference": inference,
                "training": training,
                "training_parts": parts,
                "pairs_per_call": cell.batch,
            },
        )


class Meter(Protocol):
    """Reads the peak since the last reset."""

    method: str

    def reset(self) -> None:
        """Starts a new peak from what is held now."""
        ...

    def read(self) -> dict[str, int]:
        """``peak`` in bytes, and what the device or the kernel says besides."""
        ...


class CudaMeter:
    """Torch's allocator knows to the byte what tensors occupied."""

    method = "peak of bytes allocated by torch on the device; weights and inputs included, CUDA's own context not"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Gives cached blocks back first, so that ``reserved`` is this call's own."""
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def read(self) -> dict[str, int]:
        """Also what torch reserved and what the whole device holds; retries mean that memory was all but short."""
        torch.cuda.synchronize(self.device)
        free, total = torch.cuda.mem_get_info(self.device)
        return {
            "peak": torch.cuda.max_memory_allocated(self.device),
            "reserved": torch.cuda.max_memory_reserved(self.device),
            "device_used": total - free,
            "allocation_retries": int(torch.cuda.memory_stats(self.device).get("num_alloc_retries", 0)),
        }


class CpuMeter:
    """The kernel's high-water mark of the process, less what was resident before the model's weights were."""

    def __init__(self, baseline: int) -> None:
        self.baseline = baseline
        self.resettable = _reset_high_water()
        mark = "reset before the call" if self.resettable else "since the process began (it cannot be reset here)"
        self.method = f"high-water mark of resident memory, {mark}, less the resident memory before the weights"

    def reset(self) -> None:
        """Where the kernel allows it."""
        _reset_high_water()

    def read(self) -> dict[str, int]:
        """Also the process's total, interpreter and libraries included."""
        high = _high_water()
        return {"peak": max(0, high - self.baseline), "total": high, "baseline": self.baseline}


def second(call: Callable[[], object], meter: Meter) -> dict[str, int]:
    """What the meter says of a second call, after a reset: the first loads code and fills caches."""
    call()
    meter.reset()
    call()
    return meter.read()


def _parts(step: Step) -> dict[str, int]:
    """Bytes that stay between steps, by what they are for; runs half a step to have gradients to weigh."""
    step.forward()
    step.backward()
    learner, momentum = step.learner, step.learner.momentum
    kept = list(itertools.chain(learner.parameters(), learner.buffers()))
    copies = [] if momentum is None else list(itertools.chain(momentum.parameters(), momentum.buffers()))
    states = (value for state in step.optimizer.state.values() for value in state.values())
    inputs = ((batch.image, batch.text.ids, batch.text.mask, batch.sample_id) for batch in step.subject.batches)
    return {
        "weights": _bytes(kept) - _bytes(copies),
        "gradients": _bytes(p.grad for p in learner.parameters() if p.grad is not None),
        "optimizer state": _bytes(value for value in states if isinstance(value, torch.Tensor)),
        "momentum copy and queue": _bytes(copies),
        "inputs": _bytes(itertools.chain.from_iterable(inputs)),
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _reset_high_water() -> bool:
    """Sets the high-water mark to what is resident now, where the kernel lets a process do so (Linux, mostly)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _high_water() -> int:
    if _STATUS.exists():
        line = next((line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
