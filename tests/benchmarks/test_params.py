"""Parameters counted by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.params import Params, touched
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell


class Odd(nn.Module):
    """Parameters used in every way there is, and some not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.by_function = nn.Linear(4, 4)
        self.position = nn.Parameter(torch.zeros(9, 4))
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.expert = nn.Linear(4, 4)
        self.asked_for_its_type = nn.Parameter(torch.zeros(3))
        self.tied = self.layer

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x.to(self.asked_for_its_type.dtype)) + self.position[: x.shape[1]]
        x = F.linear(x, self.by_function.weight)
        return self.attention(x, x, x, need_weights=False)[0]


def test_touched_parameters_are_found_however_they_are_used() -> None:
    module = Odd().eval()
    expected = {
        "layer.weight",
        "layer.bias",
        "by_function.weight",
        "position",
        "attention.in_proj_weight",
        "attention.in_proj_bias",
        "attention.out_proj.weight",
        "attention.out_proj.bias",
    }
    with torch.no_grad():
        assert touched(module, lambda: module(torch.zeros(1, 5, 4))) == expected
    module.to("meta")
    assert touched(module, lambda: module(torch.zeros(1, 5, 4, device="meta"))) == expected


def measured(**fields) -> Samples:
    cell = Cell(**{"size": "tiny", "measure": "params", "batch": 2} | fields)
    return Params().run(Subject.build(cell, meta=True), cell)


def values(found: Samples) -> list[float]:
    return [found.values[name][0] for name in ("params_stored", "params_trainable", "params_touched")]


def test_clip_is_open_clips_less_its_temperature() -> None:
    # open_clip's model profile: 151.28 M parameters for ViT-B-32 and 149.62 M for ViT-B-16.
    assert values(measured(arch="clip", size="b16"))[0] == 149_620_737 - 1
    assert values(measured(arch="clip", size="b32"))[0] == 151_277_313 - 1


def test_components_and_what_is_touched_sum_up() -> None:
    for arch in ("clip", "clip+late", "vilt", "albef"):
        found = measured(arch=arch)
        stored, trainable, used = values(found)
        assert sum(found.detail["by_component"].values()) == stored == trainable, arch
        assert sum(found.detail["touched_by_component"].values()) == used, arch
        assert used == stored, (arch, found.detail["untouched"])


def test_a_subject_on_the_cpu_counts_the_same() -> None:
    cell = Cell(arch="albef", size="tiny", measure="params")
    assert Params().run(Subject.build(cell), cell) == Params().run(Subject.build(cell, meta=True), cell)


def test_frozen_parameters_are_stored_and_not_trainable() -> None:
    cell = Cell(arch="clip", size="tiny", measure="params")
    built = Subject.build(cell, meta=True)
    frozen = built.model.word_embedding().weight
    frozen.requires_grad_(False)
    stored, trainable, _ = values(Params().run(built, cell))
    assert stored - trainable == frozen.numel() == 40 * 32  # vocabulary x width


def test_a_model_that_does_not_train_has_no_learner() -> None:
    assert "learner" not in measured(arch="clip").detail


def test_a_contrastive_learner_adds_its_temperature() -> None:
    found = measured(arch="clip", objectives=("itc",))
    stored = values(found)[0]
    assert found.detail["learner"] == {"model": stored, "objectives": 1, "momentum": 0, "queue": 0}


def test_a_momentum_model_is_a_second_copy_and_its_queue_is_counted_apart() -> None:
    fields = {"arch": "albef", "objectives": ("itc", "itm", "mlm"), "queue_size": 24}
    off, queue, distill = (measured(momentum=m, **fields).detail["learner"] for m in ("off", "queue", "distill"))
    model, heads = off["model"], off["objectives"]
    assert (off["momentum"], off["queue"]) == (0, 0)
    assert (queue["model"], queue["objectives"]) == (distill["model"], distill["objectives"]) == (model, heads)
    assert queue["momentum"] == model
    assert model < distill["momentum"] <= model + heads  # and the heads whose targets it softens
    width = 16  # of the joint space
    assert queue["queue"] == distill["queue"] == 2 * width * 24 + 24 + 1  # embeddings, sample ids, write position
