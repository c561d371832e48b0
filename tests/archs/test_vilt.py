"""ViLT's cost by closed form, its image padding, and what it shares with no other model."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from vlpbench.archs import registry
from vlpbench.archs.model import parameter_count
from vlpbench.archs.types import Text
from vlpbench.archs.vilt import Vilt, ViltConfig
from vlpbench.archs.vilt_parts import kept_patches, resized_positions
from vlpbench.archs.vilt_tasks import load_official, load_vision

PATCHED = ViltConfig(
    image_size=(32, 48),
    position_size=(24, 24),
    patch=8,
    text_len=6,
    vocab_size=20,
    width=16,
    layers=2,
    heads=2,
)


def base() -> Vilt:
    with torch.device("meta"):
        model = registry.build("vilt", "base").eval()
    assert isinstance(model, Vilt)
    return model


def test_flops_of_the_paper_size_by_closed_form() -> None:
    model = base()
    with torch.device("meta"):
        text = Text(ids=torch.zeros(1, 40, dtype=torch.long), mask=torch.ones(1, 40, dtype=torch.bool))
        with FlopCounterMode(display=False) as counter:
            model.fuse(model.encode_image(torch.empty(1, 3, 384, 640)), model.encode_text(text))
    D, P, N = 768, 12 * 20, 1 + 12 * 20 + 40
    layers = 12 * (2 * N * 12 * D * D + 2 * 2 * N * N * D)
    patches = 2 * P * (3 * 32 * 32) * D
    pooler = 2 * D * D
    positions = 2 * (12 * 12) * (12 * D) + 2 * (12 * 20) * 12 * D
    assert counter.get_total_flops() == layers + patches + pooler + positions
    assert counter.get_total_flops() / 1e9 == pytest.approx(51.78, abs=0.5)
    # What this implementation adds for positions is not worth a footnote.
    assert positions / counter.get_total_flops() < 2e-4


def test_parameters_on_the_basis_of_the_papers_table_6() -> None:
    """87.4 M is "visual embedder + transformer, text embedding excluded".

    That is the image transformer which ViLT starts from (patch projection, class token, positions, blocks, norm),
    without pooler and modality types.
    """
    model = base()
    assert parameter_count(model.transformer) / 1e6 == pytest.approx(87.4, rel=5e-3)
    # All that this basis leaves out: the text embedding, the pooler and the modality types.
    text = 30522 * 768 + 40 * 768 + 2 * 768 + 2 * 768
    rest = (768 * 768 + 768) + 2 * 768
    assert parameter_count(model) == parameter_count(model.transformer) + text + rest
    assert parameter_count(model) / 1e6 == pytest.approx(111.6, rel=1e-3)


def test_structure_at_paper_size() -> None:
    found = base().structure()
    assert (found.image_tokens, found.text_tokens, found.width) == (241, 40, 768)
    assert (found.image_layers, found.text_layers, found.fusion_layers) == (0, 0, 12)


def test_positions_are_a_bilinear_resize_with_aligned_corners() -> None:
    torch.manual_seed(0)
    model = Vilt(PATCHED).eval()
    image = torch.ones(3, 3, 32, 48)
    image[1, :, 16:] = 0  # 2 of 4 rows left
    image[2, :, :, 8:] = 0  # 1 of 6 columns left
    grid = model.transformer.pos_embed[:, 1:].view(1, 3, 3, 16).permute(0, 3, 1, 2)
    with torch.no_grad():
        valid = (image[:, :, ::8, ::8] != 0).any(dim=1)
        found = resized_positions(model.transformer.pos_embed, model.position_grid, valid).view(3, 4, 6, 16)
        for row, (h, w) in enumerate([(4, 6), (2, 6), (4, 1)]):
            expected = F.interpolate(grid, size=(h, w), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
            torch.testing.assert_close(found[row, :h, :w], expected, rtol=0, atol=1e-6)


def test_a_padded_image_is_the_smaller_image() -> None:
    torch.manual_seed(0)
    model = Vilt(PATCHED).eval()
    small = torch.randn(1, 3, 24, 32)
    padded = F.pad(small, (0, 16, 0, 8))
    ids = torch.tensor([[1, 4, 5, 2, 0, 0]])
    text = Text(ids=ids, mask=ids != 0)
    with torch.no_grad():
        one = model.fuse(model.encode_image(small), model.encode_text(text))
        other = model.fuse(model.encode_image(padded), model.encode_text(text))
    torch.testing.assert_close(one.pooled, other.pooled, rtol=0, atol=1e-6)
    assert one.text is not None
    assert other.text is not None
    torch.testing.assert_close(one.text, other.text, rtol=0, atol=1e-6)


def test_pooling_alone_spares_the_last_block_and_no_digit() -> None:
    torch.manual_seed(0)
    model = Vilt(PATCHED).eval()
    image = torch.randn(3, 3, 32, 48)
    image[1, :, 16:] = 0
    ids = torch.tensor([[1, 4, 5, 2, 0, 0], [1, 2, 0, 0, 0, 0], [1, 5, 4, 3, 6, 2]])
    with torch.no_grad():
        states = model.encode_image(image), model.encode_text(Text(ids=ids, mask=ids != 0))
        whole = model.fuse(*states).pooled
        torch.testing.assert_close(model.fuse_pooled(*states), whole, rtol=0, atol=1e-6)
        last = model.transformer.blocks[-1]
        last.forward = lambda *_args, **_kwargs: pytest.fail("the last block ran for every token")
        model.fuse_pooled(*states)


def test_a_pixel_whose_channels_cancel_is_no_padding() -> None:
    model = Vilt(PATCHED).eval()
    image = torch.randn(1, 3, 32, 48)
    image[0, :, 8, 8] = torch.tensor([0.5, -0.25, -0.25])
    assert model.encode_image(image).valid.all()


def test_a_blank_image_is_finite() -> None:
    model = Vilt(PATCHED).eval()
    ids = torch.tensor([[1, 4, 2, 0, 0, 0]])
    fused = model.fuse(model.encode_image(torch.zeros(1, 3, 32, 48)), model.encode_text(Text(ids=ids, mask=ids != 0)))
    assert fused.pooled.isfinite().all()


def test_masked_head_is_not_tied() -> None:
    model = Vilt(PATCHED)
    head = model.mlm_head()
    words = model.word_embedding().weight
    assert all(parameter.data_ptr() != words.data_ptr() for parameter in head.parameters())
    # transform 16 x 16 + 16, its norm 2 x 16, decoder 20 x 16, bias 20
    assert parameter_count(head) == 16 * 16 + 16 + 32 + 20 * 16 + 20


def test_modality_types_tell_the_images_of_a_pair_apart() -> None:
    model = Vilt(registry.changed(PATCHED, {"image_types": 2}, owner="vilt")).eval()
    image = torch.randn(1, 3, 32, 48)
    types = model.token_type_embeddings.weight
    first, second = model.encode_image(image), model.encode_image(image, image_type=2)
    torch.testing.assert_close(second.x - first.x, (types[2] - types[1]).expand_as(first.x), rtol=0, atol=1e-6)


def test_dropout_of_the_paper_at_base_only() -> None:
    rates = {module.p for module in base().modules() if isinstance(module, torch.nn.Dropout)}
    assert rates <= {0.0, 0.1}
    assert 0.1 in rates
    small = registry.build("vilt", "small")
    assert {module.p for module in small.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


def test_refuses_what_it_cannot_take() -> None:
    with pytest.raises(registry.UnknownName, match="did you mean 'layers'"):
        registry.build("vilt", "tiny", {"layer": 3})
    with pytest.raises(ValueError, match="multiples of the patch size 16"):
        registry.build("vilt", "tiny", {"image_size": (40, 32)})
    model = Vilt(PATCHED)
    with pytest.raises(ValueError, match="30 x 48 pixels is no multiple of patch 8"):
        model.encode_image(torch.ones(1, 3, 30, 48))
    with pytest.raises(ValueError, match="7 tokens is longer than the 6"):
        model.encode_text(Text(ids=torch.ones(1, 7, dtype=torch.long), mask=torch.ones(1, 7, dtype=torch.bool)))


def test_load_official_is_strict() -> None:
    model = Vilt(PATCHED)
    state = model.state_dict()
    head = {"itm_score.fc.weight": torch.zeros(2, 16)}
    assert set(load_official(model, state | head)) == set(head)
    with pytest.raises(RuntimeError, match="surprise"):
        load_official(model, state | {"surprise": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"pooler\.dense\.bias"):
        load_official(model, {name: tensor for name, tensor in state.items() if name != "pooler.dense.bias"})


VALID = torch.tensor([[True, True, False, True, True, False], [True] * 6])


def test_kept_patches_are_valid_ones_in_their_own_order() -> None:
    torch.manual_seed(0)
    drawn = torch.stack([kept_patches(VALID, 3, shuffled=False) for _ in range(200)])  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert drawn.shape == (200, 2, 3)
    assert (drawn.diff(dim=2) > 0).all()
    assert VALID[0][drawn[:, 0]].all()  # there are four valid ones, so no padding is kept
    assert len(drawn[:, 0].unique(dim=0)) == 4
    assert len(drawn[:, 1].unique(dim=0)) == 20
    assert kept_patches(VALID, None, shuffled=False) is None
    assert kept_patches(VALID, 6, shuffled=False) is None


def test_the_official_order_is_random_with_padding_last() -> None:
    torch.manual_seed(0)
    first, second = kept_patches(VALID, None, shuffled=True), kept_patches(VALID, 5, shuffled=True)
    assert first is not None
    assert second is not None
    assert torch.equal(first.sort(dim=1).values, torch.arange(6).expand(2, -1))
    assert set(first[0, 4:].tolist()) == {2, 5}
    assert set(second[0, :4].tolist()) == {0, 1, 3, 4}


def test_an_order_changes_no_result_and_fewer_patches_are_kept_in_training_alone() -> None:
    torch.manual_seed(0)
    plain = Vilt(PATCHED).eval()
    shuffled, fewer = (
        Vilt(registry.changed(PATCHED, changes, owner="vilt")).eval() for changes in ({"code": "official"}, {"keep": 5})
    )
    image = torch.randn(2, 3, 32, 48)
    image[1, :, 16:] = 0
    ids = torch.tensor([[1, 4, 5, 2, 0, 0], [1, 5, 4, 3, 6, 2]])
    text = Text(ids=ids, mask=ids != 0)
    expected = plain.fuse(plain.encode_image(image), plain.encode_text(text))
    for other in (shuffled, fewer):
        other.load_state_dict(plain.state_dict())
        found = other.fuse(other.encode_image(image), other.encode_text(text))
        torch.testing.assert_close(found.pooled, expected.pooled, rtol=0, atol=1e-5)
    first, second = (shuffled.encode_image(image) for _ in range(2))
    assert not torch.equal(first.x, second.x)
    assert fewer.encode_image(image).x.shape == (2, 1 + 24, 16)
    kept = fewer.train().encode_image(image)
    assert kept.x.shape == (2, 1 + 5, 16)
    assert kept.place is not None
    every = plain.encode_image(image)
    torch.testing.assert_close(kept.x[1, 1:], every.x[1, 1 + kept.place[1]])
    assert kept.valid.all()


def test_the_official_padding_is_a_pixel_that_sums_to_zero() -> None:
    model = Vilt(registry.changed(PATCHED, {"code": "official"}, owner="vilt")).eval()
    image = torch.randn(1, 3, 32, 48)
    image[0, :, 8, 8] = torch.tensor([0.5, -0.25, -0.25])
    assert model.encode_image(image).valid.sum() == 1 + 24 - 1


def test_words_that_are_aligned_are_neither_first_nor_last() -> None:
    model = Vilt(PATCHED).eval()
    ids = torch.tensor([[1, 4, 5, 2, 0, 0], [1, 5, 4, 3, 6, 2]])
    image = torch.randn(2, 3, 32, 48)
    image[1, :, 16:] = 0
    states = model.encode_image(image), model.encode_text(Text(ids=ids, mask=ids != 0))
    joint, fused = model.fuse_tokens(*states), model.fuse(*states)
    assert joint.text_mask.tolist() == [[False, True, True, False, False, False], [False] + [True] * 4 + [False]]
    assert not joint.image_mask[:, 0].any()
    assert joint.image_mask.sum(dim=1).tolist() == [24, 12]
    assert torch.equal(joint.pooled, fused.pooled)
    assert torch.equal(joint.text, fused.text)  # pyright: ignore[reportArgumentType]
    assert joint.image.shape == (2, 25, 16)


def test_the_image_side_begins_as_a_classifier_at_any_resolution() -> None:
    torch.manual_seed(0)
    model = Vilt(registry.changed(PATCHED, {"position_size": (32, 32)}, owner="vilt"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    classifier = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5
    )
    state = classifier.state_dict()
    assert set(load_vision(model, state)) == {"head.weight", "head.bias"}
    now = model.state_dict()
    assert torch.equal(now["transformer.blocks.1.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"])
    grid = F.interpolate(state["pos_embed"][:, 1:].view(1, 2, 2, 16).permute(0, 3, 1, 2), size=(4, 4), mode="bicubic")
    torch.testing.assert_close(now["transformer.pos_embed"][:, 1:], grid.permute(0, 2, 3, 1).flatten(1, 2))
    changed = {name for name in now if not torch.equal(now[name], before[name])}
    assert all(name.startswith("transformer.") for name in changed)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_vision(model, state | {"dist_token": torch.zeros(1, 1, 16)})
