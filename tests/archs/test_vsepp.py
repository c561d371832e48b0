"""VSE++: its sizes, its two encoders, precomputed features, and the work of its GRU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from vlpbench.archs.contract import check_model
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.model import parameter_count
from vlpbench.archs.types import Batch, Can, Text
from vlpbench.archs.vsepp import SIZES, Vsepp, build

TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def text_of(size: int) -> Text:
    ids = torch.randint(4, 40, (size, 8))
    mask = torch.arange(8) < torch.tensor([8, 3] * (size // 2))[:, None]
    return Text(ids=ids * mask, mask=mask)


def test_contract() -> None:
    check_model(lambda changes: build("tiny", changes), Can.EMBED)


def test_paper_size() -> None:
    with torch.device("meta"):
        model = build("base", {})
    # torchvision's ResNet-152 without its classifier, the projection, the GRU's three gates, the words.
    gates = 3 * (1024 * 300 + 1024 * 1024 + 2 * 1024)
    assert parameter_count(model) == 58_143_808 + (2048 * 1024 + 1024) + gates + 11755 * 300
    structure = model.structure()
    assert (structure.image_tokens, structure.text_tokens, structure.width) == (49, 30, 1024)
    assert (structure.image_layers, structure.text_layers, structure.fusion_layers) == (151, 1, 0)


def test_work_of_the_gru_is_counted() -> None:
    with torch.device("meta"):
        model = build("base", {})
        text = Text(ids=torch.zeros(2, 30, dtype=torch.long), mask=torch.ones(2, 30, dtype=torch.bool))
        with FlopCounterMode(display=False) as counter:
            model.encode_text(text)
    assert counter.get_total_flops() == 2 * 30 * 2 * 3 * 1024 * (300 + 1024)


def test_features_are_normed_before_they_are_projected() -> None:
    model = build("tiny", {}).eval()
    assert model.cnn is not None
    image = torch.randn(4, 3, 32, 32)
    pooled = F.normalize(model.cnn(image).mean(dim=1), dim=-1)
    torch.testing.assert_close(model.encode_image(image), pooled)
    torch.testing.assert_close(model.embed_image(pooled), F.normalize(model.fc(pooled), dim=-1))


def test_text_is_the_state_behind_its_last_token() -> None:
    model, text = build("tiny", {}).eval(), text_of(4)
    state = model.encode_text(text)
    torch.testing.assert_close(state[1], model.rnn(model.embed(text.ids[1:2, :3]))[1][0, 0])
    torch.testing.assert_close(state[0], model.rnn(model.embed(text.ids[:1]))[1][0, 0])


def test_precomputed_features() -> None:
    model = build("base", {"cnn": "features", "features": 20, "vocab_size": 40})
    assert model.cnn is None
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"fc", "embed", "rnn"}
    features = 3 * torch.randn(4, 20)
    torch.testing.assert_close(model.encode_image(features), features)
    with pytest.raises(ValueError, match=r"reads features \(B, 20\), not \(4, 3, 32, 32\)"):
        model.encode_image(torch.randn(4, 3, 32, 32))
    with pytest.raises(ValueError, match="2048 features, not 20"):
        build("base", {"features": 20})


def test_hardest_negatives_are_learnt() -> None:
    """Eight pairs that differ in one word and one channel: the hinge falls to where every pair is told apart."""
    model = Vsepp(SIZES["tiny"])
    learner = Learner(model, Recipe(objectives=("triplet",)), TOKENS).train()
    image = torch.randn(8, 3, 32, 32)
    text = Text(ids=torch.arange(16).view(8, 2) + 4, mask=torch.ones(8, 2, dtype=torch.bool))
    batch = Batch(image=image, text=text, sample_id=torch.arange(8))
    optimiser = torch.optim.Adam(learner.parameters(), lr=3e-3)
    first = learner(batch)["triplet"].item()
    for _ in range(120):
        optimiser.zero_grad()
        learner(batch)["triplet"].backward()
        optimiser.step()
    assert learner(batch)["triplet"].item() < 0.1 * first
