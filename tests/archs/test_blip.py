"""BLIP's module: what its three modes share, which first token each has, its task models, its teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vlpbench.archs.albef_tasks import Answered, Labelled
from vlpbench.archs.blip import Blip, build
from vlpbench.archs.blip_config import SIZES
from vlpbench.archs.blip_tasks import Answering, Captioning, PairClassifying
from vlpbench.archs.generate import Writing, generate
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.model import parameter_count
from vlpbench.archs.registry import UnknownName
from vlpbench.archs.registry import build as build_any
from vlpbench.archs.types import Batch, Text

TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)
TINY = SIZES["tiny"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def text_of(size: int, length: int = 8) -> Text:
    ids = torch.randint(4, 40, (size, length))
    ids[:, 0] = TOKENS.cls
    ids[::2, 5:] = TOKENS.pad
    return Text(ids=ids, mask=ids != TOKENS.pad)


def images(size: int) -> Tensor:
    return torch.randn(size, 3, *TINY.image_size)


def batch_of(size: int = 6) -> Batch:
    return Batch(image=images(size), text=text_of(size), sample_id=torch.arange(size))


def test_sizes_are_the_papers_and_the_matched_ones() -> None:
    with torch.device("meta"):
        base, large = build("base", {}), build("large", {})
        counts = {
            size: [parameter_count(build_any(arch, size)) for arch in ("blip", "albef", "clip", "vilt")]
            for size in ("small", "medium")
        }
    # The official pre-training trains 252,441,919 with a temperature and a matching head of 2 * 768 + 2.
    assert parameter_count(base) == 252_441_919 - 1 - 1538
    for found in counts.values():
        assert max(found) / min(found) < 1.1
    structure = base.structure()
    assert (structure.image_tokens, structure.text_tokens, structure.width) == (197, 30, 768)
    assert (structure.image_layers, structure.text_layers, structure.fusion_layers) == (12, 12, 12)
    assert (large.structure().image_layers, large.vision_proj.in_features, large.width) == (24, 1024, 768)


def test_encoder_and_decoder_share_all_but_self_attention() -> None:
    model = build("tiny", {})
    encoder, decoder = (dict(x.named_parameters()) for x in (model.text_encoder, model.text_decoder.bert))
    assert set(encoder) == set(decoder)
    apart = {name for name in encoder if encoder[name] is not decoder[name]}
    assert apart == {name for name in encoder if ".attention." in name}
    assert model.text_decoder.cls.decoder.weight is model.word_embedding().weight
    assert not torch.equal(*(x["encoder.layer.0.attention.self.query.weight"] for x in (encoder, decoder)))


def test_each_mode_has_its_first_token() -> None:
    model = build("tiny", {}).eval()
    image, text = model.encode_image(images(4)), text_of(4)
    other = Text(ids=text.ids.clone(), mask=text.mask)
    other.ids[:, 0] = 17
    assert torch.equal(model.fuse(image, other).pooled, model.fuse(image, text).pooled)
    assert torch.equal(model.decode(image, other), model.decode(image, text))
    assert not torch.allclose(model.embed_text(other), model.embed_text(text))
    assert model.word_embedding().num_embeddings == 42
    with torch.no_grad():
        before = model.fuse(image, text).pooled, model.decode(image, text)
        model.word_embedding().weight[model.encoder_token] += 1
    assert not torch.allclose(model.fuse(image, text).pooled, before[0])
    # [ENC] can be written like any word, so its row moves its own logit and no other.
    torch.testing.assert_close(model.decode(image, text)[..., :-1], before[1][..., :-1])


def test_keys_and_values_of_an_image_serve_encoder_and_decoder() -> None:
    model = build("tiny", {}).eval()
    image, text = model.encode_image(images(4)), text_of(4)
    prepared = model.prepare_image(image)
    assert prepared.tokens is None
    assert model.prepare_image(prepared) is prepared
    assert torch.equal(model.fuse(prepared, text).pooled, model.fuse(image, text).pooled)
    assert torch.equal(model.decode(prepared, text), model.decode(image, text))
    torch.testing.assert_close(model.fuse_pooled(image, text), model.fuse(image, text).pooled, atol=1e-6, rtol=0)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'layers'"):
        build("tiny", {"layer": 3})
    with pytest.raises(ValueError, match=r"image size \(30, 32\) must be a multiple of the patch size 16"):
        build("tiny", {"image_size": (30, 32)})
    with pytest.raises(ValueError, match="0 layers cannot fuse"):
        build("tiny", {"layers": 0})


@pytest.mark.parametrize("momentum", ["off", "queue", "distill"])
def test_a_step_trains_everything_and_the_teacher_has_no_decoder(momentum: Any) -> None:
    recipe = Recipe(objectives=("itc", "itm", "lm"), momentum=momentum, queue_size=12)
    learner = Learner(build("tiny", {}), recipe, TOKENS).train()
    losses = learner(batch_of(), generator=torch.Generator().manual_seed(0))
    assert set(losses) == {"itc", "itm", "lm"}
    learner.total(losses).backward()
    assert all(p.grad is not None for p in learner.parameters() if p.requires_grad)
    learner.after_step()
    if learner.momentum is None:
        return
    twin: Any = learner.momentum.twin
    names = {name for name, _ in learner.model.named_parameters() if not name.startswith("text_decoder.")}
    assert {name for name, _ in twin["model"].named_parameters()} == names
    assert hasattr(learner.model, "text_decoder")
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.add_(1.0)
    before = twin["model"].vision_proj.weight.clone()
    learner.momentum.update(learner.student())
    torch.testing.assert_close(
        twin["model"].vision_proj.weight - before, torch.full_like(before, 0.005), atol=1e-4, rtol=0
    )


def test_masked_words_can_be_trained_although_the_paper_does_not() -> None:
    model = build("tiny", {})
    learner = Learner(model, Recipe(objectives=("mlm",)), TOKENS).train()
    loss = learner(batch_of(), generator=torch.Generator().manual_seed(0))["mlm"]
    loss.backward()
    assert model.text_encoder.layers[-1].crossattention.self.value.weight.grad is not None
    assert model.text_decoder.bert.layers[0].attention.self.query.weight.grad is None


def test_answers_are_weighed_and_belong_to_their_question() -> None:
    network = Answering(Blip(TINY), TINY).eval()
    weight, owner = torch.tensor([0.5, 1.0, 0.25]), torch.tensor([0, 0, 1])
    image, question, answer = images(2), text_of(2), text_of(3, 4)
    batch = Answered(image=image, question=question, answer=answer, owner=owner, weight=weight)
    loss = network.loss(network(batch), batch)
    one = []
    for row, mine in enumerate(owner.tolist()):
        alone = Answered(
            image=image[mine : mine + 1],
            question=Text(ids=question.ids[mine : mine + 1], mask=question.mask[mine : mine + 1]),
            answer=Text(ids=answer.ids[row : row + 1], mask=answer.mask[row : row + 1]),
            owner=torch.tensor([0]),
            weight=weight[row : row + 1],
        )
        one.append(network.loss(network(alone), alone))
    torch.testing.assert_close(loss, torch.stack(one).sum() / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("merged", "merging"), [(0, 2), (1, 1), (6, 0)])
def test_two_images_are_merged_from_a_layer_on_and_told_apart(merged: int, merging: int) -> None:
    network = PairClassifying(TINY, merged=merged).eval()
    assert sum("merge_layer.weight" in name for name, _ in network.named_parameters()) == merging
    image, text = images(6), text_of(3)
    batch = Labelled(image=image, text=text, target=torch.zeros(3, dtype=torch.long))
    logits = network(batch)
    assert logits.shape == (3, 2)
    swapped = Labelled(image=image.roll(3, dims=0), text=text, target=batch.target)
    assert not torch.allclose(network(swapped), logits, atol=1e-6)
    network.loss(logits, batch).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_captions_are_learnt_and_written_back() -> None:
    network = Captioning(TINY).train()
    caption = Text(
        ids=torch.tensor([[1, 5, 6, 7, 2, 0], [1, 5, 9, 8, 11, 2]]),
        mask=torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]).bool(),
    )
    image = images(2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        network.loss(image, caption, prompt=2).backward()
        optimiser.step()
    network.eval()
    how = Writing(end=2, pad=0, max_len=8, beams=3, words=40)
    written = generate(network, network.prepare_decode(image), torch.tensor([[1, 5], [1, 5]]), how)
    assert torch.equal(written.text.mask, caption.mask)
    assert torch.equal(written.text.ids, caption.ids)


def test_a_given_start_is_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    network, caption, image = Captioning(TINY), text_of(2), images(2)
    logits = network(image, caption).detach().requires_grad_()
    monkeypatch.setattr(network, "forward", lambda *_: logits)
    network.loss(image, caption, prompt=3).backward()
    assert logits.grad is not None
    learnt = logits.grad.abs().sum(dim=-1) > 0
    # A position predicts the token behind it: three given tokens leave the third position as the first that learns.
    assert learnt.tolist() == [
        [False, False, True, True, False, False, False, False],
        [False, False, *[True] * 5, False],
    ]
