"""Files of weights: what is refused and why, what is listed and resized; transformers' forms against transformers."""

from __future__ import annotations

import argparse
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from vlpbench.archs import registry
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.pretrained import ALBEF_PRETRAIN, CheckpointError, resize_positions, save
from vlpbench.archs.types import Text
from vlpbench.archs.weights import open_weights, read

TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)


def learner(arch: str, objectives: str, **changes: Any) -> Learner:
    torch.manual_seed(len(changes))
    return Learner(registry.build(arch, "tiny", changes), Recipe(objectives=tuple(objectives.split())), TOKENS).eval()


def albef_file(folder: Path, **changes: Any) -> tuple[Path, Learner]:
    made = learner("albef", "itc itm mlm", **changes)
    kept = {key: tensor for key, tensor in made.state_dict().items() if ALBEF_PRETRAIN.official(key) is not None}
    torch.save({"model": save(made, ALBEF_PRETRAIN), "epoch": 1}, folder / "ALBEF.pth")
    assert kept
    return folder / "ALBEF.pth", made


class Bad:
    """What is not to be run."""

    def __reduce__(self) -> Any:
        return print, ("ran",)


def test_code_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "hook": Bad()}, path)
    with pytest.raises(
        CheckpointError, match=r"evil\.pth is refused: to read it, code of \S*print would have to be run.*weights\.pt"
    ):
        read(path)
    path.write_bytes(pickle.dumps(Bad()))
    with pytest.raises(CheckpointError, match="is refused"):
        read(path)
    assert "ran" not in capsys.readouterr().out


def test_a_program_with_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and its files are still about
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    with pytest.raises(CheckpointError, match="TorchScript archive"):
        read(path)


def test_what_training_programs_store_beside_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"module.x": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, path)
    assert read(path).keys() == {"x"}
    save_file({"y": torch.ones(3)}, str(tmp_path / "model.safetensors"))
    assert read(tmp_path).keys() == {"y"}
    torch.save({"model": [{"fc.bias": torch.ones(1)}, {"rnn.b": torch.ones(1)}]}, path)
    assert read(path).keys() == {"img_enc.fc.bias", "txt_enc.rnn.b"}


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 cut short"])
def test_broken_files_are_named(tmp_path: Path, content: bytes) -> None:
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name} (cannot be read|is refused)"):
            read(tmp_path / name)
    with pytest.raises(CheckpointError, match="there is no file of weights"):
        read(tmp_path / "absent.pth")


