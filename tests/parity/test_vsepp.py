"""VSE++ on precomputed features against recordings of the released code.

The recorded hinge is a sum over the batch, ours a mean. Its order embeddings are another paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from vlpbench.archs.model import Pass
from vlpbench.archs.objectives import triplet
from vlpbench.archs.objectives.base import Recipe, build
from vlpbench.archs.pretrained import CheckpointError, load, save
from vlpbench.archs.types import Batch, Text
from vlpbench.archs.vsepp import OFFICIAL, Vsepp, VseppConfig

pytestmark = pytest.mark.shared


class Recording:
    """A model with the recorded weights, and its batch."""

    def __init__(self, opened: Any) -> None:
        self.state, self.tensors = opened.state, opened.tensors
        words, joint = self.state["txt_enc.embed.weight"], self.state["img_enc.fc.weight"]
        self.model = Vsepp(
            VseppConfig(
                cnn="features",
                features=joint.shape[1],
                embed_dim=joint.shape[0],
                vocab_size=words.shape[0],
                word_width=words.shape[1],
            )
        )
        load(self.model, self.state, OFFICIAL)
        ids, lengths = self.tensors["in.captions"], self.tensors["in.lengths"]
        text = Text(ids=ids, mask=torch.arange(ids.shape[1]) < lengths[:, None])
        self.batch = Batch(image=self.tensors["in.image_feat"], text=text, sample_id=torch.arange(len(ids)))

    def loss(self, name: str) -> Tensor:
        recipe = Recipe(objectives=(name,))
        return build(name, self.model, recipe)(Pass(self.model, self.batch)) * len(self.batch.image)


@pytest.fixture
def recorded(oracle: Callable[[str], Any]) -> Recording:
    return Recording(oracle("vsepp"))


def test_saved_as_it_was_loaded(recorded: Recording) -> None:
    saved = save(recorded.model, OFFICIAL)
    assert set(saved) == set(recorded.state)
    assert all(torch.equal(saved[key], tensor) for key, tensor in recorded.state.items())
    with pytest.raises(CheckpointError, match=r"missing \['img_enc.fc.bias'\]"):
        load(recorded.model, {k: x for k, x in recorded.state.items() if k != "img_enc.fc.bias"}, OFFICIAL)


def test_embeddings(recorded: Recording, check: Any) -> None:
    view = Pass(recorded.model, recorded.batch)
    check.feature(view.image_embed, recorded.tensors["img_emb"])
    check.feature(view.text_embed, recorded.tensors["cap_emb"])
    check.feature(view.image_embed @ view.text_embed.T, recorded.tensors["cosine.scores"])


@pytest.mark.parametrize(("name", "hardest"), [("triplet", True), ("triplet_sum", False)])
@pytest.mark.parametrize("margin", [0.2, 0.05])
def test_losses(
    recorded: Recording, check: Any, monkeypatch: pytest.MonkeyPatch, name: str, hardest: bool, margin: float
) -> None:
    monkeypatch.setattr(triplet, "MARGIN", margin)
    check.loss(recorded.loss(name), recorded.tensors[f"cosine.loss_margin{margin}_max{hardest}"])


@pytest.mark.parametrize(("name", "hardest"), [("triplet", True), ("triplet_sum", False)])
def test_gradients(recorded: Recording, check: Any, name: str, hardest: bool) -> None:
    recorded.loss(name).backward()
    named = {OFFICIAL.official(key): p for key, p in recorded.model.named_parameters()}
    for key in ("img_enc.fc.weight", "txt_enc.embed.weight", "txt_enc.rnn.weight_hh_l0"):
        gradient = named[key].grad
        assert gradient is not None
        check.feature(gradient, recorded.tensors[f"cosine.max{hardest}.grad.{key}"])
