"""Numbers as a reader sees them."""

from __future__ import annotations

import pytest
from vlpbench.reports import units


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("s", 0.1134, "113 ms"),
        ("s", 3.9604, "3.96 s"),
        ("s", 0.0000421, "42.1 µs"),
        ("B", 1.5 * 2**30, "1.50 GiB"),
        ("B", 716 * 2**20, "716 MiB"),
        ("FLOP", 14.78e9, "14.8 GFLOP"),
        ("FLOP", 38.6e12, "38.6 TFLOP"),
        ("1", 209.2e6, "209 M"),
        ("1", 0.0, "0"),
        ("1/s", 12.24, "12.2 pairs/s"),
        ("%", 62.04, "62.0 %"),
        ("%", 0.5, "0.5 %"),
        ("furlong", 7.0, "7.00 furlong"),
    ],
)
def test_prefix_and_digits(unit: str, value: float, shown: str):
    assert units.scale(unit, [value]).full(value) == shown


def test_one_prefix_for_a_column():
    scale = units.scale("s", [0.9, 1.4, 2.0])
    assert [scale.show(v) for v in (0.9, 1.4, 2.0)] == ["0.900", "1.40", "2.00"]


def test_ends_of_an_interval_share_decimals_and_differ():
    scale = units.scale("s", [0.1])
    assert scale.span(0.0998, 0.1012) == "99.8–101.2"
    assert units.Scale(factor=1, name="").span(12.21, 12.23) == "12.21–12.23"
    assert units.Scale(factor=1, name="").span(2.0, 2.0) == "2.00–2.00"


def test_ticks_are_plain():
    assert [units.plain(v) for v in (0.5, 1, 1000, 1e4, 1e5, 1e6, 2.5e9)] == [
        "0.5", "1", "1,000", "10 k", "100 k", "1 M", "2.5 G",
    ]  # fmt: skip


def test_ratios_and_durations():
    assert (units.times(1.306), units.times(204.3)) == ("1.31×", "204×")
    assert (units.duration(42), units.duration(600), units.duration(9000)) == ("42 s", "10 min", "2.5 h")
