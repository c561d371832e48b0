"""Reading ahead: the same batches in the same order whoever decodes them, and errors that arrive where they belong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vlpbench.archs.inputs import Pixels
from vlpbench.benchmarks.data.ahead import WORKERS_VARIABLE, Ahead, expecting, workers
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.images import preset_of
from vlpbench.benchmarks.data.photos import Photos

ROWS = [np.array([3, 1]), np.array([0, 2]), np.array([5, 5]), np.array([4, 0])]


def slowly(rows: np.ndarray) -> tuple[list[int], int]:
    """The rows, and the process that looked at them."""
    if 9 in rows:
        raise DataError("9 cannot be read")
    return rows.tolist(), os.getpid()


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_order_from_other_processes(count: int) -> None:
    with Ahead(slowly, ROWS, count) as ahead:
        found = [ahead.take(rows) for rows in ROWS]
    assert [rows for rows, _ in found] == [rows.tolist() for rows in ROWS]
    assert os.getpid() not in {process for _, process in found}
    assert len({process for _, process in found}) == count


def test_rows_out_of_turn_are_read_here_and_the_line_goes_on() -> None:
    with Ahead(slowly, ROWS, 1) as ahead:
        assert ahead.take(ROWS[0])[1] != os.getpid()
        assert ahead.take(np.array([7])) == ([7], os.getpid())
        assert ahead.take(ROWS[1])[1] != os.getpid()
    with pytest.raises(RuntimeError, match="has ended"):
        ahead.take(ROWS[2])


def test_an_error_is_raised_by_whoever_asks_and_is_the_same() -> None:
    with Ahead(slowly, [ROWS[0], np.array([9]), ROWS[1]], 1) as ahead:
        ahead.take(ROWS[0])
        with pytest.raises(DataError, match="9 cannot be read"):
            ahead.take(np.array([9]))
        assert ahead.take(ROWS[1])[0] == [0, 2]


def test_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS_VARIABLE, "3")
    assert workers() == 3
    monkeypatch.setenv(WORKERS_VARIABLE, "some")
    with pytest.raises(ValueError, match="'some' is no number of processes"):
        workers()
    monkeypatch.delenv(WORKERS_VARIABLE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(2)))
    assert workers() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert workers() == 4


def test_data_that_takes_no_time_is_read_when_asked_for() -> None:
    with expecting(object(), ROWS):
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        Image.new("RGB", (40, 30), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("count", [0, 1, 2])
def test_photos_are_the_same_whoever_decodes_them(folder: Path, count: int) -> None:
    def photos() -> Photos:
        return Photos(folder, [f"{n}.png" for n in range(6)], preset_of(Pixels(fit="squash"), (8, 8)))

    direct, ahead = photos(), photos()
    with ahead.expecting(iter(ROWS), count):
        for rows in ROWS:
            assert torch.equal(ahead.batch(rows), direct.batch(rows))


def test_a_training_goes_on_from_any_step_with_the_same_rows(folder: Path) -> None:
    from vlpbench.benchmarks.loop import Rows
    from vlpbench.benchmarks.schedule import TrainConfig

    class Task:
        rows = 6

        def order(self, rng: np.random.Generator) -> np.ndarray:
            return rng.permutation(6)

    config = TrainConfig(steps=9, batch=2, lr=0.1, warmup=0, weight_decay=0.0, betas=(0.9, 0.9), clip=1.0, seed=5)
    task: Any = Task()
    whole = [Rows(task, config).at(step).tolist() for step in range(9)]
    later = Rows(task, config)
    assert [later.at(step).tolist() for step in range(4, 9)] == whole[4:]


@pytest.mark.shared
def test_a_training_is_the_same_however_many_read_ahead(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.benchmarks.train import open_data, pretrain
    from vlpbench.results.record import Cell

    monkeypatch.setenv("VLPBENCH_DATA", str(tmp_path))
    (tmp_path / "coco").symlink_to(shared / "data/coco_cc")
    cell = Cell(
        arch="clip", size="tiny", measure="retrieval", objectives=("itc",), data="coco", budget=6, batch=32, threads=1
    )
    losses = []
    for count in ("0", "1", "2"):
        monkeypatch.setenv(WORKERS_VARIABLE, count)
        subject = Subject.build(cell)
        with subject.settings():
            trained = pretrain(subject, open_data(cell), cache=tmp_path / count)
        losses.append(trained.learner.state_dict())
    for other in losses[1:]:
        assert all(torch.equal(tensor, other[key]) for key, tensor in losses[0].items())
