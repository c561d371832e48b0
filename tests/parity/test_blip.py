"""BLIP's pre-training and retrieval fine-tuning against recordings of the released code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from vlpbench.archs.blip import Blip
from vlpbench.archs.blip_tasks import PRETRAIN, RETRIEVAL, SMOOTHING
from vlpbench.archs.learner import Draws, Learner, Recipe, SpecialTokens
from vlpbench.archs.model import Pass
from vlpbench.archs.pretrained import CheckpointError, Layout, load, save
from vlpbench.archs.types import Batch, Negatives

pytestmark = pytest.mark.shared
LOSSES = {"step1_alpha0": 0.0, "step1_alpha0.4": 0.4}
ALPHA = 0.4


class Training:
    """A learner that replays the released code, with the recorded weights."""

    def __init__(self, opened: Any, blip: Any, layout: Layout, objectives: tuple[str, ...]) -> None:
        self.opened, self.blip, self.layout = opened, blip, layout
        config = opened.meta["config"]
        recipe = Recipe(
            objectives=objectives,
            momentum="distill",
            queue_size=config["queue_size"],
            momentum_rate=config.get("momentum", 0.995),
            label_smoothing=SMOOTHING,
            code="official",
        )
        model, ids = Blip(blip.config(opened)), opened.meta["tokenizer_ids"]
        assert (model.decoder_token, model.encoder_token) == (ids["bos_DEC"], ids["enc_ENC"])
        names = ("pad", "cls", "sep", "mask")
        tokens = SpecialTokens(**{name: ids[name] for name in names}, vocab_size=model.vocab_size)
        self.learner: Any = Learner(model, recipe, tokens).train()
        load(self.learner, opened.state, layout)

    def batch(self, name: str, ids: Tensor | None = None, first: int = 0) -> Batch:
        """Official pre-training takes every row for another image."""
        step = self.opened.step(name)
        ids = torch.arange(first, first + len(step["image"])) if ids is None else ids
        return Batch(image=step["image"], text=self.blip.text(step), sample_id=ids)

    def draws(self, name: str) -> Draws:
        step = self.opened.step(name)
        return Draws(negatives=Negatives(image=step["neg_image_idx"], text=step["neg_text_idx"]))

    def queue_is(self, check: Any, recorded: Mapping[str, Tensor]) -> None:
        """After a step; and whatever of the momentum model was recorded with it."""
        saved = save(self.learner, self.layout)
        names = [name for name in recorded if name in saved]
        assert {"image_queue", "text_queue"} <= set(names)
        for name in names:
            check.moved(saved[name], recorded[name])


@pytest.fixture
def pretraining(oracle: Callable[[str], Any], blip: Any) -> Training:
    return Training(oracle("blip_pretrain"), blip, PRETRAIN, ("itc", "itm", "lm"))


def test_pretraining_is_loaded_whole_and_saved_bit_equal(pretraining: Training) -> None:
    pretraining.blip.same_saved(pretraining.learner, PRETRAIN, pretraining.opened.state)
    state = dict(pretraining.opened.state)
    tied = "text_decoder.bert.encoder.layer.0.crossattention.self.query.weight"
    with pytest.raises(CheckpointError, match="differ in the checkpoint"):
        load(pretraining.learner, state | {tied: state[tied] + 1}, PRETRAIN)
    del state["temp"]
    with pytest.raises(CheckpointError, match=r"missing \['temp'\]"):
        load(pretraining.learner, state, PRETRAIN)


@pytest.mark.parametrize(("step", "alpha"), LOSSES.items())
def test_pretraining_losses_and_gradients(pretraining: Training, check: Any, step: str, alpha: float) -> None:
    recorded, learner = pretraining.opened.step(step), pretraining.learner
    losses = learner(pretraining.batch("b1"), alpha=alpha, draws=pretraining.draws(step))
    for name, theirs in zip(("itc", "itm", "lm"), recorded["losses"], strict=True):
        check.loss(losses[name], theirs)
    learner.total(losses).backward()
    check.grad_norms(pretraining.blip.named(learner, PRETRAIN), pretraining.opened.grad_norms[step])
    learner.after_step()
    pretraining.queue_is(check, recorded)


def test_a_second_step_of_pretraining(pretraining: Training, check: Any) -> None:
    learner = pretraining.learner
    learner(pretraining.batch("b1"), alpha=ALPHA, draws=pretraining.draws("step1_alpha0.4"))
    learner.after_step()
    batch = pretraining.batch("b2", first=len(pretraining.opened.tensors["b1.image"]))
    recorded = pretraining.opened.step("step2_alpha0.4")
    losses = learner(batch, alpha=ALPHA, draws=pretraining.draws("step2_alpha0.4"))
    for name, theirs in zip(("itc", "itm", "lm"), recorded["losses"], strict=True):
        check.loss(losses[name], theirs)
    learner.after_step()
    pretraining.queue_is(check, recorded)


@pytest.mark.parametrize("step", LOSSES)
def test_pretraining_features_and_logits(pretraining: Training, check: Any, step: str) -> None:
    recorded, learner = pretraining.opened.step(step), pretraining.learner
    learner.momentum.update(learner.student())
    batch = pretraining.batch("b1")
    view = Pass(learner.model, batch, negatives=pretraining.draws(step).negatives)
    teacher = learner.teacher(batch)
    to_text, to_image = learner.objectives["itc"].logits(view, teacher)
    weights = [(x[:, : view.size].softmax(dim=1) + 1e-4).fill_diagonal_(0) for x in (to_text, to_image)]
    logits = learner.model.decode(view.image, view.text)
    seen = batch.text.mask
    for name, ours in {
        "image_feat": view.image_embed,
        "text_feat": view.text_embed,
        "image_feat_m": teacher.view.image_embed,
        "text_feat_m": teacher.view.text_embed,
        "sim_i2t": to_text,
        "weights_i2t": weights[0],
        "weights_t2i": weights[1],
        "vl_output": learner.objectives["itm"].logits(view),
    }.items():
        check.feature(ours, recorded[name])
    check.feature(logits[seen], recorded["decoder_logits"][seen])


@pytest.fixture
def retrieving(oracle: Callable[[str], Any], blip: Any) -> Training:
    return Training(oracle("blip_retrieval"), blip, RETRIEVAL, ("itc", "itm"))


def test_retrieval_layout(retrieving: Training) -> None:
    retrieving.blip.same_saved(retrieving.learner, RETRIEVAL, retrieving.opened.state)


def test_two_steps_of_retrieval_with_a_queue_of_ids(retrieving: Training, check: Any) -> None:
    learner = retrieving.learner
    for step in ("step1", "step2"):
        recorded = retrieving.opened.step(step)
        ids = recorded["in.idx"].flatten()
        batch = retrieving.batch(f"{step}.in", ids)
        view = Pass(learner.model, batch, negatives=retrieving.draws(step).negatives)
        check.feature(view.image_embed, recorded["image_feat"])
        check.feature(view.text_embed, recorded["text_feat"])
        check.feature(learner.objectives["itm"].logits(view), recorded["vl_output"])
        same = (ids[:, None] == torch.cat([ids[None], learner.momentum.queue.ids], dim=1)).float()
        check.feature(same / same.sum(dim=1, keepdim=True), recorded["sim_targets"])
        learner.zero_grad()
        losses = learner(batch, alpha=ALPHA, draws=retrieving.draws(step))
        check.loss(losses["itc"], recorded["loss_ita"])
        check.loss(losses["itm"], recorded["loss_itm"])
        learner.total(losses).backward()
        check.grad_norms(retrieving.blip.named(learner, RETRIEVAL), retrieving.opened.grad_norms[step])
        learner.after_step()
        retrieving.queue_is(check, recorded)
