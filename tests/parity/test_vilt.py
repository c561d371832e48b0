"""ViLT against recordings of the released code: same weights and inputs, so same features, losses and gradients.

The released code puts the image tokens of every image in random order; `in_order` puts the recorded ones back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from vlpbench.archs import registry
from vlpbench.archs.heads import ClassifierHead
from vlpbench.archs.model import Pass, take
from vlpbench.archs.objectives.base import Recipe
from vlpbench.archs.objectives.itm import ITM
from vlpbench.archs.objectives.wpa import WPA
from vlpbench.archs.types import Batch, Fused, Negatives, Text
from vlpbench.archs.vilt import Tokens, Vilt, ViltConfig
from vlpbench.archs.vilt_tasks import NOT_OURS, load_official, load_vision

pytestmark = pytest.mark.shared
FEATURES, LOSSES = 1e-5, 5e-6
CONFIG = ViltConfig(image_size=(64, 64), patch=16, text_len=40, vocab_size=200, width=64, layers=3, heads=4)


class Recording:
    """One recorded run: our model with its weights, its tensors and the weights of its heads."""

    def __init__(self, folder: Path, config: ViltConfig) -> None:
        self.folder = folder
        self.model = Vilt(config)
        self.heads = load_official(self.model, load_file(folder / "state_dict.safetensors"))
        self.tensors = load_file(folder / "tensors.safetensors")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def text(self, ids: str, mask: str = "in.text_masks") -> Text:
        return Text(ids=self[ids], mask=self[mask].bool())

    def fused(self, image: Tensor, text: Text) -> Fused:
        return self.model.fuse(self.model.encode_image(image), self.model.encode_text(text))

    def head(self, module: nn.Module, name: str) -> nn.Module:
        """``module`` with the recorded weights under ``name``, all of them."""
        state = {key.removeprefix(name + "."): x for key, x in self.heads.items() if key.startswith(name + ".")}
        module.load_state_dict(state)
        return module

    def gradients(self, task: str, loss: Tensor, head: nn.Module, name: str) -> None:
        """Compares the norm of every gradient of the recorded loss, those of the head included."""
        recorded = json.loads((self.folder / "grad_norms.json").read_text())[task]
        self.model.zero_grad()
        loss.backward()
        ours = dict(self.model.named_parameters()) | {f"{name}.{key}": p for key, p in head.named_parameters()}
        for key, norm in recorded.items():
            if norm is None:
                assert key not in ours or ours[key].grad is None
            else:
                gradient = ours[key].grad
                assert gradient is not None, key
                assert gradient.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-6), key


@pytest.fixture(scope="module")
def recorded(oracles: Path) -> Recording:
    return Recording(oracles / "vilt", CONFIG)


def close(found: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def in_order(ours: Tokens, theirs: Tensor, mask: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Our and their image tokens, (M, D) each, one row for every valid token they kept."""
    columns = CONFIG.image_size[1] // CONFIG.patch
    place = torch.cat(
        [torch.zeros(len(index), 1, dtype=torch.long), 1 + index[..., 0] * columns + index[..., 1]], dim=1
    )
    sorted_ours = ours.x.gather(1, place[..., None].expand(-1, -1, ours.x.shape[2]))
    return sorted_ours[mask.bool()], theirs[mask.bool()]


def test_every_recorded_head_is_in_the_table(recorded: Recording) -> None:
    assert {key.partition(".")[0] for key in recorded.heads} == {
        "mlm_score",
        "itm_score",
        "rank_output",
        "vqa_classifier",
    }
    assert {key.partition(".")[0] for key in recorded.heads} < set(NOT_OURS)


@pytest.mark.parametrize("task", ["infer", "mlm", "vqa"])
def test_image_tokens(recorded: Recording, task: str) -> None:
    image = recorded.model.encode_image(recorded["in.image"])
    mask = recorded[f"{task}.image_masks"]
    assert torch.equal(image.valid.sum(dim=1), mask.sum(dim=1))
    assert mask.sum() < mask.numel()  # or padded images would go untested
    close(*in_order(image, recorded[f"{task}.image_embeds"], mask, recorded[f"{task}.patch_index"]), FEATURES)


