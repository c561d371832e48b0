"""Every recorded official checkpoint through the one way by which weights come in, and back out to the same bits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from vlpbench.archs import registry
from vlpbench.archs.formats.base import changes_of, load_weights, recognise
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.weights import Weights, formats_of, open_weights

pytestmark = pytest.mark.shared
TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=50)
TINY = {
    "albef_pretrain": ("albef", "itc itm mlm", "albef_pretrain"),
    "albef_retrieval": ("albef", "itc itm", "albef_retrieval"),
    "blip_pretrain": ("blip", "itc itm lm", "blip_pretrain"),
    "blip_retrieval": ("blip", "itc itm", "blip_retrieval"),
    "blip_itm": ("blip", "itc itm", "blip_itm"),
    "vilt": ("vilt", "itm mlm", "vilt_irtr"),
    "vlmo": ("vlmo", "itc itm mlm", "vlmo"),
    "vlmo_plus": ("vlmo", "itc itm mlm", "vlmo"),
    "beit3_retrieval": ("beit3", "itc", "beit3_retrieval"),
    "uniter_pretrain": ("uniter", "itm mlm", "uniter_pretrain"),
    "uniter_itm_rank": ("uniter", "itm", "uniter_itm_rank"),
    "vilbert_pretrain": ("vilbert", "itm mlm", "vilbert_pretrain"),
}
"""Folder of recordings -> architecture, objectives that it has heads for, its form."""
PAPER = {
    "albef_pretrain": ("albef", "base", "itc itm mlm", "albef_pretrain"),
    "albef_retrieval": ("albef", "base", "itc itm", "albef_retrieval"),
    "blip_pretrain_base": ("blip", "base", "itc itm lm", "blip_pretrain"),
    "blip_retrieval_base": ("blip", "base", "itc itm", "blip_retrieval"),
    "blip_itm_base": ("blip", "base", "itc itm", "blip_itm"),
    "vilt_pretrain": ("vilt", "base", "itm mlm", "vilt_pretrain"),
    "vlmo_base": ("vlmo", "base", "itc itm mlm", "vlmo"),
    "vlmo_base_plus": ("vlmo", "base_plus", "itc itm mlm", "vlmo"),
    "vlmo_large": ("vlmo", "large", "itc itm mlm", "vlmo"),
    "beit3_base_patch16_384_retrieval": ("beit3", "base", "itc", "beit3_retrieval"),
    "beit3_large_patch16_384_retrieval": ("beit3", "large", "itc", "beit3_retrieval"),
    "uniter_base_pretrain": ("uniter", "base", "itm mlm", "uniter_pretrain"),
    "uniter_large_pretrain": ("uniter", "large", "itm mlm", "uniter_pretrain"),
    "vilbert_6_6_pretrain": ("vilbert", "base", "itm mlm", "vilbert_pretrain"),
}


@pytest.mark.parametrize("folder", TINY)
def test_a_recorded_checkpoint_is_recognised(oracle: Callable[[str], Any], folder: str) -> None:
    arch, _, name = TINY[folder]
    assert recognise(oracle(folder).state, formats_of(arch), folder).name == name


@pytest.mark.parametrize("name", PAPER)
def test_a_checkpoint_of_paper_size_finds_all_its_places(oracles: Path, name: str) -> None:
    file = oracles / "paper_size_keys" / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"this set of oracles has no paper_size_keys/{file.name}")
    arch, size, objectives, form_name = PAPER[name]
    keys = json.loads(file.read_text())["keys"]
    state = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    form = recognise(state, formats_of(arch), name)
    assert form.name == form_name
    weights = Weights(arch=arch, what=name, form=form, state=form.official(state), config={})
    changes = weights.changes(size)
    table = next((keys[key] for key in ("visual_encoder.pos_embed", "transformer.pos_embed") if key in keys), None)
    if table is not None and "position_size" not in changes:
        side = math.isqrt(table[-2] - 1) * 16
        assert changes["image_size"] == (side, side)
    with torch.device("meta"):
        learner = Learner(registry.build(arch, size, changes), Recipe(objectives=tuple(objectives.split())), TOKENS)
    loaded = weights.load(learner)
    assert loaded.resized == ()
    wanted = {key for key in learner.state_dict() if not any(key.startswith(own) for own in form.absent)}
    assert loaded.tensors == len(wanted)


def test_albef_reads_the_same_tensors_as_its_layout(oracle: Callable[[str], Any], albef: Any, tmp_path: Path) -> None:
    opened = oracle("albef_pretrain")
    torch.save({"model": opened.state, "epoch": 3}, tmp_path / "ALBEF.pth")
    learner = albef.learner(opened.meta, ("itc", "itm", "mlm"))
    weights = open_weights("albef", [tmp_path / "ALBEF.pth"], "ALBEF.pth")
    loaded = weights.load(learner)
    state = learner.state_dict()
    assert torch.equal(state["objectives.itc.temperature"], opened.state["temp"])
    assert torch.equal(state["objectives.mlm.head.bias"], opened.state["text_encoder.cls.predictions.bias"])
    for own, theirs in (
        ("visual_encoder.blocks.0.attn.qkv.weight",) * 2,
        ("text_encoder.embeddings.LayerNorm.bias", "text_encoder.bert.embeddings.LayerNorm.bias"),
    ):
        assert torch.equal(state[f"model.{own}"], opened.state[theirs])
        assert torch.equal(state[f"momentum.twin.model.{own}"], opened.state[theirs])  # it starts as the student
    assert "image_queue" in loaded.unread
    assert any(name.startswith("visual_encoder_m.") for name in loaded.unread)


def test_a_released_ranking_head_ranks_as_it_did(oracle: Callable[[str], Any]) -> None:
    from vlpbench.archs.vilt import Vilt, ViltConfig

    opened = oracle("vilt")
    config = ViltConfig(image_size=(64, 64), patch=16, text_len=40, vocab_size=200, width=64, layers=3, heads=4)
    learner = Learner(Vilt(config), Recipe(objectives=("itm", "mlm")), TOKENS).eval()
    form = recognise(opened.state, formats_of("vilt"), "vilt")
    load_weights(learner, form, opened.state, "vilt")
    pooled = torch.randn(5, 64)
    official = pooled @ opened.state["rank_output.weight"].T + opened.state["rank_output.bias"]
    torch.testing.assert_close(learner.match_logits(pooled), official[:, 0])


def test_vilbert_matches_where_its_next_sentence_says_so(oracle: Callable[[str], Any]) -> None:
    state = oracle("vilbert_pretrain").state
    (form,) = formats_of("vilbert")
    key, flip = form.made["objectives.itm.head.weight"]
    assert torch.equal(flip(state[key])[1], state["cls.bi_seq_relationship.weight"][0])


def test_sizes_are_read_off_the_shapes(oracles: Path) -> None:
    state = load_file(oracles / "uniter_pretrain" / "state_dict.safetensors")
    form = recognise(state, formats_of("uniter"), "uniter")
    found = changes_of(form, state, {}, {}, image=(32, 32))
    assert found["vocab_size"] == len(state["uniter.embeddings.word_embeddings.weight"])
    assert found["features"] == state["uniter.img_embeddings.img_linear.weight"].shape[1]
