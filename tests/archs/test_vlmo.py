"""VLMo's ways through its blocks, its cost by closed form, the parameters its authors state, and its stages."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from vlpbench.archs import registry
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.model import Pass, parameter_count
from vlpbench.archs.objectives.table import impossible
from vlpbench.archs.types import Batch, Masked, Text, Unsupported
from vlpbench.archs.vlmo import Vlmo, VlmoConfig
from vlpbench.archs.vlmo_parts import RelativePositions
from vlpbench.archs.vlmo_tasks import (
    RECIPE,
    STAGES,
    Answering,
    PairClassifying,
    TextStage,
    enter,
    pretraining_losses,
)

TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=20)
CONFIG = VlmoConfig(
    image_size=(16, 24),
    patch=8,
    text_len=6,
    vocab_size=20,
    width=16,
    heads=2,
    layers=3,
    vl_layers=1,
    text_positions=9,
    drop_path=0.0,
)


@pytest.fixture
def model() -> Vlmo:
    torch.manual_seed(0)
    built = Vlmo(CONFIG).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return built


def pairs() -> tuple[torch.Tensor, Text]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 20, (3, 6), generator=generator)
    ids[1, 4:] = 0
    return torch.randn(3, 3, 16, 24, generator=generator), Text(ids=ids, mask=ids > 0)


def paper(size: str) -> Vlmo:
    with torch.device("meta"):
        built = registry.build("vlmo", size).eval()
    assert isinstance(built, Vlmo)
    return built


@pytest.mark.parametrize(("size", "millions"), [("base", 175), ("base_plus", 167), ("large", 562)])
def test_parameters_that_the_authors_state(size: str, millions: float) -> None:
    """Blocks and embeddings, all experts; the pooler and the projections of contrast are heads."""
    built = paper(size)
    heads = parameter_count(built.pooler) + 2 * parameter_count(built.itc_text_proj)
    assert (parameter_count(built) - heads) / 1e6 == pytest.approx(millions, rel=4e-3)


def test_parameters_by_hand() -> None:
    D, H, V, L, N = 16, 64, 20, 6, 7
    attention = 3 * D * D + 2 * D + D * D + D
    expert = 2 * D + D * H + H + H * D + D
    block = 2 * D + attention + 2 * expert + 2 * D  # first norm, both layer scales
    table = ((2 * 2 - 1) * (2 * 3 - 1) + 3 + 2 + 2 * 9) * (2 * 3)
    stem = D + 3 * 8 * 8 * D + D
    text = V * D + 2 * D + 2 * D + 2 * D  # words, segments, norm, modality types
    assert parameter_count(Vlmo(CONFIG)) == 3 * block + expert + table + stem + 2 * D + text + D * D + D + 2 * D * D
    absolute = Vlmo(registry.changed(CONFIG, {"positions": "absolute", "layer_scale": None}, owner="vlmo"))
    assert parameter_count(Vlmo(CONFIG)) - parameter_count(absolute) == table + 3 * 2 * D - L * D - N * D


def test_small_and_medium_match_the_others() -> None:
    with torch.device("meta"):
        for size in ("small", "medium"):
            counts = [parameter_count(registry.build(name, size)) for name in ("vlmo", "clip", "vilt", "albef")]
            assert max(counts) <= 1.1 * min(counts)


@pytest.mark.parametrize("size", ["base", "large"])
def test_flops_by_closed_form(size: str) -> None:
    built = paper(size)
    D, layers, L, N = built.width, len(built.transformer.layers), 40, 197
    block = lambda s: 2 * s * 12 * D * D + 2 * 2 * s * s * D  # noqa: E731
    # Of the last block of an embedding one token is computed, from keys and values of all.
    last = lambda s: 2 * (2 * s * D * D + 10 * D * D) + 2 * 2 * s * D  # noqa: E731
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        image = built.encode_image(torch.empty(1, 3, 224, 224))
        stem = counter.get_total_flops()
        text = built.encode_text(Text(ids=torch.zeros(1, L).long(), mask=torch.ones(1, L).bool()))
        assert counter.get_total_flops() == stem == 2 * 196 * 3 * 16 * 16 * D
        built.fuse(image, text)
        fused = counter.get_total_flops() - stem
        built.embed_image(image)
        embedded = counter.get_total_flops() - stem - fused
    assert fused == layers * block(L + N) + 2 * D * D
    assert embedded == (layers - 1) * block(N) + last(N) + 2 * D * D


def test_a_pair_below_the_shared_experts_takes_those_of_each_modality(model: Vlmo) -> None:
    block = model.transformer.layers[0]
    x = torch.randn(2, 9, 16)
    found = block(x, None, "vl", split=4)
    middle = x + block.gamma_1 * block.attn(block.norm1(x), None)
    for part, way in ((slice(None, 4), "text"), (slice(4, None), "imag")):
        mlp, norm = block.get_submodule(f"mlp_{way}"), block.get_submodule(f"norm2_{way}")
        torch.testing.assert_close(found[:, part], middle[:, part] + block.gamma_2 * mlp(norm(middle[:, part])))
    assert not hasattr(block, "mlp_vl")
    assert hasattr(model.transformer.layers[2], "mlp_vl")


def test_the_first_token_alone_is_the_first_token(model: Vlmo) -> None:
    image, text = pairs()
    states = model.encode_image(image), model.encode_text(text)
    with torch.no_grad():
        torch.testing.assert_close(model.fuse_pooled(*states), model.fuse(*states).pooled, atol=1e-6, rtol=1e-5)
        embed, vl = model.contrast(states[1], vl=True)
        torch.testing.assert_close(embed, model.embed_text(states[1]))
        whole = model.text_tokens(states[1])[:, 0]
        torch.testing.assert_close(embed, F.normalize(model.itc_text_proj["fc"](whole), dim=-1), atol=1e-6, rtol=1e-5)
        assert not torch.allclose(vl, whole, atol=1e-3)


def test_relative_positions_of_a_rectangle() -> None:
    """Equal offsets share a row, others do not; the first tokens have rows of their own."""
    relative = RelativePositions((2, 3), text_len=5, text_positions=7)
    image = relative.index("imag", 0)
    offsets: dict[tuple[int, int], set[int]] = {}
    for a in range(6):
        for b in range(6):
            offset = (a // 3 - b // 3, a % 3 - b % 3)
            offsets.setdefault(offset, set()).add(int(image[1 + a, 1 + b]))
    assert all(len(rows) == 1 for rows in offsets.values())
    assert len(set.union(*offsets.values())) == len(offsets) == 3 * 5
    pair = relative.index("vl", 4)
    assert pair.shape == (4 + 7, 4 + 7)
    assert len(pair[:4, 4:].unique()) == len(pair[4:, :4].unique()) == 1
    text = pair[:4, :4]
    assert text[1, 2] == text[2, 3] != text[2, 1]
    assert len({int(text[0, 1]), int(text[1, 0]), int(text[0, 0]), int(text[1, 2])}) == 4
    assert pair.max() < relative.rows
    with pytest.raises(ValueError, match="texts of 8 tokens need text_positions"):
        RelativePositions((2, 3), text_len=8, text_positions=7)


def test_contrast_with_shared_experts_is_the_mean_of_two(model: Vlmo) -> None:
    image, text = pairs()
    learner = Learner(model, Recipe(objectives=("itc_vl",), temperature=0.1), TOKENS).eval()
    batch = Batch(image=image, text=text, sample_id=torch.arange(3))
    objective = learner.objectives["itc_vl"]
    i, t = model.encode_image(image), model.encode_text(text)
    spaces: list[tuple[torch.Tensor, ...]] = [(model.embed_image(i), model.embed_text(t))]
    heads = (objective.get_submodule("image_proj"), objective.get_submodule("text_proj"))
    spaces.append(
        tuple(F.normalize(h(model.contrast(s, vl=True)[1]), dim=-1) for h, s in zip(heads, (i, t), strict=True))
    )
    losses = []
    for a, b in spaces:
        logits, target = a @ b.T / 0.1, torch.arange(3)
        losses.append((F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2)
    torch.testing.assert_close(learner(batch)["itc_vl"], sum(losses) / 2)


def test_contrast_with_shared_experts_is_for_those_who_have_them() -> None:
    reason = impossible(registry.get("albef"), ["itc_vl"], "off")
    assert reason is not None
    assert "itc_vl is for vlmo" in reason
    assert impossible(registry.get("vlmo"), ["itc_vl", "itm", "mlm"], "off") is None
    with pytest.raises(Unsupported, match="Albef has not"):
        Learner(registry.build("albef", "tiny"), Recipe(objectives=("itc_vl",)), TOKENS)


def test_the_text_stage_trains_what_images_do_not_use(model: Vlmo) -> None:
    stage = TextStage(model).train()
    enter(stage, "text")
    _, text = pairs()
    position = torch.tensor([1, 8])
    masked = Masked(text=text, position=position, label=text.ids.flatten()[position])
    stage.loss(masked).backward()
    learnt = {name.removeprefix("model.") for name, p in stage.named_parameters() if p.grad is not None}
    frozen = {name.removeprefix("model.") for name, p in stage.named_parameters() if not p.requires_grad}
    assert "transformer.blocks.0.mlp_text.fc1.weight" in learnt
    assert "transformer.blocks.0.norm2_text.weight" in learnt
    assert "head.decoder.weight" in learnt
    assert "relative_position_bias" in learnt
    for name in ("attn.qkv.weight", "mlp_imag.fc1.weight", "gamma_1", "norm1.weight"):
        assert f"transformer.blocks.1.{name}" in frozen
    assert not learnt & frozen


def test_the_image_stage_trains_what_an_image_goes_through(model: Vlmo) -> None:
    enter(model, "image")
    image, _ = pairs()
    model._run(model.encode_image(image), model._looks("imag", 7, None), "imag").sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert reached == trained
    enter(model, "pair")
    assert all(p.requires_grad for p in model.parameters())
    assert list(STAGES) == ["image", "text", "pair"]


def test_heads_of_tasks(model: Vlmo) -> None:
    image, text = pairs()
    answering = Answering(model, 5)
    share = torch.tensor([[0.0, 1.0, 0, 0, 0.3], [0] * 5, [0, 0, 0, 1, 0]])
    logits = answering(image, text)
    expected = (F.softplus(logits) - share * logits).sum(dim=1).mean()
    torch.testing.assert_close(answering.loss(logits, share), expected)
    with pytest.raises(ValueError, match="image_types 2, not 1"):
        PairClassifying(model)
    two = Vlmo(registry.changed(CONFIG, {"image_types": 2}, owner="vlmo")).eval()
    classifying = PairClassifying(two)
    assert classifying(image, image.flip(0), text).shape == (3, 2)
    assert not torch.allclose(classifying(image, image.flip(0), text), classifying(image.flip(0), image, text))


def test_the_released_recipe_runs(model: Vlmo) -> None:
    image, text = pairs()
    learner = Learner(model, RECIPE, TOKENS).train()
    batch = Batch(image=image, text=text, sample_id=torch.arange(3))
    losses = learner(batch, generator=torch.Generator().manual_seed(0))
    learner.total(losses).backward()
    assert set(losses) == {"itc_vl", "itm", "mlm"}
    total = losses["itc_vl"] + losses["itm"] + 0.25 * losses["mlm"]
    torch.testing.assert_close(learner.total(losses), total)


def test_negatives_of_one_process_are_those_of_its_batch(model: Vlmo) -> None:
    image, text = pairs()
    learner = Learner(model, RECIPE, TOKENS).train()
    batch = Batch(image=image, text=text, sample_id=torch.arange(3))
    local = learner(batch, generator=torch.Generator().manual_seed(3))
    found = pretraining_losses(learner, batch, generator=torch.Generator().manual_seed(3))
    for name, loss in local.items():
        torch.testing.assert_close(found[name], loss)


def test_negatives_come_from_all_ranks(model: Vlmo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 of two: its own texts show its own image, so that every negative is one of rank 1."""
    (image, text), generator = pairs(), torch.Generator().manual_seed(5)
    other = torch.randn(3, 3, 16, 24, generator=generator)
    elsewhere = {torch.float32: other, torch.bool: torch.ones(3, 6).bool()}

    def gather(rows: torch.Tensor) -> torch.Tensor:
        if rows.shape[1:] == (16,):  # embeddings
            return torch.cat([rows, F.normalize(torch.randn(3, 16, generator=generator), dim=-1)])
        if rows.dtype == torch.int64:
            return torch.cat([rows, rows + 1 if rows.ndim == 1 else rows.flip(1).clamp(min=4)])
        return torch.cat([rows, elsewhere[rows.dtype]])

    monkeypatch.setattr("vlpbench.archs.vlmo_tasks.gather_ranks", gather)
    seen: list[torch.Tensor] = []
    encode = Vlmo.encode_image
    monkeypatch.setattr(Vlmo, "encode_image", lambda self, x: (seen.append(x), encode(self, x))[1])
    learner = Learner(model, RECIPE, TOKENS).train()
    batch = Batch(image=image, text=text, sample_id=torch.zeros(3, dtype=torch.long))
    losses = pretraining_losses(learner, batch, generator=generator)
    own, negative = seen
    assert torch.equal(own, image)
    assert all(any(torch.equal(x, y) for y in other) for x in negative)
    assert all(loss.isfinite() for loss in losses.values())


def test_embeddings_are_computed_once(model: Vlmo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of contrast in one pass run each tower once."""
    calls: list[bool] = []
    contrast = Vlmo.contrast
    monkeypatch.setattr(Vlmo, "contrast", lambda self, x, **k: (calls.append(bool(k)), contrast(self, x, **k))[1])
    image, text = pairs()
    objective = Learner(model, Recipe(objectives=("itc_vl",)), TOKENS).objectives["itc_vl"]
    objective(Pass(model, Batch(image=image, text=text, sample_id=torch.arange(3))))
    assert calls == [True, True]


def test_refuses_what_it_cannot_build() -> None:
    with pytest.raises(ValueError, match="0 of 2 layers cannot serve pairs"):
        registry.build("vlmo", "tiny", {"vl_layers": 0})
    with pytest.raises(ValueError, match="multiple of the patch size 16"):
        registry.build("vlmo", "tiny", {"image_size": (40, 32)})
    with pytest.raises(ValueError, match="7 tokens is longer than the model's 6"):
        Vlmo(CONFIG).encode_text(Text(ids=torch.ones(1, 7).long(), mask=torch.ones(1, 7).bool()))
