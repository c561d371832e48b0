"""CapFilt: which rows are trained on, what a filter is said to have done, and the whole of it from a cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs.types import Batch, Text
from vlpbench.benchmarks import capfilt
from vlpbench.benchmarks.capfilt import Filtered, _counts
from vlpbench.benchmarks.data.base import DataError, Pairs
from vlpbench.benchmarks.data.captioned import Judging
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.plan import _Estimates, unsupported
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import pretrain_key
from vlpbench.results.record import Cell, Env

ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={}, threads=1)
pytestmark = pytest.mark.usefixtures("shared_cache")

CELL = Cell(
    arch="blip",
    size="tiny",
    measure="retrieval",
    objectives=("itc", "itm", "lm"),
    captions="capfilt",
    noise=0.5,
    batch=16,
    threads=1,
    data="scenes",
    budget=4,
)


class Four:
    """Four pairs: token 10 + r is pair r's caption. Of pictures 0 and 2 it is right; 2 in the second place is right."""

    verdicts = ("right", "wrong")

    def __len__(self) -> int:
        return 4

    def batch(self, rows: np.ndarray) -> Batch:
        ids = torch.from_numpy(np.stack([np.full(len(rows), 1), 10 + rows], 1))
        text = Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
        return Batch(image=torch.from_numpy(rows).float(), text=text, sample_id=torch.from_numpy(rows))

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(4)

    def judge(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return np.where(np.isin(ids[:, 1], (10, 12, 2)), 0, 1)


def filtered(kept: list[int]) -> Filtered:
    ids = torch.tensor([[1, 2], [1, 2], [1, 3], [1, 0]])
    return Filtered(pairs=Four(), ids=ids, mask=ids > 0, kept=torch.tensor(kept).bool())


def test_rows_are_given_and_written_captions() -> None:
    pairs = filtered([1, 1, 0, 1, 0, 1, 1, 0])
    assert isinstance(pairs, Pairs)
    assert isinstance(pairs.pairs, Judging)
    assert len(pairs) == 5
    batch = pairs.batch(np.array([5, 1, 7]))
    assert batch.image.tolist() == batch.sample_id.tolist() == [1, 1, 3]
    assert batch.text.ids.tolist() == [[1, 2], [1, 11], [1, 0]]
    assert batch.text.mask.tolist() == [[True, True], [True, True], [True, False]]


def test_an_epoch_is_what_was_kept_given_and_written_mixed() -> None:
    pairs = filtered([1, 1, 0, 1, 0, 1, 1, 0])
    order = pairs.order(np.random.default_rng(0))
    assert sorted(order) == [0, 1, 3, 5, 6]
    rng = np.random.default_rng(0)
    given, written = rng.permutation(4), rng.permutation(4)
    everything = filtered([1] * 8).order(np.random.default_rng(0))
    assert everything[::2].tolist() == given.tolist()
    assert everything[1::2].tolist() == (4 + written).tolist()


def test_counts_by_hand() -> None:
    # Given: 0 and 2 are right, 0, 1 and 3 are kept. Written: 0 and 1 are right, 1 and 2 are kept.
    counts = _counts(filtered([1, 1, 0, 1, 0, 1, 1, 0]))
    assert counts["given"] == {
        "rows": 4,
        "kept": 3,
        "verdicts": {"right": {"rows": 2, "kept": 1}, "wrong": {"rows": 2, "kept": 2}},
        "precision": pytest.approx(100 / 3),
        "recall": 50.0,
        "right_before": 50.0,
    }
    assert counts["written"]["verdicts"] == {"right": {"rows": 2, "kept": 1}, "wrong": {"rows": 2, "kept": 1}}
    assert (counts["written"]["precision"], counts["written"]["recall"]) == (50.0, 50.0)


def test_verdicts_on_noisy_captions_are_what_the_noise_did() -> None:
    noisy: Any = open_source("scenes", size="tiny", noise=0.5).pairs("train")
    clean: Any = open_source("scenes", size="tiny").pairs("train")
    rows = np.arange(len(noisy))
    verdict = noisy.judge(rows, noisy.ids)
    same = (noisy.ids == clean.ids).all(1)
    assert 0.4 < 1 - same.mean() < 0.6
    assert (verdict[same] == 0).all()
    assert (clean.judge(rows, clean.ids) == 0).all()
    partial = ~same & (noisy.ids[:, 4] == 2) & (noisy.ids[:, :4] == clean.ids[:, :4]).all(1)
    assert partial.sum() > 100
    assert (verdict[partial] == 1).all()
    # Another scene's caption that names one object alone can be true of that object: it is then as partial.
    spoilt = ~same & ~partial
    assert (verdict[spoilt & (noisy.ids[:, 4] != 2)] == 2).all()
    broken = noisy.ids.copy()
    broken[:, 1] = 3  # [MASK] where a size should be
    assert (noisy.judge(rows, broken) == 2).all()


def test_from_a_cell(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("scenes", size="tiny", noise=0.5)
    monkeypatch.setattr(capfilt, "KEPT", 1e9)
    with pytest.raises(DataError, match="the filter kept 0 of 4000 captions, fewer than a batch of 16"):
        capfilt.bootstrapped(Subject.build(CELL), source, cache=shared_cache)
    state = torch.load(shared_cache / f"{pretrain_key(CELL)}.captions", weights_only=True)["state"]
    monkeypatch.setattr(capfilt, "KEPT", state["score"].median().item())  # four steps teach nobody to match
    brought = base.load("retrieval").run(Subject.build(CELL), CELL)
    told = json.loads(json.dumps(brought.detail))["pretraining"]["captions"]
    given = CELL.model_copy(update={"captions": "given"})
    assert told["first"] == pretrain_key(given) != brought.detail["pretraining"]["key"]
    assert told["rows"] == told["given"]["kept"] + told["written"]["kept"] == int((state["score"] > capfilt.KEPT).sum())
    assert 1800 < told["rows"] <= 2000
    for name in ("given", "written"):
        assert told[name]["rows"] == 2000
        verdicts = told[name]["verdicts"].values()
        assert sum(one["rows"] for one in verdicts) == 2000
        assert sum(one["kept"] for one in verdicts) == told[name]["kept"]
    assert not torch.equal(state["ids"][:1000], state["ids"][1000:])  # drawn, so two of a picture differ
    again = base.load("retrieval").run(Subject.build(CELL), CELL)
    assert again.detail["pretraining"]["cached"]
    assert again.detail["pretraining"]["captions"] == brought.detail["pretraining"]["captions"]
    assert again.values == brought.values
    plain = base.load("retrieval").run(Subject.build(given), given)
    assert plain.detail["pretraining"]["cached"]  # the first training is the plain cell's
    assert "captions" not in plain.detail["pretraining"]


def test_where_it_cannot_be() -> None:
    def reason(**changes: Any) -> str:
        return str(unsupported(Cell(**(CELL.model_dump() | changes)), ENV))

    assert unsupported(CELL, ENV) is None
    assert reason(arch="albef", objectives=("itc", "itm", "mlm")).endswith("needs DECODE, which albef lacks")
    assert reason(objectives=("itc", "lm")) == "captions = 'capfilt' needs the objective itm, not among itc, lm"
    assert "train_step trains none" in reason(measure="train_step", data="random")


def test_its_first_training_is_planned_unless_another_cell_does_it() -> None:
    given = CELL.model_copy(update={"captions": "given"})
    long = {"budget": 100}
    cells = [cell.model_copy(update=long) for cell in (given, CELL)]
    alone = _Estimates([], 1).of(cells[1], set())
    trained: set[str] = set()
    clock = _Estimates([], 1)
    first, second = (clock.of(cell, trained) for cell in cells)
    assert first == second
    assert alone - second == pytest.approx(100 * 0.02)
