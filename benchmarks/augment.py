"""Changes of pictures that a task is fine-tuned on: RandAugment (Cubuk et al., NeurIPS 2020) as ViLT uses it.

ViLT, section 3.4: two changes of magnitude 9, without the inversion of colours, which takes away what texts say, and
without cutting out, which hides small objects. torchvision's list has neither, but other changes of colours.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor
from vlpbench.archs.types import Unsupported

if TYPE_CHECKING:
    import numpy as np
    from vlpbench.benchmarks.data.base import Geometry
    from vlpbench.results.record import Cell

CHANGES, MAGNITUDE = 2, 9
D = TypeVar("D")


class Augmented:
    """Rows of any task whose pictures are changed anew each time they are read; all else is the data's."""

    def __init__(self, data: Any, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        """Takes data with ``batch``, and the mean and deviation by which its pixels are normalised."""
        self._data = data
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in statistics)

    def __len__(self) -> int:
        return len(self._data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._data, name)

    def batch(self, rows: np.ndarray) -> Any:
        """The rows (K,) int64, every field of four dimensions changed. Draws from torch's own generator."""
        found = self._data.batch(rows)
        fields = ((field.name, getattr(found, field.name)) for field in dataclasses.fields(found))
        pictures = {name: value for name, value in fields if isinstance(value, Tensor) and value.ndim == 4}
        changed = {name: randaugment(image, self._mean, self._std) for name, image in pictures.items()}
        return dataclasses.replace(found, **changed)


def augmented(data: D, cell: Cell, geometry: Geometry) -> D:
    """Rows to train on, changed as the cell says.

    Raises:
        Unsupported: for an architecture that reads regions and no pictures.
    """
    if cell.augment == "off":
        return data
    if geometry.regions is not None:
        raise Unsupported(f"augment = {cell.augment!r} changes pictures, and {cell.arch} reads regions; take 'off'")
    return cast("D", Augmented(data, geometry.statistics))


def randaugment(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, 3, H, W) normalised pixels, each picture changed by draws of its own from torch's generator.

    Args:
        image: on the CPU; what is zero at the right and below is no picture, and stays so.
        mean: (3, 1, 1) of RGB in [0, 1].
        std: likewise.
    """
    from torchvision.transforms import RandAugment

    change = RandAugment(num_ops=CHANGES, magnitude=MAGNITUDE)
    out = torch.zeros_like(image)
    for picture, target in zip(image, out, strict=True):
        height, width = _extent(picture)
        pixels = ((picture[:, :height, :width] * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        target[:, :height, :width] = (change(pixels).float() / 255 - mean) / std
    return out


def _extent(picture: Tensor) -> tuple[int, int]:
    """Rows and columns up to the last that is not zero; all of a picture that is zero throughout."""
    there = (picture != 0).any(dim=0)
    rows, columns = (there.any(dim=side).nonzero() for side in (1, 0))
    return (int(rows[-1]) + 1, int(columns[-1]) + 1) if len(rows) else (picture.shape[1], picture.shape[2])
