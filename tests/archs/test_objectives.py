"""Contrast, matching, masked language modelling, draws and queue, each against numbers worked out here."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vlpbench.archs.learner import Draws, Learner, Recipe, SpecialTokens
from vlpbench.archs.model import Pass, VLModel
from vlpbench.archs.objectives.base import TeacherView
from vlpbench.archs.objectives.itc import ITC
from vlpbench.archs.objectives.itm import ITM, draw_negatives
from vlpbench.archs.objectives.mlm import MLM, draw_masked, first_of_word
from vlpbench.archs.objectives.queue import NO_ID, Queue
from vlpbench.archs.registry import UnknownName, build
from vlpbench.archs.types import Batch, Can, Fused, Masked, Negatives, Text, Unsupported

TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)


class Table(VLModel[Tensor, Tensor]):
    """States and embeddings are looked up: image ``n`` is the one of that pixel value, text ``n`` of that first id."""

    can = Can.EMBED | Can.FUSE | Can.MASK
    width, embed_dim, vocab_size, text_len, image_size = 2, 2, 40, 3, (1, 1)

    def __init__(self, images: list[list[float]], texts: list[list[float]]) -> None:
        super().__init__()
        self.images = nn.Parameter(torch.tensor(images, dtype=torch.float))
        self.texts = nn.Parameter(torch.tensor(texts, dtype=torch.float))
        self.calls: list[tuple[str, int]] = []

    def encode_image(self, image: Tensor) -> Tensor:
        self.calls.append(("encode_image", len(image)))
        return image.flatten(1)[:, :1]

    def encode_text(self, text: Text) -> Tensor:
        self.calls.append(("encode_text", len(text.ids)))
        return text.ids.float()

    def embed_image(self, image: Tensor) -> Tensor:
        return self.images[image[:, 0].long()]

    def embed_text(self, text: Tensor) -> Tensor:
        return self.texts[text[:, 0].long()]

    def fuse(self, image: Tensor, text: Tensor) -> Fused:
        self.calls.append(("fuse", len(image)))
        pooled = torch.stack([image[:, 0], text[:, 0]], dim=1)
        return Fused(pooled=pooled, text=text[..., None].expand(-1, -1, 2))

    def mlm_head(self) -> nn.Module:
        return nn.Linear(2, self.vocab_size)


def numbered(size: int, ids: list[int] | None = None) -> Batch:
    """A batch for `Table`: row n is image n and text n."""
    rows = torch.arange(size)
    text = Text(ids=rows[:, None].repeat(1, 3), mask=torch.ones(size, 3, dtype=torch.bool))
    image = rows.float()[:, None, None, None].expand(-1, 3, 1, 1)
    return Batch(image=image, text=text, sample_id=rows if ids is None else torch.tensor(ids))


def recipe(*objectives: str, **changes: Any) -> Recipe:
    return Recipe(objectives=objectives, **({"temperature": 0.5, "queue_size": 4} | changes))


def nll(scores: list[float], target: list[float]) -> float:
    """Cross-entropy of one row, in plain arithmetic."""
    total = math.log(sum(math.exp(s) for s in scores))
    return sum(t * (total - s) for s, t in zip(scores, target, strict=True))


def test_contrast_within_a_batch() -> None:
    model = Table([[1, 0], [0, 1]], [[0.6, 0.8], [0, 1]])
    loss = ITC(model, recipe("itc"))(Pass(model, numbered(2)))
    # Cosines over 0.5: images [[1.2, 0], [1.6, 2]], and their transpose for the texts.
    images = (nll([1.2, 0], [1, 0]) + nll([1.6, 2], [0, 1])) / 2
    texts = (nll([1.2, 1.6], [1, 0]) + nll([0, 2], [0, 1])) / 2
    assert loss.item() == pytest.approx((images + texts) / 2, abs=1e-6)


def test_captions_of_one_image_share_the_target() -> None:
    model = Table([[1, 0], [1, 0], [0, 1]], [[0.6, 0.8], [1, 0], [0, 1]])
    loss = ITC(model, recipe("itc"))(Pass(model, numbered(3, ids=[7, 7, 8])))
    image_rows = [[1.2, 2, 0], [1.2, 2, 0], [1.6, 0, 2]]
    text_rows = [[1.2, 1.2, 1.6], [2, 2, 0], [0, 0, 2]]
    targets = [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]
    expected = sum(
        nll(row, target) for rows in (image_rows, text_rows) for row, target in zip(rows, targets, strict=True)
    )
    assert loss.item() == pytest.approx(expected / 6, abs=1e-6)


def test_contrast_against_a_queue_and_softened_targets() -> None:
    student, batch = Table([[1.0, 0]], [[0, 1.0]]), numbered(1, ids=[5])
    queue = Queue(2, 2)
    queue.image.copy_(torch.tensor([[0, 1.0], [1.0, 0]]))
    queue.text.copy_(torch.tensor([[1.0, 0.6], [0, 0.8]]))
    queue.ids.copy_(torch.tensor([[NO_ID, 5]]))
    frozen: Any = Table([[0.6, 0.8]], [[0.8, 0.6]]).requires_grad_(False)
    teacher = TeacherView(view=Pass(frozen, batch), heads={}, queue=queue)
    itc = ITC(student, recipe("itc"))
    # Candidates: the teacher's own row, then the queue; the second entry of the queue shows the same image.
    to_text, to_image = [1.6, 2.0, 1.2], [1.6, 2.0, 0.0]
    hard = [0.5, 0, 0.5]
    expected = (nll(to_text, hard) + nll(to_image, hard)) / 2
    assert itc(Pass(student, batch), teacher=teacher).item() == pytest.approx(expected, abs=1e-6)

    def softmax(scores: list[float]) -> list[float]:
        return [math.exp(s) / sum(map(math.exp, scores)) for s in scores]

    soft_text, soft_image = softmax([1.92, 1.2, 2.0]), softmax([1.92, 1.2, 1.6])
    mixed = [[0.3 * s + 0.7 * h for s, h in zip(soft, hard, strict=True)] for soft in (soft_text, soft_image)]
    expected = (nll(to_text, mixed[0]) + nll(to_image, mixed[1])) / 2
    loss = itc(Pass(student, batch), teacher=teacher, alpha=0.3)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert student.images.grad is not None
    assert itc.temperature.grad is not None


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.5), (1e-6, 0.001), (0.07, 0.07)])
def test_the_temperature_is_clamped_in_training_only(before: float, after: float) -> None:
    model = Table([[1, 0], [0, 1]], [[1, 0], [0, 1]])
    itc = ITC(model, recipe("itc", temperature=before))
    itc.eval()(Pass(model, numbered(2)))
    assert itc.temperature.item() == pytest.approx(before)
    itc.train()(Pass(model, numbered(2)))
    assert itc.temperature.item() == pytest.approx(after)


def test_matching_scores_positives_and_both_kinds_of_negatives() -> None:
    model = Table([[0, 0]] * 3, [[0, 0]] * 3)
    itm = ITM(model, recipe("itm"))
    with torch.no_grad():
        itm.head.weight.copy_(torch.tensor([[0.0, 0.0], [10.0, 1.0]]))
        itm.head.bias.zero_()
    view = Pass(model, numbered(3), negatives=Negatives(image=torch.tensor([2, 0, 1]), text=torch.tensor([1, 2, 0])))
    # Ten times the image plus the text: own pairs, texts 0 1 2 with images 2 0 1, images 0 1 2 with texts 1 2 0.
    assert itm.logits(view)[:, 1].tolist() == [0, 11, 22, 20, 1, 12, 1, 12, 20]
    positive = [math.log1p(math.exp(-s)) for s in (0, 11, 22)]
    negative = [math.log1p(math.exp(s)) for s in (20, 1, 12, 1, 12, 20)]
    assert itm(view).item() == pytest.approx(sum(positive + negative) / 9, rel=1e-6)
    assert itm.match_logits(torch.tensor([[1.0, 2.0]])).tolist() == [12]
    with pytest.raises(ValueError, match="no negatives"):
        itm(Pass(model, numbered(3)))


def test_uniform_negatives_show_another_image_and_favour_none() -> None:
    ids, generator = torch.tensor([4, 4, 5, 6]), torch.Generator().manual_seed(0)
    count = torch.zeros(2, 4, 4)
    for _ in range(1500):
        drawn = draw_negatives(ids, generator=generator)
        for kind, rows in enumerate((drawn.image, drawn.text)):
            count[kind, torch.arange(4), rows] += 1
    assert not count[:, ids[:, None] == ids].any()
    share = count / 1500
    assert share[:, :2, 2:].sub(1 / 2).abs().max() < 0.06
    assert share[:, 2:].masked_select(ids[2:, None] != ids).sub(1 / 3).abs().max() < 0.06


def test_hard_negatives_follow_the_softmax_of_similarities() -> None:
    generator = torch.Generator().manual_seed(0)
    to_text = torch.tensor([[9.0, 1.0, 0.0], [0.0, 9.0, 0.0], [0.0, -2.0, 9.0]])
    to_image = -to_text
    image, text = torch.zeros(3, 3), torch.zeros(3, 3)
    for _ in range(3000):
        drawn = draw_negatives(torch.arange(3), (to_text, to_image), generator)
        image[torch.arange(3), drawn.image] += 1 / 3000
        text[torch.arange(3), drawn.text] += 1 / 3000
    e = math.e
    assert text[0].tolist() == pytest.approx([0, e / (e + 1), 1 / (e + 1)], abs=0.03)
    assert text[2].tolist() == pytest.approx([e**2 / (e**2 + 1), 1 / (e**2 + 1), 0], abs=0.03)
    assert image[0].tolist() == pytest.approx([0, 1 / (e + 1), e / (e + 1)], abs=0.03)


def test_hard_negatives_survive_a_temperature_at_which_a_softmax_underflows() -> None:
    logits = torch.tensor([[2000.0, 10.0, 0.0], [0.0, 2000.0, 0.0], [0.0, 0.0, 2000.0]])
    drawn = draw_negatives(torch.arange(3), (logits, logits), torch.Generator().manual_seed(0))
    assert drawn.text[0] == drawn.image[0] == 1
    assert not (drawn.text == torch.arange(3)).any()


def test_a_single_pair_has_no_negatives() -> None:
    with pytest.raises(ValueError, match="a batch of 1 has no negatives"):
        draw_negatives(torch.tensor([3]))


def _sentences(rows: int, length: int = 12) -> Text:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 40, (rows, length), generator=generator)
    ids[:, 0] = TOKENS.cls
    ids[:, -3] = TOKENS.sep
    ids[:, -2:] = TOKENS.pad
    return Text(ids=ids, mask=ids != TOKENS.pad)


def test_masks_spare_class_token_and_padding_and_keep_the_shares_of_bert() -> None:
    text = _sentences(2000)
    masked = draw_masked(text, TOKENS, 0.3, torch.Generator().manual_seed(0))
    original, now = text.ids.flatten(), masked.text.ids.flatten()
    assert torch.equal(masked.label, original[masked.position])
    assert not ((masked.label == TOKENS.cls) | (masked.label == TOKENS.pad)).any()
    assert (masked.label == TOKENS.sep).any()
    untouched = torch.ones(original.shape, dtype=torch.bool)
    untouched[masked.position] = False
    assert torch.equal(original[untouched], now[untouched])
    assert len(masked.position) / (2000 * 9) == pytest.approx(0.3, abs=0.02)
    became_mask = (now[masked.position] == TOKENS.mask).float().mean().item()
    stayed = (now[masked.position] == masked.label).float().mean().item()
    # A random word is one of 40: it is [MASK] or the word itself now and then.
    assert became_mask == pytest.approx(0.8 + 0.1 / 40, abs=0.02)
    assert stayed == pytest.approx(0.1 + 0.1 / 40, abs=0.015)


def test_masks_repeat_with_the_generator_and_are_never_empty() -> None:
    text = _sentences(2)
    first, second = (draw_masked(text, TOKENS, 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.text.ids, second.text.ids)
    lone = draw_masked(text, TOKENS, 0.0, torch.Generator().manual_seed(3))
    assert len(lone.position) == 1
    empty = Text(ids=torch.tensor([[TOKENS.cls, TOKENS.pad]]), mask=torch.tensor([[True, False]]))
    with pytest.raises(ValueError, match="none of the 1 texts has a token that may be masked"):
        draw_masked(empty, TOKENS, 0.5)


def test_whole_words_are_masked_or_none_of_their_tokens() -> None:
    tokens = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40, inside=frozenset({30, 31, 32}))
    ids = torch.tensor([[1, 10, 30, 31, 11, 12, 30, 2, 0], [1, 30, 13, 32, 32, 32, 2, 0, 0]])
    text = Text(ids=ids.repeat(600, 1), mask=ids.repeat(600, 1) != 0)
    first = torch.tensor([[0, 1, 1, 1, 4, 5, 5, 7, 8], [0, 0, 2, 2, 2, 2, 6, 7, 8]])
    assert torch.equal(first_of_word(ids, tokens.inside), first)
    masked = draw_masked(text, tokens, 0.3, torch.Generator().manual_seed(0), whole_words=True)
    chosen = torch.zeros(ids.repeat(600, 1).numel(), dtype=torch.bool)
    chosen[masked.position] = True
    chosen = chosen.view(600, 2, 9)
    for row, word in ((0, [1, 2, 3]), (0, [5, 6]), (1, [2, 3, 4, 5])):
        assert (chosen[:, row, word].all(dim=1) == chosen[:, row, word].any(dim=1)).all()
        assert chosen[:, row, word[0]].float().mean().item() == pytest.approx(0.3, abs=0.06)
    # A token that goes on with nothing belongs to [CLS], which is never masked, and is masked by its draw.
    assert not chosen[:, :, 0].any()
    assert not chosen[:, 0, 8].any()
    lone = draw_masked(text, tokens, 0.0, torch.Generator().manual_seed(5), whole_words=True)
    owner = first_of_word(text.ids, tokens.inside).flatten()[lone.position]
    assert len(owner.unique()) == 1
    assert len(lone.position) == (first_of_word(text.ids, tokens.inside)[lone.position[0] // 9] == owner[0]).sum()


def test_where_every_token_is_a_word_the_masks_are_the_same() -> None:
    text = _sentences(50)
    tokens, words = (
        draw_masked(text, TOKENS, 0.3, torch.Generator().manual_seed(0), whole_words=whole) for whole in (False, True)
    )
    assert torch.equal(tokens.position, words.position)
    assert torch.equal(tokens.text.ids, words.text.ids)


def test_a_pair_may_be_its_own_only_positive() -> None:
    model = Table([[1, 0], [1, 0], [0, 1]], [[0.6, 0.8], [1, 0], [0, 1]])
    loss = ITC(model, recipe("itc", positives="pair"))(Pass(model, numbered(3, ids=[7, 7, 8])))
    image_rows = [[1.2, 2, 0], [1.2, 2, 0], [1.6, 0, 2]]
    text_rows = [[1.2, 1.2, 1.6], [2, 2, 0], [0, 0, 2]]
    own = [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]
    expected = sum(nll(row, target) for rows in (image_rows, text_rows) for row, target in zip(rows, own, strict=True))
    assert loss.item() == pytest.approx(expected / 6, abs=1e-6)
    learner = Learner(model, recipe("itm", positives="pair"), TOKENS).train()
    view = Pass(model, numbered(2, ids=[7, 7]))
    drawn = learner._draw_negatives(view, None, torch.Generator().manual_seed(0))
    assert (drawn.image.tolist(), drawn.text.tolist()) == ([1, 0], [1, 0])  # the other pair, of the same image


def test_language_modelling_runs_its_head_at_masked_positions_only() -> None:
    model = Table([[0, 0]] * 2, [[0, 0]] * 2)
    mlm = MLM(model, recipe("mlm"))
    seen: list[torch.Size] = []
    mlm.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    with torch.no_grad():
        mlm.head.weight.zero_()
        mlm.head.bias.zero_()
        mlm.head.bias[9] = 2.0
    text = Text(ids=torch.tensor([[1, 3, 5], [1, 6, 3]]), mask=torch.ones(2, 3, dtype=torch.bool))
    masked = Masked(text=text, position=torch.tensor([1, 5]), label=torch.tensor([9, 7]))
    loss = mlm(Pass(model, numbered(2), masked=masked))
    total = math.log(39 + math.exp(2.0))
    assert loss.item() == pytest.approx(((total - 2) + total) / 2, abs=1e-6)
    assert seen == [torch.Size([2, 2])]


def test_the_queue_writes_in_order_and_wraps_round() -> None:
    queue = Queue(3, 2)
    assert torch.allclose(queue.image.norm(dim=0), torch.ones(3))
    queue.enqueue(torch.tensor([[1.0, 2], [3, 4]]), -torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([10, 11]))
    queue.enqueue(torch.tensor([[5.0, 6], [7, 8]]), -torch.tensor([[5.0, 6], [7, 8]]), torch.tensor([12, 13]))
    assert queue.image.tolist() == [[7, 3, 5], [8, 4, 6]]
    assert torch.equal(queue.text, -queue.image)
    assert queue.ids.tolist() == [[13, 11, 12]]
    assert queue.pointer.tolist() == [1]
    with pytest.raises(ValueError, match=r"a batch of 4 .* does not fit a queue of 3"):
        queue.enqueue(torch.ones(4, 2), torch.ones(4, 2), torch.arange(4))


def test_all_objectives_share_one_encoding_of_each() -> None:
    model = Table([[1.0, 0]] * 4, [[0, 1.0]] * 4)
    learner = Learner(model, recipe("itc", "itm", "mlm"), TOKENS).train()
    text = Text(ids=torch.tensor([[n, 5, 6] for n in range(4)]), mask=torch.ones(4, 3, dtype=torch.bool))
    batch = Batch(image=numbered(4).image, text=text, sample_id=torch.arange(4))
    draws = Draws(masked=Masked(text=text, position=torch.tensor([1]), label=torch.tensor([5])))
    learner(batch, draws=draws)
    # Plain and masked text are encoded together; four matching pairs and eight negatives are fused together.
    assert model.calls == [("encode_image", 4), ("encode_text", 8), ("fuse", 12), ("fuse", 4)]


def test_an_objective_alone_computes_nothing_for_others() -> None:
    model = Table([[1.0, 0]] * 4, [[0, 1.0]] * 4)
    text = Text(ids=torch.tensor([[n, 5, 6] for n in range(4)]), mask=torch.ones(4, 3, dtype=torch.bool))
    masked = Masked(text=text, position=torch.tensor([1]), label=torch.tensor([5]))
    for objectives, calls in (
        (("mlm",), [("encode_image", 4), ("encode_text", 4), ("fuse", 4)]),
        (("itc",), [("encode_image", 4), ("encode_text", 4)]),
        (("itm",), [("encode_text", 4), ("encode_image", 4), ("fuse", 12)]),
    ):
        model.calls.clear()
        Learner(model, recipe(*objectives), TOKENS).train()(numbered(4), draws=Draws(masked=masked))
        assert sorted(model.calls) == sorted(calls), objectives


def test_joint_and_separate_encodings_give_the_same_numbers() -> None:
    """MLM alone, matching alone, and both together, on a real model."""
    torch.manual_seed(0)
    model = build("albef", "tiny").eval()
    text = _sentences(6)
    batch = Batch(image=torch.randn(6, 3, *model.image_size), text=text, sample_id=torch.arange(6))
    masked = draw_masked(text, TOKENS, 0.3, torch.Generator().manual_seed(0))
    negatives = draw_negatives(batch.sample_id, generator=torch.Generator().manual_seed(0))
    pairs, words = Pass(model, batch, negatives=negatives).fused_pairs, Pass(model, batch, masked=masked).fused_masked
    for first in ("fused_pairs", "fused_masked"):
        both = Pass(model, batch, masked=masked, negatives=negatives)
        getattr(both, first)
        torch.testing.assert_close(both.fused_pairs, pairs, atol=1e-6, rtol=0)
        torch.testing.assert_close(both.fused_masked.text, words.text, atol=1e-6, rtol=0)


def test_what_cannot_be_trained_is_refused_with_the_reason() -> None:
    clip = build("clip", "tiny")
    with pytest.raises(Unsupported, match="itm needs FUSE, which Clip lacks"):
        Learner(clip, recipe("itc", "itm"), TOKENS)
    with pytest.raises(UnknownName, match="did you mean 'itm'"):
        Learner(clip, recipe("itn"), TOKENS)
    with pytest.raises(ValueError, match=r"2 weights \(1.0, 2.0\) for objectives \('itc',\)"):
        Learner(clip, recipe("itc", weights=(1.0, 2.0)), TOKENS)
    with pytest.raises(Unsupported, match="no objective"):
        Learner(clip, recipe(), TOKENS)
    with pytest.raises(Unsupported, match="matching head"):
        Learner(clip, recipe("itc"), TOKENS).match_logits(torch.zeros(1, 2))


def test_replacing_negatives_match_b_pairs_of_which_about_half_are_wrong():
    sample_id = torch.arange(400)
    drawn = draw_negatives(sample_id, None, torch.Generator().manual_seed(0), replace=True)
    assert drawn.replaced is not None
    assert 150 < int(drawn.replaced.sum()) < 250
    assert not (drawn.image == sample_id).any()
