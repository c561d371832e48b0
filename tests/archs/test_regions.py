"""Models that read regions: how an image comes, what is masked, what a checkpoint of pairs starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from vlpbench.archs import registry, uniter, vilbert
from vlpbench.archs.learner import Learner, SpecialTokens
from vlpbench.archs.objectives.table import impossible
from vlpbench.archs.regions import BOX, RegionInput, Regions, with_area, with_sides
from vlpbench.archs.types import Batch, Masked, Text
from vlpbench.archs.uniter_tasks import (
    RECIPE,
    MaskedRegions,
    PairAttention,
    PairClassifying,
    Pretraining,
    Ranking,
    TripletClassifying,
)
from vlpbench.archs.vilbert_streams import SIZES as STREAMS
from vlpbench.archs.vilbert_streams import Streams

READERS = [name for name, spec in registry.specs().items() if spec.input == "regions"]
TEXT = Text(ids=torch.tensor([[1, 9, 8, 2], [1, 7, 2, 0]]), mask=torch.tensor([[True] * 4, [True] * 3 + [False]]))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def image(model: Any, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, *model.image_shape)


def test_both_papers_are_there() -> None:
    assert set(READERS) >= {"uniter", "vilbert"}


def test_what_is_derived_from_a_box() -> None:
    box = torch.tensor([[0.1, 0.2, 0.5, 0.4]])
    torch.testing.assert_close(with_sides(box), torch.tensor([[0.1, 0.2, 0.5, 0.4, 0.4, 0.2, 0.08]]))
    torch.testing.assert_close(with_area(box), torch.tensor([[0.1, 0.2, 0.5, 0.4, 0.08]]))


def test_an_image_without_a_box_has_no_region() -> None:
    given = torch.zeros(1, 3, 5 + BOX)
    given[0, 0, 0], given[0, 1, -1] = 1.0, 0.5
    features, box, mask = RegionInput(5, None, 8)(given)
    assert mask.tolist() == [[False, True, False]]
    assert (features.shape, box.shape) == ((1, 3, 5), (1, 3, 4))


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(1, 3, 8, 8\)"):
        RegionInput(5, None, 8)(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"not \(1, 3, 5\)"):
        RegionInput(5, None, 8)(torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="5 features are not the 3"):
        RegionInput(5, 2, 8)


@pytest.mark.parametrize("name", READERS)
def test_absent_regions_change_nothing(name: str) -> None:
    model = registry.build(name, "tiny").eval()
    given = image(model)
    padded = torch.cat([given, torch.zeros_like(given)], dim=1)
    words = model.encode_text(TEXT)
    found = [model.fuse(model.encode_image(x), words) for x in (given, padded)]
    torch.testing.assert_close(found[0].pooled, found[1].pooled)
    assert found[0].text is not None
    torch.testing.assert_close(found[0].text, found[1].text)


@pytest.mark.parametrize("name", READERS)
def test_an_image_with_no_region_at_all_is_finite(name: str) -> None:
    model = registry.build(name, "tiny").eval()
    nothing = torch.zeros_like(image(model))
    assert model.fuse_pooled(model.encode_image(nothing), model.encode_text(TEXT)).isfinite().all()


@pytest.mark.parametrize("name", READERS)
def test_any_capable_objective_trains(name: str) -> None:
    spec = registry.get(name)
    assert impossible(spec, RECIPE.objectives, "off") is None
    tokens = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)
    learner = Learner(registry.build(name, "tiny"), RECIPE, tokens).train()
    text = Text(ids=TEXT.ids.repeat(2, 1), mask=TEXT.mask.repeat(2, 1))
    batch = Batch(image=image(learner.model, 4), text=text, sample_id=torch.arange(4))
    learner.total(learner(batch)).backward()
    assert all(p.grad is not None for p in learner.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", READERS)
def test_data_decides_what_a_large_model_reads(name: str) -> None:
    changes = {"regions": 5, "features": 3 * 16 * 16, "crop": 16, "image_size": (128, 128)}
    with torch.device("meta"):
        model = registry.build(name, "base", changes)
        assert model.image_shape == (5, 3 * 16 * 16 + BOX)
        words = Text(ids=torch.zeros(2, 4, dtype=torch.long), mask=torch.ones(2, 4, dtype=torch.bool))
        assert model.fuse_pooled(model.encode_image(image(model)), model.encode_text(words)).shape == (2, model.width)


def test_uniter_masks_regions_only_where_it_learns_to() -> None:
    model = uniter.build("tiny", {})
    mask = model.img_embeddings.mask_embedding.weight
    assert not mask.requires_grad
    Pretraining(model, 3)
    assert mask.requires_grad


def test_uniter_losses_of_pretraining_reach_what_they_should() -> None:
    model = uniter.build("tiny", {})
    module = Pretraining(model, 6)
    regions = model.img_embeddings.regions(image(model))
    hidden = torch.tensor([[True, False, False], [False, True, True]])
    masked = MaskedRegions(
        mask=hidden, features=regions.features[hidden].detach(), classes=torch.rand(3, 6).softmax(dim=1)
    )
    label = TEXT.ids.flatten()[[1, 5]]
    words = Masked(text=TEXT, position=torch.tensor([1, 5]), label=label)
    losses = [getattr(module, name)(regions, TEXT, masked) for name in ("mrfr", "mrc", "mrc_kl")]
    tokens = model.encode_image(image(model))
    losses += [module.mlm(tokens, words), module.itm(tokens, TEXT, torch.tensor([1, 0]))]
    torch.stack(losses).sum().backward()
    untouched = [name for name, p in module.named_parameters() if p.grad is None]
    assert untouched == []


def test_ranking_starts_from_matching() -> None:
    module = Ranking(uniter.build("tiny", {}))
    torch.nn.init.normal_(module.itm_output.weight)
    module.start()
    words = module.model.encode_text(TEXT)
    tokens = module.model.encode_image(image(module.model))
    expected = module.itm_output(module.model.fuse(tokens, words).pooled)[:, 1:]
    torch.testing.assert_close(module(tokens, TEXT), expected)
    hinges = module.hinges(torch.tensor([[0.0], [0.0], [30.0], [-30.0], [0.0], [30.0]]), 3)
    torch.testing.assert_close(hinges, torch.tensor([[0.2, 0.7], [0.7, 1.2]]))


@pytest.mark.parametrize("form", ["pair", "triplet", "attention"])
def test_uniter_tells_left_from_right(form: str) -> None:
    model = uniter.build("tiny", {"image_types": 2})
    module: Any = {
        "pair": PairClassifying,
        "triplet": TripletClassifying,
        "attention": lambda m: PairAttention(m, 2, dropout=0.0),
    }[form](model)
    regions = [model.img_embeddings.regions(image(model)) for _ in range(2)]
    there, back = module(*regions, TEXT), module(*regions[::-1], TEXT)
    assert there.shape == (2, 2)
    assert not torch.allclose(there, back)
    with pytest.raises(ValueError, match="image_types 2, not 1"):
        TripletClassifying(uniter.build("tiny", {}))


def test_uniter_triplet_reads_both_images_at_once() -> None:
    """A region without a place counts as absent, so an absent right image leaves the left one alone."""
    model = uniter.build("tiny", {"image_types": 2}).eval()
    module = TripletClassifying(model)
    left, right = (model.img_embeddings.regions(image(model)) for _ in range(2))
    nothing = Regions(features=right.features, place=right.place, mask=torch.zeros_like(right.mask))
    alone = module.nlvr2_output(model.fuse(model.embed_regions(left), model.encode_text(TEXT)).pooled)
    torch.testing.assert_close(module(left, nothing, TEXT), alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_connects": (2, 1)}, r"text connections \(2, 1\) must rise"),
        ({"image_connects": (0, 3)}, r"image connections \(0, 3\) must rise from 0 to at most 2"),
        ({"text_connects": (1,)}, "must be as many"),
    ],
)
def test_vilbert_connections_must_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Streams(replace(STREAMS["small"], **changes))


def test_vilbert_words_below_the_first_connection_see_no_image() -> None:
    model = vilbert.build("small", {}).eval()
    assert model.encoder.text_connects[0] == 1
    x, seen = model.embeddings(TEXT.ids), TEXT.mask[:, None, None]
    torch.testing.assert_close(model.encode_text(TEXT).x, model.encoder.layer[0](x, seen))
