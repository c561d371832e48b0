"""CoCa against open_clip's own forward, its published cost, and what the two halves of its decoder see."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from vlpbench.archs.coca import Coca, build, load_official
from vlpbench.archs.coca_parts import SIZES, CocaConfig, text_look
from vlpbench.archs.contract import check_model
from vlpbench.archs.generate import Writing, generate
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.model import parameter_count
from vlpbench.archs.types import Batch, Can, Text

CAN = Can.EMBED | Can.FUSE | Can.DECODE
TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)
# GFLOP and million parameters: open_clip's published profile of coca_ViT-B-32 and coca_ViT-L-14.
PUBLISHED = {"b32": (33.34, 253.56), "large": (214.52, 638.45)}
RELEASED = CocaConfig(
    image_size=(16, 24),
    patch=8,
    image_width=12,
    image_layers=2,
    image_heads=3,
    pooling="shared",
    queries=256,
    pooler_heads=2,
    text_len=7,
    vocab_size=20,
    width=8,
    heads=2,
    text_layers=2,
    fusion_layers=3,
    feed_forwards=2,
    code="official",
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def official(config: CocaConfig, pool: Any = True) -> Any:
    """open_clip's own model of these sizes, all weights drawn."""
    model = open_clip.CoCa(
        config.width,
        {
            "context_length": config.text_len,
            "vocab_size": config.vocab_size,
            "width": config.width,
            "heads": config.heads,
            "layers": config.fusion_layers,
        },  # pyright: ignore[reportArgumentType]
        open_clip.CLIPTextCfg(
            context_length=config.text_len,
            vocab_size=config.vocab_size,
            width=config.width,
            heads=config.heads,
            layers=config.text_layers,
            embed_cls=True,
            output_tokens=True,
        ),
        open_clip.CLIPVisionCfg(
            layers=config.image_layers,
            width=config.image_width,
            head_width=config.image_width // config.image_heads,
            patch_size=config.patch,
            image_size=config.image_size,
            attentional_pool=pool,
            attn_pooler_heads=config.pooler_heads,
            attn_pooler_queries=config.queries,
            output_tokens=True,
        ),
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def texts(config: CocaConfig, lengths: tuple[int, ...]) -> Text:
    length = config.text_len
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    return Text(ids=torch.randint(1, config.vocab_size, mask.shape) * mask, mask=mask)


def compared(config: CocaConfig, theirs: Any, text: Text) -> None:
    ours = Coca(config).eval()
    rest = load_official(ours, theirs.state_dict())
    assert set(rest) == {"logit_scale"}
    image = torch.randn(len(text.ids), 3, *config.image_size)
    with torch.no_grad():
        found = theirs(image, text.ids)
        i, t = ours.encode_image(image), ours.encode_text(text)
        logits, real = ours.decode(i, t)[:, :-1], text.mask[:, :-1]
        torch.testing.assert_close(ours.embed_image(i), found["image_features"].view(len(image), -1), atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.embed_text(t), found["text_features"], atol=1e-5, rtol=0)
        torch.testing.assert_close(logits[real], found["logits"][real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [(7, 7, 7), (7, 4, 6), (1, 3, 2)])
def test_embeddings_and_logits_are_open_clips(lengths: tuple[int, ...]) -> None:
    compared(RELEASED, official(RELEASED), texts(RELEASED, lengths))


def test_poolers_in_cascade_are_open_clips() -> None:
    config = replace(RELEASED, pooling="cascade", image_width=8, image_heads=2, queries=5)
    compared(config, official(config, "cascade"), texts(config, (7, 4, 6)))


def test_summary_without_padding_is_the_same_by_both_masks() -> None:
    clean, released = Coca(replace(RELEASED, code="clean")).eval(), Coca(RELEASED).eval()
    clean.load_state_dict(released.state_dict())
    full, short = texts(RELEASED, (7, 7)), texts(RELEASED, (7, 4))
    torch.testing.assert_close(
        clean.embed_text(clean.encode_text(full)), released.embed_text(released.encode_text(full))
    )
    apart = clean.embed_text(clean.encode_text(short)) - released.embed_text(released.encode_text(short))
    assert apart[0].abs().max() < 1e-6 < apart[1].abs().max()


def test_what_a_summary_sees() -> None:
    """A text of 2 of 3 tokens, of at most 4: itself and the text; or the text and one token of padding behind it."""
    mask = torch.tensor([[True, True, False]])
    assert text_look(mask, 4, official=False)[0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 0, 1],
    ]
    assert text_look(mask, 4, official=True)[0, 0, -1].int().tolist() == [1, 1, 1, 0, 0]
    assert text_look(mask, 3, official=True)[0, 0, -1].int().tolist() == [1, 1, 1, 0]
    assert text_look(mask.new_ones(1, 3), 3, official=True)[0, 0, -1].int().tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "changes", [{}, {"code": "official"}, {"pooling": "shared", "feed_forwards": 2, "code": "official"}]
)
def test_contract(changes: dict[str, Any]) -> None:
    check_model(lambda more: build("tiny", {**changes, **more}), CAN)


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_flops_and_parameters(size: str) -> None:
    gflop, million = PUBLISHED[size]
    with torch.device("meta"):
        model = build(size, {}).eval()
        ids = torch.zeros(1, model.text_len, dtype=torch.long)
        text = Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            i, t = model.encode_image(torch.empty(1, 3, *model.image_size)), model.encode_text(text)
            for _ in (model.embed_image(i), model.embed_text(t), model.decode(i, t)):
                pass
    assert parameter_count(model) / 1e6 == pytest.approx(million, rel=1e-4)
    # Published without the last token, which predicts nothing: one of 76 in the upper half.
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=1e-2)


