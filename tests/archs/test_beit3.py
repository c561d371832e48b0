"""BEiT-3's encoder by hand, its cost by closed form, writing with and without memory, masked data modelling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from vlpbench.archs import registry
from vlpbench.archs.beit3 import Beit3, Beit3Config
from vlpbench.archs.beit3_masked import MaskedData, MaskedImage, draw_blocks
from vlpbench.archs.beit3_tasks import Answering, Captioning, ImageClassifying, PairClassifying
from vlpbench.archs.generate import Writing, generate
from vlpbench.archs.model import VLModel, parameter_count
from vlpbench.archs.types import Masked, Text

CONFIG = Beit3Config(
    image_size=(16, 24),
    patch=8,
    text_len=6,
    vocab_size=20,
    width=16,
    heads=2,
    layers=2,
    hidden=24,
    text_positions=32,
    drop_path=0.0,
)


@pytest.fixture
def model() -> Beit3:
    torch.manual_seed(0)
    built = Beit3(CONFIG).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return built


def pairs() -> tuple[Tensor, Text]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 20, (3, 6), generator=generator)
    ids[1, 4:] = 0
    return torch.randn(3, 3, 16, 24, generator=generator), Text(ids=ids, mask=ids > 0)


def paper(size: str) -> Beit3:
    with torch.device("meta"):
        built = registry.build("beit3", size).eval()
    assert isinstance(built, Beit3)
    return built


@pytest.mark.parametrize(("size", "pretraining", "retrieval"), [("base", 276, 222), ("large", 746, 675)])
def test_parameters_that_the_authors_state(size: str, pretraining: float, retrieval: float) -> None:
    """In pre-training with heads for words and for 8192 visual tokens; for retrieval with two projections."""
    built = paper(size)
    with torch.device("meta"):
        heads = MaskedData(built)
    backbone = parameter_count(built.beit3)
    whole = backbone + parameter_count(heads.words) + parameter_count(heads.patches)
    assert whole / 1e6 == pytest.approx(pretraining, rel=3e-3)
    projections = parameter_count(built.vision_head) + parameter_count(built.language_head)
    assert (backbone + projections) / 1e6 == pytest.approx(retrieval, rel=3e-3)


def test_an_image_alone_touches_a_third_of_base() -> None:
    """The authors state 87 M for image classification at base: half of the encoder, and no text table."""
    built = paper("base")
    with torch.device("meta"):
        head = ImageClassifying(built, 1000)
    half = sum(p.numel() for name, p in built.beit3.encoder.named_parameters() if ".A." in name)
    half -= parameter_count(built.beit3.encoder.layer_norm.A)
    heads = parameter_count(head.fc_norm) + parameter_count(head.head)
    assert (half + parameter_count(built.beit3.vision_embed) + heads) / 1e6 == pytest.approx(87, rel=5e-3)


def test_parameters_by_hand() -> None:
    D, H, V = 16, 24, 20
    layer = 4 * (D * D + D) + 2 * D + 2 * D + D * H + H + 2 * H + H * D + D + 2 * D
    positions = (7 + 2) * D + 32 * D
    stem = V * D + 2 * D + 3 * 8 * 8 * D + D
    heads = 2 * D + D * D + D + 2 * D * D + D * V + V
    assert parameter_count(Beit3(CONFIG)) == 2 * 2 * layer + 2 * 2 * D + positions + stem + heads


def test_small_and_medium_match_the_others() -> None:
    with torch.device("meta"):
        for size in ("small", "medium"):
            counts = [parameter_count(registry.build(name, size)) for name in ("beit3", "clip", "vilt", "albef")]
            assert max(counts) <= 1.1 * min(counts)


@pytest.mark.parametrize("size", ["base", "large"])
def test_flops_by_closed_form(size: str) -> None:
    built = paper(size)
    D, layers, L, N, V = built.width, len(built.beit3.encoder.layers), 64, 197, 64010
    block = lambda s: 2 * s * 12 * D * D + 2 * 2 * s * s * D  # noqa: E731
    # Of the last layer of an embedding one token is computed, from keys and values of all.
    last = lambda s: 2 * (2 * s * D * D + 10 * D * D) + 2 * 2 * s * D  # noqa: E731
    with torch.device("meta"):
        text = Text(ids=torch.zeros(1, L).long(), mask=torch.ones(1, L).bool())
        image, words = built.encode_image(torch.empty(1, 3, 224, 224)), built.encode_text(text)
        costs = []
        for call in (built.fuse, built.decode, lambda i, _: built.embed_image(i)):
            with FlopCounterMode(display=False) as counter:
                call(image, words)
            costs.append(counter.get_total_flops())
    assert costs[0] == layers * block(L + N) + 2 * D * D
    assert costs[1] == layers * block(L + N) + 2 * L * D * V
    assert costs[2] == (layers - 1) * block(N) + last(N) + 2 * D * D


def test_tokens_keep_the_weights_of_their_modality(model: Beit3) -> None:
    """One layer written out: norms, projections and experts by modality, attention over all."""
    layer: Any = model.beit3.encoder.layers[0]
    x, split = torch.randn(1, 5, 16), 3

    def ways(module: Any, y: Tensor) -> Tensor:
        return torch.cat([module.A(y[:, :split]), module.B(y[:, split:])], dim=1)

    attention, y = layer.self_attn, ways(layer.self_attn_layer_norm, x)
    q, k, v = (
        ways(part, y).view(1, 5, 2, 8).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    weights = (q @ k.transpose(2, 3) / 8**0.5).softmax(dim=-1)
    mixed = (weights @ v).transpose(1, 2).reshape(1, 5, 16)
    y = x + ways(attention.out_proj, ways(attention.inner_attn_ln, mixed))
    expected = y + ways(layer.ffn, ways(layer.final_layer_norm, y))
    torch.testing.assert_close(layer(x, None, split), expected, atol=1e-5, rtol=1e-5)


def test_the_first_token_alone_is_the_first_token(model: Beit3) -> None:
    image, text = pairs()
    i, t = model.encode_image(image), model.encode_text(text)
    with torch.no_grad():
        torch.testing.assert_close(model.fuse_pooled(i, t), model.fuse(i, t).pooled, atol=1e-6, rtol=1e-5)
        norm = model.beit3.encoder.layer_norm
        for found, state, head, way in (
            (model.embed_image(i), (i, None), model.vision_head, norm.A),
            (model.embed_text(t), (None, t), model.language_head, norm.B),
        ):
            whole = head(way(model.tokens(*state)[:, 0]))
            torch.testing.assert_close(found, F.normalize(whole, dim=-1), atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="neither an image nor a text"):
        model.tokens(None, None)


@pytest.mark.parametrize("asked", [False, True], ids=["image", "image and prompt"])
def test_writing_with_memory_is_decoding_anew(model: Beit3, asked: bool) -> None:
    image, text = pairs()
    i, prompt = model.encode_image(image), model.encode_text(text) if asked else None
    ids = text.ids.flip(0).clamp(min=4)
    with torch.no_grad():
        target = model.encode_text(Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool)))
        expected = model.decode(i, target, prompt)
        source = model.prepare_decode(i, prompt)
        first, past = model.decode_step(source, ids[:, :2])
        steps = [first]
        for place in range(2, ids.shape[1]):
            logits, past = model.decode_step(source, ids[:, place : place + 1], past)
            steps.append(logits)
        torch.testing.assert_close(torch.cat(steps, dim=1), expected, atol=1e-5, rtol=1e-4)

        class Anew:
            """Decodes the whole text at every step."""

            def decode_step(self, source: Any, ids: Tensor, past: Any = None, *, beams: int = 1) -> tuple[Tensor, Any]:
                return VLModel.decode_step(model, source, ids, past, beams=beams)

        for beams in (1, 3):
            how = Writing(end=2, pad=0, max_len=6, beams=beams)
            start = torch.ones(3, 1, dtype=torch.long)
            kept, anew = generate(model, source, start, how), generate(Anew(), (i, prompt), start, how)
            assert torch.equal(kept.text.ids, anew.text.ids)
            torch.testing.assert_close(kept.score, anew.score, atol=1e-5, rtol=1e-4)


def test_a_prompt_is_seen_and_its_padding_is_not(model: Beit3) -> None:
    image, text = pairs()
    i, target = model.encode_image(image), model.encode_text(text)
    with torch.no_grad():
        plain, asked = model.decode(i, target), model.decode(i, target, target)
        assert not torch.allclose(plain, asked, atol=1e-3)
        other = model.encode_text(Text(ids=torch.where(text.mask, text.ids, 7), mask=text.mask))
        torch.testing.assert_close(model.decode(i, target, other), asked)
        short = model.encode_text(Text(ids=text.ids[1:2, :4], mask=text.mask[1:2, :4]))
        target = model.encode_text(Text(ids=text.ids[1:2], mask=text.mask[1:2]))
        torch.testing.assert_close(model.decode(i[1:2], target, short)[:, :4], asked[1:2, :4], atol=1e-5, rtol=1e-4)


def test_memory_spares_at_paper_size_what_is_written_already() -> None:
    """20 tokens cost at most a third of decoding anew at every step; counted on the first two of the layers."""
    with torch.device("meta"):
        built = registry.build("beit3", "base", {"layers": 2}).eval()
        image = built.encode_image(torch.empty(1, 3, 224, 224))
        ids = torch.zeros(1, 1).long()
        costs = []
        for writer, source in ((built.decode_step, built.prepare_decode(image)), (None, (image, None))):
            with FlopCounterMode(display=False) as counter:
                past: Any = None
                for _ in range(20):
                    if writer is None:
                        _, past = VLModel.decode_step(built, source, ids, past)
                    else:
                        _, past = writer(source, ids, past)
            costs.append(counter.get_total_flops())
    assert 3 * (costs[0] + 2 * 197 * 24 * 768 * 768) < costs[1]  # and the image once


def test_captions_by_masked_words(model: Beit3) -> None:
    """The word at a mask depends on what stands before it and on nothing behind it."""
    captioning, (image, text) = Captioning(model), pairs()
    ids = text.ids[:1].clone()
    ids[0, 3] = 3
    one, other = ids.clone(), ids.clone()
    other[0, 4:] = 9
    with torch.no_grad():
        for changed in (one, other):
            mask = torch.ones_like(changed, dtype=torch.bool)
            logits = captioning(image[:1], Text(ids=changed, mask=mask))[0, 3]
            before = Text(ids=ids[:, :3], mask=mask[:, :3])
            torch.testing.assert_close(logits, captioning.next_word(image[:1], before, mask=3)[0])
        masked = Masked(text=Text(ids=ids, mask=ids > 0), position=torch.tensor([3]), label=torch.tensor([5]))
        expected = -captioning(image[:1], masked.text)[0, 3].log_softmax(dim=0)[5]
        torch.testing.assert_close(captioning.loss(image[:1], masked), expected)


def test_heads_of_tasks(model: Beit3) -> None:
    image, text = pairs()
    answering = Answering(model, 5)
    share = torch.tensor([[0.0, 1.0, 0, 0, 0.3], [0] * 5, [0, 0, 0, 1, 0]])
    logits = answering(image, text)
    expected = (F.softplus(logits) - share * logits).sum(dim=1).mean()
    torch.testing.assert_close(answering.loss(logits, share), expected)
    assert PairClassifying(model)(image, image.flip(0), text).shape == (3, 2)
    assert ImageClassifying(model, 4)(image).shape == (3, 4)


class TestMaskedData:
    """Masked data modelling on images, texts and pairs."""

    def masks(self) -> tuple[MaskedImage, Masked]:
        image, text = pairs()
        hidden = draw_blocks(3, (2, 3), generator=torch.Generator().manual_seed(0))
        token = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(2))
        position = torch.tensor([1, 9, 14])
        label = text.ids.flatten()[position]
        ids = text.ids.flatten().index_fill(0, position, 3).view_as(text.ids)
        return (
            MaskedImage(image=image, hidden=hidden, token=token),
            Masked(text=Text(ids=ids, mask=text.mask), position=position, label=label),
        )

    def test_losses_by_hand(self, model: Beit3) -> None:
        task, (image, text) = MaskedData(model, visual_tokens=11), self.masks()
        norm = model.beit3.encoder.layer_norm
        i = model.encode_image(image.image, masked=image.hidden)
        t = model.encode_text(text.text)

        def words(x: Tensor) -> Tensor:
            return F.cross_entropy(task.words(norm.B(x)).flatten(0, 1)[text.position], text.label)

        def patches(x: Tensor) -> Tensor:
            logits = task.patches(norm.A(x))[:, 1:7]
            return F.cross_entropy(logits[image.hidden], image.token[image.hidden])

        torch.testing.assert_close(task.text(text), words(model.tokens(None, t)))
        torch.testing.assert_close(task.image(image), patches(model.tokens(i, None)))
        joint = model.tokens(i, t)
        torch.testing.assert_close(task.pair(image, text), words(joint[:, 7:]) + patches(joint))
        plain = model.tokens(model.encode_image(image.image), t)
        torch.testing.assert_close(task.pair(image.image, text), words(plain[:, 7:]))
        torch.testing.assert_close(task.pair(image, text.text), patches(joint))
        with pytest.raises(ValueError, match="needs a masked side"):
            task.pair(image.image, text.text)

    def test_a_hidden_patch_is_not_seen_and_teaches_the_mask_token(self, model: Beit3) -> None:
        assert not model.beit3.vision_embed.mask_token.requires_grad
        task, (image, _) = MaskedData(model, visual_tokens=11), self.masks()
        pixels = image.hidden.view(3, 1, 2, 3).repeat_interleave(8, 2).repeat_interleave(8, 3)
        other = MaskedImage(image=torch.where(pixels, 9.0, image.image), hidden=image.hidden, token=image.token)
        loss = task.image(image)
        torch.testing.assert_close(loss, task.image(other))
        loss.backward()
        gradient = model.beit3.vision_embed.mask_token.grad
        assert gradient is not None
        assert gradient.abs().max() > 0

    def test_blocks_hide_the_same_share_of_every_image_in_rectangles(self) -> None:
        hidden = draw_blocks(20, (14, 14), generator=torch.Generator().manual_seed(0))
        assert hidden.shape == (20, 196)
        assert set(hidden.sum(dim=1).tolist()) == {78}  # 0.4 * 196 = 78.4
        neighbours = hidden.view(20, 14, 14)
        together = (neighbours[:, :, 1:] & neighbours[:, :, :-1]).sum() / neighbours[:, :, 1:].sum()
        assert together > 0.7  # 0.4 if patches were drawn one by one
        again = draw_blocks(20, (14, 14), generator=torch.Generator().manual_seed(0))
        assert torch.equal(hidden, again)
        assert len({tuple(row.tolist()) for row in hidden}) == 20
        assert draw_blocks(2, (2, 2)).sum(dim=1).tolist() == [2, 2]


def test_refuses_what_it_cannot_build() -> None:
    with pytest.raises(ValueError, match="0 layers cannot fuse"):
        registry.build("beit3", "tiny", {"layers": 0})
    with pytest.raises(ValueError, match="multiple of the patch size 16"):
        registry.build("beit3", "tiny", {"image_size": (40, 32)})
    with pytest.raises(ValueError, match="texts of 63 tokens need text_positions of 2 more, not 64"):
        registry.build("beit3", "tiny", {"text_len": 63})
    with pytest.raises(ValueError, match="7 tokens is longer than the model's 6"):
        Beit3(CONFIG).encode_text(Text(ids=torch.ones(1, 7).long(), mask=torch.ones(1, 7).bool()))
