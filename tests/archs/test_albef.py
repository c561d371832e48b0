"""ALBEF's module and its training step: masks, cached keys, momentum, and every architecture under every objective."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vlpbench.archs.albef import SIZES, build
from vlpbench.archs.blocks import BertShape, ConvStem
from vlpbench.archs.learner import Draws, Learner, Recipe, SpecialTokens, decay_groups, draw_masked
from vlpbench.archs.model import VLModel, parameter_count, take
from vlpbench.archs.registry import UnknownName
from vlpbench.archs.registry import build as build_any
from vlpbench.archs.types import Batch, Masked, Negatives, Text

TOKENS = SpecialTokens(pad=0, cls=1, sep=None, mask=2, vocab_size=40)
ALL = ("itc", "itm", "mlm")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def batch_for(model: VLModel[Any, Any], size: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 40, (size, 8), generator=generator)
    ids[:, 0] = TOKENS.cls
    ids[::2, 5:] = TOKENS.pad
    image = torch.randn(size, 3, *model.image_size, generator=generator)
    return Batch(image=image, text=Text(ids=ids, mask=ids != TOKENS.pad), sample_id=torch.arange(size) + 100 * seed)


def learner_for(arch: str = "albef", objectives: tuple[str, ...] = ALL, **recipe: Any) -> Learner:
    torch.manual_seed(0)
    numbers = {"queue_size": 12, "momentum_rate": 0.9}
    model = build_any(arch, "tiny")
    return Learner(model, Recipe(objectives=objectives, **(numbers | recipe)), TOKENS).train()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sizes_are_the_papers_and_the_matched_ones() -> None:
    with torch.device("meta"):
        base = build("base", {})
        assert parameter_count(base) == pytest.approx(209.3e6, rel=1e-3)
        counts = {
            size: [parameter_count(build_any(arch, size)) for arch in ("albef", "clip", "vilt")]
            for size in ("small", "medium")
        }
    structure = base.structure()
    assert (structure.image_tokens, structure.text_tokens, structure.width) == (197, 25, 768)
    assert (structure.image_layers, structure.text_layers, structure.fusion_layers) == (12, 6, 6)
    assert base.text_encoder.embeddings.LayerNorm.eps == 1e-12
    assert base.visual_encoder.norm.eps == 1e-6
    for found in counts.values():
        assert max(found) / min(found) < 1.1
    assert 0.6e6 < counts["small"][0] < 0.8e6
    assert 18e6 < counts["medium"][0] < 22e6


def test_a_wrong_field_or_number_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'text_layers'"):
        build("tiny", {"text_layer": 3})
    with pytest.raises(ValueError, match=r"image size \(30, 32\) must be a multiple of the patch size 16"):
        build("tiny", {"image_size": (30, 32)})
    with pytest.raises(ValueError, match="patch 12 is no power of two"):
        ConvStem(32, 12)
    with pytest.raises(ValueError, match="width 40 must be a multiple of 32"):
        ConvStem(40, 16)
    with pytest.raises(ValueError, match="width 32 is not divisible by 3 heads"):
        build("tiny", {"heads": 3})
    with pytest.raises(ValueError, match="0 fusion layers cannot fuse"):
        build("tiny", {"fusion_layers": 0})
    assert BertShape() == SIZES["base"].bert


def test_a_text_longer_than_the_positions_is_refused() -> None:
    model = build("tiny", {"positions": 4})
    with pytest.raises(ValueError, match="a text of 5 tokens is longer than the 4 positions"):
        model.encode_text(Text(ids=torch.ones(1, 5, dtype=torch.long), mask=torch.ones(1, 5, dtype=torch.bool)))


def test_fusion_is_the_same_with_and_without_prepared_keys_and_after_a_gather() -> None:
    model = build("tiny", {"fusion_layers": 2}).eval()
    batch = batch_for(model)
    image, text = model.encode_image(batch.image), model.encode_text(batch.text)
    prepared = model.prepare_image(image)
    assert prepared.tokens is None
    assert prepared.keys_values is not None
    assert len(prepared.keys_values) == 2
    assert model.prepare_image(prepared) is prepared
    plain = model.fuse(image, text)
    assert torch.equal(plain.pooled, model.fuse(prepared, text).pooled)
    assert torch.equal(model.embed_image(image), model.embed_image(prepared))
    rows = torch.tensor([3, 3, 0])
    gathered = model.fuse(take(prepared, rows), take(text, rows))
    torch.testing.assert_close(gathered.pooled, plain.pooled[rows], atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion_layers", [1, 3])
def test_the_class_token_alone_is_what_it_is_among_all_tokens(fusion_layers: int) -> None:
    model = build("tiny", {"fusion_layers": fusion_layers}).eval()
    batch = batch_for(model)
    image, text = model.encode_image(batch.image), model.encode_text(batch.text)
    torch.testing.assert_close(model.fuse_pooled(image, text), model.fuse(image, text).pooled, atol=1e-5, rtol=0)


def test_padding_changes_nothing() -> None:
    model = build("tiny", {}).eval()
    batch = batch_for(model)
    image = model.encode_image(batch.image)
    noise = torch.where(batch.text.mask, batch.text.ids, 17)
    whole = model.fuse(image, model.encode_text(batch.text))
    noisy = model.fuse(image, model.encode_text(Text(ids=noise, mask=batch.text.mask)))
    torch.testing.assert_close(whole.pooled, noisy.pooled, atol=1e-5, rtol=0)
    short = model.encode_text(Text(ids=batch.text.ids[::2, :5], mask=batch.text.mask[::2, :5]))
    cut = model.fuse(take(image, torch.arange(0, 6, 2)), short)
    torch.testing.assert_close(whole.pooled[::2], cut.pooled, atol=1e-5, rtol=0)


def test_text_sees_both_sides_and_the_image_but_not_its_neighbours_in_the_batch() -> None:
    model = build("tiny", {}).eval()
    batch = batch_for(model)
    image, ids = model.encode_image(batch.image), batch.text.ids.clone()
    before = model.fuse(image, model.encode_text(batch.text)).text
    ids[0, 3] = 30 if ids[0, 3] != 30 else 31
    after = model.fuse(image, model.encode_text(Text(ids=ids, mask=batch.text.mask))).text
    assert before is not None
    assert after is not None
    moved = (before - after).abs().amax(dim=-1)
    assert (moved[0, :5] > 1e-6).all()
    assert moved[1:].max() < 1e-6
    other = model.fuse(take(image, torch.arange(5, -1, -1)), model.encode_text(batch.text)).text
    assert other is not None
    assert ((before - other).abs().amax(dim=(1, 2)) > 1e-6).all()


COMBINATIONS = [
    ("albef", ALL, "off"),
    ("albef", ALL, "queue"),
    ("albef", ALL, "distill"),
    ("albef", ("itm", "mlm"), "distill"),
    ("clip", ("itc",), "queue"),
    ("clip", ("itc",), "distill"),
    ("vilt", ("itm", "mlm"), "off"),
    ("vilt", ("itm", "mlm"), "distill"),
]


@pytest.mark.parametrize(("arch", "objectives", "momentum"), COMBINATIONS)
def test_every_capable_combination_trains(arch: str, objectives: tuple[str, ...], momentum: str) -> None:
    """Losses fall on one batch; every parameter that an objective reads gets a gradient, the teacher's none."""
    learner = learner_for(arch, objectives, momentum=momentum)
    optimizer = torch.optim.AdamW(decay_groups(learner, 0.01), lr=3e-3)
    batch, totals = batch_for(learner.model), []
    for step in range(12):
        optimizer.zero_grad()
        losses = learner(batch, alpha=0.2, generator=generator(0))
        assert list(losses) == list(objectives)
        total = learner.total(losses)
        total.backward()
        if step == 0:
            for name, parameter in learner.named_parameters():
                unread = "itc" not in objectives and name.startswith(("model.vision_proj", "model.text_proj"))
                assert (parameter.grad is None) is (unread or name.startswith("momentum.")), name
        optimizer.step()
        learner.after_step()
        totals.append(total.item())
    assert totals[-1] < totals[1] - 0.1


