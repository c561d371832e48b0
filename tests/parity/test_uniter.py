"""UNITER against recordings of the released code: pre-training, VQA, ranking and NLVR2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs import uniter_tasks as tasks
from vlpbench.archs.model import parameter_count, take
from vlpbench.archs.pretrained import CheckpointError, Layout, load, save
from vlpbench.archs.regions import Regions
from vlpbench.archs.transport import transport_distance
from vlpbench.archs.types import Masked, Text
from vlpbench.archs.uniter import Tokens, Uniter, UniterConfig, build

pytestmark = pytest.mark.shared
IGNORED = -1


def config_of(opened: Any) -> UniterConfig:
    config, state = opened.meta["config"], opened.state
    assert config["hidden_act"] == "gelu"
    return UniterConfig(
        features=opened.meta["img_dim"],
        regions=opened.tensors["in.img_feat"].shape[1],
        text_len=opened.tensors["in.input_ids"].shape[1],
        positions=config["max_position_embeddings"],
        vocab_size=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        mlp_ratio=config["intermediate_size"] / config["hidden_size"],
        dropout=config["hidden_dropout_prob"],
        image_types=len(state["uniter.embeddings.token_type_embeddings.weight"]) - 1,
    )


class Recording:
    """A task's module with the recorded weights, in training mode, and what it was given."""

    def __init__(self, opened: Any, make: Callable[[Uniter], nn.Module], layout: Layout) -> None:
        self.opened, self.tensors, self.layout = opened, opened.tensors, layout
        self.model = Uniter(config_of(opened))
        self.module: Any = make(self.model).train()
        load(self.module, opened.state, layout)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def counts(self) -> tuple[Tensor, Tensor]:
        """Words and regions of each row: the joint mask is compact, so words end where the index jumps to regions."""
        longest = self["in.input_ids"].shape[1]
        seen, index = self["in.attn_masks"].bool(), self["in.gather_index"]
        words = (seen & (index < longest)).sum(dim=1)
        return words, seen.sum(dim=1) - words

    def text(self, ids: str = "in.input_ids") -> Text:
        words, _ = self.counts()
        return Text(ids=self[ids], mask=torch.arange(self[ids].shape[1]) < words[:, None])

    def regions(self, features: str = "in.img_feat") -> Regions:
        _, regions = self.counts()
        mask = torch.arange(self[features].shape[1]) < regions[:, None]
        return Regions(features=self[features], place=self["in.img_pos_feat"], mask=mask)

    def image(self) -> Tokens:
        return self.model.embed_regions(self.regions())

    def gradients(self, check: Any, loss: Tensor, name: str) -> None:
        loss.backward()
        named = {self.layout.official(key): p for key, p in self.module.named_parameters()}
        check.grad_norms({key: p for key, p in named.items() if key is not None}, self.opened.grad_norms[name])


@pytest.fixture
def pretraining(oracle: Callable[[str], Any]) -> Recording:
    opened = oracle("uniter_pretrain")
    return Recording(opened, lambda m: tasks.Pretraining(m, opened.meta["img_label_dim"]), tasks.PRETRAIN)


def same_saved(recording: Recording) -> None:
    saved = save(recording.module, recording.layout)
    assert set(saved) == set(recording.opened.state)
    for name, tensor in recording.opened.state.items():
        assert torch.equal(saved[name], tensor), name


def test_joint_sequence(pretraining: Recording, check: Any) -> None:
    x = pretraining.model.joint(pretraining.image(), pretraining.model.encode_text(pretraining.text()))
    index = pretraining["in.gather_index"][..., None].expand(-1, -1, x.shape[2])
    seen = pretraining["in.attn_masks"].bool()
    check.feature(x.gather(1, index)[seen], pretraining["encoder_out"][seen])
    same_saved(pretraining)


