"""An image side that begins trained: what is handed over, what is left, and which cells can have it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import plan, schedule, vision
from vlpbench.benchmarks.data.labels import LabelledPictures, Labels
from vlpbench.benchmarks.data.scene_table import COLOURS, SHAPES
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.env import capture
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.train import pretrain, pretrain_key
from vlpbench.results.record import Cell

CELL = Cell(
    arch="vilt",
    size="tiny",
    measure="retrieval",
    objectives=("itm", "mlm"),
    batch=16,
    threads=1,
    data="scenes",
    vision_init="labelled",
    vision_steps=40,
    budget=8,
)
SOURCE = open_source("scenes", size="tiny")


def test_labels_are_the_coloured_shapes_that_are_there() -> None:
    assert isinstance(SOURCE, Labels)
    found = SOURCE.labelled("val")
    assert isinstance(found, LabelledPictures)
    scenes = SOURCE.scenes("val")  # pyright: ignore[reportAttributeAccessIssue]
    batch = found.batch(np.arange(20))
    assert batch.image.shape == (20, 3, 32, 32)
    for row in range(20):
        objects = scenes.kind[row][scenes.kind[row] >= 0]
        shown = {f"{COLOURS[kind // 4 % 6]} {SHAPES[kind % 4]}" for kind in objects.tolist()}
        assert {name for name, there in zip(found.names, batch.label[row].tolist(), strict=True) if there} == shown


@pytest.mark.parametrize(
    ("arch", "taken", "left"),
    [
        (
            "vilt",
            {"transformer.blocks.0.attn.qkv.weight", "transformer.cls_token", "transformer.norm.weight"},
            {"text_embeddings.word_embeddings.weight", "pooler.dense.weight"},
        ),
        (
            "albef",
            {"visual_encoder.blocks.0.attn.qkv.weight", "visual_encoder.pos_embed"},
            {"vision_proj.weight", "text_encoder.encoder.layer.0.output.dense.weight"},
        ),
    ],
)
def test_the_image_side_is_taken_and_the_rest_is_as_drawn(arch, taken, left, tmp_path) -> None:
    objectives = ("itm", "mlm") if arch == "vilt" else ("itc", "itm", "mlm")
    cell = CELL.model_copy(update={"arch": arch, "objectives": objectives})
    subject, plain = Subject.build(cell), Subject.build(cell)
    found = vision.begin(subject, SOURCE, cache=tmp_path)
    assert taken <= set(found["copied"])
    assert not left & set(found["copied"])
    drawn = dict(plain.model.named_parameters())
    for name, parameter in subject.model.named_parameters():
        assert torch.equal(parameter, drawn[name]) == (name not in found["copied"]), name
    loss = found["curve"]["loss"]["labels"]
    assert loss[-1] < loss[0]
    assert found["steps"] == 40
    assert found["parameters"] == sum(drawn[name].numel() for name in found["copied"])
    again = Subject.build(cell)
    assert vision.begin(again, SOURCE, cache=tmp_path) == found
    state = subject.model.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in again.model.state_dict().items())


def test_pre_training_goes_on_from_it(tmp_path) -> None:
    random = CELL.model_copy(update={"vision_init": "random", "vision_steps": None})
    begun, plain = (pretrain(Subject.build(cell), SOURCE, cache=tmp_path) for cell in (CELL, random))
    assert begun.key != plain.key
    assert begun.curve.loss != plain.curve.loss
    assert begun.detail()["vision"]["steps"] == 40
    assert "vision" not in plain.detail()


def test_a_teacher_begins_as_its_student(tmp_path) -> None:
    cell = CELL.model_copy(
        update={"arch": "albef", "objectives": ("itc", "mlm"), "momentum": "distill", "momentum_rate": 1.0}
    )
    found = pretrain(Subject.build(cell), SOURCE, cache=tmp_path)
    subject = Subject.build(cell)
    copied = vision.begin(subject, SOURCE, cache=tmp_path)["copied"]
    assert found.learner.momentum is not None
    twin = dict(found.learner.momentum.twin.named_parameters())
    assert all(torch.equal(twin[f"model.{name}"], subject.model.get_parameter(name)) for name in copied)


def test_what_follows_does_not_change_the_beginning() -> None:
    other = CELL.model_copy(update={"objectives": ("mlm",), "noise": 0.5, "budget": 99})
    assert vision._key(other) == vision._key(CELL)
    assert vision._key(CELL.model_copy(update={"vision_steps": 41})) != vision._key(CELL)
    assert pretrain_key(other) != pretrain_key(CELL)


def test_its_steps_are_half_of_the_budget_where_nothing_is_said() -> None:
    assert schedule.vision_steps(CELL) == 40
    assert schedule.vision_steps(CELL.model_copy(update={"vision_steps": None, "budget": 9})) == 4
    assert schedule.vision_steps(CELL.model_copy(update={"vision_init": "random"})) == 0
    assert schedule.seeing(CELL).steps == 40


def test_identities_of_cells_without_it_are_what_they_were() -> None:
    old = Cell(arch="clip", size="tiny", measure="latency", batch=4)
    assert old.id == Cell(**old.model_dump(exclude_defaults=True), vision_init="random").id
    assert "vision_init" not in old.model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({"arch": "uniter"}, "trains what reads pixels, and uniter reads regions"),
        (
            {"arch": "pali", "objectives": ("lm",), "measure": "vqa"},
            "by EMBED or by a method for it, and pali has neither",
        ),
        ({"measure": "train_step"}, "a training before another one, and train_step has none"),
    ],
)
def test_what_cannot_have_it_is_refused_when_planned(update, reason) -> None:
    assert reason in (plan.unsupported(CELL.model_copy(update=update), capture()) or "")
    assert plan.unsupported(CELL, capture()) is None


def test_data_without_labels_is_refused(tmp_path) -> None:
    class Plain:
        name, hash = "photos", "0"

    with pytest.raises(Unsupported, match="photos has no labels"):
        vision.begin(Subject.build(CELL), Plain(), cache=tmp_path)  # pyright: ignore[reportArgumentType]
