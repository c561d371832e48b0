"""The suites of fine-tuning: their numbers by hand, and a few steps of each on miniatures of the real formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from vlpbench.archs import registry
from vlpbench.benchmarks import schedule, weights
from vlpbench.benchmarks.data.sources import FOLDER_VARIABLE
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.suite import load_suite
from vlpbench.results.record import Cell

SUITES = {"finetune_vqav2": "vqav2", "finetune_nlvr2": "nlvr2", "finetune_snli_ve": "snli-ve"}
ROWS = {"vqav2": 443_757, "nlvr2": 86_373, "snli-ve": 529_527}
EPOCHS = {
    ("vqav2", "albef"): 8, ("vqav2", "vilt"): 10, ("vqav2", "blip"): 10, ("nlvr2", "albef"): 10, ("nlvr2", "vilt"): 10,
    ("nlvr2", "blip"): 15, ("snli-ve", "albef"): 5, ("snli-ve", "vilt"): 5, ("snli-ve", "blip"): 5,
}  # fmt: skip


@pytest.mark.parametrize("name", SUITES)
def test_steps_are_the_epochs_of_the_papers(name: str) -> None:
    suite = load_suite(name, device="cpu")
    assert {cell.arch for cell in suite.cells} == {"albef", "vilt", "blip"}
    for cell in suite.cells:
        assert (cell.data, cell.budget) == (SUITES[name], None)
        assert cell.finetune_batch is not None
        assert cell.finetune is not None
        epochs = cell.finetune * cell.finetune_batch / ROWS[cell.data]
        assert epochs == pytest.approx(EPOCHS[cell.data, cell.arch], abs=0.01)
        config = schedule.finetuning(cell)
        assert (config.lr, config.batch) == (cell.finetune_lr, cell.finetune_batch)


def test_the_rate_of_vilt_rises_for_a_tenth_and_falls_in_a_line() -> None:
    fields: dict[str, Any] = {"finetune": 100, "finetune_lr": 1e-4, "finetune_warmup": 0.1, "finetune_decay": "linear"}
    config = schedule.finetuning(Cell(arch="vilt", measure="vqa", **fields))
    rates = [config.lr_at(step) for step in (0, 9, 10, 55, 99)]
    assert rates == pytest.approx([1e-5, 1e-4, 1e-4, 0.5e-4, 1e-4 / 90])


@pytest.mark.shared
@pytest.mark.parametrize("name", SUITES)
def test_a_few_steps_on_a_miniature(name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlpbench.benchmarks.cli import main

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("VLPBENCH_WORKERS", "1")
    (tmp_path / "tokenizers").symlink_to(shared / "data/bert_vocab")
    assert main(["data", "sample", SUITES[name], "--out", str(tmp_path)]) == 0
    from vlpbench.archs.pretrained import ALBEF_RETRIEVAL, save

    (first,) = (cell for cell in load_suite(name, device="cpu").cells if cell.arch == "albef")
    cell = Cell(
        **(
            first.model_dump()
            | {"size": "tiny", "image": None, "finetune": 3, "finetune_batch": 4, "dtype": "fp32", "threads": 1}
        )
    )
    from vlpbench.archs.learner import Learner, Recipe, SpecialTokens

    torch.manual_seed(0)
    made = Learner(
        registry.build("albef", "tiny", {"vocab_size": 30_522, "text_len": 30}),
        Recipe(objectives=("itc", "itm")),
        SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30_522),
    )
    torch.save(save(made, ALBEF_RETRIEVAL), tmp_path / "w.pth")
    brought = weights.resolve("w.pth", folder=tmp_path)
    monkeypatch.setenv(weights.VARIABLE, weights.places([brought]))
    cell = cell.model_copy(update={"checkpoint": brought.name})
    found = base.load(cell.measure).run(Subject.build(cell), cell)
    (accuracy,) = found.values[base.spec(cell.measure).quantities[0]]
    assert 0 <= accuracy <= 100
    assert found.detail["finetuning"]["steps"] == 3
    assert found.detail["pretraining"]["weights"]["format"] == "albef_retrieval"