def test_the_total_is_weighted() -> None:
    learner = learner_for(weights=(1.0, 0.5, 2.0))
    losses = {"itc": torch.tensor(3.0), "itm": torch.tensor(4.0), "mlm": torch.tensor(5.0)}
    assert learner.total(losses).item() == 3 + 2 + 10


def test_one_seed_gives_one_result_to_the_bit() -> None:
    def run() -> list[float]:
        learner = learner_for(momentum="distill")
        optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
        found = []
        for step in range(3):
            losses = learner(batch_for(learner.model, seed=step), generator=generator(step))
            optimizer.zero_grad()
            learner.total(losses).backward()
            optimizer.step()
            learner.after_step()
            found += [loss.item() for loss in losses.values()]
        return found

    assert run() == run()


def test_the_teacher_follows_the_student_and_its_tied_head_once() -> None:
    learner = learner_for(momentum="distill")
    assert learner.momentum is not None
    teacher: Any = learner.momentum.twin
    head, words = teacher["heads"]["mlm"], teacher["model"].word_embedding()
    assert head.decoder.weight is words.weight
    assert words.weight is not learner.model.word_embedding().weight
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    with torch.no_grad():
        for parameter in learner.student().parameters():
            parameter.add_(1.0)
    learner(batch_for(learner.model))
    for name, parameter in teacher.named_parameters():
        assert torch.equal(parameter, before[name])
    learner.after_step()
    for name, parameter in teacher.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.1, atol=1e-5, rtol=0)


