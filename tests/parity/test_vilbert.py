"""ViLBERT against recordings of the released code: pre-training with both targets for regions, and all task heads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from vlpbench.archs import vilbert_tasks as tasks
from vlpbench.archs.model import parameter_count
from vlpbench.archs.pretrained import CheckpointError, Layout, load, save
from vlpbench.archs.regions import Regions
from vlpbench.archs.types import Masked, Text
from vlpbench.archs.vilbert import Stream, Vilbert, build
from vlpbench.archs.vilbert_streams import VilbertConfig, whole_image

pytestmark = pytest.mark.shared
IGNORED = -1
VISUAL: tuple[Literal["kl", "mse"], ...] = ("kl", "mse")


def config_of(opened: Any) -> VilbertConfig:
    config = opened.meta["config"]
    assert (config["hidden_act"], config["v_hidden_act"]) == ("gelu", "gelu")
    assert config["pooling_method"] == "mul"
    assert config["bi_attention_type"] == 1
    return VilbertConfig(
        regions=opened.tensors["in.image_feat"].shape[1] - 1,
        features=config["v_feature_size"],
        text_len=opened.tensors["in.input_ids"].shape[1],
        positions=config["max_position_embeddings"],
        vocab_size=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        image_width=config["v_hidden_size"],
        image_layers=config["v_num_hidden_layers"],
        image_heads=config["v_num_attention_heads"],
        image_hidden=config["v_intermediate_size"],
        pair_width=config["bi_hidden_size"],
        pair_heads=config["bi_num_attention_heads"],
        text_connects=tuple(config["t_biattention_id"]),
        image_connects=tuple(config["v_biattention_id"]),
        dropout=config["hidden_dropout_prob"],
    )


class Recording:
    """A module with the recorded weights, and what it was given."""

    def __init__(self, opened: Any, make: Callable[[Vilbert], Any], layout: Layout) -> None:
        self.opened, self.tensors, self.layout = opened, opened.tensors, layout
        assert not self.tensors["in.token_type_ids"].any()
        self.model = Vilbert(config_of(opened))
        self.module = make(self.model)
        load(self.module, opened.state, layout)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def text(self) -> Text:
        return Text(ids=self["in.input_ids"], mask=self["in.attention_mask"].bool())

    def image(self) -> Stream:
        mask = self["in.image_attention_mask"].bool()
        return self.model.embed_regions(Regions(features=self["in.image_feat"], place=self["in.image_loc"], mask=mask))

    def same_saved(self) -> None:
        saved = save(self.module, self.layout)
        assert set(saved) == set(self.opened.state)
        for name, tensor in self.opened.state.items():
            assert torch.equal(saved[name], tensor), name


@pytest.fixture(params=["vilbert_pretrain", "vilbert_pretrain_mse"])
def pretraining(request: pytest.FixtureRequest, oracle: Callable[[str], Any]) -> Recording:
    opened = oracle(request.param)
    targets = len(opened.state["cls.imagePredictions.decoder.bias"])
    visual = VISUAL[opened.meta["config"]["visual_target"]]
    return Recording(opened, lambda m: tasks.Pretraining(m, targets, visual=visual).train(), tasks.PRETRAIN)


def test_both_streams(pretraining: Recording, check: Any) -> None:
    model, image, text = pretraining.model, pretraining.image(), pretraining.model.encode_text(pretraining.text())
    joined = model.join(image, text)
    words, places = text.mask, image.mask
    check.feature(joined.text[words], pretraining["sequence_output_t"][words])
    check.feature(joined.image[places], pretraining["sequence_output_v"][places])
    check.feature(joined.pooled, pretraining["pooled_output_t"] * pretraining["pooled_output_v"])
    check.feature(model.fuse_pooled(image, text), joined.pooled)
    found = pretraining.module(image, text)
    check.feature(found[0][words], pretraining["prediction_scores_t"][words])
    check.feature(found[1][places], pretraining["prediction_scores_v"][places])
    check.feature(found[2], pretraining["seq_relationship_score"])
    pretraining.same_saved()


def test_losses_and_gradients(pretraining: Recording, check: Any) -> None:
    label = pretraining["in.masked_lm_labels"].flatten()
    position = (label != IGNORED).nonzero().squeeze(1)
    targets = tasks.Targets(
        masked=Masked(text=pretraining.text(), position=position, label=label[position]),
        region=pretraining["in.image_label"] == 1,
        region_target=pretraining["in.image_target"],
        mismatch=pretraining["in.next_sentence_label"],
    )
    losses = torch.stack(pretraining.module.losses(pretraining.image(), targets))
    check.loss(losses, pretraining["losses"])
    losses.sum().backward()
    named = {pretraining.layout.official(key): p for key, p in pretraining.module.named_parameters()}
    norms = pretraining.opened.grad_norms["total"]
    check.grad_norms({key: p for key, p in named.items() if key is not None}, norms)


def test_all_heads(oracle: Callable[[str], Any], check: Any) -> None:
    opened = oracle("vilbert_vltasks")
    sizes = {
        "targets": len(opened.state["cls.imagePredictions.decoder.bias"]),
        "vqa": len(opened.state["vil_prediction.logit_fc.3.bias"]),
        "gqa": len(opened.state["vil_prediction_gqa.logit_fc.3.bias"]),
    }
    recording = Recording(opened, lambda m: tasks.MultiTask(m, **sizes).eval(), tasks.TASKS)
    recording.same_saved()
    image, text = recording.image(), recording.model.encode_text(recording.text())
    found = recording.module(image, text)
    for name, official in (
        ("vqa", "vil_prediction"),
        ("gqa", "vil_prediction_gqa"),
        ("retrieval", "vil_logit"),
        ("pair", "vil_binary_prediction"),
        ("entailment", "vil_tri_prediction"),
    ):
        check.feature(getattr(found, name), recording[official])
    for name, official, mask in (
        ("regions", "vision_prediction", image.mask),
        ("grounding", "vision_logit", image.mask),
        ("words", "linguisic_prediction", text.mask),
        ("word", "linguisic_logit", text.mask),
    ):
        check.feature(getattr(found, name)[mask], recording[official][mask])
    assert (found.grounding[~image.mask] < -9000).all()


def test_a_checkpoint_that_does_not_fit_is_refused(pretraining: Recording) -> None:
    state = dict(pretraining.opened.state)
    with pytest.raises(CheckpointError, match="surprise"):
        load(pretraining.module, state | {"surprise": torch.zeros(1)}, tasks.PRETRAIN)
    del state["bert.t_pooler.dense.bias"]
    with pytest.raises(CheckpointError, match=r"missing \['bert.t_pooler.dense.bias'\]"):
        load(pretraining.module, state, tasks.PRETRAIN)


def test_the_whole_image_is_the_mean_of_its_regions() -> None:
    features = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [0.0], [0.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    found, place, seen = whole_image(features, torch.zeros(2, 3, 5), mask)
    assert found[:, 0].tolist() == [[2.0], [0.0]]
    assert place[:, 0].tolist() == [[0.0, 0.0, 1.0, 1.0, 1.0]] * 2
    assert seen.tolist() == [[True, True, True, False], [True, False, False, False]]


@pytest.mark.parametrize("task", ["pretrain", "vltasks"])
def test_takes_a_checkpoint_of_paper_size(oracles: Path, task: str) -> None:
    file = oracles / "paper_size_keys" / f"vilbert_6_6_{task}.json"
    if not file.is_file():
        pytest.skip(f"this set of oracles has no paper_size_keys/{file.name}")
    recorded = json.loads(file.read_text())
    with torch.device("meta"):
        model = build("base", {})
        module = tasks.Pretraining(model) if task == "pretrain" else tasks.MultiTask(model)
    layout = tasks.PRETRAIN if task == "pretrain" else tasks.TASKS
    load(module, {key: torch.empty(shape, device="meta") for key, shape in recorded["keys"].items()}, layout)
    assert {key: list(x.shape) for key, x in save(module, layout).items()} == recorded["keys"]
    assert parameter_count(module) == recorded["n_params"]
