"""Goal G3: R@1/5/10 in both directions at 1,000 images x 5,000 texts, against the ways of ALBEF and of CLIP_benchmark.

The baselines are reimplementations of the named algorithms' steps. All run on one thread.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot
from vlpbench.benchmarks.metrics import rank_embeddings, recalls


def gallery(images: int) -> tuple[Tensor, Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(images, 256, generator=generator)
    owner = np.repeat(np.arange(images), 5)
    text = image[owner] + 4 * torch.randn(len(owner), 256, generator=generator)
    return normalize(image, dim=1), normalize(text, dim=1), owner


def counted(image: Tensor, text: Tensor, owner: np.ndarray) -> list[float]:
    return [rate.percent for rate in recalls(rank_embeddings(image, text, owner)).values()]


def argsorted(image: Tensor, text: Tensor, owner: np.ndarray) -> list[float]:
    """Every row sorted in full, then the places of its right entries looked for: ALBEF's evaluation."""
    scores = (image @ text.T).numpy()
    places = np.empty(len(scores))
    for i, row in enumerate(scores):
        order = np.argsort(row)[::-1]
        places[i] = min(np.where(order == own)[0][0] for own in np.flatnonzero(owner == i))
    found = [100 * float((places < k).mean()) for k in (1, 5, 10)]
    places = np.array([np.where(np.argsort(row)[::-1] == own)[0][0] for row, own in zip(scores.T, owner, strict=True)])
    return found + [100 * float((places < k).mean()) for k in (1, 5, 10)]


def one_hot_recall(scores: Tensor, right: Tensor, k: int) -> float:
    """Top-k as one-hot rows times a matrix of right pairs, 64 queries at a time: CLIP_benchmark's recall."""
    hits = []
    for rows, own in zip(scores.split(64), right.split(64), strict=True):
        chosen = one_hot(rows.topk(k, dim=1).indices, scores.shape[1])
        hits.append((chosen * own[:, None]).sum((1, 2)) > 0)
    return 100 * float(torch.cat(hits).float().mean())


def one_hotted(image: Tensor, text: Tensor, owner: np.ndarray) -> list[float]:
    scores = image @ text.T
    right = torch.zeros(scores.shape, dtype=torch.bool)
    right[torch.from_numpy(owner), torch.arange(len(owner))] = True
    return [one_hot_recall(s, r, k) for s, r in ((scores, right), (scores.T, right.T)) for k in (1, 5, 10)]


@pytest.mark.usefixtures("one_thread")
def test_counting_beats_sorting(goals) -> None:
    ours, argsort, one_hot_way = (partial(way, *gallery(1000)) for way in (counted, argsorted, one_hotted))
    for other in (argsort, one_hot_way):
        assert other() == pytest.approx(ours(), abs=1e-4)
    goals.race("G3", ours, {"R@K, rows sorted": (argsort, 4.0), "R@K, one-hot rows": (one_hot_way, 6.0)})


GROWTH = """
import importlib.util, sys, torch
from pathlib import Path
def peak():  # KiB; getrusage would start at the peak of the process that started this one
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
spec = importlib.util.spec_from_file_location("goal", sys.argv[1])
goal = importlib.util.module_from_spec(spec)
spec.loader.exec_module(goal)
torch.set_num_threads(1)
getattr(goal, sys.argv[2])(*goal.gallery(50))  # code and libraries are in memory now
given = goal.gallery(int(sys.argv[3]))
before = peak()
getattr(goal, sys.argv[2])(*given)
print(peak() - before)
"""


def growth(way: str, images: int) -> int:
    """KiB that the peak memory of a fresh process grows by."""
    command = [sys.executable, "-c", GROWTH, str(Path(__file__)), way, str(images)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_memory_stays_flat(goals) -> None:
    once, twice, one_hot_way = growth("counted", 1000), growth("counted", 2000), growth("one_hotted", 1000)
    # Twice the gallery is four times the scores (20 -> 80 MB); only the sorted texts (5 -> 10 MB) and ranks grow here.
    goals.value("G3", "MiB more memory for twice the gallery", (twice - once) / 1024, at_most=16)
    goals.value("G3", "memory of one-hot rows over ours", one_hot_way / max(1, once), at_least=8)
