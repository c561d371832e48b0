"""BLIP's tasks and paper-size layouts against recordings of the released code: matching, VQA, NLVR2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from vlpbench.archs.albef_tasks import Answered, Labelled
from vlpbench.archs.blip import Blip
from vlpbench.archs.blip_config import BlipConfig
from vlpbench.archs.blip_tasks import (
    CAPTIONING,
    MATCHING,
    NLVR,
    PRETRAIN,
    RETRIEVAL,
    SMOOTHING,
    VQA,
    Answering,
    Captioning,
    Matching,
    PairClassifying,
)
from vlpbench.archs.generate import Writing, generate, rank
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.objectives.lm import text_loss
from vlpbench.archs.pretrained import Layout, load, save

pytestmark = pytest.mark.shared


def test_matching(oracle: Callable[[str], Any], blip: Any, check: Any) -> None:
    opened = oracle("blip_itm")
    matching = Matching(Blip(blip.config(opened)), code="official").eval()
    load(matching, opened.state, MATCHING)
    blip.same_saved(matching, MATCHING, opened.state)
    inputs = opened.step("in")
    logits, cosines = matching(inputs["image"], blip.text(inputs))
    check.feature(logits, opened.tensors["itm_logits"])
    check.feature(cosines, opened.tensors["itc_sim"])
    matching.lead = True
    assert (matching(inputs["image"], blip.text(inputs))[0] - logits).abs().max() > 1e-3


@pytest.fixture
def answering(oracle: Callable[[str], Any], blip: Any) -> tuple[Answering, Any]:
    opened = oracle("blip_vqa")
    config = blip.config(opened)
    module = Answering(Blip(config), config).train()
    load(module, opened.state, VQA)
    return module, opened


def test_question_answering(answering: tuple[Answering, Any], blip: Any, check: Any) -> None:
    module, opened = answering
    blip.same_saved(module, VQA, opened.state)
    inputs, recorded = opened.step("in"), opened.step("train")
    counts = inputs["n"]
    batch = Answered(
        image=inputs["image"],
        question=blip.text(inputs, "question_ids", "question_mask"),
        answer=blip.text(inputs, "answer_ids", "answer_mask"),
        owner=torch.arange(len(counts)).repeat_interleave(counts),
        weight=inputs["weights"],
    )
    seen = batch.question.mask
    check.feature(module.states(batch.image, batch.question)[seen], recorded["question_states"][seen])
    logits = module(batch)
    seen = batch.answer.mask[:, :-1]
    check.feature(logits[seen], recorded["logits"][:, : logits.shape[1]][seen])
    check.loss(text_loss(logits, batch.answer, SMOOTHING), recorded["per_answer_loss"])
    loss = module.loss(logits, batch)
    check.loss(loss, recorded["loss"])
    loss.backward()
    check.grad_norms(blip.named(module, VQA), opened.grad_norms["train"])


def test_answers_are_ranked_and_written(answering: tuple[Answering, Any], blip: Any) -> None:
    module, opened = answering
    module.eval()
    inputs, ids = opened.step("in"), opened.meta["tokenizer_ids"]
    image, question = inputs["image"], blip.text(inputs, "question_ids", "question_mask")
    answers = blip.text(inputs, "answer_list_ids_bos", "answer_list_mask")
    ranked = [name for name in opened.tensors if name.startswith("rank_k")]
    assert ranked
    for name in ranked:
        k = int(name.removeprefix("rank_k").removesuffix(".max_ids"))
        source = module.source(image, question)
        order, score = rank(module, source, answers, size=len(image), k=k, smoothing=SMOOTHING)
        assert torch.equal(order[:, 0], opened.tensors[name])
        assert (score.diff(dim=1) <= 0).all()
    how = Writing(end=ids["sep"], pad=ids["pad"], max_len=10, beams=3)
    start = torch.full((len(image), 1), ids["bos_DEC"])
    written = generate(module, module.source(image, question, padding=True), start, how)
    found = [row[kept].tolist() for row, kept in zip(written.text.ids, written.text.mask, strict=True)]
    theirs = [[token for token in row if token != ids["pad"]] for row in opened.meta["generate"]]
    assert found == theirs


def test_two_images(oracle: Callable[[str], Any], blip: Any, check: Any) -> None:
    opened = oracle("blip_nlvr")
    module = PairClassifying(blip.config(opened)).train()
    load(module, opened.state, NLVR)
    blip.same_saved(module, NLVR, opened.state)
    inputs = opened.step("in")
    batch = Labelled(image=inputs["image"], text=blip.text(inputs), target=inputs["targets"])
    logits = module(batch)
    check.feature(logits, opened.tensors["prediction"])
    check.loss(module.loss(logits, batch), opened.tensors["loss"])


BERT = SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30522)


def _learner(config: BlipConfig, objectives: str, queue: int) -> Learner:
    recipe = Recipe(objectives=tuple(objectives.split()), momentum="distill", queue_size=queue)
    return Learner(Blip(config), recipe, BERT)


@pytest.mark.parametrize(
    ("name", "layout", "built"),
    [
        ("pretrain", PRETRAIN, lambda config, queue: _learner(config, "itc itm lm", queue)),
        ("retrieval", RETRIEVAL, lambda config, queue: _learner(config, "itc itm", queue)),
        ("itm", MATCHING, lambda config, _: Matching(Blip(config))),
        ("decoder", CAPTIONING, lambda config, _: Captioning(config)),
        ("vqa", VQA, lambda config, _: Answering(Blip(config), config)),
        ("nlvr", NLVR, lambda config, _: PairClassifying(config)),
    ],
)
def test_takes_a_checkpoint_of_paper_size(oracles: Path, blip: Any, name: str, layout: Layout, built: Any) -> None:
    file = oracles / "paper_size_keys" / f"blip_{name}_base.json"
    if not file.is_file():
        pytest.skip(f"this set of oracles has no paper_size_keys/{file.name}")
    recorded = json.loads(file.read_text())
    keys = recorded["keys"]
    side = round((keys["visual_encoder.pos_embed"][1] - 1) ** 0.5) * 16
    with torch.device("meta"):
        module = built(BlipConfig(image_size=(side, side)), keys.get("image_queue", [0, 0])[1])
    load(module, {key: torch.empty(shape, device="meta") for key, shape in keys.items()}, layout)
    assert {key: list(x.shape) for key, x in save(module, layout).items()} == keys
    assert sum(p.numel() for p in blip.named(module, layout).values()) == recorded["n_trainable"]
    stored = [p.numel() for own, p in module.named_parameters() if layout.official(own)]
    assert sum(stored) == recorded["n_params"]
