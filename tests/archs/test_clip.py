"""CLIP against open_clip's own forward, and against the published cost."""

from __future__ import annotations

import time

import open_clip
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from vlpbench.archs import registry
from vlpbench.archs.clip import SIZES, Clip, ClipConfig, load_official
from vlpbench.archs.model import parameter_count
from vlpbench.archs.types import Text

# GFLOP and million parameters: open_clip's published profile of ViT-B-32, ViT-B-16 and ViT-L-14.
PUBLISHED = {"b32": (14.78, 151.28), "b16": (41.09, 149.62), "l14": (175.33, 427.62)}

PATCHED = ClipConfig(
    image_size=(16, 24),
    patch=8,
    image_width=12,
    image_layers=2,
    image_heads=3,
    text_len=7,
    vocab_size=20,
    text_width=8,
    text_layers=2,
    text_heads=2,
    embed_dim=6,
)


def official(config: ClipConfig, *, quick_gelu: bool = False) -> open_clip.CLIP:
    """open_clip's own model of these sizes, with its own forward."""
    return open_clip.CLIP(
        config.embed_dim,
        open_clip.CLIPVisionCfg(
            layers=config.image_layers,
            width=config.image_width,
            head_width=config.image_width // config.image_heads,
            patch_size=config.patch,
            image_size=config.image_size,
        ),
        open_clip.CLIPTextCfg(
            context_length=config.text_len,
            vocab_size=config.vocab_size,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
        ),
        quick_gelu=quick_gelu,
    ).eval()


def count(size: str) -> tuple[float, int]:
    """FLOPs of one pair, counted on the meta device, and parameters."""
    with torch.device("meta"):
        model = registry.build("clip", size).eval()
        text = Text(
            ids=torch.zeros(1, model.text_len, dtype=torch.long), mask=torch.ones(1, model.text_len, dtype=torch.bool)
        )
        with FlopCounterMode(display=False) as counter:
            model.embed_image(model.encode_image(torch.empty(1, 3, *model.image_size)))
            model.embed_text(model.encode_text(text))
    return counter.get_total_flops(), parameter_count(model)


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_flops_and_parameters(size: str) -> None:
    gflop, million = PUBLISHED[size]
    flops, parameters = count(size)
    assert flops / 1e9 == pytest.approx(gflop, rel=1e-3)
    assert parameters / 1e6 == pytest.approx(million, rel=5e-3)


def test_counting_the_largest_model_takes_no_time() -> None:
    count("b32")
    start = time.process_time()
    count("l14")
    assert time.process_time() - start < 2


def test_base_is_b16_with_albefs_image_tower() -> None:
    from vlpbench.archs.albef import SIZES as ALBEF

    base, albef = SIZES["base"], ALBEF["base"]
    assert base == SIZES["b16"]
    assert (base.patch, base.image_width, base.image_layers, base.image_heads) == (
        albef.patch,
        albef.image_width,
        albef.image_layers,
        albef.image_heads,
    )


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_equals_open_clip_on_texts_that_end_in_the_end_token(quick_gelu: bool) -> None:
    torch.manual_seed(0)
    theirs = official(PATCHED, quick_gelu=quick_gelu)
    ours = Clip(registry.changed(PATCHED, {"quick_gelu": quick_gelu}, owner="clip")).eval()
    rest = load_official(ours, theirs.state_dict())
    assert set(rest) == {"logit_scale"}
    assert rest["logit_scale"].item() == pytest.approx(2.6593, abs=1e-4)  # ln(1 / 0.07)

    image = torch.randn(3, 3, 16, 24)
    end = 19  # the highest id, as open_clip's pooling expects
    ids = torch.tensor([[18, 3, 5, 7, 2, 4, end], [18, 3, end, 0, 0, 0, 0], [18, 1, 2, 9, end, 0, 0]])
    text = Text(ids=ids, mask=ids != 0)
    with torch.no_grad():
        image_embed = ours.embed_image(ours.encode_image(image))
        text_embed = ours.embed_text(ours.encode_text(text))
        torch.testing.assert_close(image_embed, theirs.encode_image(image, normalize=True), rtol=0, atol=1e-6)
        torch.testing.assert_close(text_embed, theirs.encode_text(ids, normalize=True), rtol=0, atol=1e-6)


def test_pools_the_last_token_of_texts_without_an_end_token() -> None:
    torch.manual_seed(0)
    model = Clip(PATCHED).eval()
    ids = torch.tensor([[19, 3, 5, 0, 0, 0, 0]])  # the highest id is first: pooling by it would see one token
    with torch.no_grad():
        state = model.encode_text(Text(ids=ids, mask=ids != 0))
        alone = model.encode_text(Text(ids=ids[:, :3], mask=torch.ones(1, 3, dtype=torch.bool)))
        shorter = model.encode_text(Text(ids=ids[:, :2], mask=torch.ones(1, 2, dtype=torch.bool)))
    torch.testing.assert_close(state, alone)
    assert (state - shorter).abs().max() > 0.1


def test_released_names_at_paper_size() -> None:
    with torch.device("meta"):
        theirs = open_clip.CLIP(512, **_towers("ViT-B-16"))
        ours = registry.build("clip", "b16")
    assert isinstance(ours, Clip)
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    del shapes["logit_scale"]
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes


def _towers(name: str) -> dict[str, object]:
    found = open_clip.get_model_config(name)
    assert found is not None
    return {
        "vision_cfg": open_clip.CLIPVisionCfg(**found["vision_cfg"]),
        "text_cfg": open_clip.CLIPTextCfg(**found["text_cfg"]),
    }


def test_load_official_is_strict() -> None:
    model, state = Clip(PATCHED), official(PATCHED).state_dict()
    with pytest.raises(RuntimeError, match=r"ln_final\.bias"):
        load_official(model, {name: tensor for name, tensor in state.items() if name != "ln_final.bias"})
    with pytest.raises(RuntimeError, match="surprise"):
        load_official(model, state | {"surprise": torch.zeros(1)})
    with pytest.raises(ValueError, match="quick_gelu=True"):
        load_official(model, state | {"input_resolution": torch.tensor(224)})


def test_unit_norm_and_one_space() -> None:
    model = registry.build("clip", "tiny").eval()
    image = model.embed_image(model.encode_image(torch.randn(2, 3, 32, 32)))
    assert image.shape == (2, model.embed_dim)
    torch.testing.assert_close(image, F.normalize(image, dim=-1))


def test_refuses_what_it_cannot_take() -> None:
    with pytest.raises(registry.UnknownName, match="did you mean 'image_layers'"):
        registry.build("clip", "tiny", {"image_layer": 3})
    with pytest.raises(ValueError, match="multiple of the patch size 16"):
        registry.build("clip", "tiny", {"image_size": (40, 32)})
    model = registry.build("clip", "tiny")
    long = torch.ones(1, 17, dtype=torch.long)
    with pytest.raises(ValueError, match="17 tokens is longer than the 16"):
        model.encode_text(Text(ids=long, mask=long > 0))


def test_depths_are_read_off_the_model() -> None:
    with torch.device("meta"):
        found = registry.build("clip", "l14").structure()
        changed = registry.build("clip", "tiny", {"image_layers": 1, "text_layers": 3}).structure()
    assert (found.image_tokens, found.text_tokens, found.width) == (
        257,
        77,
        1024,
    )  # 16 x 16 patches and the class token
    assert (found.image_layers, found.text_layers, found.fusion_layers) == (24, 12, 0)
    assert (changed.image_layers, changed.text_layers) == (1, 3)