def test_the_teacher_follows_after_a_move_and_after_loading() -> None:
    learner = learner_for(momentum="queue")
    assert learner.momentum is not None
    learner.after_step()
    learner.double()
    state = learner.state_dict()
    learner.load_state_dict(state, assign=True)
    with torch.no_grad():
        learner.model.word_embedding().weight.add_(1.0)
    teacher: Any = learner.momentum.twin
    before = teacher["model"].word_embedding().weight.clone()
    learner.after_step()
    torch.testing.assert_close(teacher["model"].word_embedding().weight, before + 0.1)


def test_the_official_order_differs_in_the_first_step_alone() -> None:
    """From a teacher that equals its student, both orders are one; from another they differ."""

    def losses(code: str, *, apart: bool) -> list[float]:
        learner = learner_for(momentum="distill", code=code)
        assert learner.momentum is not None
        if apart:
            with torch.no_grad():
                for parameter in learner.momentum.twin.parameters():
                    parameter.mul_(1.5)
        optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
        found = []
        for step in range(3):
            total = learner.total(learner(batch_for(learner.model, seed=step), generator=generator(step)))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            learner.after_step()
            found.append(total.item())
        return found

    assert losses("clean", apart=False) == pytest.approx(losses("official", apart=False), abs=1e-6)
    assert losses("clean", apart=True)[0] != pytest.approx(losses("official", apart=True)[0], abs=1e-4)


def test_teacher_keeps_dropout_only_as_the_official_code_does() -> None:
    for code, active in (("clean", False), ("official", True)):
        learner = learner_for(momentum="distill", code=code)
        assert learner.momentum is not None
        assert learner.momentum.twin.training is active
        learner.eval()
        assert not learner.momentum.twin.training


def test_without_soft_targets_the_teacher_reads_no_masked_text() -> None:
    learner = learner_for(momentum="queue")
    assert learner.momentum is not None
    teacher: Any = learner.momentum.twin
    seen: list[int] = []
    teacher["model"].text_encoder.embeddings.register_forward_hook(lambda *args: seen.append(len(args[2])))
    learner(batch_for(learner.model))
    assert seen == [6]
    assert not len(teacher["heads"])


def test_losses_are_single_precision_under_autocast() -> None:
    learner = learner_for(momentum="distill")
    draws = Draws(masked=draw_masked(batch_for(learner.model).text, TOKENS, 0.3, generator()))
    exact = learner(batch_for(learner.model), draws=draws, generator=generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = learner(batch_for(learner.model), draws=draws, generator=generator())
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact[name].item(), abs=0.05)


@pytest.mark.parametrize("momentum", ["off", "queue", "distill"])
def test_a_step_asks_the_device_for_no_value(momentum: str) -> None:
    """On meta there are no values: any read by the host raises."""
    with torch.device("meta"):
        learner = learner_for(momentum=momentum)
        real = batch_for(build("tiny", {}))
    masked = Masked(text=real.text, position=torch.arange(5).to("meta"), label=torch.arange(5).to("meta"))
    assert real.image.device.type == masked.position.device.type == "meta"
    losses = learner(real, draws=Draws(masked=masked))
    learner.total(losses).backward()
    learner.after_step()


def test_recorded_negatives_are_used_as_given() -> None:
    learner = learner_for(objectives=("itm",)).eval()
    batch = batch_for(learner.model, size=2)
    same = Negatives(image=torch.tensor([0, 1]), text=torch.tensor([0, 1]))
    loss = learner(batch, draws=Draws(negatives=same))["itm"]
    fused = learner.model.fuse(learner.model.encode_image(batch.image), learner.model.encode_text(batch.text))
    logits = learner.objectives["itm"].head(fused.pooled)
    expected = -(logits.log_softmax(1)[:, 1].mean() + 2 * logits.log_softmax(1)[:, 0].mean()) / 3
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.equal(learner.match_logits(fused.pooled), logits[:, 1] - logits[:, 0])