@pytest.mark.parametrize(
    ("task", "ids"), [("infer", "in.text_ids"), ("mlm", "in.text_ids_mlm"), ("vqa", "in.text_ids")]
)
def test_features(recorded: Recording, task: str, ids: str) -> None:
    fused = recorded.fused(recorded["in.image"], recorded.text(ids))
    assert fused.text is not None
    close(fused.text, recorded[f"{task}.text_feats"], FEATURES)
    close(fused.pooled, recorded[f"{task}.cls_feats"], FEATURES)


def test_masked_language_modelling(recorded: Recording) -> None:
    head = recorded.head(recorded.model.mlm_head(), "mlm_score")
    fused = recorded.fused(recorded["in.image"], recorded.text("in.text_ids_mlm"))
    assert fused.text is not None
    logits = head(fused.text.flatten(0, 1))
    close(logits.view(4, 12, 200), recorded["mlm.logits"], FEATURES)
    loss = F.cross_entropy(logits, recorded["in.text_labels_mlm"].flatten(), ignore_index=-100)
    close(loss, recorded["mlm.loss"], LOSSES)
    recorded.gradients("mlm", loss, head, "mlm_score")


def test_matching(recorded: Recording) -> None:
    """Half the images are replaced; the recorded labels say which."""
    head = recorded.head(ITM(recorded.model, Recipe(objectives=("itm",))).head, "itm_score.fc")
    label = recorded["itm.labels"].long()
    image = torch.where(label[:, None, None, None] == 1, recorded["in.image"], recorded["in.false_image_0"])
    fused = recorded.fused(image, recorded.text("in.text_ids"))
    close(fused.pooled, recorded["itm.cls_feats"], FEATURES)
    logits = head(fused.pooled)
    close(logits, recorded["itm.logits"], FEATURES)
    close(F.cross_entropy(logits, label), recorded["itm.loss"], LOSSES)


def test_matching_with_word_patch_alignment(recorded: Recording) -> None:
    """The objectives, given the recorded replacement; the recorded gradients are of their sum."""
    model, recipe = recorded.model, Recipe(objectives=("itm", "wpa"), weights=(1.0, 0.1))
    matching, alignment = ITM(model, recipe), WPA(model, recipe)
    recorded.head(matching.head, "itm_score.fc")
    wrong = recorded["itm.labels"] == 0
    # Replaced images come from elsewhere: the pass is given twice as many, and takes row b + 4 where b is replaced.
    batch = Batch(
        image=torch.cat([recorded["in.image"], recorded["in.false_image_0"]]),
        text=recorded.text("in.text_ids"),
        sample_id=torch.arange(4),
    )
    view = _Replaced(model, batch, negatives=Negatives(image=torch.arange(4) + 4, text=torch.arange(4), replaced=wrong))
    alignment.prepare(view)
    joint = model.fuse_tokens(*view.pairs())
    assert torch.equal(joint.text_mask, recorded["itm.txt_pad"] == 0)
    valid = (recorded["itm.img_pad"] == 0).sum(dim=1)  # in another order of patches
    assert torch.equal(joint.image_mask.sum(dim=1), valid)
    close(alignment.distances(view), recorded["itm.distance"], LOSSES)
    losses = {"itm": matching(view), "wpa": alignment(view)}
    close(losses["itm"], recorded["itm.loss"], LOSSES)
    close(0.1 * losses["wpa"], recorded["itm.wpa_loss"], LOSSES)
    recorded.gradients("itm", losses["itm"] + 0.1 * losses["wpa"], matching.head, "itm_score.fc")


class _Replaced(Pass):
    """A pass over texts of which there are fewer than images."""

    @property
    def size(self) -> int:
        return len(self.batch.text.ids)

    def _rows(self) -> Tensor:
        return torch.arange(self.size)


