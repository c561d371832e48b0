"""Packed numbers come back, and take no more room than they need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vlpbench.results.packed import packed, unpacked


@given(st.lists(st.integers(-(2**62), 2**62)))
def test_numbers_come_back(values: list[int]) -> None:
    assert unpacked(packed(np.array(values, np.int64))).tolist() == values


def test_by_hand() -> None:
    assert packed(np.array([1, 2, 3])) == "i1:AQID"
    assert packed(np.array([256])) == "i2:AAE="
    assert len(packed(np.arange(3000) % 40)) == 3 + 4000
    with pytest.raises(ValueError, match="whole numbers"):
        packed(np.array([0.5]))
