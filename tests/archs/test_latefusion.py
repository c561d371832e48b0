"""The late-fusion head by hand, and what it leaves to the model it wraps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from vlpbench.archs import registry
from vlpbench.archs.latefusion import LateFusion
from vlpbench.archs.model import parameter_count
from vlpbench.archs.types import Can, Text, Unsupported


def late() -> LateFusion:
    torch.manual_seed(0)
    model = registry.build("clip+late", "tiny").eval()
    assert isinstance(model, LateFusion)
    return model


def text() -> Text:
    ids = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    return Text(ids=ids, mask=ids != 0)


def test_pooled_by_hand() -> None:
    model = late()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        fused = model.fuse(model.encode_image(image), model.encode_text(text()))
        i = 4 * model.model.embed_image(model.model.encode_image(image))  # E = 16, so unit vectors times 4
        t = 4 * model.model.embed_text(model.model.encode_text(text()))
        first, last = model.fusion[0], model.fusion[2]
        hidden = F.gelu(torch.cat([i, t, i * t], dim=1) @ first.weight.T + first.bias)
        expected = hidden @ last.weight.T + last.bias
    assert fused.text is None
    assert fused.pooled.shape == (2, 32)
    torch.testing.assert_close(fused.pooled, expected)


def test_parts_start_at_equal_size() -> None:
    model = registry.build("clip+late", "small").eval()
    seen: list[torch.Tensor] = []
    assert isinstance(model, LateFusion)
    model.fusion[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.fuse(model.encode_image(torch.randn(2, 3, 32, 32)), model.encode_text(text()))
    for part in seen[0].split(model.embed_dim, dim=1):
        assert 0.3 < part.square().mean().sqrt() < 3


def test_adds_fusing_and_nothing_else() -> None:
    model = late()
    assert model.can == Can.EMBED | Can.FUSE
    with pytest.raises(Unsupported, match="cannot MASK"):
        model.mlm_head()
    with pytest.raises(Unsupported, match="cannot DECODE"):
        model.decode(None, None)
    # 3 * 16 -> 32 -> 32
    assert parameter_count(model) - parameter_count(model.model) == (48 * 32 + 32) + (32 * 32 + 32)


def test_delegates() -> None:
    model = late()
    inner = model.model
    assert (model.image_size, model.text_len, model.vocab_size, model.embed_dim) == ((32, 32), 16, 40, 16)
    assert model.word_embedding() is inner.word_embedding()
    assert model.structure().image_layers == inner.structure().image_layers
    assert model.structure().notes[-1] == "late fusion by a perceptron of width 32"
    assert model.component("model.visual.proj") == inner.component("visual.proj") == "projection"
    assert model.component("fusion.0.weight") == "fusion"


@pytest.mark.parametrize("name", ["vilt", "albef"])
def test_refuses_a_model_that_fuses_or_cannot_embed(name: str) -> None:
    with pytest.raises(Unsupported, match="late fusion is for models that embed and do not fuse"):
        LateFusion(registry.build(name, "tiny"))
    with pytest.raises(Unsupported, match="late fusion is for architectures that embed and do not fuse"):
        registry.get(name + "+late")
