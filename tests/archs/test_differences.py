"""The table of deliberate differences: what it names exists, and what it says can be switched is what a cell takes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from vlpbench.archs import differences, registry
from vlpbench.archs.differences import Difference
from vlpbench.archs.objectives.table import OBJECTIVES
from vlpbench.benchmarks.fields import axis_values
from vlpbench.results.record import Cell

ROOT = Path(__file__).parents[2]
ALL: list[Difference] = [
    *differences.MOMENTUM,
    *differences.TRAINING,
    *(one for table in (differences.ARCHS, differences.OBJECTIVES) for rows in table.values() for one in rows),
]


def test_tables_are_by_registered_names() -> None:
    assert set(differences.ARCHS) <= set(registry.specs())
    assert set(differences.OBJECTIVES) <= set(OBJECTIVES)


def test_every_difference_has_both_sides_and_a_name_of_its_own() -> None:
    for rows in (
        differences.MOMENTUM,
        differences.TRAINING,
        *differences.ARCHS.values(),
        *differences.OBJECTIVES.values(),
    ):
        assert len({one.name for one in rows}) == len(rows)
    for one in ALL:
        assert one.official
        assert one.ours
        assert one.why
        assert one.official != one.ours
        assert not one.adr or (ROOT / one.adr).is_file()


def test_what_has_no_switch_has_a_reason_why_none() -> None:
    argued = (ROOT / differences.CLEAN).read_text().partition("### Without a switch")[2]
    without = [one for one in ALL if not one.switch]
    assert all(one.adr == differences.CLEAN for one in without)
    assert len(without) <= 15
    assert argued.count("\n| ") - 1 >= 8


@pytest.mark.parametrize("one", [one for one in ALL if one.switch], ids=lambda one: one.name)
def test_a_switch_is_a_line_of_a_suite_that_changes_a_cell(one: Difference) -> None:
    fields = {key: axis_values(key, value)[0] for key, value in tomllib.loads(one.switch).items()}
    plain = Cell(arch="albef", measure="params")
    assert fields
    for key, value in fields.items():
        assert Cell(arch="albef", measure="params", **{key: value}).id != plain.id


def test_an_architecture_has_its_own_and_those_of_what_it_trains() -> None:
    names = {spec.name: {one.name for one in differences.of(spec)} for spec in registry.specs().values()}
    assert "order and number of patches" in names["vilt"]
    assert "order and number of patches" not in names["albef"]
    assert {"dropout in the teacher", "score of a matched pair"} <= names["albef"]
    assert "dropout in the teacher" not in names["vilt"]  # its recipe has no teacher
    assert "score of a matched pair" not in names["clip"]  # it does not match
    assert all("optimiser" in found for found in names.values())
    late = registry.get("clip+late")
    assert [one.name for one in differences.of(late)] == [one.name for one in differences.of(registry.get("clip"))]
