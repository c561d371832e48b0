"""What a detector found, kept on disk: training reads the regions of a picture once an epoch, and finds them once."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 256
"""Pictures that a detector is given at once."""


@dataclass(frozen=True, kw_only=True)
class RegionCache:
    """A folder of arrays, one for each detector and set of pictures.

    Only one process writes an array, into a draft, and the others wait for it; a file with its final name is whole. The
    draft of a process that was killed is taken away by the next that writes. Reading maps a file and copies nothing.
    """

    folder: Path | None
    """None keeps arrays in memory alone."""

    def regions(
        self, detector: str, pictures: np.ndarray, find: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
    ) -> np.ndarray:
        """(N, *shape), int16 as ``find`` gives it.

        Args:
            detector: hash of its weights and of how it chooses.
            pictures: (N, 3, H, W) uint8.
            find: pictures (K, 3, H, W), at most `ROWS` -> regions (K, *shape).
            shape: of the regions of a picture.
        """
        whole = (len(pictures), *shape)
        if self.folder is None:
            return _fill(np.empty(whole, np.int16), pictures, find)
        from vlpbench.benchmarks.checkpoint import locked

        path = self.folder / f"{regions_key(detector, pictures, shape)}.npy"
        found = _open(path, whole)
        if found is None:
            with locked(path.with_suffix(".lock")):
                found = _open(path, whole)  # another process may have written it by now
                if found is None:
                    found = _write(path, pictures, find, whole)
        return found


def regions_key(detector: str, pictures: np.ndarray, shape: tuple[int, ...]) -> str:
    """16 hex digits over the detector and every pixel."""
    digest = hashlib.sha256(f"{detector} {pictures.shape} {shape}".encode())
    digest.update(np.ascontiguousarray(pictures).data)
    return digest.hexdigest()[:16]


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array, mapped; None where there is none that can be used."""
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.int16 else None


def _write(
    path: Path, pictures: np.ndarray, find: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    for left in path.parent.glob(f"{path.name}.*.draft"):
        left.unlink(missing_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        array = np.lib.format.open_memmap(draft, mode="w+", dtype=np.int16, shape=shape)
        _fill(array, pictures, find)
        array.flush()
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _fill(array: np.ndarray, pictures: np.ndarray, find: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    for start in range(0, len(pictures), ROWS):
        array[start : start + ROWS] = find(pictures[start : start + ROWS])
    return array
