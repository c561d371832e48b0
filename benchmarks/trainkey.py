"""Which cells share a pre-training: a hash of what determines it. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from functools import cache as once
from typing import TYPE_CHECKING

from vlpbench.benchmarks.env import package_folder

if TYPE_CHECKING:
    from vlpbench.results.record import Cell

AFTERWARDS = (
    *("measure", "scorer", "k", "protocol", "augment"),
    *("finetune", "finetune_momentum", "finetune_lr", "finetune_batch", "finetune_warmup", "finetune_decay"),
)
"""Fields of a cell that pre-training does not read."""
CODE = (
    ("vlpbench.archs", "**/*.py"),
    ("vlpbench.benchmarks.data", "**/*.py"),
    ("vlpbench.benchmarks", "capfilt.py"),
    ("vlpbench.benchmarks", "curve.py"),
    ("vlpbench.benchmarks", "drift.py"),
    ("vlpbench.benchmarks", "loop.py"),
    ("vlpbench.benchmarks", "metrics.py"),
    ("vlpbench.benchmarks", "schedule.py"),
    ("vlpbench.benchmarks", "scoring.py"),
    ("vlpbench.benchmarks", "settings.py"),
    ("vlpbench.benchmarks", "subject.py"),
    ("vlpbench.benchmarks", "train.py"),
    ("vlpbench.benchmarks", "validation.py"),
    ("vlpbench.benchmarks", "vision.py"),
    ("vlpbench.benchmarks", "weights.py"),
)
"""Sources that determine the weights of a training and its curve."""


def pretrain_key(cell: Cell) -> str:
    """16 hex digits, equal for cells that share a pre-training: the hash of the fields that it reads and of the code.

    The content of data that is read from files is not in it; a cached file is checked against it when it is opened.
    """
    fields = cell.model_dump(mode="json", exclude=set(AFTERWARDS))
    return hashlib.sha256(json.dumps([fields, _code_hash()], sort_keys=True).encode()).hexdigest()[:16]


@once
def _code_hash() -> str:
    digest = hashlib.sha256()
    for package, pattern in CODE:
        folder = package_folder(package)
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{package}/{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
