"""Learning rates against those that the official schedulers gave for the configurations of its tasks."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from vlpbench.benchmarks.schedule import OfficialSchedule

EPOCH = 2500
"""Iterations of an epoch: more than any warm-up has."""
STEPS = (
    (r"created", lambda found: 0),
    (r"epoch 0 after iteration (\d+):", lambda found: int(found[1]) + 1),
    (r"start epoch (\d+):", lambda found: int(found[1]) * EPOCH),
    (r"end epoch (\d+):", lambda found: (int(found[1]) + 1) * EPOCH),
)
"""Event of the fixture -> the first step that runs at the rate it sets."""


@pytest.mark.shared
@pytest.mark.parametrize("task", ["Pretrain", "VQA", "Retrieval"])
def test_rates_are_the_official_ones(shared: Path, task: str) -> None:
    found = json.loads((shared / "oracles" / "albef_misc" / "meta.json").read_text())["lr_schedules"][task]
    config = found["config"]
    assert (config["decay_rate"], config["cooldown_epochs"]) == (1, 0)
    schedule = OfficialSchedule(
        lr=config["lr"],
        min_lr=config["min_lr"],
        warmup_lr=config["warmup_lr"],
        warmup=config["warmup_epochs"],
        epochs=config["epochs"],
        epoch_steps=EPOCH,
    )
    expected = {}
    for entry in found["lrs"]:
        place = next(step(match) for pattern, step in STEPS if (match := re.match(pattern, entry["event"])))
        expected[place] = entry["lr"]
    assert len(expected) >= 7
    assert {step: schedule.lr_at(step) for step in expected} == pytest.approx(expected, rel=1e-12)
    # Between two events the rate stands still.
    places = sorted(expected)
    for place, following in pairwise(places):
        assert schedule.lr_at(following - 1) == pytest.approx(expected[place], rel=1e-12)


def test_rates_worked_out_by_hand() -> None:
    schedule = OfficialSchedule(lr=1.0, min_lr=0.2, warmup_lr=0.5, warmup=2, epochs=4, epoch_steps=1000)
    rates = {0: 0.5, 100: 0.5, 101: 0.75, 200: 0.75, 201: 1.0, 999: 1.0}
    rates |= {1000: 0.2 + 0.4 * (1 + 0.5**0.5), 2000: 0.6, 3999: 0.2 + 0.4 * (1 - 0.5**0.5), 4000: 0.2, 9000: 0.2}
    assert {step: schedule.lr_at(step) for step in rates} == pytest.approx(rates)
