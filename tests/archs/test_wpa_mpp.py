"""Word-patch alignment and masked patch prediction: against numbers worked out here, and as parts of a training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vlpbench.archs import registry
from vlpbench.archs.learner import Draws, Learner, Recipe, SpecialTokens
from vlpbench.archs.model import Pass, VLModel
from vlpbench.archs.objectives.mpp import MPP, PatchHead, colours, draw_patches
from vlpbench.archs.objectives.table import OBJECTIVES, impossible
from vlpbench.archs.objectives.wpa import WPA
from vlpbench.archs.types import Batch, Can, Fused, HiddenPatches, Joint, Negatives, Text, Unsupported
from vlpbench.archs.uniter_tasks import Pretraining

TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)


class Pointing(VLModel[Tensor, Tensor]):
    """One word and one place a pair: texts point right, image n points along angle n * 90 degrees."""

    can = Can.FUSE
    width, embed_dim, vocab_size, text_len, image_size = 2, 0, 40, 1, (1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.fused: list[int] = []

    def encode_image(self, image: Tensor) -> Tensor:
        return image[:, 0, 0, 0]

    def encode_text(self, text: Text) -> Tensor:
        return text.ids[:, 0].float()

    def fuse(self, image: Tensor, text: Tensor) -> Fused:
        raise AssertionError("pairs are fused with their tokens, and once")

    def fuse_tokens(self, image: Tensor, text: Tensor) -> Joint:
        self.fused.append(len(image))
        angle = image * math.pi / 2
        place = torch.stack([angle.cos(), angle.sin()], dim=1)[:, None] * self.scale
        word = torch.tensor([1.0, 0.0]).expand(len(text), 1, 2)
        there = torch.ones(len(text), 1, dtype=torch.bool)
        return Joint(pooled=place[:, 0], text=word, image=place, text_mask=there, image_mask=there)


def batch(size: int) -> Batch:
    rows = torch.arange(size)
    text = Text(ids=rows[:, None], mask=torch.ones(size, 1, dtype=torch.bool))
    return Batch(image=rows.float()[:, None, None, None].expand(-1, 3, 1, 1), text=text, sample_id=rows)


def test_alignment_pulls_matches_in_and_pushes_others_out() -> None:
    model, rows = Pointing(), torch.tensor([1, 2, 0])
    view = Pass(model, batch(3), negatives=Negatives(image=rows, text=rows))
    alignment = WPA(model, Recipe(objectives=("wpa",)))
    # One word, one place: all of it moves, at one minus the cosine. Images 0, 1, 2 cost 0, 1, 2; the wrong ones too.
    torch.testing.assert_close(
        alignment.distances(view), torch.tensor([0.0, 1, 2, 1, 2, 0, 0, 1, 2]), atol=1e-6, rtol=0
    )
    assert alignment(view).item() == pytest.approx((3 - 3 - 3) / 9, abs=1e-6)
    replaced = Negatives(image=rows, text=rows, replaced=torch.tensor([True, False, False]))
    # Image 1 in the place of image 0 costs 1 and is pushed out; images 1 and 2 stay.
    assert alignment(Pass(model, batch(3), negatives=replaced)).item() == pytest.approx((-1 + 1 + 2) / 3, abs=1e-6)


@pytest.mark.parametrize("objectives", [("itm", "wpa"), ("wpa", "itm")])
def test_matching_and_alignment_share_one_fusion(objectives: tuple[str, ...]) -> None:
    model = Pointing()
    learner = Learner(model, Recipe(objectives=objectives, weights=(1.0, 0.1)), TOKENS).train()
    losses = learner(batch(4), generator=torch.Generator().manual_seed(0))
    assert set(losses) == set(objectives)
    assert model.fused == [12]


@pytest.mark.parametrize("arch", ["vilt", "uniter"])
@pytest.mark.parametrize("negatives", ["hard", "replace"])
def test_real_models_are_aligned(arch: str, negatives: Any) -> None:
    torch.manual_seed(0)
    model = registry.build(arch, "tiny")
    recipe = Recipe(objectives=("itm", "mlm", "wpa"), weights=(1.0, 1.0, 0.1), negatives=negatives)
    learner = Learner(model, recipe, TOKENS).train()
    ids = torch.randint(4, 40, (6, 8))
    ids[:, 0], ids[:, 5:] = 1, 0
    given = Batch(image=torch.rand(6, *model.image_shape), text=Text(ids=ids, mask=ids != 0), sample_id=torch.arange(6))
    losses = learner(given, generator=torch.Generator().manual_seed(0))
    learner.total(losses).backward()
    assert all(p.grad.isfinite().all() for p in learner.parameters() if p.grad is not None)
    plain = Learner(model, Recipe(objectives=("itm", "mlm"), negatives=negatives), TOKENS).train()
    plain.load_state_dict({k: v for k, v in learner.state_dict().items() if ".wpa" not in k})
    again = plain(given, generator=torch.Generator().manual_seed(0))
    for name in ("itm", "mlm"):
        torch.testing.assert_close(losses[name], again[name], atol=1e-5, rtol=0)


def test_alignment_of_uniter_is_that_of_its_pre_training() -> None:
    torch.manual_seed(0)
    model: Any = registry.build("uniter", "tiny").eval()
    ids = torch.tensor([[1, 9, 8, 2], [1, 7, 2, 0]])
    given = Batch(image=torch.rand(2, *model.image_shape), text=Text(ids=ids, mask=ids != 0), sample_id=torch.arange(2))
    rows = torch.tensor([1, 0])
    replaced = Negatives(image=rows, text=rows, replaced=torch.tensor([False, True]))
    view = Pass(model, given, negatives=replaced)
    official = Pretraining(model)
    image = model.encode_image(given.image[[0, 0]])
    both = official.itm(image, given.text, torch.tensor([1, 0]))
    alone = official.itm(image, given.text, torch.tensor([1, 0]), alignment=0.0)
    loss = WPA(model, Recipe(objectives=("wpa",)))(view)
    torch.testing.assert_close(0.1 * loss, both - alone, atol=1e-6, rtol=0)


def test_objectives_of_some_architectures_are_refused_to_others() -> None:
    assert "wpa is for vilt and uniter" in (impossible(registry.get("albef"), ("wpa",), "off") or "")
    assert impossible(registry.get("uniter"), ("itm", "wpa"), "off") is None
    assert "mpp is for vilt" in (impossible(registry.get("uniter"), ("mpp",), "off") or "")
    for name in ("wpa", "mpp"):
        assert not OBJECTIVES[name].distillable
        with pytest.raises(Unsupported, match="Albef"):
            Learner(registry.build("albef", "tiny"), Recipe(objectives=(name,)), TOKENS)


def test_the_colour_of_a_patch_is_the_mean_of_each_channel() -> None:
    image = torch.full((1, 3, 2, 4), -1.0)
    image[0, 0, :, :2] = 1.0
    image[0, 1, 0, 2:] = 1.0
    image[0, 2, :, 2:] = 3.0  # beyond what a picture can hold
    assert colours(image, 2).tolist() == [[[255, 0, 0], [0, 127, 255]]]


def test_shares_of_hidden_patches() -> None:
    model: Any = registry.build("vilt", "tiny")
    image = torch.zeros(500, 3, 64, 96)
    drawn = draw_patches(model, image, torch.Generator().manual_seed(0))
    assert drawn.chosen.shape == (500, 4 * 6)
    assert drawn.chosen.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert not (drawn.replaced & ~drawn.chosen).any()
    assert (drawn.replaced.sum() / drawn.chosen.sum()).item() == pytest.approx(0.8, abs=0.03)
    again = draw_patches(model, image, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.chosen, again.chosen)


class Patches(VLModel[Tensor, Tensor]):
    """Gives out zeros for four patches, in an order of its own, the last of them padding."""

    can = Can.FUSE
    width, embed_dim, vocab_size, text_len, image_size, patch = 4, 0, 40, 1, (2, 2), 1

    def encode_text(self, text: Text) -> Tensor:
        return text.ids.float()

    def predict_patches(self, image: Tensor, text: Tensor, hidden: HiddenPatches, stand_in: Tensor) -> Any:
        place = torch.tensor([[3, 1, 0, 2]])
        return torch.zeros(1, 4, 4), place, torch.tensor([[True, True, True, False]])


def test_masked_patches_are_predicted_where_they_stand() -> None:
    model = Patches()
    mpp = MPP(model, Recipe(objectives=("mpp",)))
    with torch.no_grad():
        mpp.head.decoder.weight.zero_()
        mpp.head.decoder.bias.zero_()
        mpp.head.decoder.bias[255] = 3.0  # red at its brightest
    image = torch.full((1, 3, 2, 2), -1.0)
    image[0, 0, 1, 1] = 1.0  # the fourth patch is red
    given = Batch(image=image, text=batch(1).text, sample_id=torch.zeros(1, dtype=torch.long))
    view = Pass(model, given)
    chosen = torch.tensor([[True, False, True, True]])  # the third is padding
    view.hidden = HiddenPatches(chosen=chosen, replaced=chosen)
    plain, shifted = math.log(256), math.log(255 + math.exp(3.0))
    expected = ((shifted - 3.0) + 2 * plain + shifted + 2 * plain) / 6
    assert mpp(view).item() == pytest.approx(expected, rel=1e-5)
    view.hidden = HiddenPatches(chosen=torch.zeros_like(chosen), replaced=torch.zeros_like(chosen))
    assert mpp(view).item() == 0.0
    with pytest.raises(ValueError, match="no hidden patches"):
        mpp(Pass(model, given))


@pytest.mark.parametrize("keep", [None, 3])
def test_hidden_patches_are_not_seen(keep: int | None) -> None:
    torch.manual_seed(0)
    model: Any = registry.build("vilt", "tiny", {"keep": keep}).train()
    learner = Learner(model, Recipe(objectives=("itm", "mlm", "mpp")), TOKENS).train()
    ids = torch.randint(4, 40, (3, 6))
    image = torch.rand(3, 3, 32, 32)
    given = Batch(image=image, text=Text(ids=ids, mask=ids > 0), sample_id=torch.arange(3))
    every = torch.ones(3, 4, dtype=torch.bool)
    text = model.encode_text(given.text)
    hidden = HiddenPatches(chosen=every, replaced=every)
    found = []
    for picture in (image, torch.rand(3, 3, 32, 32)):
        torch.manual_seed(1)
        found.append(model.predict_patches(picture, text, hidden, torch.zeros(32))[0])
    assert torch.equal(*found)  # nothing of the picture is left
    losses = learner(given, draws=Draws(hidden=hidden), generator=torch.Generator().manual_seed(0))
    learner.total(losses).backward()
    gradient = learner.objectives["mpp"].get_parameter("mask_token").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert losses["mpp"].item() == pytest.approx(math.log(256), abs=1.5)


def test_the_head_has_the_names_of_released_checkpoints() -> None:
    names = {"transform.dense.weight", "transform.dense.bias", "transform.LayerNorm.weight", "transform.LayerNorm.bias"}
    assert set(PatchHead(8).state_dict()) == names | {"decoder.weight", "decoder.bias"}
    assert PatchHead(8).decoder.out_features == 768
