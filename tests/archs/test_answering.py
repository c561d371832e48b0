"""Decoders for answers: what they start from, that they keep the writer's contract, and ALBEF's own ranking."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vlpbench.archs import registry
from vlpbench.archs.albef_tasks import Answering, rank_answers
from vlpbench.archs.answering import AlbefAnswerer, BlipAnswerer
from vlpbench.archs.generate import rank
from vlpbench.archs.model import VLModel
from vlpbench.archs.types import Can, Text, Unsupported

WRITERS = [name for name, spec in registry.specs().items() if spec.answers]


def shaken(name: str, size: str = "tiny", changes: Any = None) -> VLModel[Any, Any]:
    torch.manual_seed(0)
    model = registry.build(name, size, changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def questions(size: int = 3) -> Text:
    ids = torch.randint(4, 40, (size, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(5) < torch.tensor([5, 3, 4])[:size, None]
    return Text(ids=ids * mask, mask=mask)


def test_who_writes_answers() -> None:
    assert set(WRITERS) == {"albef", "blip", "beit3", "coca", "pali"}
    assert all(Can.DECODE in registry.get(name).can for name in WRITERS if not registry.get(name).answerer)
    with pytest.raises(Unsupported, match="clip can neither DECODE nor has it a decoder for answers"):
        registry.answerer("clip", registry.build("clip", "tiny"))


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_steps_are_the_whole_and_depend_on_picture_and_question(name: str) -> None:
    model = shaken(name)
    writer = registry.answerer(name, model).eval()
    pictures, asked = torch.randn(3, 3, *model.image_size), questions()
    ids = torch.randint(4, 40, (6, 4), generator=torch.Generator().manual_seed(2))

    def source(turn: int = 0, other: int = 0) -> Any:
        text = Text(ids=asked.ids.roll(other, 0), mask=asked.mask.roll(other, 0))
        return writer.prepare_decode(model.encode_image(pictures.roll(turn, 0)), model.encode_text(text))

    whole, _ = writer.decode_step(source(), ids, beams=2)
    past, parts = None, []
    for part in ids.split([1, 2, 1], dim=1):
        logits, past = writer.decode_step(source(), part, past, beams=2)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)
    for changed in (source(turn=1), source(other=1)):
        assert not torch.allclose(writer.decode_step(changed, ids, beams=2)[0], whole, atol=1e-3)


@torch.no_grad()
def test_the_decoder_of_albef_starts_as_its_fusion_layers_and_ranks_as_its_paper() -> None:
    model: Any = shaken("albef")
    writer = registry.answerer("albef", model).eval()
    assert isinstance(writer, AlbefAnswerer)
    own, bert = writer.decoder.bert, model.text_encoder
    for layer, fusing in zip(own.layers, bert.layers[bert.text_layers :], strict=True):
        assert all(torch.equal(value, fusing.state_dict()[name]) for name, value in layer.state_dict().items())
    assert torch.equal(own.embeddings.word_embeddings.weight, model.word_embedding().weight)
    network = Answering(model, model.config, layers=model.config.fusion_layers).eval()
    network.decoder = writer.decoder
    ids = torch.randint(4, 40, (7, 4), generator=torch.Generator().manual_seed(3))
    ids[:, 0], ids[:, 3] = 1, 2
    answers = Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
    pictures, asked = torch.randn(3, 3, *model.image_size), questions()
    expected, _ = rank_answers(network, pictures, asked, answers, k=4)
    source = writer.prepare_decode(model.encode_image(pictures), model.encode_text(asked))
    found, score = rank(writer, source, answers, size=3, k=4)
    assert torch.equal(found, expected)
    logits, _ = writer.decode_step(source, answers.ids[found[:, 0]][:, :-1])
    likely = logits.log_softmax(dim=-1).gather(2, answers.ids[found[:, 0]][:, 1:, None]).sum(dim=(1, 2))
    torch.testing.assert_close(score[:, 0], likely)


@torch.no_grad()
def test_what_differs_in_shape_starts_anew() -> None:
    model: Any = shaken("albef", changes={"image_width": 64})
    writer: Any = registry.answerer("albef", model)
    layer, fusing = writer.decoder.bert.layers[0], model.text_encoder.layers[model.text_encoder.text_layers]
    assert layer.crossattention.self.key.weight.shape == (32, 32)
    assert torch.equal(layer.crossattention.self.query.weight, fusing.crossattention.self.query.weight)
    with pytest.raises(Unsupported, match="reads images 64 wide and cannot read a question 32 wide"):
        registry.answerer("blip", shaken("blip", changes={"image_width": 64}))


@torch.no_grad()
def test_the_decoder_of_blip_starts_as_the_models_and_shares_nothing() -> None:
    model: Any = shaken("blip")
    writer = registry.answerer("blip", model)
    assert isinstance(writer, BlipAnswerer)
    theirs = model.text_decoder.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in writer.decoder.state_dict().items())
    pictures = model.encode_image(torch.randn(3, 3, *model.image_size))
    before = model.decode(pictures, questions())
    for parameter in writer.decoder.parameters():
        parameter.zero_()
    assert torch.equal(model.decode(pictures, questions()), before)
    head: Any = writer.decoder.cls
    assert head.decoder.weight is writer.decoder.bert.embeddings.word_embeddings.weight