def test_masked_words(pretraining: Recording, check: Any) -> None:
    label = pretraining["in.txt_labels"].flatten()
    position = (label != IGNORED).nonzero().squeeze(1)
    masked = Masked(text=pretraining.text("in.input_ids_masked"), position=position, label=label[position])
    logits = pretraining.module.mlm_logits(pretraining.image(), masked)
    check.feature(logits, pretraining["mlm.logits"])
    check.loss(F.cross_entropy(logits, masked.label, reduction="none"), pretraining["mlm.loss_per_token"])
    pretraining.gradients(check, pretraining.module.mlm(pretraining.image(), masked), "mlm")


def masked_regions(recording: Recording) -> tuple[Regions, Text, tasks.MaskedRegions]:
    masked = tasks.MaskedRegions(
        mask=recording["in.img_masks"], features=recording["in.feat_targets"], classes=recording["in.label_targets"]
    )
    return recording.regions("in.img_feat_masked"), recording.text(), masked


def test_masked_regions(pretraining: Recording, check: Any) -> None:
    given, module = masked_regions(pretraining), pretraining.module
    for name, recorded in (("mrfr", "mrfr.loss_elem"), ("mrc", "mrc.loss"), ("mrc_kl", "mrckl.loss_elem")):
        check.loss(getattr(module, name)(*given), pretraining[recorded].mean())
    features = module.feat_regress(module.hidden(*given))
    check.feature((features - given[2].features) ** 2, pretraining["mrfr.loss_elem"])
    log_share = module.class_logits(*given).log_softmax(dim=1)
    check.feature(F.kl_div(log_share, given[2].classes, reduction="none"), pretraining["mrckl.loss_elem"])


@pytest.mark.parametrize("name", ["mrfr", "mrc"])
def test_gradients_of_masked_regions(pretraining: Recording, check: Any, name: str) -> None:
    loss = getattr(pretraining.module, name)(*masked_regions(pretraining))
    pretraining.gradients(check, loss, name)


def test_a_masked_region_is_hidden(pretraining: Recording) -> None:
    """Whether the loader zeroed its features, as the released one does, or left them."""
    _, text, masked = masked_regions(pretraining)
    shown = pretraining.module.hidden(pretraining.regions(), text, masked)
    zeroed = pretraining.module.hidden(pretraining.regions("in.img_feat_masked"), text, masked)
    assert torch.equal(shown, zeroed)


def test_matching_and_alignment(pretraining: Recording, check: Any) -> None:
    image, text, match = pretraining.image(), pretraining.text(), pretraining["in.targets"]
    assert torch.equal(text.mask, ~pretraining["in.txt_pad"])
    assert torch.equal(image.mask, ~pretraining["in.img_pad"])
    logits, distance = pretraining.module.matching(image, text)
    check.feature(logits, pretraining["itm.logits"])
    check.loss(F.cross_entropy(logits, match, reduction="none"), pretraining["itm.loss_per_sample"])
    check.loss(distance[match == 1], pretraining["itm.ot_pos"])
    check.loss(distance[match == 0], pretraining["itm.ot_neg"])
    wra = 0.1 * (pretraining["itm.ot_pos"].sum() - pretraining["itm.ot_neg"].sum()) / len(match)
    check.loss(pretraining.module.itm(image, text, match), pretraining["itm.loss_per_sample"].mean() + wra)
    # The recorded gradients are those of matching alone.
    pretraining.gradients(check, pretraining.module.itm(image, text, match, alignment=0.0), "itm")


def test_question_answering(oracle: Callable[[str], Any], check: Any) -> None:
    opened = oracle("uniter_vqa")
    answers = len(opened.state["vqa_output.3.bias"])
    recording = Recording(opened, lambda m: tasks.Answering(m, answers), tasks.VQA)
    same_saved(recording)
    logits = recording.module(recording.image(), recording.text())
    check.feature(logits, recording["logits"])
    loss = recording.module.loss(logits, recording["in.targets"])
    check.loss(loss, recording["loss_elem"].mean() * answers)
    recording.gradients(check, loss, "vqa")


def test_ranking(oracle: Callable[[str], Any], check: Any) -> None:
    recording = Recording(oracle("uniter_itm_rank"), tasks.Ranking, tasks.RANK)
    same_saved(recording)
    logits = recording.module(recording.image(), recording.text())
    check.feature(logits, recording["rank_scores"])
    hinges = recording.module.hinges(logits, 2)
    check.loss(hinges, recording["rank_loss"])
    recording.gradients(check, hinges.mean(), "rank")