def test_a_form_that_is_not_known_shows_its_keys(tmp_path: Path) -> None:
    save_file({"foo.bar": torch.ones(1)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(CheckpointError, match=r"x is of no form known .*albef_pretrain.*first keys are foo\.bar"):
        open_weights("albef", [tmp_path / "x.safetensors"], "x")


def test_every_tensor_comes_back(tmp_path: Path) -> None:
    path, made = albef_file(tmp_path)
    other = learner("albef", "itc itm mlm", dropout=0.0)
    loaded = open_weights("albef", [path], path.name).load(other)
    for key, tensor in made.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key
    assert (loaded.random, loaded.unread, loaded.part) == ((), (), "")


def test_heads_and_vocabularies_that_differ_are_listed_key_by_key(tmp_path: Path) -> None:
    path, _ = albef_file(tmp_path, vocab_size=44)
    weights = open_weights("albef", [path], "ALBEF.pth")
    assert weights.changes("tiny")["vocab_size"] == 44
    with pytest.raises(CheckpointError) as caught:
        weights.load(learner("albef", "itc itm mlm"))
    text = str(caught.value)
    assert "model.text_encoder.embeddings.word_embeddings.weight: (40, 32), " in text
    assert "has (44, 32)" in text
    assert "objectives.mlm.head.bias: (40,)" in text
    state = torch.load(path)
    for key in ("itm_head.weight", "itm_head.bias"):
        del state["model"][key]
    state["model"]["strange.weight"] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        open_weights("albef", [path], "ALBEF.pth").load(learner("albef", "itc itm mlm", vocab_size=44))
    text = str(caught.value)
    assert "2 not in the checkpoint:\n  objectives.itm.head.weight (itm_head.weight)" in text
    assert "nothing of this architecture:\n  strange.weight" in text
    assert "leave the objective itm out" in text


def test_heads_that_are_not_asked_for_are_left_and_named(tmp_path: Path) -> None:
    path, _ = albef_file(tmp_path)
    loaded = open_weights("albef", [path], path.name).load(learner("albef", "itc"))
    assert {name.split(" ")[0] for name in loaded.unread} == {"itm_head.bias", "itm_head.weight", "text_encoder.cls"}


def test_positions_are_resized_to_the_image_that_is_asked_for(tmp_path: Path) -> None:
    path, made = albef_file(tmp_path)
    weights = open_weights("albef", [path], path.name)
    assert weights.changes("tiny")["image_size"] == (32, 32)
    wide = learner("albef", "itc", image_size=(32, 64))
    assert weights.load(wide).resized == ("model.visual_encoder.pos_embed",)
    table = made.state_dict()["model.visual_encoder.pos_embed"]
    assert torch.equal(wide.state_dict()["model.visual_encoder.pos_embed"], resize_positions(table, (2, 4)))


def test_open_clip_weights_and_their_resize(tmp_path: Path) -> None:
    import open_clip

    made = learner("clip", "itc")
    state = {key.removeprefix("model."): t for key, t in made.state_dict().items() if key.startswith("model.")}
    state["logit_scale"] = torch.tensor(3.0)
    save_file({key: t.clone() for key, t in state.items()}, str(tmp_path / "c.safetensors"))
    weights = open_weights("clip", [tmp_path / "c.safetensors"], "c")
    assert weights.form.name == "open_clip"
    same = learner("clip", "itc", quick_gelu=False)
    weights.load(same)
    assert same.objectives["itc"].get_parameter("temperature").item() == pytest.approx(2.718281828**-3, rel=1e-6)
    larger = learner("clip", "itc", image_size=(64, 64))
    weights.load(larger)

    class Tower:
        class visual:  # noqa: N801
            grid_size = (4, 4)

    official = {"visual.positional_embedding": state["visual.positional_embedding"].clone()}
    open_clip.model.resize_pos_embed(official, Tower())
    found = larger.state_dict()["model.visual.positional_embedding"]
    torch.testing.assert_close(found, official["visual.positional_embedding"])
    late = Learner(registry.build("clip+late", "tiny"), Recipe(objectives=("itc",)), TOKENS)
    loaded = open_weights("clip+late", [tmp_path / "c.safetensors"], "c").load(late)
    assert loaded.random == ("model.fusion (4)",)
    assert torch.equal(late.state_dict()["model.model.text_projection"], state["text_projection"])


def test_a_start_from_a_vit_and_bert(tmp_path: Path) -> None:
    made = learner("albef", "itc itm mlm")
    own = made.state_dict()
    image, text = "model.visual_encoder.", "model.text_encoder."
    vit = {key.removeprefix(image): t.clone() for key, t in own.items() if key.startswith(image)}
    bert = {
        "bert."
        + key.removeprefix(text)
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): t.clone()
        for key, t in own.items()
        if key.startswith(text) and "crossattention" not in key and "position_ids" not in key
    }
    torch.save({"model": vit | {"head.weight": torch.zeros(2)}}, tmp_path / "deit.pth")
    torch.save(bert | {"cls.predictions.bias": torch.zeros(2)}, tmp_path / "bert.bin")
    other = learner("albef", "itc itm mlm", dropout=0.0)
    fresh = {key: t.clone() for key, t in other.state_dict().items()}
    loaded = open_weights("albef", [tmp_path / "deit.pth", tmp_path / "bert.bin"], "deit+bert").load(other)
    assert loaded.part == "the image encoder and the text encoder"
    for key, tensor in other.state_dict().items():
        begun = key.startswith((image, text)) and "crossattention" not in key
        tied = key == "objectives.mlm.head.decoder.weight"
        assert torch.equal(tensor, (own if begun or tied else fresh)[key]), key
    alone = open_weights("albef", [tmp_path / "deit.pth"], "deit").load(learner("albef", "itc"))
    assert alone.part == "the image encoder"


@pytest.mark.parametrize(
    ("arch", "objectives", "ours", "theirs", "part"),
    [
        ("blip", "itc", "model.visual_encoder.", "", "the image encoder"),
        ("vilt", "itm", "model.transformer.", "", "the image encoder"),
        ("uniter", "itm", "model.", "bert.", "the text encoder"),
    ],
)
def test_other_starts(tmp_path: Path, arch: str, objectives: str, ours: str, theirs: str, part: str) -> None:
    made = learner(arch, objectives)
    begun = [key for key in made.state_dict() if key.startswith(ours) and key.startswith(BEGUN[arch])]
    state = {theirs + key.removeprefix(ours): made.state_dict()[key].clone() for key in begun}
    torch.save({key: t for key, t in state.items() if not key.endswith("position_ids")}, tmp_path / "start.bin")
    other = learner(arch, objectives, dropout=0.0)
    loaded = open_weights(arch, [tmp_path / "start.bin"], "start").load(other)
    assert (loaded.part, loaded.tensors) == (part, len(begun))
    assert all(torch.equal(other.state_dict()[key], made.state_dict()[key]) for key in begun)


BEGUN = {
    "blip": ("model.visual_encoder.",),
    "vilt": ("model.transformer.",),
    "uniter": ("model.embeddings.", "model.encoder."),
}


def text_of(*lengths: int) -> Text:
    ids = torch.randint(4, 40, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Text(ids=ids.masked_fill(~mask, 0), mask=mask)


def opened(folder: Path, arch: str, theirs: torch.nn.Module) -> Any:
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    return open_weights(arch, [folder], "transformers")


def test_transformers_vilt_scores_as_transformers_does(tmp_path: Path) -> None:
    from transformers import ViltConfig, ViltForImageAndTextRetrieval
    from vlpbench.archs.vilt import Vilt
    from vlpbench.archs.vilt import ViltConfig as Ours

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    rest = {"vocab_size": 40, "max_position_embeddings": 8, "image_size": 64, "patch_size": 16, "max_image_length": -1}
    theirs = ViltForImageAndTextRetrieval(ViltConfig(**sizes, **rest)).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.2)
    weights = opened(tmp_path, "vilt", theirs)
    assert weights.form.name.endswith("ViltForImageAndTextRetrieval")
    config = Ours(image_size=(64, 64), patch=16, text_len=8, vocab_size=40, width=32, layers=2, heads=2, mlp_ratio=2.0)
    ours = Learner(Vilt(config), Recipe(objectives=("itm",)), TOKENS).eval()
    weights.load(ours)
    text, image = text_of(8, 5), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model = ours.model
        found = ours.match_logits(model.fuse_pooled(model.encode_image(image), model.encode_text(text)))
        out = theirs(
            input_ids=text.ids,
            attention_mask=text.mask.long(),
            pixel_values=image,
            pixel_mask=torch.ones(2, 64, 64).long(),
        )
    torch.testing.assert_close(found, out.logits[:, 0], atol=1e-4, rtol=1e-4)


def test_transformers_clip_embeds_as_transformers_does(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel
    from vlpbench.archs.clip import Clip, ClipConfig

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"vocab_size": 40, "max_position_embeddings": 8, "eos_token_id": 39, "bos_token_id": 1}
    theirs = CLIPModel(
        CLIPConfig(
            text_config=shape | words, vision_config=shape | {"image_size": 64, "patch_size": 16}, projection_dim=16
        )
    ).eval()
    weights = opened(tmp_path, "clip", theirs)
    assert weights.changes("tiny")["quick_gelu"] is True
    config = ClipConfig(
        image_size=(64, 64),
        patch=16,
        image_width=32,
        image_layers=2,
        image_heads=2,
        text_len=8,
        vocab_size=40,
        text_width=32,
        text_layers=2,
        text_heads=2,
        embed_dim=16,
        mlp_ratio=2.0,
        quick_gelu=True,
    )
    ours = Learner(Clip(config), Recipe(objectives=("itc",)), TOKENS).eval()
    weights.load(ours)
    text, image = text_of(8, 5), torch.randn(2, 3, 64, 64)
    text.ids[0, 7] = text.ids[1, 4] = 39
    with torch.no_grad():
        model = ours.model
        out = theirs(input_ids=text.ids, attention_mask=text.mask.long(), pixel_values=image)
        torch.testing.assert_close(model.embed_image(model.encode_image(image)), out.image_embeds, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.embed_text(model.encode_text(text)), out.text_embeds, atol=1e-5, rtol=1e-4)
    (tmp_path / "config.json").write_text(
        '{"text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}}'
    )
    assert open_weights("clip", [tmp_path], "x").changes("tiny")["quick_gelu"] is False


def test_transformers_blip_embeds_and_matches_as_transformers_does(tmp_path: Path) -> None:
    from transformers import BlipConfig, BlipForImageTextRetrieval
    from vlpbench.archs.blip import Blip
    from vlpbench.archs.blip_config import BlipConfig as Ours

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {
        "vocab_size": 42,
        "max_position_embeddings": 16,
        "encoder_hidden_size": 32,
        "bos_token_id": 40,
        "sep_token_id": 2,
    }
    theirs = BlipForImageTextRetrieval(
        BlipConfig(
            text_config=shape | words,
            vision_config=shape | {"image_size": 32, "patch_size": 16, "layer_norm_eps": 1e-6},
            image_text_hidden_size=16,
        )
    ).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.2)
    weights = opened(tmp_path, "blip", theirs)
    assert weights.form.name.startswith("transformers Blip")
    config = Ours(
        image_size=(32, 32),
        patch=16,
        image_width=32,
        image_layers=2,
        image_heads=2,
        image_mlp_ratio=2.0,
        vocab_size=40,
        positions=16,
        width=32,
        heads=2,
        layers=2,
        embed_dim=16,
        mlp_ratio=2.0,
    )
    ours = Learner(Blip(config), Recipe(objectives=("itc", "itm")), TOKENS).eval()
    weights.load(ours)
    text, image = text_of(8, 5), torch.randn(2, 3, 32, 32)
    lead = Text(ids=text.ids.clone(), mask=text.mask)
    lead.ids[:, 0] = 41  # [ENC], which ours puts in front by itself
    model: Any = ours.model
    with torch.no_grad():
        cosine = theirs(input_ids=text.ids, attention_mask=text.mask.long(), pixel_values=image, use_itm_head=False)[0]
        matched = theirs(input_ids=lead.ids, attention_mask=text.mask.long(), pixel_values=image).itm_score
        states = model.encode_image(image), model.encode_text(text)
        found = model.embed_image(states[0]) @ model.embed_text(states[1]).T
        torch.testing.assert_close(found, cosine, atol=1e-4, rtol=1e-4)
        logits = ours.match_logits(model.fuse_pooled(*states))
    torch.testing.assert_close(logits, matched[:, 1] - matched[:, 0], atol=1e-4, rtol=1e-4)