def test_question_answering(recorded: Recording) -> None:
    head = recorded.head(ClassifierHead(64, 13), "vqa_classifier")
    logits = head(recorded.fused(recorded["in.image"], recorded.text("in.text_ids")).pooled)
    close(logits, recorded["vqa.logits"], FEATURES)
    loss = F.binary_cross_entropy_with_logits(logits, recorded["vqa.targets"]) * 13
    close(loss, recorded["vqa.loss"], LOSSES * 13)
    recorded.gradients("vqa", loss, head, "vqa_classifier")


def test_retrieval(recorded: Recording) -> None:
    """Each image with its own text and three wrong ones, gathered by `take` from states computed once."""
    model, head = recorded.model, recorded.head(nn.Linear(64, 1), "rank_output")
    names = [("in.text_ids", "in.text_masks")]
    names += [(f"in.false_text_{k}_ids", f"in.false_text_{k}_masks") for k in range(3)]
    ids, mask = (torch.stack([recorded[pair[side]] for pair in names], dim=1).flatten(0, 1) for side in (0, 1))
    image = take(model.encode_image(recorded["in.image"]), torch.arange(4).repeat_interleave(4))
    pooled = model.fuse(image, model.encode_text(Text(ids=ids, mask=mask.bool()))).pooled
    close(pooled, recorded["irtr.cls_feats"], FEATURES)
    loss = F.cross_entropy(head(pooled).view(4, 4), torch.zeros(4, dtype=torch.long))
    close(loss, recorded["irtr.loss"], LOSSES)
    recorded.gradients("irtr", loss, head, "rank_output")


def test_statements_about_two_images(oracles: Path) -> None:
    run = Recording(oracles / "vilt_nlvr2", registry.changed(CONFIG, {"image_types": 2}, owner="vilt"))
    model, text = run.model, run.text("in.text_ids")
    passes = [
        model.fuse(model.encode_image(run[f"in.image_{k}"], image_type=k + 1), model.encode_text(text)).pooled
        for k in (0, 1)
    ]
    for k in (0, 1):
        close(passes[k], run[f"pass{k}.cls_feats"], FEATURES)
    logits = run.head(ClassifierHead(128, 2, hidden=128), "nlvr2_classifier")(torch.cat(passes, dim=1))
    close(logits, run["logits"], FEATURES)
    close(F.cross_entropy(logits, run["in.answers"]), run["loss"], LOSSES)


def test_the_image_side_begins_from_an_image_classifier() -> None:
    """Names and shapes of timm's ViT-B/32 at 384 pixels, which the paper starts from, and at 224."""
    with torch.device("meta"):
        model = registry.build("vilt", "base")
        assert isinstance(model, Vilt)
        for name in ("vit_base_patch32_384", "vit_base_patch32_224"):
            state = timm.create_model(name, pretrained=False).state_dict()
            assert set(load_vision(model, state)) == {"head.weight", "head.bias"}
            with pytest.raises(RuntimeError, match=r"norm\.bias"):
                load_vision(model, {key: value for key, value in state.items() if key != "norm.bias"})


def paper_size(oracles: Path, name: str) -> Mapping[str, Tensor]:
    keys = json.loads((oracles / "paper_size_keys" / f"{name}.json").read_text())["keys"]
    return {key: torch.empty(shape, device="meta") for key, shape in keys.items()}


@pytest.mark.parametrize(
    ("name", "prefix", "head"),
    [
        ("vilt_pretrain", "mlm_score", lambda model: model.mlm_head()),
        ("vilt_vqa", "vqa_classifier", lambda model: ClassifierHead(model.width, 3129)),
        ("vilt_nlvr2", "nlvr2_classifier", lambda model: ClassifierHead(2 * model.width, 2, hidden=2 * model.width)),
    ],
)
def test_released_checkpoints_load_at_paper_size(oracles: Path, name: str, prefix: str, head) -> None:
    with torch.device("meta"):
        model = registry.build("vilt", "base", {"image_types": 2} if name == "vilt_nlvr2" else {})
        module = head(model)
    assert isinstance(model, Vilt)
    rest = load_official(model, paper_size(oracles, name))
    module.load_state_dict({k.removeprefix(prefix + "."): x for k, x in rest.items() if k.startswith(prefix + ".")})
