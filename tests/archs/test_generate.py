"""Writing text: with and without kept keys and values, greedy, beams against trying every text, ranking."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from vlpbench.archs import registry
from vlpbench.archs.generate import Writing, generate, rank, sample
from vlpbench.archs.model import VLModel, take
from vlpbench.archs.registry import build
from vlpbench.archs.types import Can, Text, Unsupported

DECODERS = [name for name, spec in registry.specs().items() if Can.DECODE in spec.can]
START, END, PAD = 1, 2, 0


class Table:
    """Writes by a table of next-token log-likelihoods that depend on the last token alone; images differ by a row."""

    def __init__(self, table: Tensor) -> None:
        self.table = table.log()  # (B, V, V)
        self.steps: list[tuple[int, ...]] = []

    def decode_step(self, source: Any, ids: Tensor, past: Any = None, *, beams: int = 1) -> tuple[Tensor, Any]:
        self.steps.append(tuple(ids.shape))
        rows = torch.arange(len(ids)) // beams
        return self.table[rows[:, None], ids], ids if past is None else torch.cat([past, ids], dim=1)


class Forgetful:
    """A model's own `decode_step` put aside: every step decodes the whole text anew."""

    def __init__(self, model: VLModel[Any, Any]) -> None:
        self.model = model

    def source(self, image: Any, prompt: Any = None) -> Any:
        return VLModel.prepare_decode(self.model, image, prompt)

    def decode_step(self, source: Any, ids: Tensor, past: Any = None, *, beams: int = 1) -> tuple[Tensor, Any]:
        return VLModel.decode_step(self.model, source, ids, past, beams=beams)


