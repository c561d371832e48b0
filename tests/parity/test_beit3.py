"""BEiT-3 against recordings of the released code: strict loading, features, logits, the retrieval loss, gradients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from vlpbench.archs.beit3 import Beit3, Beit3Config
from vlpbench.archs.beit3_tasks import (
    CAPTIONING,
    IMAGE_CLASSIFICATION,
    NLVR2,
    RETRIEVAL,
    VQA,
    Answering,
    Captioning,
    ImageClassifying,
    PairClassifying,
    load_retrieval,
    save_retrieval,
)
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.model import Pass
from vlpbench.archs.pretrained import Layout, load, save
from vlpbench.archs.registry import build
from vlpbench.archs.types import Batch, Masked, Text

pytestmark = pytest.mark.shared
TOKENS = SpecialTokens(pad=1, cls=0, sep=2, mask=3, vocab_size=200)
Open = Callable[[str], Any]


def model_of(opened: Any) -> Beit3:
    config, length = opened.meta["config"], opened.tensors["in.text_ids"].shape[1]
    assert config["multiway"]
    assert config["subln"]
    assert config["encoder_normalize_before"]
    assert (config["layernorm_eps"], config["activation_fn"], config["dropout"]) == (1e-5, "gelu", 0.0)
    return Beit3(
        Beit3Config(
            image_size=(config["img_size"], config["img_size"]),
            patch=config["patch_size"],
            text_len=length,
            vocab_size=config["vocab_size"],
            width=config["encoder_embed_dim"],
            heads=config["encoder_attention_heads"],
            layers=config["encoder_layers"],
            hidden=config["encoder_ffn_embed_dim"],
            text_positions=config["max_source_positions"],
            drop_path=config["drop_path_rate"],
        )
    ).train()


def text_of(opened: Any) -> Text:
    return Text(ids=opened.tensors["in.text_ids"], mask=~opened.tensors["in.padding_mask"])


def loaded(network: nn.Module, opened: Any, layout: Layout) -> None:
    """Loads the recorded weights, and compares what would be saved bit by bit."""
    load(network, opened.state, layout)
    saved = save(network, layout)
    assert set(saved) == set(opened.state)
    assert all(torch.equal(tensor, opened.state[key]) for key, tensor in saved.items())


def test_question_answering(oracle: Open, check: Any) -> None:
    opened = oracle("beit3_vqa")
    assert not opened.meta["config"]["normalize_output"]
    network = Answering(model_of(opened), opened.tensors["logits"].shape[1])
    loaded(network, opened, VQA)
    model, image = network.model, opened.tensors["in.image"]
    tokens = model.tokens(model.encode_image(image), model.encode_text(text_of(opened)))
    check.feature(tokens, opened.tensors["encoder_out"])
    check.feature(network(image, text_of(opened)), opened.tensors["logits"])
    fused = model.fuse(model.encode_image(image), model.encode_text(text_of(opened)))
    check.feature(network.head(fused.pooled), opened.tensors["logits"])


def test_pairs_of_images(oracle: Open, check: Any) -> None:
    opened = oracle("beit3_nlvr2")
    network = PairClassifying(model_of(opened), opened.tensors["logits"].shape[1])
    loaded(network, opened, NLVR2)
    logits = network(opened.tensors["in.image"], opened.tensors["in.image_b"], text_of(opened))
    check.feature(logits, opened.tensors["logits"])


def test_captioning(oracle: Open, check: Any) -> None:
    opened = oracle("beit3_captioning")
    network = Captioning(model_of(opened))
    loaded(network, opened, CAPTIONING)
    text = text_of(opened)
    logits = network(opened.tensors["in.image"], text)
    check.feature(logits, opened.tensors["logits_all"])
    position = opened.tensors["in.masked_pos"].flatten().nonzero().squeeze(1)
    check.feature(logits.flatten(0, 1)[position], opened.tensors["logits_masked"])
    label = torch.zeros(len(position), dtype=torch.long)
    loss = network.loss(opened.tensors["in.image"], Masked(text=text, position=position, label=label))
    check.loss(loss, nn.functional.cross_entropy(opened.tensors["logits_masked"], label))


def test_image_classification(oracle: Open, check: Any) -> None:
    opened = oracle("beit3_imagecls")
    assert not opened.meta["config"]["normalize_output"]
    network = ImageClassifying(model_of(opened), opened.tensors["logits"].shape[1])
    loaded(network, opened, IMAGE_CLASSIFICATION)
    check.feature(network(opened.tensors["in.image"]), opened.tensors["logits"])


class TestRetrieval:
    """Contrast of the two encoders."""

    @pytest.fixture
    def opened(self, oracle: Open) -> Any:
        return oracle("beit3_retrieval")

    @pytest.fixture
    def learner(self, opened: Any) -> Learner:
        learner = Learner(model_of(opened), Recipe(objectives=("itc",)), TOKENS).train()
        load_retrieval(learner, opened.state)
        return learner

    def test_saved_as_it_was_loaded(self, opened: Any, learner: Learner) -> None:
        saved = save_retrieval(learner)
        assert set(saved) == set(opened.state)
        torch.testing.assert_close(saved.pop("logit_scale"), opened.state["logit_scale"], atol=1e-6, rtol=0)
        assert all(torch.equal(tensor, opened.state[key]) for key, tensor in saved.items())

    def test_a_checkpoint_that_does_not_fit_is_refused(self, opened: Any, learner: Learner) -> None:
        with pytest.raises(ValueError, match="surprise"):
            load_retrieval(learner, opened.state | {"surprise": torch.zeros(1)})
        del opened.state["vision_head.weight"]
        with pytest.raises(ValueError, match=r"vision_head\.weight"):
            load_retrieval(learner, opened.state)

    def test_embeddings_loss_and_gradients(self, opened: Any, learner: Learner, check: Any) -> None:
        image = opened.tensors["in.image"]
        batch = Batch(image=image, text=text_of(opened), sample_id=torch.arange(len(image)))
        view = Pass(learner.model, batch)
        check.feature(view.image_embed, opened.tensors["vision_cls"])
        check.feature(view.text_embed, opened.tensors["language_cls"])
        loss = learner(batch)["itc"]
        check.loss(loss, opened.tensors["loss"])
        loss.backward()
        named = {RETRIEVAL.official(name): p for name, p in learner.named_parameters()}
        temperature = learner.objectives["itc"].get_parameter("temperature")
        assert temperature.grad is not None
        temperature.grad.mul_(temperature.detach())  # d loss / d scale = -temperature * d loss / d temperature
        parameters = {name: p for name, p in named.items() if name is not None} | {"logit_scale": temperature}
        check.grad_norms(parameters, opened.grad_norms["loss"])


@pytest.mark.parametrize(
    ("name", "size", "layout", "task"),
    [
        ("base_patch16_224_nlvr2", "base", NLVR2, PairClassifying),
        ("base_patch16_384_vqav2", "base", VQA, lambda model: Answering(model, 3129)),
        ("base_patch16_480_captioning", "base", CAPTIONING, Captioning),
    ],
)
def test_takes_a_checkpoint_of_paper_size(
    oracles: Path, name: str, size: str, layout: Layout, task: Callable[[Any], nn.Module]
) -> None:
    recorded = paper_size(oracles, name)
    with torch.device("meta"):
        network = task(build("beit3", size, {"image_size": [side_of(recorded)] * 2}))
    load(network, {key: torch.empty(shape, device="meta") for key, shape in recorded["keys"].items()}, layout)
    assert {key: list(x.shape) for key, x in save(network, layout).items()} == recorded["keys"]
    stored = [p.numel() for name, p in network.named_parameters() if layout.official(name)]
    assert sum(stored) == recorded["n_params"]


@pytest.mark.parametrize("size", ["base", "large"])
def test_retrieval_takes_a_checkpoint_of_paper_size(oracles: Path, size: str) -> None:
    recorded = paper_size(oracles, f"{size}_patch16_384_retrieval")
    with torch.device("meta"):
        model = build("beit3", size, {"image_size": [side_of(recorded)] * 2})
        learner = Learner(model, Recipe(objectives=("itc",)), TOKENS)
    load_retrieval(learner, {key: torch.empty(shape, device="meta") for key, shape in recorded["keys"].items()})
    assert {key: list(x.shape) for key, x in save_retrieval(learner).items()} == recorded["keys"]
    stored = [p.numel() for name, p in learner.named_parameters() if RETRIEVAL.official(name)]
    assert sum(stored) + 1 == recorded["n_params"]  # and the temperature


def paper_size(oracles: Path, name: str) -> dict[str, Any]:
    file = oracles / "paper_size_keys" / f"beit3_{name}.json"
    if not file.is_file():
        pytest.skip(f"this set of oracles has no paper_size_keys/{file.name}")
    return json.loads(file.read_text())


def side_of(recorded: Mapping[str, Any]) -> int:
    """Pixels of a square image with as many patches as there are positions, less the class token's and two spare."""
    return round((recorded["keys"]["beit3.encoder.embed_positions.A.weight"][0] - 3) ** 0.5) * 16
