"""ALBEF's checkpoints at paper size, and what the official programs do to a checkpoint before they fine-tune."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from vlpbench.archs.albef import Albef
from vlpbench.archs.albef_tasks import (
    Answering,
    Classifying,
    PairClassifying,
    TaskLearner,
    TextAssignment,
    pair_model,
)
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.pretrained import (
    ALBEF_NLVR,
    ALBEF_PRETRAIN,
    ALBEF_PRETRAIN_NLVR,
    ALBEF_RETRIEVAL,
    ALBEF_VE,
    ALBEF_VQA,
    Layout,
    albef_finetuning_keys,
    load,
    resize_positions,
    save,
)

BERT = SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30522)


def paper_size(oracles: Path, name: str) -> dict[str, Any]:
    file = oracles / "paper_size_keys" / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"this set of oracles has no paper_size_keys/{name}.json")
    return json.loads(file.read_text())


def fits(module: torch.nn.Module, layout: Layout, recorded: dict[str, Any]) -> None:
    """Loads meta tensors of the recorded shapes, and compares what would be saved and the parameter counts."""
    load(module, {k: torch.empty(shape, device="meta") for k, shape in recorded["keys"].items()}, layout)
    assert {k: list(t.shape) for k, t in save(module, layout).items()} == recorded["keys"]
    trained = [p.numel() for name, p in module.named_parameters() if p.requires_grad and layout.official(name)]
    assert sum(trained) == recorded["n_trainable"]
    stored = [p.numel() for name, p in module.named_parameters() if layout.official(name)]
    assert sum(stored) == recorded["n_params"]


@pytest.mark.parametrize(
    ("name", "layout", "objectives"),
    [
        ("albef_pretrain", ALBEF_PRETRAIN, ("itc", "itm", "mlm")),
        ("albef_retrieval", ALBEF_RETRIEVAL, ("itc", "itm")),
    ],
)
def test_learner_takes_a_checkpoint_of_paper_size(
    oracles: Path, albef: Any, name: str, layout: Layout, objectives: tuple[str, ...]
) -> None:
    recorded = paper_size(oracles, name)
    with torch.device("meta"):
        model = Albef(albef.paper_config(recorded["keys"]))
        queue = recorded["keys"]["image_queue"][1]
        learner = Learner(model, Recipe(objectives=objectives, momentum="distill", queue_size=queue), BERT)
    fits(learner, layout, recorded)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("albef_vqa", ALBEF_VQA),
        ("albef_ve", ALBEF_VE),
        ("albef_nlvr", ALBEF_NLVR),
        ("albef_pretrain_nlvr", ALBEF_PRETRAIN_NLVR),
    ],
)
def test_tasks_take_a_checkpoint_of_paper_size(oracles: Path, albef: Any, name: str, layout: Layout) -> None:
    recorded = paper_size(oracles, name)
    config = albef.paper_config(recorded["keys"])
    with torch.device("meta"):
        built: dict[str, Callable[[], torch.nn.Module]] = {
            "albef_vqa": lambda: TaskLearner(Answering(Albef(config), config)),
            "albef_ve": lambda: TaskLearner(Classifying(Albef(config), 3)),
            "albef_nlvr": lambda: TaskLearner(PairClassifying(pair_model(config))),
            "albef_pretrain_nlvr": lambda: TextAssignment(pair_model(config)),
        }
        fits(built[name](), layout, recorded)


def test_positions_are_interpolated_as_officially(oracle: Callable[[str], Any]) -> None:
    tensors = oracle("albef_misc").step("pos_embed")
    (source,) = (name for name in tensors if name.startswith("in_"))
    targets = [name for name in tensors if name.startswith("out_")]
    assert len(targets) >= 2
    for name in targets:
        rows, columns = (int(side) for side in name.removeprefix("out_").split("x"))
        torch.testing.assert_close(resize_positions(tensors[source], (rows, columns)), tensors[name], atol=1e-6, rtol=0)


def test_positions_of_the_same_grid_are_left_alone_and_a_ragged_grid_is_refused() -> None:
    positions = torch.randn(1, 10, 4)
    assert resize_positions(positions, (3, 3)) is positions
    assert resize_positions(positions, (2, 5)).shape == (1, 11, 4)
    with pytest.raises(ValueError, match="8 positions after 1 extra"):
        resize_positions(positions[:, :9], (3, 3))


@pytest.mark.parametrize("task", ["VQA", "Retrieval", "VE", "Pretrain_nlvr"])
def test_finetuning_loads_each_tensor_from_where_the_official_program_does(
    oracle: Callable[[str], Any], task: str
) -> None:
    pretrain, misc = oracle("albef_pretrain"), oracle("albef_misc")
    recorded = json.loads((misc.folder / "checkpoint_remaps.json").read_text())[task]
    found = albef_finetuning_keys(
        pretrain.state, task.lower(), text_layers=pretrain.meta["config"]["bert"]["fusion_layer"]
    )
    keys = set(recorded["loaded"]) | set(recorded["missing_keys"])
    assert keys - set(found) == set(recorded["missing_keys"])
    assert set(found) - keys == set(recorded["unexpected_keys"])
    ties = pretrain.meta["files"]["state_dict.safetensors"]["tied_groups"]
    same = {name: min(group) for group in ties for name in group}
    for key, source in recorded["loaded"].items():
        if not key.endswith("position_ids"):  # equal in every encoder, so the recording names any of them
            assert same.get(found[key], found[key]) == same.get(source, source), key


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown task 'captioning'"):
        albef_finetuning_keys([], "captioning", text_layers=6)