def shaken(name: str, size: str = "tiny") -> VLModel[Any, Any]:
    torch.manual_seed(0)
    model = build(name, size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def random_table(size: int = 2, words: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(size, words, words, generator=generator)).softmax(dim=-1)


def start_of(size: int) -> Tensor:
    return torch.full((size, 1), START)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_kept_keys_and_values_change_nothing(name: str, beams: int) -> None:
    model, how = shaken(name), Writing(end=END, pad=PAD, max_len=9, beams=beams)
    image = model.encode_image(torch.randn(4, 3, *model.image_size))
    start, plain = torch.tensor([[START, 5], [START, 6], [START, 7], [START, 5]]), Forgetful(model)
    kept = generate(model, model.prepare_decode(image), start, how)
    anew = generate(plain, plain.source(image), start, how)
    assert torch.equal(kept.text.ids, anew.text.ids)
    assert torch.equal(kept.text.mask, anew.text.mask)
    torch.testing.assert_close(kept.score, anew.score, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_steps_of_any_length_give_the_logits_of_the_whole_text(name: str) -> None:
    model = shaken(name)
    image = model.encode_image(torch.randn(2, 3, *model.image_size))
    ids = torch.randint(3, model.vocab_size, (6, 7))
    whole = model.decode(take(image, torch.arange(6) // 3), model.encode_text(Text(ids=ids, mask=ids > 0)))
    source, found, past = model.prepare_decode(image), [], None
    for part in ids.split([1, 3, 1, 2], dim=1):
        logits, past = model.decode_step(source, part, past, beams=3)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_question_is_read_with_its_image_and_its_padding_is_not() -> None:
    model = shaken("blip")
    image = model.encode_image(torch.randn(2, 3, *model.image_size))
    ids = torch.randint(4, 40, (2, 6))
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    target = Text(ids=ids[:, :4], mask=mask[:1, :4].expand(2, -1))
    asked = model.decode(image, target, Text(ids=ids, mask=mask))
    again = model.decode(image, target, Text(ids=ids.where(mask, 9), mask=mask))
    torch.testing.assert_close(again, asked, atol=1e-5, rtol=0)
    assert (asked - model.decode(image, target)).abs().max() > 1e-2
    other = model.decode(image, target, Text(ids=ids.flip(0), mask=mask))
    assert (asked - other).abs().max() > 1e-2
    start = start_of(2)
    how, plain = Writing(end=END, pad=PAD, max_len=6, beams=2), Forgetful(model)
    kept = generate(model, model.prepare_decode(image, Text(ids=ids, mask=mask)), start, how)
    anew = generate(plain, plain.source(image, Text(ids=ids, mask=mask)), start, how)
    assert torch.equal(kept.text.ids, anew.text.ids)


def test_a_question_needs_text_as_wide_as_images() -> None:
    model = build("blip", "tiny", {"image_width": 64})
    image = model.encode_image(torch.randn(2, 3, *model.image_size))
    text = Text(ids=torch.ones(2, 3, dtype=torch.long), mask=torch.ones(2, 3, dtype=torch.bool))
    assert model.decode(image, text).shape == (2, 3, 42)
    with pytest.raises(Unsupported, match="reads fused text, 32 wide, by cross-attention to images, 64 wide"):
        model.decode(image, text, text)


def best_by_trying(table: Tensor, max_len: int, penalty: float) -> tuple[list[int], float]:
    """The best of all texts of one image; ``table`` is (V, V)."""
    found: list[tuple[float, list[int]]] = []
    words = [word for word in range(table.shape[0]) if word != END]
    for length in range(1, max_len + 1):
        for middle in itertools.product(words, repeat=length - 1):
            text = [START, *middle]
            likelihood = sum(table[a, b].log().item() for a, b in itertools.pairwise(text))
            if length < max_len:
                likelihood += table[text[-1], END].log().item()
                found.append((likelihood / length**penalty, [*text, END]))
            else:
                found.append((likelihood / length**penalty, text))
    score, text = max(found)
    return text, score


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_as_many_beams_as_texts_find_the_best_text(seed: int, penalty: float) -> None:
    table, max_len = random_table(size=2, words=4, seed=seed), 4
    how = Writing(end=END, pad=PAD, max_len=max_len, beams=64, length_penalty=penalty)
    written = generate(Table(table), None, start_of(2), how)
    for row in range(2):
        text, score = best_by_trying(table[row], max_len, penalty)
        kept = written.text.mask[row]
        assert written.text.ids[row][kept].tolist() == text
        assert written.score[row].item() == pytest.approx(score, abs=1e-5)
        assert (written.text.ids[row][~kept] == PAD).all()


def test_one_beam_takes_the_likeliest_word_each_time() -> None:
    # From 1 to 3 to 4 to the end, although 1, 4, end is likelier as a whole.
    table = torch.full((1, 5, 5), 0.05)
    table[0, 1, 3], table[0, 1, 4], table[0, 3, 4], table[0, 4, 2] = 0.5, 0.45, 0.3, 0.9
    table /= table.sum(dim=-1, keepdim=True)
    model = Table(table)
    written = generate(model, None, start_of(1), Writing(end=END, pad=PAD, max_len=9))
    assert written.text.ids.tolist() == [[1, 3, 4, 2]]
    assert model.steps == [(1, 1), (1, 1), (1, 1)]  # it stops where nothing can get better
    two = generate(Table(table), None, start_of(1), Writing(end=END, pad=PAD, max_len=9, beams=2, length_penalty=0.0))
    assert two.text.ids.tolist() == [[1, 4, 2]]


def test_what_may_not_be_written_is_not() -> None:
    table = random_table(words=6, seed=3)
    table[..., END] = 5.0
    table[..., 5] = 50.0
    table /= table.sum(dim=-1, keepdim=True)
    soon = generate(Table(table), None, start_of(2), Writing(end=END, pad=PAD, max_len=8, words=5))
    assert soon.text.ids.tolist() == [[START, END]] * 2
    late = generate(Table(table), None, start_of(2), Writing(end=END, pad=PAD, max_len=8, words=5, min_len=4))
    assert (late.text.mask.sum(dim=1) == 5).all()
    assert (late.text.ids[:, :4] != END).all()
    assert (late.text.ids < 5).all()
    never = generate(Table(table), None, start_of(2), Writing(end=END, pad=PAD, max_len=4, words=5, min_len=9))
    assert never.text.ids.shape == (2, 4)
    assert never.text.mask.all()


def test_no_room_and_no_beams_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens to start with leave no room in texts of 3"):
        generate(Table(random_table()), None, torch.ones(2, 3).long(), Writing(end=END, pad=PAD, max_len=3))
    with pytest.raises(ValueError, match="0 beams of 5 tokens"):
        Writing(end=END, pad=PAD, max_len=5, beams=0)
    answers = Text(ids=torch.ones(3, 2).long(), mask=torch.ones(3, 2).bool())
    with pytest.raises(ValueError, match="cannot rank 4 of 3 answers"):
        rank(Table(random_table()), None, answers, size=2, k=4)


ANSWERS = Text(
    ids=torch.tensor([[1, 3, 2, 0], [1, 4, 2, 0], [1, 3, 4, 2], [1, 4, 3, 2]]),
    mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool(),
)


def test_answers_are_ranked_by_the_likelihood_of_all_their_tokens() -> None:
    table = random_table(size=3, seed=5)
    order, score = rank(Table(table), None, ANSWERS, size=3)
    for row in range(3):
        expected = [
            sum(table[row, a, b].log().item() for a, b in itertools.pairwise(ids[mask].tolist()))
            for ids, mask in zip(ANSWERS.ids, ANSWERS.mask, strict=True)
        ]
        assert order[row].tolist() == sorted(range(4), key=lambda answer: -expected[answer])
        assert score[row].tolist() == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


def test_only_answers_with_a_likely_first_token_are_scored() -> None:
    # "4, 2" is the likeliest as a whole, but 3 is the likelier start.
    table = torch.full((1, 5, 5), 0.05)
    table[0, 1, 3], table[0, 1, 4], table[0, 3, 2], table[0, 4, 2] = 0.45, 0.4, 0.2, 0.85
    order, _ = rank(Table(table), None, ANSWERS, size=1)
    assert order[0, 0] == 1
    order, score = rank(Table(table), None, ANSWERS, size=1, k=2)
    assert sorted(order[0].tolist()) == [0, 2]
    assert score.shape == (1, 2)


@torch.no_grad()
def test_ranking_by_a_model_is_its_likelihood() -> None:
    model = shaken("blip")
    image = model.encode_image(torch.randn(2, 3, *model.image_size))
    order, score = rank(model, model.prepare_decode(image), ANSWERS, size=2)
    for row, answer in itertools.product(range(2), range(4)):
        ids = ANSWERS.ids[answer][ANSWERS.mask[answer]][None]
        one = model.decode(take(image, torch.tensor([row])), model.encode_text(Text(ids=ids, mask=ids > 0)))
        likelihood = one[0, :-1].log_softmax(dim=-1).gather(1, ids[0, 1:, None]).sum()
        place = order[row].tolist().index(answer)
        assert score[row, place].item() == pytest.approx(likelihood.item(), abs=1e-4)


def test_draws_come_from_the_nucleus_in_proportion() -> None:
    # Before the fourth word stand 0.95 of the probability: it is out, and the three others share what there is.
    likely = torch.tensor([0.05, 0.15, 0.0, 0.5, 0.3]) + 1e-9
    table = Table(likely.expand(4000, 5, 5))
    start, count = start_of(4000), 4000
    how = Writing(end=END, pad=PAD, max_len=2)
    drawn = sample(table, None, start, how, top=0.9, generator=torch.Generator().manual_seed(0))
    found = drawn.text.ids[:, 1].bincount(minlength=5) / count
    expected = torch.tensor([0.0, 0.15, 0.0, 0.5, 0.3]) / 0.95
    assert found[0] == found[2] == 0
    assert (found - expected).abs().max() < 0.03  # nearly four standard deviations
    torch.testing.assert_close(drawn.score, likely.log()[drawn.text.ids[:, 1]])
    greedy = sample(table, None, start, how, top=0.1, generator=torch.Generator().manual_seed(0))
    assert (greedy.text.ids[:, 1] == 3).all()  # the likeliest alone fills it


def test_a_drawn_text_ends_once_and_is_as_likely_as_its_tokens() -> None:
    table, how = random_table(1).expand(200, -1, -1), Writing(end=END, pad=PAD, max_len=6, min_len=3, words=4)
    writer = Table(table)
    drawn = sample(writer, None, start_of(200), how, top=1.0, generator=torch.Generator().manual_seed(1))
    again = sample(writer, None, start_of(200), how, top=1.0, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn.text.ids, again.text.ids)
    lengths = set()
    for ids, mask, score in zip(drawn.text.ids.tolist(), drawn.text.mask.tolist(), drawn.score.tolist(), strict=True):
        end = ids.index(END) if END in ids[1:] else len(ids) - 1
        lengths.add(end + 1)
        assert mask == [place <= end for place in range(len(ids))]
        assert end >= 3 or END not in ids
        assert max(ids) < 4
        steps = [table[0, a, b].log().item() for a, b in itertools.pairwise(ids[: end + 1])]
        assert score == pytest.approx(sum(steps), abs=1e-5)
    assert len(lengths) > 1


@pytest.mark.parametrize("name", DECODERS)
def test_drawing_with_kept_keys_and_values_draws_the_same(name: str) -> None:
    model, how = shaken(name), Writing(end=END, pad=PAD, max_len=8, words=40)
    with torch.no_grad():
        image = model.encode_image(torch.randn(3, 3, *model.image_size))
        kept = sample(model, model.prepare_decode(image), start_of(3), how, generator=torch.Generator().manual_seed(2))
        plain = Forgetful(model)
        anew = sample(plain, plain.source(image), start_of(3), how, generator=torch.Generator().manual_seed(2))
    assert torch.equal(kept.text.ids, anew.text.ids)
    torch.testing.assert_close(kept.score, anew.score, atol=1e-5, rtol=1e-5)
