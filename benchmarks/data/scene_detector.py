"""Scenes as a detector gives them: a small network that learnt from boxes of other scenes, and what it finds.

One detector serves all cells of a layout: it is trained once, on pictures of its own that depend on no seed of a cell,
half of them with a curtain in them.

Shape letters: N pictures, R boxes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from vlpbench.benchmarks.data.region_cache import RegionCache
from vlpbench.benchmarks.data.render import render
from vlpbench.benchmarks.data.scene_regions import visible_boxes
from vlpbench.benchmarks.data.scene_table import Layout, below, sample, stream

if TYPE_CHECKING:
    from vlpbench.archs.small_detector import SmallDetector

FOLDER = "regions"
"""In the cache of pre-trainings."""
FOUND = 0.5
"""Share of the union by which a found box is that of an object."""


@dataclass(frozen=True, kw_only=True)
class DetectorTraining:
    """How the detector learns."""

    pictures: int = 4096
    steps: int = 200
    batch: int = 64
    lr: float = 4e-3


@dataclass(kw_only=True)
class SceneDetector:
    """The detector of a layout, trained when it is first asked for something, or read from the cache."""

    layout: Layout
    training: DetectorTraining = field(default_factory=DetectorTraining)
    folder: Path | None = None
    """Where weights and what was found are kept; None keeps neither."""

    @property
    def most(self) -> int:
        """R: the objects of a scene and a curtain."""
        return self.layout.objects + 1

    def boxes(self, pictures: np.ndarray) -> np.ndarray:
        """(N, R, 4) int16 pixels of (N, 3, H, W) uint8 pictures, -1 where fewer were found."""
        return RegionCache(folder=self.folder).regions(self.hash, pictures, self.find, (self.most, 4))

    def find(self, pictures: np.ndarray) -> np.ndarray:
        """The same, found now."""
        from vlpbench.benchmarks.data.scene_sets import normalise

        return self._net.find(normalise(pictures.copy()), self.most).numpy()

    @cached_property
    def hash(self) -> str:
        """16 hex digits over the weights, the network and what counts as found."""
        digest = hashlib.sha256(json.dumps(asdict(self._net.config), sort_keys=True).encode())
        for name, tensor in self._net.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    def described(self, pictures: np.ndarray, boxes: np.ndarray) -> dict[str, Any]:
        """For a record: which detector, how well it does on pictures with known boxes (N, R, 4), and in what time."""
        start = time.perf_counter()
        found = self.find(pictures)
        seconds = time.perf_counter() - start
        overlap = overlaps(found, boxes)
        there, seen = boxes[..., 2] > boxes[..., 0], found[..., 2] > found[..., 0]
        best = overlap.max(axis=1)[there]
        return {
            "weights": self.hash,
            "parameters": sum(p.numel() for p in self._net.parameters()),
            "training": asdict(self.training),
            "recall": 100 * float((best >= FOUND).mean()),
            "precision": 100 * float((overlap.max(axis=2)[seen] >= FOUND).mean()) if seen.any() else 0.0,
            "overlap": float(best.mean()),
            "seconds_per_picture": seconds / len(pictures),
        }

    @cached_property
    def _net(self) -> SmallDetector:
        from vlpbench.archs.small_detector import SmallDetector, SmallDetectorConfig
        from vlpbench.benchmarks.checkpoint import StateFile, locked

        key = self._key()
        path = None if self.folder is None else self.folder / f"{key}.detector"
        with nullcontext() if path is None else locked(path.with_suffix(".lock")):
            file = None if path is None else StateFile(path=path, key=key)
            state = None if file is None else file.load()
            if state is None:
                net = train(self.layout, self.training)
                if file is not None:
                    file.save(net.state_dict())
                return net
        net = SmallDetector(SmallDetectorConfig())
        net.load_state_dict(state)
        return net.eval()

    def _key(self) -> str:
        """Hash of all that the weights follow from."""
        from vlpbench.archs import small_detector
        from vlpbench.benchmarks.data import render as painter
        from vlpbench.benchmarks.data import scene_table

        text = json.dumps([asdict(self.layout), asdict(self.training)], sort_keys=True)
        digest = hashlib.sha256(text.encode())
        for file in (small_detector.__file__, painter.__file__, scene_table.__file__, __file__):
            digest.update(Path(file or "").read_bytes())
        return digest.hexdigest()[:16]


def kept_in() -> Path | None:
    """The folder that the worker names for what cells share; None where it names none."""
    from vlpbench.benchmarks.worker import CACHE_VARIABLE

    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) / FOLDER if given else None


def train(layout: Layout, how: DetectorTraining) -> SmallDetector:
    """A detector in evaluation mode, on the CPU by one thread, so that the same weights come of it."""
    import torch
    from vlpbench.archs.small_detector import SmallDetector, SmallDetectorConfig
    from vlpbench.benchmarks.data.scene_sets import normalise

    pictures, boxes = drawn(layout, how.pictures)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.enable_grad():
        torch.set_num_threads(1)
        torch.default_generator.manual_seed(0)
        net = SmallDetector(SmallDetectorConfig())
        optimizer = torch.optim.AdamW(net.parameters(), lr=how.lr, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, how.lr, total_steps=how.steps)
        for _ in range(how.steps):
            rows = torch.randint(how.pictures, (how.batch,)).numpy()
            loss = net.loss(normalise(pictures[rows]), torch.from_numpy(boxes[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        torch.set_num_threads(threads)
    return net.eval()


def drawn(layout: Layout, count: int, *path: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 3, H, W) uint8 and their boxes (N, R, 4), every second picture with a curtain."""
    rng = stream("detector", *path)
    scenes = sample(rng, layout, count, fewest=1)
    cover = np.where(np.arange(count) % 2, below(rng, layout.grid**2, count), -1)
    return render(scenes, rng, cover), visible_boxes(scenes, cover)


def overlaps(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, R, R') share of the union of boxes (N, R, 4) and (N, R', 4) that both cover; 0 where one is absent."""
    a, b = left[:, :, None].astype(np.int64), right[:, None].astype(np.int64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = np.clip(sides, 0, None).prod(axis=-1)
    area = [(x[..., 2:] - x[..., :2]).prod(axis=-1) for x in (a, b)]
    return both / np.maximum(area[0] + area[1] - both, 1)