def test_the_papers_base() -> None:
    with torch.device("meta"):
        model = build("base", {})
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
    text = parts["text"] + parts["text_decoder"] - 768 * 768  # the projection of contrast
    assert text / 1e6 == pytest.approx(297, rel=2e-3)
    pooler = model.visual.attn_pool, model.visual.attn_pool_contrastive
    image = parts["visual"] - sum(map(parameter_count, pooler)) - 768 * 768
    assert image / 1e6 == pytest.approx(86, rel=2e-3)
    assert parameter_count(model) / 1e6 == pytest.approx(383, rel=2e-2)
    structure = model.structure()
    assert (structure.image_tokens, structure.width) == (257, 768)
    assert (structure.image_layers, structure.text_layers, structure.fusion_layers) == (12, 12, 12)


def test_a_prompt_is_the_beginning_of_the_text() -> None:
    """Decoding behind a prompt gives the logits of the whole text, whatever the prompt's padding."""
    model = build("tiny", {}).eval()
    state = model.encode_image(torch.randn(2, 3, 32, 32))
    ids = torch.randint(4, 40, (2, 9))
    asked = torch.tensor([5, 3])
    mask = torch.arange(6) < asked[:, None]
    prompt = model.encode_text(Text(ids=ids[:, :6] * mask, mask=mask))
    answer = torch.randint(4, 40, (2, 3))
    target = model.encode_text(Text(ids=answer, mask=torch.ones_like(answer, dtype=torch.bool)))
    found = model.decode(state, target, prompt)
    for row, length in enumerate(asked.tolist()):
        whole = torch.cat([ids[row, :length], answer[row]])[None]
        text = model.encode_text(Text(ids=whole, mask=torch.ones_like(whole, dtype=torch.bool)))
        one = model.encode_image(torch.zeros(1, 3, 32, 32))
        one = replace(one, pooled=state.pooled[row : row + 1], tokens=none_or(state.tokens, row))
        torch.testing.assert_close(found[row], model.decode(one, text)[0, length:], atol=1e-5, rtol=1e-5)
    source = model.prepare_decode(state, prompt)
    first, past = model.decode_step(source, answer[:, :1])
    rest, _ = model.decode_step(source, answer[:, 1:], past)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), found, atol=1e-5, rtol=1e-5)


def none_or(x: Tensor | None, row: int) -> Tensor | None:
    return None if x is None else x[row : row + 1]


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image size \(30, 32\) must be a multiple of the patch size 16"):
        build("tiny", {"image_size": (30, 32)})
    with pytest.raises(ValueError, match="image_width 32 is not width 64"):
        build("tiny", {"width": 64})
    with pytest.raises(ValueError, match="1 or 2 feed-forwards, not 3"):
        build("tiny", {"feed_forwards": 3})
    with pytest.raises(ValueError, match="text of 17 tokens is longer than the 16"):
        build("tiny", {}).encode_text(Text(ids=torch.ones(1, 17).long(), mask=torch.ones(1, 17).bool()))


@pytest.mark.parametrize("momentum", ["off", "distill"])
def test_one_pass_trains_contrast_and_captions(momentum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image and text are encoded once; afterwards the caption is written. A teacher runs no multimodal half."""
    model = build("tiny", {})
    recipe = Recipe(objectives=("itc", "lm"), weights=(1.0, 2.0), momentum=momentum, queue_size=8)
    learner = Learner(model, recipe, TOKENS).train()
    image = torch.randn(4, 3, 32, 32)
    ids = torch.tensor([[1, 10 + i, 20 + i, 30 + i, 2] for i in range(4)])
    batch = Batch(image=image, text=Text(ids=ids, mask=torch.ones_like(ids).bool()), sample_id=torch.arange(4))
    calls: list[str] = []
    for verb in ("encode_image", "encode_text"):
        monkeypatch.setattr(model, verb, counted(getattr(model, verb), verb, calls))
    optimiser = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for step in range(150):
        optimiser.zero_grad()
        learner.total(learner(batch)).backward()
        if step == 0:
            assert sorted(calls) == ["encode_image", "encode_text"]
            assert all(p.grad is not None for p in model.parameters())
        optimiser.step()
        learner.after_step()
    model.eval()
    how = Writing(end=2, pad=0, max_len=6)
    written = generate(model, model.prepare_decode(model.encode_image(image)), ids[:, :1], how)
    assert torch.equal(written.text.ids, ids)


def counted(verb: Any, name: str, calls: list[str]) -> Any:
    def call(*args: Any) -> Any:
        calls.append(name)
        return verb(*args)

    return call


def test_every_field_of_a_published_size_is_read() -> None:
    assert asdict(SIZES["large"]) == asdict(
        CocaConfig(
            image_size=(224, 224),
            patch=14,
            image_width=1024,
            image_layers=24,
            image_heads=16,
            pooling="shared",
            text_len=76,
            vocab_size=49408,
            heads=12,
            feed_forwards=2,
            code="official",
        )
    )
