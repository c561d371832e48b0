"""TensorBoard events: what is in them, once, and what a run says without the package."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from vlpbench.benchmarks import cli
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.schedule import pretraining
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import Pretrained, pretrain, pretrain_key
from vlpbench.benchmarks.worker import BOARD_VARIABLE
from vlpbench.results.record import Cell

CELL = Cell(
    arch="clip", size="tiny", measure="retrieval", objectives=("itc",), batch=16, threads=1, data="scenes", budget=60
)


def trained(cache: Path) -> Pretrained:
    return pretrain(Subject.build(CELL), open_source(CELL.data, size=CELL.size), cache=cache)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reader alone
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(folder))
        found.Reload()
        return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_events_hold_losses_rate_and_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'vlpbench[tensorboard]'")
    torch.set_num_threads(1)
    monkeypatch.setenv(BOARD_VARIABLE, str(tmp_path / "events"))
    curve = trained(tmp_path / "cache").curve
    (folder,) = (tmp_path / "events").iterdir()
    assert folder.name == f"clip-off-{pretrain_key(CELL)}"
    found = scalars(folder)
    assert set(found) == {
        "loss/itc",
        "loss/total",
        "schedule/lr",
        *(f"validation/{name}" for name in ("recall", "swap_colour", "swap_shape", "swap_relation", "binding")),
    }
    assert found["loss/itc"] == [(s, pytest.approx(x)) for s, x in zip(curve.step, curve.loss["itc"], strict=True)]
    rate = pretraining(CELL).lr_at
    assert found["schedule/lr"] == [(s, pytest.approx(rate(s - 1))) for s in (25, 50, 60)]
    looks = curve.looks
    seen = [(s, pytest.approx(x)) for s, x in zip(looks.step, looks.metrics["recall"], strict=True)]
    assert found["validation/recall"] == seen

    # The cache has it now: nothing is written twice, and another folder gets all of it.
    assert trained(tmp_path / "cache").cached
    assert scalars(folder) == found
    monkeypatch.setenv(BOARD_VARIABLE, str(tmp_path / "other"))
    assert trained(tmp_path / "cache").cached
    assert scalars(tmp_path / "other" / folder.name) == found


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BOARD_VARIABLE, "")
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "cache")
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}


def test_a_run_without_the_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code = cli.main(["run", "smoke", "--out", str(tmp_path / "out"), "--tensorboard", str(tmp_path / "events")])
    assert code == 2
    assert "pip install 'vlpbench[tensorboard]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
