"""ALBEF's fine-tuning models against the official implementation's recorded losses, predictions and rankings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from vlpbench.archs.albef import Albef
from vlpbench.archs.albef_tasks import (
    Answered,
    Answering,
    Assignment,
    Classifying,
    Labelled,
    PairClassifying,
    TaskLearner,
    TextAssignment,
    draw_assignment,
    pair_model,
    rank_answers,
)
from vlpbench.archs.model import Pass, take
from vlpbench.archs.objectives.itm import draw_negatives
from vlpbench.archs.pretrained import (
    ALBEF_NLVR,
    ALBEF_PRETRAIN_NLVR,
    ALBEF_RETRIEVAL,
    ALBEF_VE,
    ALBEF_VQA,
    Layout,
    load,
    save,
)
from vlpbench.archs.types import Text

Open = Callable[[str], Any]
ALPHAS = {"alpha0": 0.0, "alpha0.4": 0.4}


def official(module: nn.Module, layout: Layout) -> dict[str, nn.Parameter]:
    """Trained parameters by official name."""
    found = ((layout.official(name), p) for name, p in module.named_parameters() if p.requires_grad)
    return {name: p for name, p in found if name is not None}


def saved_bit_equal(module: nn.Module, layout: Layout, state: dict[str, torch.Tensor]) -> None:
    ours = save(module, layout)
    assert set(ours) == set(state)
    assert all(torch.equal(ours[name], tensor) for name, tensor in state.items())


def pairs_of(config: Any) -> Any:
    """The meta.json counts both copies of a fusion layer."""
    return replace(config, fusion_layers=config.fusion_layers // 2)


def network(name: str, oracle: Any, albef: Any) -> tuple[nn.Module, Layout]:
    config = albef.config(oracle.meta)
    classes = oracle.meta["config"]["classes"]
    if name == "albef_ve":
        return Classifying(Albef(config), classes), ALBEF_VE
    return PairClassifying(pair_model(pairs_of(config)), classes), ALBEF_NLVR


@pytest.mark.parametrize("name", ["albef_ve", "albef_nlvr"])
class TestClassification:
    """Entailment, and reasoning over two images."""

    @pytest.fixture
    def inputs(self, name: str, oracle: Open, albef: Any) -> Labelled:
        recorded = oracle(name).step("in")
        return Labelled(image=recorded["image"], text=albef.text(recorded), target=recorded["targets"])

    @pytest.mark.parametrize(("step", "alpha"), ALPHAS.items())
    def test_loss_prediction_and_gradients(
        self, name: str, oracle: Open, albef: Any, check: Any, inputs: Labelled, step: str, alpha: float
    ) -> None:
        opened = oracle(name)
        part, layout = network(name, opened, albef)
        learner = TaskLearner(part, code="official").train()
        load(learner, opened.state, layout)
        saved_bit_equal(learner, layout, opened.state)
        recorded = opened.step(step)
        loss = learner(inputs, alpha)
        check.loss(loss, recorded["loss"])
        check.feature(part(inputs), recorded["prediction"])
        check.feature(learner.momentum.twin(inputs), recorded["prediction_m"])
        loss.backward()
        check.grad_norms(official(learner, layout), opened.grad_norms[step])

    def test_evaluation_and_training_without_a_teacher(
        self, name: str, oracle: Open, albef: Any, check: Any, inputs: Labelled
    ) -> None:
        opened = oracle(name)
        part, layout = network(name, opened, albef)
        learner = TaskLearner(part, distill=False).train()
        load(learner, {k: v for k, v in opened.state.items() if "_m." not in k}, layout)
        recorded = opened.tensors
        if "nodistill.loss" in recorded:
            check.loss(learner(inputs), recorded["nodistill.loss"])
        check.feature(part.eval()(inputs), recorded["eval.prediction"])


class TestAnswering:
    """VQA: training of the answer decoder, and ranking of a closed list of answers."""

    @pytest.fixture
    def opened(self, oracle: Open) -> Any:
        return oracle("albef_vqa")

    @pytest.fixture
    def answering(self, opened: Any, albef: Any) -> Answering:
        config = albef.config(opened.meta)
        decoder = opened.meta["config"]["decoder"]
        assert decoder["fusion_layer"] == 0
        return Answering(Albef(config), config, layers=decoder["num_hidden_layers"])

    @pytest.fixture
    def inputs(self, opened: Any) -> Answered:
        given = opened.step("in")
        return Answered(
            image=given["image"],
            question=Text(ids=given["question_ids"], mask=given["question_mask"].bool()),
            answer=Text(ids=given["answer_ids"], mask=given["answer_mask"].bool()),
            owner=torch.arange(len(given["k"])).repeat_interleave(given["k"]),
            weight=given["weights"],
        )

    @pytest.mark.parametrize(("step", "alpha"), {f"train_distill_{k}": v for k, v in ALPHAS.items()}.items())
    def test_loss_logits_and_gradients(
        self, opened: Any, answering: Answering, inputs: Answered, check: Any, step: str, alpha: float
    ) -> None:
        rate = opened.meta["config"]["momentum"]
        learner = TaskLearner(answering, rate=rate, code="official").train()
        load(learner, opened.state, ALBEF_VQA)
        saved_bit_equal(learner, ALBEF_VQA, opened.state)
        recorded = opened.step(step)
        loss = learner(inputs, alpha)
        check.loss(loss, recorded["loss"])
        check.feature(answering(inputs), recorded["logits"][:, :-1])
        if "logits_m" in recorded:
            check.feature(learner.momentum.twin(inputs), recorded["logits_m"])
            check.feature(answering.states(inputs.image, inputs.question), recorded["question_states"])
        momentum = save(learner, ALBEF_VQA)
        for name, tensor in recorded.items():
            if name.startswith("m."):
                check.moved(momentum[name.removeprefix("m.")], tensor)
        loss.backward()
        parameters = official(learner, ALBEF_VQA)
        check.grad_norms(parameters, opened.grad_norms[step])
        for name, tensor in recorded.items():
            if name.startswith("grad."):
                gradient = parameters[name.removeprefix("grad.")].grad
                torch.testing.assert_close(gradient, tensor, atol=1e-5, rtol=1e-4)

    def test_without_a_teacher(self, opened: Any, answering: Answering, inputs: Answered, check: Any) -> None:
        learner = TaskLearner(answering, distill=False).train()
        load(learner, {k: v for k, v in opened.state.items() if "_m." not in k}, ALBEF_VQA)
        loss = learner(inputs)
        check.loss(loss, opened.tensors["train_nodistill.loss"])
        loss.backward()
        check.grad_norms(official(learner, ALBEF_VQA), opened.grad_norms["train_nodistill"])

    def test_ranking(self, opened: Any, answering: Answering, inputs: Answered, check: Any) -> None:
        learner = TaskLearner(answering, distill=False).eval()
        load(learner, {k: v for k, v in opened.state.items() if "_m." not in k}, ALBEF_VQA)
        given = opened.step("in")
        answers = Text(ids=given["answer_list_ids"], mask=given["answer_list_mask"].bool())
        ranks = {name.partition(".")[0] for name in opened.tensors if name.startswith("rank_k")}
        assert ranks
        for name in ranks:
            recorded, k = opened.step(name), int(name.removeprefix("rank_k"))
            rows, probability = rank_answers(answering, inputs.image, inputs.question, answers, k=k, code="official")
            assert torch.equal(rows, recorded["topk_ids"])
            check.feature(probability, recorded["topk_probs"])
            if "answer_loss" in recorded:
                self._clean(answering, inputs, answers, recorded)

    def _clean(self, answering: Answering, inputs: Answered, answers: Text, recorded: Any) -> None:
        """Without the second count of the first token, the score is the likelihood of the tokens."""
        first = recorded["prob_first_token"]
        size, k = first.shape
        order = first.topk(k, dim=1).indices
        score = -recorded["answer_loss"].view(size, k)
        assert torch.allclose(recorded["log_probs_sum"] - score, first.log().gather(1, order), atol=1e-5)
        rows, probability = rank_answers(answering, inputs.image, inputs.question, answers, k=k)
        expected = torch.zeros(size, k).scatter(1, order, score.softmax(1))
        torch.testing.assert_close(expected.gather(1, rows), probability, atol=1e-5, rtol=0)
        assert (probability.diff(dim=1) <= 0).all()

    def test_more_candidates_than_answers(self, answering: Answering, inputs: Answered) -> None:
        with pytest.raises(ValueError, match="cannot rank 9 of 6 answers"):
            rank_answers(answering, inputs.image, inputs.question, inputs.answer, k=9)


class TestRetrieval:
    """Fine-tuning with sample ids, and re-ranking by the matching head."""

    @pytest.fixture
    def opened(self, oracle: Open) -> Any:
        return oracle("albef_retrieval")

    def learner(self, opened: Any, albef: Any, momentum: str = "distill") -> Any:
        learner = albef.learner(opened.meta, ("itc", "itm"), momentum=momentum)
        load(learner, opened.state, ALBEF_RETRIEVAL)
        return learner

    def batch(self, opened: Any, albef: Any, name: str) -> Any:
        inputs = opened.step(name)
        return albef.batch(inputs, inputs["idx"])

    def step(self, learner: Any, batch: Any, recorded: Any, albef: Any, check: Any, alpha: float) -> Any:
        draws = albef.draws(recorded, batch.text.mask)
        losses = learner(batch, alpha=alpha, draws=draws)
        check.loss(losses["itc"], recorded["loss_ita"])
        check.loss(losses["itm"], recorded["loss_itm"])
        view, teacher = Pass(learner.model, batch, negatives=draws.negatives), learner.teacher(batch)
        itc = learner.objectives["itc"]
        to_text, to_image = itc.logits(view, teacher)
        check.feature(view.image_embed, recorded["image_feat"])
        check.feature(view.text_embed, recorded["text_feat"])
        check.feature(teacher.view.image_embed, recorded["image_feat_m"])
        check.feature(teacher.view.text_embed, recorded["text_feat_m"])
        check.feature(to_text, recorded["sim_i2t"])
        check.feature(itc._positive(view, teacher), recorded["sim_targets"])
        check.feature(learner.objectives["itm"].logits(view), recorded["vl_output"])
        same = batch.sample_id[:, None] == batch.sample_id
        for logits, way in ((to_text, "weights_i2t"), (to_image, "weights_t2i")):
            # The official 1e-4 inside the softmax moves no weight.
            check.feature(logits[:, : view.size].softmax(1).masked_fill(same, 0), recorded[way])
        return losses

    def queue(self, learner: Any, recorded: Any, check: Any) -> None:
        ours = save(learner, ALBEF_RETRIEVAL)
        check.moved(ours["image_queue"], recorded["image_queue"])
        check.moved(ours["text_queue"], recorded["text_queue"])
        assert torch.equal(ours["idx_queue"], recorded["idx_queue"])
        assert torch.equal(ours["queue_ptr"], recorded["queue_ptr"])

    def test_layout(self, opened: Any, albef: Any) -> None:
        saved_bit_equal(self.learner(opened, albef), ALBEF_RETRIEVAL, opened.state)

    @pytest.mark.parametrize(("step", "alpha"), ALPHAS.items())
    def test_first_step(self, opened: Any, albef: Any, check: Any, step: str, alpha: float) -> None:
        learner, recorded = self.learner(opened, albef), opened.step(f"step1_distill_{step}")
        losses = self.step(learner, self.batch(opened, albef, "b1"), recorded, albef, check, alpha)
        learner.total(losses).backward()
        check.grad_norms(official(learner, ALBEF_RETRIEVAL), opened.grad_norms[f"step1_distill_{step}"])
        learner.after_step()
        self.queue(learner, recorded, check)

    def test_second_step_finds_earlier_captions_of_its_images(self, opened: Any, albef: Any, check: Any) -> None:
        learner = self.learner(opened, albef)
        draws = albef.draws(opened.step("step1_distill_alpha0.4"), opened.step("b1")["attention_mask"].bool())
        learner(self.batch(opened, albef, "b1"), alpha=0.4, draws=draws)
        learner.after_step()
        batch, recorded = self.batch(opened, albef, "b2"), opened.step("step2_distill_alpha0.4")
        self.step(learner, batch, recorded, albef, check, 0.4)
        learner.after_step()
        self.queue(learner, recorded, check)

    def test_without_distillation(self, opened: Any, albef: Any, check: Any) -> None:
        """Official ``distill: False`` still contrasts against the teacher's queue."""
        learner, recorded = self.learner(opened, albef, momentum="queue"), opened.step("step1_nodistill")
        drawn = opened.step("step1_distill_alpha0") | recorded
        batch = self.batch(opened, albef, "b1")
        losses = learner(batch, draws=albef.draws(drawn, batch.text.mask))
        check.loss(losses["itc"], recorded["loss_ita"])
        check.loss(losses["itm"], recorded["loss_itm"])

    def test_negatives_never_share_the_sample_id(self, opened: Any) -> None:
        ids = opened.step("b1")["idx"]
        generator = torch.Generator().manual_seed(0)
        for _ in range(50):
            drawn = draw_negatives(ids, generator=generator)
            assert not (ids[drawn.image] == ids).any()
            assert not (ids[drawn.text] == ids).any()

    def test_reranking_scores(self, opened: Any, albef: Any, check: Any) -> None:
        learner = self.learner(opened, albef).eval()
        model, given = learner.model, opened.step("eval")
        with torch.no_grad():
            image = model.encode_image(given["images"])
            text = model.encode_text(albef.text(given))
            cosine = model.embed_image(image) @ model.embed_text(text).T
            prepared = model.prepare_image(image)
            for name in {key.split(".")[0] for key in given if key.startswith("k")}:
                k = int(name.removeprefix("k"))
                for way, rows in (("i2t", cosine), ("t2i", cosine.T)):
                    best = rows.topk(k, dim=1).indices
                    one = torch.arange(len(rows)).repeat_interleave(k)
                    images, texts = (one, best.flatten()) if way == "i2t" else (best.flatten(), one)
                    score = learner.match_logits(model.fuse_pooled(take(prepared, images), take(text, texts)))
                    ours = torch.full(rows.shape, -100.0).scatter(1, best, score.view(-1, k))
                    check.feature(ours, given[f"{name}.scores_{way}"])


