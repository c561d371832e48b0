"""What is read off built models, against the papers and against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.measures.step_structure import watched_step
from vlpbench.benchmarks.measures.structure import Structure, experts, reference_keys
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import UNITS, Cell

ALL = ("itc", "itm", "mlm")


def measured(**fields) -> tuple[dict[str, float], dict]:
    cell = Cell(**{"size": "tiny", "measure": "structure", "batch": 4} | fields)
    found = Structure().run(Subject.build(cell, meta=True), cell)
    return {name: value for name, (value,) in found.values.items()}, found.detail


def test_albef_base_is_the_papers() -> None:
    values, detail = measured(arch="albef", size="base", objectives=ALL, momentum="distill")
    spec = base.spec("structure")
    assert set(spec.quantities) <= set(values) <= {*spec.quantities, *spec.sometimes} <= set(UNITS)
    assert (values["image_tokens"], values["width_image"]) == (197, 768)
    assert detail["towers"]["image"]["state"] == [[768], [197, 768]]
    assert (values["layers_image"], values["layers_text"], values["layers_fusion"]) == (12, 6, 6)
    assert values["layers_cross"] == 6
    assert (values["deit_missing"], values["deit_unexpected"]) == (0, 0)
    assert detail["reference"]["module"] == "visual_encoder"
    assert detail["reference"]["classifier"] == ["head.bias", "head.weight"]
    text = [(a["queries"], a["keys"], a["calls"]) for a in detail["towers"]["text"]["attention"]]
    assert text == [(25, 25, 6)]
    pair = {(a["queries"], a["keys"]): a["calls"] for a in detail["towers"]["fusion"]["attention"]}
    assert pair == {(25, 25): 6, (25, 197): 6}


def test_a_step_passes_texts_twice_and_pairs_four_times() -> None:
    # Plain and masked texts; matching pairs, a wrong image, a wrong text, and the masked text.
    values, detail = measured(arch="albef", objectives=ALL, momentum="distill")
    own = [values[f"forwards_{tower}"] for tower in ("image", "text", "fusion", "decoder")]
    copied = [values[f"forwards_momentum_{tower}"] for tower in ("image", "text", "fusion", "decoder")]
    assert (own, copied) == ([1, 2, 4, 0], [1, 2, 1, 0])
    assert detail["step"]["forwards"]["online"]["text"] == {"calls": 1, "passes": 2.0}
    assert 0 < values["momentum_share"] < 50


def test_without_soft_targets_the_teacher_only_fills_the_queue() -> None:
    values, _ = measured(arch="albef", objectives=ALL, momentum="queue")
    assert [values[f"forwards_momentum_{tower}"] for tower in ("image", "text", "fusion")] == [1, 1, 0]
    off, _ = measured(arch="albef", objectives=ALL)
    assert not {"momentum_share", "gradients_queue", "forwards_momentum_text"} & set(off)


def test_nothing_of_the_momentum_side_gets_a_gradient() -> None:
    values, detail = measured(arch="albef", objectives=ALL, momentum="distill")
    assert (values["gradients_momentum"], values["gradients_queue"]) == (0, 0)
    gradients = detail["step"]["gradients"]
    assert gradients["trained"]["with"] == gradients["trained"]["of"] > gradients["queue"]["of"] == 4


def test_a_queue_that_asks_for_a_gradient_is_noticed(monkeypatch) -> None:
    cell = Cell(arch="albef", size="tiny", measure="structure", batch=4, objectives=ALL, momentum="queue")
    subject = Subject.build(cell, meta=True)
    build = subject.learner

    def broken():
        learner = build()
        assert learner.momentum is not None
        assert learner.momentum.queue is not None
        learner.momentum.queue.image.requires_grad_(True)
        next(learner.momentum.twin.parameters()).requires_grad_(True)
        return learner

    monkeypatch.setattr(subject, "learner", broken)
    values = watched_step(subject).values
    assert (values["gradients_queue"], values["gradients_momentum"]) == (1, 1)


def test_experts_are_layers_that_both_run_with_weights_of_their_own() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList(nn.ModuleDict({name: nn.Linear(2, 3) for name in ("all", "v", "l")}) for _ in range(2))
    model.tower = nn.ModuleList([nn.Linear(2, 3)])
    own, other = ({f"layers.{i}.{name}.{p}" for i in (0, 1) for p in ("weight", "bias")} for name in ("v", "l"))
    every = {f"layers.{i}.all.{p}" for i in (0, 1) for p in ("weight", "bias")}
    reads = {"image": own | every | {"tower.0.weight"}, "text": other | every, "fusion": own | other | every}
    found = experts(model, reads)
    assert found == {"layers": ["layers.0", "layers.1"], "image": 18, "text": 18, "fusion": 0, "shared": 18}


@pytest.mark.parametrize(
    ("arch", "layers", "decoder", "beside"),
    [
        ("vlmo", True, False, False),
        ("beit3", True, False, False),
        ("blip", False, True, True),
        ("pali", False, True, True),
        ("coca", False, False, True),
    ],
)
def test_experts_and_decoders_of_the_architectures(arch: str, layers: bool, decoder: bool, beside: bool) -> None:
    values, detail = measured(arch=arch)
    assert (values["layers_experts"] > 0, values["params_decoder"] > 0) == (layers, decoder)
    assert (detail["decoder"]["beside_encoders"] > 0) == beside
    assert values["can_decode"] == (arch != "vlmo")
    assert sum(detail["components"].values()) >= values["params_shared"]


def test_one_transformer_for_pairs_has_no_towers_of_its_own() -> None:
    values, detail = measured(arch="vilt")
    assert (values["layers_image"], values["layers_text"], values["layers_cross"]) == (0, 0, 0)
    together = detail["tokens"]["image"] + detail["tokens"]["text"]
    assert [a["queries"] for a in detail["towers"]["fusion"]["attention"]] == [together]
    assert detail["towers"]["image"]["attention"] == []
    assert values["width_image"] == 32
    assert "reference" not in detail


def test_regions_are_named_as_such() -> None:
    _, detail = measured(arch="uniter")
    assert detail["tokens"]["regions"] == detail["tokens"]["image"]
    assert measured(arch="clip")[1]["tokens"]["regions"] is None


def test_another_shape_is_missing_and_another_name_is_unexpected() -> None:
    import timm

    with torch.device("meta"):
        tower: Any = timm.create_model("deit_base_patch16_224", num_classes=0)
        tower.norm.weight = nn.Parameter(torch.empty(7))
        tower.other, tower.norm.bias = nn.Parameter(torch.empty(1)), None
    found = reference_keys(nn.ModuleDict({"tower": tower}))
    assert found is not None
    assert (found["module"], found["missing"], found["unexpected"]) == (
        "tower",
        ["norm.weight", "other"],
        ["norm.bias"],
    )
    assert reference_keys(nn.Linear(2, 2)) is None