@pytest.mark.parametrize("form", ["paired", "pairedattn"])
def test_statements_about_two_images(oracle: Callable[[str], Any], check: Any, form: str) -> None:
    opened = oracle(f"uniter_nlvr2_{form}")
    heads = opened.meta["config"]["num_attention_heads"]
    makes: dict[str, Any] = {
        "paired": (tasks.PairClassifying, tasks.NLVR2),
        "pairedattn": (lambda m: tasks.PairAttention(m, heads, dropout=0.0), tasks.NLVR2_ATTENTION),
    }
    recording = Recording(opened, *makes[form])
    same_saved(recording)
    words, regions = recording.text(), recording.regions()
    left, right = torch.arange(0, len(words.ids), 2), torch.arange(1, len(words.ids), 2)
    assert torch.equal(recording["in.img_type_ids"][:, 0], torch.tensor([1, 2]).repeat(len(left)))
    # The recording gives the two halves of a pair texts of their own; ours share one, so the halves go in apart.
    model = recording.model
    whole = model.encode_text(words)
    encoded = iter([take(whole, left), take(whole, right)])
    if form == "paired":
        images = [model.embed_regions(take(regions, rows), types=kind) for kind, rows in ((1, left), (2, right))]
        pooled = [model.fuse_pooled(image, next(encoded)) for image in images]
        logits = recording.module.nlvr2_output(torch.cat(pooled, dim=1))
    else:
        sides = [
            (model.embed_regions(take(regions, rows), types=kind), text)
            for kind, rows, text in ((1, left, next(encoded)), (2, right, next(encoded)))
        ]
        logits = recording.module.compare(*sides)
    check.feature(logits, recording["logits"])
    loss = F.cross_entropy(logits, recording["in.targets"], reduction="none")
    check.loss(loss, recording["loss_per_pair"])
    recording.gradients(check, loss.mean(), "nlvr2")


def test_a_checkpoint_that_does_not_fit_is_refused(pretraining: Recording) -> None:
    state = dict(pretraining.opened.state)
    with pytest.raises(CheckpointError, match="surprise"):
        load(pretraining.module, state | {"surprise": torch.zeros(1)}, tasks.PRETRAIN)
    del state["itm_output.bias"]
    with pytest.raises(CheckpointError, match=r"missing \['itm_output.bias'\]"):
        load(pretraining.module, state, tasks.PRETRAIN)


def test_transport_of_one_region(check: Any) -> None:
    """All mass goes to the only region, so the distance is the mean cost of the words."""
    text, image = torch.randn(1, 4, 8), torch.randn(1, 3, 8)
    text_mask, image_mask = torch.tensor([[True, True, True, False]]), torch.tensor([[False, True, False]])
    found = transport_distance(text, image, text_mask, image_mask)
    check.feature(found, (1 - F.cosine_similarity(text[:, :3], image[:, 1:2], dim=2)).mean(dim=1))


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("task", ["pretrain", "vqa"])
def test_takes_a_checkpoint_of_paper_size(oracles: Path, size: str, task: str) -> None:
    file = oracles / "paper_size_keys" / f"uniter_{size}_{task}.json"
    if not file.is_file():
        pytest.skip(f"this set of oracles has no paper_size_keys/{file.name}")
    recorded = json.loads(file.read_text())
    with torch.device("meta"):
        model = build(size, {})
        answers = recorded["keys"].get("vqa_output.3.bias", [1])[0]
        module = tasks.Pretraining(model) if task == "pretrain" else tasks.Answering(model, answers)
    layout = tasks.PRETRAIN if task == "pretrain" else tasks.VQA
    load(module, {key: torch.empty(shape, device="meta") for key, shape in recorded["keys"].items()}, layout)
    assert {key: list(x.shape) for key, x in save(module, layout).items()} == recorded["keys"]
    assert parameter_count(module) == recorded["n_params"]
