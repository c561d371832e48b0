"""RandAugment in fine-tuning: only pictures change, repeatably, padding stays, and it is off unless asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.augment import Augmented, augmented, randaugment
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.results.record import Cell

CELL = Cell(arch="vilt", size="tiny", measure="vqa", data="scenes")
HALF = torch.full((3, 1, 1), 0.5)


def test_pictures_change_by_the_seed_and_nothing_else_does() -> None:
    source: Any = open_source("scenes", size="tiny")
    for data in (source.questions("train"), source.reasoning("train")):
        changed = augmented(data, CELL.model_copy(update={"augment": "randaugment"}), source.geometry)
        rows = np.arange(16)
        plain = data.batch(rows)
        torch.manual_seed(3)
        first, second = changed.batch(rows), changed.batch(rows)
        torch.manual_seed(3)
        again = changed.batch(rows)
        for name, value in vars(plain).items():
            if isinstance(value, torch.Tensor) and value.ndim == 4:
                assert torch.equal(getattr(first, name), getattr(again, name))
                assert not torch.equal(getattr(first, name), getattr(second, name))
                off = (getattr(first, name) - value).abs().amax(dim=(1, 2, 3))
                assert (off > 0.02).sum() > 12
                assert getattr(first, name).abs().max() <= 1.0 + 1e-6
            elif isinstance(value, torch.Tensor):
                assert torch.equal(getattr(first, name), value)
        assert len(changed) == len(data)
        assert changed.kinds == data.kinds


def test_off_is_the_data_itself() -> None:
    source: Any = open_source("scenes", size="tiny")
    data = source.questions("train")
    assert augmented(data, CELL, source.geometry) is data


def test_regions_are_refused() -> None:
    source: Any = open_source("scenes", size="tiny", reads="regions")
    cell = CELL.model_copy(update={"arch": "uniter", "augment": "randaugment"})
    with pytest.raises(Unsupported, match="uniter reads regions"):
        augmented(source.questions("train"), cell, source.geometry)


def test_padding_stays_and_what_is_not_changed_comes_back() -> None:
    torch.manual_seed(0)
    pixels = torch.randint(1, 256, (400, 3, 12, 16))
    image = pixels.float() / 255 * 2 - 1
    image[:, :, 8:], image[:, :, :, 10:] = 0, 0
    found = randaugment(image, HALF, HALF)
    assert not found[:, :, 8:].any()
    assert not found[:, :, :, 10:].any()
    same = [(a - b).abs().max() < 1e-6 for a, b in zip(found, image, strict=True)]
    assert 0 < sum(same) < 100  # twice the identity, now and then


def test_a_wrapper_without_its_data_has_no_attribute() -> None:
    with pytest.raises(AttributeError):
        Augmented.__new__(Augmented)._data  # noqa: B018
