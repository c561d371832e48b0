"""ALBEF's pre-training against the official implementation's recorded forward passes, gradients and steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.learner import Draws, Learner, decay_groups
from vlpbench.archs.model import Pass
from vlpbench.archs.objectives.itm import draw_negatives
from vlpbench.archs.objectives.mlm import apply_masks
from vlpbench.archs.pretrained import ALBEF_PRETRAIN, CheckpointError, load, save
from vlpbench.archs.types import Text

OBJECTIVES = ("itc", "itm", "mlm")
LOSSES = {"itc": "loss_ita", "itm": "loss_itm", "mlm": "loss_mlm"}
STEP1 = {"step1_alpha0": 0.0, "step1_alpha0.4": 0.4}


class Run:
    """A learner with the recorded weights, and the recorded batches and draws."""

    def __init__(self, oracle: Any, albef: Any) -> None:
        self.oracle, self.albef = oracle, albef
        self.learner: Learner = albef.learner(oracle.meta, OBJECTIVES)
        load(self.learner, oracle.state, ALBEF_PRETRAIN)

    def batch(self, name: str, ids: int) -> Any:
        """Sample ids start at ``ids``: official pre-training takes every row for another image."""
        inputs = self.oracle.step(name)
        rows = torch.arange(ids, ids + len(inputs["image"]))
        return self.albef.batch(inputs, rows)

    def draws(self, step: str, batch: str) -> Draws:
        return self.albef.draws(self.oracle.step(step), self.oracle.step(batch)["attention_mask"].bool())

    def first(self, step: str, alpha: float) -> dict[str, Tensor]:
        return self.learner(self.batch("b1", 0), alpha=alpha, draws=self.draws(step, "b1"))

    def official(self, *, twin: bool = False) -> dict[str, nn.Parameter]:
        """Our parameters by official name: trained ones, or the momentum copies."""
        found = ((ALBEF_PRETRAIN.official(name), p) for name, p in self.learner.named_parameters())
        return {name: p for name, p in found if name is not None and p.requires_grad is not twin}


@pytest.fixture
def run(oracle: Callable[[str], Any], albef: Any) -> Run:
    return Run(oracle("albef_pretrain"), albef)


def test_the_official_layout_is_loaded_whole_and_saved_bit_equal(run: Run) -> None:
    saved = save(run.learner, ALBEF_PRETRAIN)
    assert set(saved) == set(run.oracle.state)
    for name, tensor in run.oracle.state.items():
        assert saved[name].dtype == tensor.dtype
        assert torch.equal(saved[name], tensor), name


def test_a_checkpoint_that_does_not_fit_is_refused_with_its_keys(run: Run) -> None:
    state = dict(run.oracle.state)
    with pytest.raises(CheckpointError, match=r"missing \['temp'\], unexpected \['tmep'\]"):
        load(run.learner, {("tmep" if k == "temp" else k): v for k, v in state.items()}, ALBEF_PRETRAIN)
    untied = state | {"text_encoder.cls.predictions.bias": state["text_encoder.cls.predictions.bias"] + 1}
    with pytest.raises(CheckpointError, match="differ in the checkpoint"):
        load(run.learner, untied, ALBEF_PRETRAIN)


@pytest.mark.parametrize(("step", "alpha"), STEP1.items())
def test_losses_and_gradient_norms(run: Run, check: Any, step: str, alpha: float) -> None:
    recorded = run.oracle.step(step)
    losses = run.first(step, alpha)
    for name, official in LOSSES.items():
        check.loss(losses[name], recorded[official])
    for name, official in (("mlm", "mlm"), ("itc", "ita"), ("itm", "itm")):
        run.learner.zero_grad()
        losses[name].backward(retain_graph=True)
        check.grad_norms(run.official(), run.oracle.grad_norms[f"{step}.{official}"])
    run.learner.zero_grad()
    run.learner.total(losses).backward()
    parameters = run.official()
    check.grad_norms(parameters, run.oracle.grad_norms[f"{step}.total"])
    full = {k.removeprefix("grad_total."): v for k, v in recorded.items() if k.startswith("grad_total.")}
    assert full
    for name, gradient in full.items():
        torch.testing.assert_close(parameters[name].grad, gradient, atol=1e-5, rtol=1e-4)


def _features(view: Pass[Any, Any], suffix: str) -> dict[str, Tensor]:
    text, image = view.text, view.image
    return {
        f"image_embeds{suffix}": image.tokens,
        f"text_embeds{suffix}": text.tokens,
        f"image_feat{suffix}": view.image_embed,
        f"text_feat{suffix}": view.text_embed,
    }


@pytest.mark.parametrize(("step", "alpha"), STEP1.items())
def test_features_logits_and_targets(run: Run, check: Any, step: str, alpha: float) -> None:
    recorded, learner = run.oracle.step(step), run.learner
    draws, batch = run.draws(step, "b1"), run.batch("b1", 0)
    learner.momentum.update(learner.student())
    view = Pass(learner.model, batch, masked=draws.masked, negatives=draws.negatives)
    teacher = learner.teacher(batch, draws.masked)
    itc, itm, mlm = (learner.objectives[name] for name in OBJECTIVES)
    to_text, to_image = itc.logits(view, teacher)
    soft_text, soft_image = itc._compare(teacher.view, teacher)
    hard = torch.eye(view.size, to_text.shape[1])
    weights_i2t, weights_t2i = (x[:, : view.size].softmax(1).fill_diagonal_(0) for x in (to_text, to_image))
    twins = {"image_feat_all": (teacher.view.image_embed, "image"), "text_feat_all": (teacher.view.text_embed, "text")}
    ours = {
        **_features(view, ""),
        **_features(teacher.view, "_m"),
        **{name: torch.cat([own.T, getattr(teacher.queue, kind)], 1) for name, (own, kind) in twins.items()},
        "sim_i2t": to_text,
        "sim_t2i": to_image,
        "sim_i2t_m": soft_text,
        "sim_t2i_m": soft_image,
        "sim_i2t_targets": alpha * soft_text.softmax(1) + (1 - alpha) * hard,
        "sim_t2i_targets": alpha * soft_image.softmax(1) + (1 - alpha) * hard,
        "weights_i2t": weights_i2t,
        "weights_t2i": weights_t2i,
        "vl_embeddings": view.fused_pairs,
        "vl_output": itm.logits(view),
        "mlm_logits": mlm.head(view.fused_masked.text),
        "logits_m": teacher.heads["mlm"](teacher.view.fused_masked.text),
    }
    compared = set(ours) & set(recorded)
    assert {"image_feat", "text_feat", "sim_i2t", "vl_output", "mlm_logits", "image_feat_m"} <= compared
    for name in compared:
        check.feature(ours[name], recorded[name])


@pytest.mark.parametrize("step", STEP1)
def test_momentum_and_queue_after_the_first_step(run: Run, check: Any, step: str, oracles: Any) -> None:
    from safetensors.torch import load_file

    run.first(step, STEP1[step])
    run.learner.after_step()
    moved = load_file(run.oracle.folder / "momentum_after_step1.safetensors")
    ours = save(run.learner, ALBEF_PRETRAIN)
    assert moved
    for name, tensor in moved.items():
        check.moved(ours[name], tensor)
    _check_queue(ours, run.oracle.step(step), check)


def _check_queue(ours: dict[str, Tensor], recorded: dict[str, Tensor], check: Any) -> None:
    check.moved(ours["image_queue"], recorded["image_queue"])
    check.moved(ours["text_queue"], recorded["text_queue"])
    assert torch.equal(ours["queue_ptr"], recorded["queue_ptr"])
    check.moved(ours["temp"], recorded["temp"])


def _second(run: Run, step: str, check: Any) -> None:
    """A second forward on the other batch, and everything recorded of it."""
    recorded, batch, draws = run.oracle.step(step), run.batch("b2", 1000), run.draws(step, "b2")
    losses = run.learner(batch, alpha=0.4, draws=draws)
    for name, official in LOSSES.items():
        check.loss(losses[name], recorded[official])
    # The pass is rebuilt from the same state to see inside it; the queue is still as the loss saw it.
    view = Pass(run.learner.model, batch, masked=draws.masked, negatives=draws.negatives)
    teacher = run.learner.teacher(batch, draws.masked)
    to_text, to_image = run.learner.objectives["itc"].logits(view, teacher)
    check.feature(view.image_embed, recorded["image_feat"])
    check.feature(view.text_embed, recorded["text_feat"])
    check.feature(teacher.view.image_embed, recorded["image_feat_m"])
    check.feature(teacher.view.text_embed, recorded["text_feat_m"])
    check.feature(to_text, recorded["sim_i2t"])
    check.feature(to_image, recorded["sim_t2i"])
    check.feature(run.learner.objectives["itm"].logits(view), recorded["vl_output"])
    check.feature(run.learner.objectives["mlm"].head(view.fused_masked.text), recorded["mlm_logits"])
    run.learner.after_step()
    ours = save(run.learner, ALBEF_PRETRAIN)
    _check_queue(ours, recorded, check)
    momentum = {name: tensor for name, tensor in recorded.items() if "_m." in name}
    assert momentum
    for name, tensor in momentum.items():
        check.moved(ours[name], tensor)


def test_a_second_forward_without_a_step_between(run: Run, check: Any) -> None:
    run.first("step1_alpha0.4", 0.4)
    run.learner.after_step()
    _second(run, "A_step2_no_opt", check)


def test_a_second_forward_after_a_step_of_gradient_descent(run: Run, check: Any) -> None:
    optimizer = torch.optim.SGD([p for p in run.learner.parameters() if p.requires_grad], lr=0.01)
    run.learner.total(run.first("step1_alpha0.4", 0.4)).backward()
    optimizer.step()
    run.learner.after_step()
    stepped = run.oracle.step("B_after_sgd")
    parameters = run.official()
    for name, tensor in stepped.items():
        check.moved(parameters[name], tensor)
    _second(run, "B_step2_sgd", check)


@pytest.mark.parametrize(("step", "temperature"), [("C_temp_hi", 0.8), ("C_temp_lo", 1e-5)])
def test_the_temperature_is_clamped_at_the_start_of_a_step(run: Run, check: Any, step: str, temperature: float) -> None:
    recorded, parameter = run.oracle.step(step), run.learner.objectives["itc"].temperature
    with torch.no_grad():
        parameter.fill_(temperature)
    masked = run.draws("step1_alpha0.4", "b1").masked
    negatives = run.draws(step, "b1").negatives
    losses = run.learner(run.batch("b1", 0), alpha=0.4, draws=Draws(masked=masked, negatives=negatives))
    assert torch.equal(parameter, recorded["temp_after"])
    for name, theirs in zip(("mlm", "itc", "itm"), recorded["losses"], strict=True):
        check.loss(losses[name], theirs)


def test_losses_in_double_precision(run: Run) -> None:
    run.learner.double()
    inputs = run.batch("b1", 0)
    batch = type(inputs)(image=inputs.image.double(), text=inputs.text, sample_id=inputs.sample_id)
    losses = run.learner(batch, alpha=0.4, draws=run.draws("step1_alpha0.4", "b1"))
    for name, theirs in zip(("mlm", "itc", "itm"), run.oracle.tensors["float64_alpha0.4.losses"], strict=True):
        assert losses[name].item() == pytest.approx(theirs.item(), abs=1e-8)


def test_masked_ids_and_labels_from_the_recorded_draws(run: Run) -> None:
    masked = _raw_draws(run, run.batch("b1", 0).text, run.oracle.step("step1_alpha0.4")).masked
    expected = run.draws("step1_alpha0.4", "b1").masked
    assert torch.equal(masked.text.ids, expected.text.ids)
    assert torch.equal(masked.position, expected.position)
    assert torch.equal(masked.label, expected.label)


def test_negatives_are_drawn_as_multinomial_draws_them(run: Run) -> None:
    """With one generator, our race and torch.multinomial choose the same rows from the recorded weights."""
    recorded = run.oracle.step("step1_alpha0.4")
    to_text, to_image = (recorded[f"weights_{way}"].log() for way in ("i2t", "t2i"))
    ours = draw_negatives(torch.arange(len(to_text)), (to_text, to_image), torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    for chosen, way in ((ours.image, "t2i"), (ours.text, "i2t")):
        theirs = torch.multinomial(recorded[f"weights_{way}"], 1, generator=generator).squeeze(1)
        assert torch.equal(chosen, theirs)


def test_two_steps_of_the_official_adamw(oracle: Callable[[str], Any], run: Run, check: Any) -> None:
    adamw = oracle("albef_pretrain_adamw")
    groups = adamw.meta["groups"]
    decay = max(group["weight_decay"] for group in groups)
    ours = decay_groups(run.learner, decay, code="official")
    names = {id(p): name for name, p in run.official().items()}
    for mine, theirs in zip(ours, groups, strict=True):
        assert {names[id(p)] for p in mine["params"]} == set(theirs["names"])
        assert mine["weight_decay"] == theirs["weight_decay"]
    defaults = adamw.meta["defaults"]
    optimizer = torch.optim.AdamW(ours, lr=float(defaults["lr"]), eps=float(defaults["eps"]))
    for name, inputs, ids in (("step1", "b1", 0), ("step2", "b2", 1000)):
        recorded, batch = adamw.step(name), run.batch(inputs, ids)
        optimizer.zero_grad()
        losses = run.learner(batch, alpha=0.4, draws=_raw_draws(run, batch.text, recorded))
        for key, theirs in zip(("mlm", "itc", "itm"), recorded["losses"], strict=True):
            check.loss(losses[key], theirs)
        run.learner.total(losses).backward()
        optimizer.step()
        run.learner.after_step()
        saved = save(run.learner, ALBEF_PRETRAIN)
        for key, tensor in recorded.items():
            if key.startswith("after."):
                check.adam(saved[key.removeprefix("after.")], tensor, lr=float(defaults["lr"]))


def _raw_draws(run: Run, text: Text, recorded: dict[str, Tensor]) -> Draws:
    tokens = run.albef.tokens(run.oracle.meta)
    masked = apply_masks(
        text,
        tokens,
        recorded["draw_masked"].bool() & text.mask & (text.ids != tokens.cls),
        replaced=recorded["draw_replace"].bool(),
        random=recorded["draw_random"].bool(),
        words=recorded["draw_words"],
    )
    return Draws(masked=masked, negatives=run.albef.draws(recorded, text.mask).negatives)


def test_layer_norm_constants_are_visible_at_small_activations(
    oracle: Callable[[str], Any], run: Run, check: Any
) -> None:
    recorded = oracle("albef_ln_eps").tensors
    small = ("patch_embed.proj.", "pos_embed", "cls_token", "_embeddings.weight", "predictions.decoder.weight")
    state = {name: t * 1e-3 if any(part in name for part in small) else t for name, t in run.oracle.state.items()}
    load(run.learner, state, ALBEF_PRETRAIN)
    losses = run.first("step1_alpha0.4", 0.4)
    for name, theirs in zip(("mlm", "itc", "itm"), recorded["losses"], strict=True):
        check.loss(losses[name], theirs)
    draws = run.draws("step1_alpha0.4", "b1")
    view = Pass(run.learner.model, run.batch("b1", 0), masked=draws.masked, negatives=draws.negatives)
    ours = _features(view, "") | {"vl_output": run.learner.objectives["itm"].logits(view)}
    for name, tensor in ours.items():
        check.feature(tensor, recorded[name])


def test_evaluation_leaves_teacher_and_queue_alone(run: Run) -> None:
    """And contrasts within the batch, with the official similarities' own features."""
    before = {name: t.clone() for name, t in run.learner.momentum.state_dict().items()}
    run.learner.eval()
    batch, draws = run.batch("b1", 0), run.draws("step1_alpha0.4", "b1")
    losses = run.learner(batch, draws=draws)
    run.learner.momentum.enqueue()
    for name, tensor in run.learner.momentum.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    recorded = run.oracle.step("step1_alpha0.4")
    logits = recorded["image_feat"] @ recorded["text_feat"].T / run.oracle.state["temp"]
    own = torch.arange(len(logits))
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert losses["itc"].item() == pytest.approx(expected.item(), abs=5e-6)
