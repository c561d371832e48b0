"""ViLT without a layer, and its layers over an image alone."""

from __future__ import annotations

from typing import Any

import torch
from vlpbench.archs import registry
from vlpbench.archs.types import Text


def test_without_a_layer_the_pair_is_the_mean_of_its_tokens_and_no_word_knows_the_image() -> None:
    torch.manual_seed(0)
    model: Any = registry.build("vilt", "tiny", {"layers": 0}).eval()
    assert model.structure().fusion_layers == 0
    image = torch.randn(2, 3, 32, 32)
    ids = torch.tensor([[1, 5, 6, 2, 0], [1, 7, 8, 9, 2]])
    with torch.no_grad():
        shown, said = model.encode_image(image), model.encode_text(Text(ids=ids, mask=ids != 0))
        fused = model.fuse(shown, said)
        norm, dense = model.transformer.norm, model.pooler["dense"]
        tokens = torch.cat([norm(said.x)[0, :4], norm(shown.x)[0]])  # the padding of the first text is left out
        assert torch.allclose(fused.pooled[0], torch.tanh(dense(tokens.mean(0))), atol=1e-6)
        assert torch.equal(model.fuse_pooled(shown, said), fused.pooled)
        other = model.fuse(model.encode_image(image.flip(0)), said)
        assert torch.equal(fused.text, other.text)
        assert not torch.allclose(fused.pooled, other.pooled, atol=1e-4)


def test_the_image_side_alone_is_the_transformer_over_image_tokens() -> None:
    torch.manual_seed(0)
    model: Any = registry.build("vilt", "tiny").eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        x = model.encode_image(image).x
        for block in model.transformer.blocks:
            x = block(x)
        assert torch.allclose(model.image_features(image), model.transformer.norm(x)[:, 0], atol=1e-6)
