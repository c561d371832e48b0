"""Packed numbers come back, and take no more room than they need."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vlpbench.results.packed import packed, unpacked


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_numbers_come_back(values: list[int]) -> None:
    assert unpacked(packed(values)) == values


def test_by_hand() -> None:
    assert packed([1, 2, 3]) == "i1:AQID"
    assert packed([256]) == "i2:AAE="
    assert len(packed([n % 40 for n in range(3000)])) == 3 + 4000
    halves: Any = [0.5]
    for wrong in (halves, [2**63]):
        with pytest.raises(ValueError, match="whole numbers"):
            packed(wrong)