class TestTextAssignment:
    """Pre-training for NLVR2."""

    @pytest.fixture
    def opened(self, oracle: Open) -> Any:
        return oracle("albef_nlvr_pretrain_ta")

    def test_loss_and_prediction(self, opened: Any, albef: Any, check: Any) -> None:
        config = albef.config(opened.meta, embed_dim=len(opened.state["vision_proj.bias"]))
        network = TextAssignment(pair_model(pairs_of(config))).train()
        load(network, opened.state, ALBEF_PRETRAIN_NLVR)
        saved_bit_equal(network, ALBEF_PRETRAIN_NLVR, opened.state)
        given, local = opened.step("in"), opened.step("local")
        tokens = network.model.visual_encoder.forward_features(given["image"])
        similarity = network.similarity(tokens)
        check.feature(tokens, local["image_embeds"])
        check.feature(similarity, local["sim"])
        drawn = self._recorded(opened.meta["rng_calls"], local["labels"])
        check.feature(network(tokens, albef.text(given), drawn), local["pred"])
        check.loss(network.loss(given["image"], albef.text(given), drawn), opened.tensors["loss"])

    @staticmethod
    def _recorded(calls: list[Any], label: torch.Tensor) -> Assignment:
        pairs = []
        for row, (call, kind) in enumerate(zip(calls, label.tolist(), strict=True)):
            others = call[2]
            pairs.append([(row, others[0]), (others[0], row), tuple(others)][kind])
        left, right = torch.tensor(pairs).unbind(dim=1)
        return Assignment(left=left, right=right, label=label)

    def test_draws_show_the_own_image_where_the_label_says(self) -> None:
        similarity, own = torch.zeros(5, 5), torch.arange(5)
        labels = torch.zeros(3)
        for seed in range(200):
            drawn = draw_assignment(similarity, torch.Generator().manual_seed(seed))
            assert torch.equal(drawn.left == own, drawn.label == 0)
            assert torch.equal(drawn.right == own, drawn.label == 1)
            assert (drawn.left != drawn.right).all()
            labels += torch.bincount(drawn.label, minlength=3)
        assert (labels / 1000 - 1 / 3).abs().max() < 0.05
        with pytest.raises(ValueError, match="at least 3 images"):
            draw_assignment(torch.zeros(2, 2))
