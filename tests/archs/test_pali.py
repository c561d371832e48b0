"""PaLI against transformers' own forward, its size against the published one, and writing after a prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from vlpbench.archs.contract import check_model
from vlpbench.archs.generate import Writing, generate
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.model import parameter_count
from vlpbench.archs.objectives.lm import text_loss
from vlpbench.archs.pali import MT5, SIZES, Pali, build, language_model
from vlpbench.archs.pretrained import CheckpointError, load, save
from vlpbench.archs.types import Batch, Can, Text

TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)
MIXED = {"encoder_layers": 3, "decoder_layers": 2, "heads": 4, "head_width": 6, "text_len": 150}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def text_of(lengths: tuple[int, ...]) -> Text:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Text(ids=torch.randint(4, 40, mask.shape) * mask, mask=mask)


def drawn(changes: dict[str, Any]) -> tuple[Pali, Any]:
    """A PaLI and transformers' T5 of the same drawn weights, whose own words predict words."""
    model = build("tiny", changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.lm_head.weight.copy_(model.shared.weight)
    theirs = language_model(replace(SIZES["tiny"], **changes)).eval()
    theirs.load_state_dict(save(model, MT5))
    return model, theirs


@pytest.mark.parametrize("length", [3, 140])
def test_encoder_and_decoder_are_those_of_transformers(length: int) -> None:
    """Also where tokens stand farther apart than the table of positions tells apart (128)."""
    model, theirs = drawn(MIXED)
    prompt, target = text_of((length, length - 2)), text_of((length, length))
    image = model.encode_image(torch.randn(2, 3, 32, 32))
    seen = torch.cat([torch.ones(2, image.shape[1]), prompt.mask], dim=1)
    with torch.no_grad():
        found = theirs(
            inputs_embeds=torch.cat([image, model.shared(prompt.ids)], dim=1),
            attention_mask=seen,
            decoder_input_ids=target.ids,
            use_cache=False,
        )
        states = model._encode(image, prompt)[0]
        real = seen.bool()
        torch.testing.assert_close(states[real], found.encoder_last_hidden_state[real], atol=1e-5, rtol=1e-5)
        logits = model.decode(image, target, prompt)
    torch.testing.assert_close(logits, found.logits, atol=1e-5, rtol=1e-5)


def test_language_model_loads_strictly() -> None:
    model, other = build("tiny", {}), build("tiny", {})
    state = save(model, MT5)
    assert {key.split(".")[0] for key in state} == {"shared", "encoder", "decoder", "lm_head"}
    assert torch.equal(state["encoder.embed_tokens.weight"], state["decoder.embed_tokens.weight"])
    load(other, state, MT5)
    assert all(torch.equal(x, y) for x, y in zip(save(other, MT5).values(), state.values(), strict=True))
    with pytest.raises(CheckpointError, match=r"missing \['lm_head.weight'\]"):
        load(other, {key: x for key, x in state.items() if key != "lm_head.weight"}, MT5)


def test_contract() -> None:
    check_model(lambda changes: build("tiny", changes), Can.FUSE | Can.MASK | Can.DECODE)


def test_paper_size() -> None:
    with torch.device("meta"):
        model = build("base", {})
    vision, attention, feed_forward = 1664, 4 * 1024 * 1024, 3 * 1024 * 2816
    block = 4 * vision * vision + 2 * vision * 8192 + (4 + 1) * vision + 8192 + 4 * vision
    patches = 3 * 14 * 14 * vision + vision + 256 * vision + 2 * vision
    encoder = 24 * (attention + feed_forward + 2 * 1024) + 1024 + 32 * 16
    decoder = 24 * (2 * attention + feed_forward + 3 * 1024) + 1024 + 32 * 16
    language = encoder + decoder + 2 * 250112 * 1024
    assert parameter_count(model) == 48 * block + patches + (vision + 1) * 1024 + language
    # Published: ViT-G of 1.8 B and mT5-large of 1.2 B.
    assert parameter_count(model.visual) / 1e9 == pytest.approx(1.8, abs=0.05)
    assert language / 1e9 == pytest.approx(1.2, abs=0.05)
    structure = model.structure()
    assert (structure.image_tokens, structure.width) == (256, 1024)
    assert (structure.image_layers, structure.text_layers, structure.fusion_layers) == (48, 24, 24)


def test_all_attention_is_scaled_dot_product_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    model, scales = build("tiny", {}).eval(), []
    real = F.scaled_dot_product_attention

    def noted(*args: Any, **options: Any) -> Tensor:
        scales.append(options.get("scale"))
        return real(*args, **options)

    image, text = model.encode_image(torch.randn(2, 3, 32, 32)), text_of((5, 3))
    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    model.decode(image, text, text)
    assert scales == [1.0] * (2 + 2 * 1)  # encoder layers, and two in each layer of the decoder


def test_pooled_is_the_mean_of_the_text() -> None:
    model, text = build("tiny", {}).eval(), text_of((5, 3))
    fused = model.fuse(model.encode_image(torch.randn(2, 3, 32, 32)), text)
    assert fused.text is not None
    assert fused.text.shape == (2, 5, 32)
    torch.testing.assert_close(fused.pooled[0], fused.text[0].mean(dim=0))
    torch.testing.assert_close(fused.pooled[1], fused.text[1, :3].mean(dim=0))


def test_beams_of_an_image_are_rows_of_their_own() -> None:
    model = build("tiny", {}).eval()
    image, prompt = model.encode_image(torch.randn(2, 3, 32, 32)), text_of((5, 3))
    source, ids = model.prepare_decode(image, prompt), torch.randint(4, 40, (6, 4))
    logits, _ = model.decode_step(source, ids, beams=3)
    for row in range(6):
        one = slice(row // 3, row // 3 + 1)
        alone = model.decode(
            image[one],
            Text(ids=ids[row : row + 1], mask=torch.ones(1, 4).bool()),
            Text(ids=prompt.ids[one], mask=prompt.mask[one]),
        )
        torch.testing.assert_close(logits[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_an_answer_follows_the_picture_and_the_question() -> None:
    """Two pictures, two questions, four answers, all learnt by writing them."""
    model = build("tiny", {}).train()
    image = torch.randn(2, 3, 32, 32)[[0, 0, 1, 1]]
    prompt = Text(ids=torch.tensor([[5, 6], [5, 7]] * 2), mask=torch.ones(4, 2).bool())
    ids = torch.tensor([[1, 10 + i, 20 - i, 2] for i in range(4)])
    answer = Text(ids=ids, mask=torch.ones_like(ids).bool())
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(100):
        optimiser.zero_grad()
        logits = model.decode(model.encode_image(image), answer, prompt)[:, :-1]
        text_loss(logits, answer).mean().backward()
        optimiser.step()
    model.eval()
    source = model.prepare_decode(model.encode_image(image), prompt)
    for beams in (1, 3):
        written = generate(model, source, ids[:, :1], Writing(end=2, pad=0, max_len=6, beams=beams))
        assert torch.equal(written.text.ids, ids)


def test_captions_train_everything_and_a_teacher_does_not_write() -> None:
    model = build("tiny", {})
    learner = Learner(model, Recipe(objectives=("lm",)), TOKENS).train()
    batch = Batch(image=torch.randn(4, 3, 32, 32), text=text_of((5, 3, 4, 5)), sample_id=torch.arange(4))
    learner.total(learner(batch)).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert {name.split(".")[0] for name, _ in model.taught().named_parameters()} == {
        "visual",
        "projection",
        "shared",
        "encoder",
    }


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image size \(30, 32\) must be a multiple of the patch size 16"):
        build("tiny", {"image_size": (30, 32)})
