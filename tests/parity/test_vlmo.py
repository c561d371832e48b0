"""VLMo against recordings of the released code, both with relative and with absolute positions.

The recorded model holds a VQA head beside the heads of pre-training; `Recording` loads the two apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from vlpbench.archs.learner import Draws, Learner, SpecialTokens
from vlpbench.archs.model import Pass, parameter_count
from vlpbench.archs.registry import build
from vlpbench.archs.types import Batch, Masked, Negatives, Text
from vlpbench.archs.vlmo import Vlmo, VlmoConfig
from vlpbench.archs.vlmo_tasks import PRETRAIN, RECIPE, Answering, load_pretrained, save_pretrained

pytestmark = pytest.mark.shared
HEAD = "vqa_classifier."
SCALES = {"logit_scale": "temperature", "logit_vl_scale": "temperature_vl"}
UNREAD = ("text_embeddings.position_embeddings.weight",)
"""Officially a parameter without a gradient where positions are relative; here a buffer."""
IGNORED = -100


def config_of(meta: Mapping[str, Any], state: Mapping[str, Tensor]) -> VlmoConfig:
    pattern = r"img(\d+) p(\d+) dim(\d+) depth(\d+) heads(\d+) vlffn_start_layer_index=(\d+)"
    found = re.search(pattern, meta["arch"])
    assert found is not None, meta["arch"]
    side, patch, width, depth, heads, start = map(int, found.groups())
    config, relative = meta["config"], "relative_position_bias_table" in state
    return VlmoConfig(
        image_size=(side, side),
        patch=patch,
        text_len=config["max_text_len"],
        vocab_size=config["vocab_size"],
        width=width,
        heads=heads,
        layers=depth,
        vl_layers=depth - start,
        mlp_ratio=len(state["transformer.blocks.0.mlp_text.fc1.bias"]) / width,
        positions="relative" if relative else "absolute",
        text_positions=config["max_text_len_of_initckpt"],
        layer_scale=1.0 if "transformer.blocks.0.gamma_1" in state else None,
        drop_path=config["drop_path_rate"],
    )


class Recording:
    """A learner and a VQA head with the recorded weights, and the recorded tensors."""

    def __init__(self, opened: Any) -> None:
        self.meta, self.state, self.tensors = opened.meta, opened.state, opened.tensors
        self.grad_norms = opened.grad_norms
        config = config_of(self.meta, self.state)
        tokens = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=config.vocab_size)
        self.model = Vlmo(config)
        self.learner = Learner(self.model, RECIPE, tokens).train()
        self.vqa = Answering(self.model, self.meta["config"]["vqav2_label_size"]).train()
        heads = {key: x for key, x in self.state.items() if key.startswith(HEAD)}
        load_pretrained(self.learner, {key: x for key, x in self.state.items() if key not in heads})
        self.vqa.head.load_state_dict({key.removeprefix(HEAD): x for key, x in heads.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def text(self, ids: str = "in.text_ids") -> Text:
        return Text(ids=self[ids], mask=self["in.text_masks"].bool())

    def view(self) -> Pass[Tensor, Any]:
        label = self["in.text_labels_mlm"].flatten()
        position = (label != IGNORED).nonzero().squeeze(1)
        masked = Masked(text=self.text("in.text_ids_mlm"), position=position, label=label[position])
        negatives = Negatives(image=self["itm.neg_image_idx"], text=self["itm.neg_text_idx"])
        image = self["in.image"]
        batch = Batch(image=image, text=self.text(), sample_id=torch.arange(len(image)))
        return Pass(self.model, batch, masked=masked, negatives=negatives)

    def named(self) -> dict[str, torch.nn.Parameter]:
        """Our parameters by official name, those of the VQA head included."""
        found = {PRETRAIN.official(name): p for name, p in self.learner.named_parameters()}
        contrast = self.learner.objectives["itc_vl"]
        found |= {official: contrast.get_parameter(ours) for official, ours in SCALES.items()}
        found |= {HEAD + name: p for name, p in self.vqa.head.named_parameters()}
        return {name: p for name, p in found.items() if name is not None}


@pytest.fixture(params=["vlmo", "vlmo_plus"])
def recorded(request: pytest.FixtureRequest, oracle: Callable[[str], Any]) -> Recording:
    return Recording(oracle(request.param))


def test_saved_as_it_was_loaded(recorded: Recording) -> None:
    saved = save_pretrained(recorded.learner)
    saved |= {HEAD + key: x for key, x in recorded.vqa.head.state_dict().items()}
    assert set(saved) == set(recorded.state)
    for key, tensor in saved.items():
        if key in SCALES:
            torch.testing.assert_close(tensor, recorded.state[key], atol=1e-6, rtol=0)
        else:
            assert torch.equal(tensor, recorded.state[key]), key


def test_a_checkpoint_that_does_not_fit_is_refused(recorded: Recording) -> None:
    state = {key: x for key, x in recorded.state.items() if not key.startswith(HEAD)}
    with pytest.raises(ValueError, match="surprise"):
        load_pretrained(recorded.learner, state | {"surprise": torch.zeros(1)})
    del state["pooler.dense.bias"]
    with pytest.raises(ValueError, match=r"missing \['pooler.dense.bias'\]"):
        load_pretrained(recorded.learner, state)


def test_index_of_relative_positions(oracle: Callable[[str], Any]) -> None:
    opened = oracle("vlmo")
    relative = Vlmo(config_of(opened.meta, opened.state)).relative
    assert relative is not None
    length = opened.meta["config"]["max_text_len"]
    assert torch.equal(relative.index("imag", 0), opened.tensors["const.relative_position_index"])
    assert torch.equal(relative.index("text", length), opened.tensors["const.text_relative_position_index"])
    assert torch.equal(relative.index("vl", length), opened.tensors["const.text_imag_relative_position_index"].long())
    assert relative.rows == len(opened.state["relative_position_bias_table"])


def test_pairs(recorded: Recording, check: Any) -> None:
    model = recorded.model
    image, text = model.encode_image(recorded["in.image"]), model.encode_text(recorded.text())
    fused = model.fuse(image, text)
    check.feature(fused.text, recorded["infer.text_feats"])
    check.feature(fused.pooled, recorded["infer.cls_feats"])
    check.feature(model.fuse_pooled(image, text), recorded["infer.cls_feats"])
    joint = model._joint(image, text)
    check.feature(joint[:, text.x.shape[1] :], recorded["infer.image_feats"])
    check.feature(joint[:, 0], recorded["infer.raw_cls_feats"])


def test_one_modality(recorded: Recording, check: Any) -> None:
    """Through its own experts, and with those for pairs at the top."""
    view, contrast = recorded.view(), recorded.learner.objectives["itc_vl"]
    image_vl, text_vl = contrast._experts(view)  # pyright: ignore[reportCallIssue]
    check.feature(view.image_embed, recorded["infer_image.cls_feats"])
    check.feature(view.text_embed, recorded["infer_text.cls_feats"])
    check.feature(image_vl, recorded["infer_image.cls_vlffn_feats"])
    check.feature(text_vl, recorded["infer_text.cls_vlffn_feats"])
    check.feature(recorded.model.embed_image(view.image), recorded["infer_image.cls_feats"])
    check.feature(recorded.model.embed_text(view.text), recorded["infer_text.cls_feats"])
    check.feature(recorded.model.text_tokens(view.text), recorded["infer_text.text_feats"])


def test_contrast_over_embeddings(recorded: Recording, check: Any) -> None:
    image, text = recorded.learner.objectives["itc_vl"].similarity(recorded.view(), None)  # pyright: ignore
    check.feature(image, recorded["itc.i2t_logits"])
    check.feature(text, recorded["itc.i2t_logits"].T)


def test_logits_of_matching_and_masked_words(recorded: Recording, check: Any) -> None:
    view, objectives = recorded.view(), recorded.learner.objectives
    check.feature(objectives["itm"].logits(view), recorded["itm.logits"])  # pyright: ignore[reportCallIssue]
    fused = view.fused_masked.text
    assert fused is not None
    check.feature(objectives["mlm"].head(fused), recorded["mlm.logits"])  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("name", ["itc_vl", "itm", "mlm"])
def test_losses_and_gradients(recorded: Recording, check: Any, name: str) -> None:
    view = recorded.view()
    draws = Draws(masked=view.masked, negatives=view.negatives)
    loss = recorded.learner(view.batch, draws=draws)[name] * RECIPE.weights[RECIPE.objectives.index(name)]
    official = name.removesuffix("_vl")
    check.loss(loss, recorded[f"{official}.loss"])
    _gradients(recorded, check, loss, official)


def test_question_answering(recorded: Recording, check: Any) -> None:
    logits = recorded.vqa(recorded["in.image"], recorded.text())
    check.feature(logits, recorded["vqa.logits"])
    share = torch.zeros_like(logits)
    for row, (labels, scores) in enumerate(zip(recorded.meta["vqa_labels"], recorded.meta["vqa_scores"], strict=True)):
        share[row, labels] = torch.tensor(scores)
    loss = recorded.vqa.loss(logits, share)
    check.loss(loss, recorded["vqa.loss"])
    _gradients(recorded, check, loss, "vqa")


def _gradients(recorded: Recording, check: Any, loss: Tensor, official: str) -> None:
    loss.backward()
    parameters = recorded.named()
    for scale in SCALES:
        # d loss / d scale = -temperature * d loss / d temperature
        temperature = parameters[scale]
        if temperature.grad is not None:
            temperature.grad.mul_(temperature.detach())
    norms = dict(recorded.grad_norms[official])
    for name in UNREAD:
        if name not in parameters:
            assert norms.pop(name) is None
    check.grad_norms(parameters, norms)


@pytest.mark.parametrize("size", ["base", "base_plus", "large"])
def test_takes_a_checkpoint_of_paper_size(oracles: Path, size: str) -> None:
    file = oracles / "paper_size_keys" / f"vlmo_{size}.json"
    if not file.is_file():
        pytest.skip(f"this set of oracles has no paper_size_keys/{file.name}")
    recorded = json.loads(file.read_text())
    with torch.device("meta"):
        learner = Learner(
            build("vlmo", size), RECIPE, SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30522)
        )
    load_pretrained(learner, {key: torch.empty(shape, device="meta") for key, shape in recorded["keys"].items()})
    assert {key: list(x.shape) for key, x in save_pretrained(learner).items()} == recorded["keys"]
    unread = 40 * recorded["keys"]["transformer.cls_token"][-1] if size != "base_plus" else 0
    assert parameter_count(learner) == recorded["n_params"] - unread
