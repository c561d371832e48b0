"""What lies in front of an architecture that reads regions: its detector's work, weights and time, apart and in sum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from vlpbench.archs.detector import Detector, DetectorConfig
from vlpbench.archs.model import parameter_count
from vlpbench.archs.regions import BOX
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import clock, flopcount
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.subject import Subject

if TYPE_CHECKING:
    from vlpbench.results.record import Cell

LIMITS = clock.Limits(seconds=2.0, least=2, most=50, warm_most=5)
MULTIPLE = 32
"""A detector's batch is padded to such sides."""


class DetectorCost:
    """From pixels to regions, and on to the fused pair; the detector chooses as many regions as the model is built for.

    Its network is the papers' where that gives the features that the model reads.
    """

    config = DetectorConfig()

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Counts on meta, times on the cell's device: detection, then the inference of the pairs.

        Raises:
            Unsupported: for an architecture that reads pixels, or regions that are no detector's.
        """
        if subject.spec.input != "regions":
            raise Unsupported(f"{cell.arch} reads {subject.spec.input}: no detector is in front of it")
        regions, numbers = subject.model.image_shape
        config = replace(self.config, least=regions, most=regions)
        with torch.device("meta"):
            counted = Detector(config).eval()
        if counted.features + BOX != numbers:
            raise Unsupported(
                f"{cell.arch} {cell.size} reads {numbers - BOX} numbers of a region, and the detector gives "
                f"{counted.features}: it is fed with boxes that the data knows"
            )
        height, width = (-(-side // MULTIPLE) * MULTIPLE for side in subject.model.image_size)
        pixels = torch.empty(1, 3, height, width, device="meta")
        twin = Subject.build(cell, meta=True)
        with twin.settings(), torch.no_grad():
            flops = flopcount.count(lambda: counted.dense(pixels)).flops
            pair = flopcount.count(lambda: twin.forward(twin.batch())).flops / cell.batch
        weights = parameter_count(counted)
        timing, found = _time(subject, config)
        detection, _ = timing.phases
        return Samples(
            values={
                "flops_detector": [float(flops)],
                "flops_with_detector": [flops + pair],
                "params_detector": [float(weights)],
                "params_with_detector": [float(weights + parameter_count(subject.model))],
                "detector_latency": list(detection),
                "latency_with_detector": timing.total,
            },
            detail=timing.detail()
            | {
                "network": config.network,
                "nms": config.nms,
                "regions": regions,
                "regions_found": found,
                "proposals": config.proposals,
                "image_size": list(subject.model.image_size),
                "pairs_per_call": cell.batch,
            },
            flags=timing.flags(),
        )


def _time(subject: Subject, config: DetectorConfig) -> tuple[clock.Timing, int]:
    """Detection and inference as two phases, and the regions that the detector found in the first image."""
    subject.prepare()
    generator = torch.Generator().manual_seed(subject.cell.seed)
    pixels = torch.rand(subject.cell.batch, 3, *subject.model.image_size, generator=generator).to(subject.device)
    with torch.random.fork_rng(devices=[subject.device] if subject.device.type == "cuda" else []), subject.device:
        torch.manual_seed(subject.cell.seed)
        detector = Detector(config).eval()
    found: list[torch.Tensor] = []

    def detect() -> None:
        with subject.autocast():
            found[:] = [detector(pixels)]
        clock.synchronize(subject.device)

    def infer() -> None:
        subject.forward(replace(subject.batch(), image=found[0]))
        clock.synchronize(subject.device)

    with subject.settings(), torch.inference_mode():
        timing = clock.measure((detect, infer), limits=LIMITS)
    return timing, int(found[0][0, :, -BOX:].any(dim=1).sum())
