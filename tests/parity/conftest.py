"""Reads the folders of recorded official outputs and builds our modules from their meta.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from vlpbench.archs.albef import Albef, AlbefConfig
from vlpbench.archs.blip_config import BlipConfig
from vlpbench.archs.learner import Draws, Learner, Recipe, SpecialTokens
from vlpbench.archs.pretrained import Layout, save
from vlpbench.archs.types import Batch, Masked, Negatives, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

IGNORED = -100


@dataclass(frozen=True)
class Oracle:
    """One folder of recorded outputs."""

    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "meta.json").read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / "tensors.safetensors")

    @cached_property
    def state(self) -> dict[str, Tensor]:
        return load_file(self.folder / "state_dict.safetensors")

    @cached_property
    def grad_norms(self) -> dict[str, Any]:
        return json.loads((self.folder / "grad_norms.json").read_text())

    def step(self, name: str) -> dict[str, Tensor]:
        """Tensors recorded under ``name.``, without that prefix."""
        return {key[len(name) + 1 :]: t for key, t in self.tensors.items() if key.startswith(name + ".")}


@pytest.fixture
def oracle(oracles: Path) -> Callable[[str], Oracle]:
    """Opens a folder by name, or skips the test if this set of oracles has none."""

    def open_folder(name: str) -> Oracle:
        if not (oracles / name).is_dir():
            pytest.skip(f"this set of oracles has no folder {name}")
        return Oracle(oracles / name)

    return open_folder


class AlbefKit:
    """ALBEF and its inputs as a meta.json describes them."""

    @staticmethod
    def config(meta: Mapping[str, Any], **changes: Any) -> AlbefConfig:
        """Keys of ``meta['config']``: ``vit`` and ``bert``; ``embed_dim`` where the model embeds."""
        vit, bert = meta["config"]["vit"], meta["config"]["bert"]
        assert (vit["ln_eps"], bert["layer_norm_eps"], bert["hidden_act"]) == (1e-6, 1e-12, "gelu")
        numbers = {
            "image_size": (vit["img"], vit["img"]),
            "patch": vit["patch"],
            "image_width": vit["embed_dim"],
            "image_layers": vit["depth"],
            "image_heads": vit["heads"],
            "image_mlp_ratio": vit.get("mlp_ratio", 4),
            "vocab_size": bert["vocab_size"],
            "positions": bert["max_position_embeddings"],
            "pad": bert["pad_token_id"],
            "width": bert["hidden_size"],
            "heads": bert["num_attention_heads"],
            "text_layers": bert["fusion_layer"],
            "fusion_layers": bert["num_hidden_layers"] - bert["fusion_layer"],
            "embed_dim": meta["config"].get("embed_dim", 8),
            "mlp_ratio": bert["intermediate_size"] / bert["hidden_size"],
            "dropout": bert["hidden_dropout_prob"],
        }
        return AlbefConfig(**(numbers | changes))

    @staticmethod
    def paper_config(keys: Mapping[str, list[int]], **changes: Any) -> AlbefConfig:
        """The base model with the image size that these official shapes have."""
        side = round((keys["visual_encoder.pos_embed"][1] - 1) ** 0.5) * AlbefConfig().patch
        return AlbefConfig(image_size=(side, side), **changes)

    @staticmethod
    def tokens(meta: Mapping[str, Any]) -> SpecialTokens:
        ids = meta["tokenizer_ids"]
        vocab_size = meta["config"]["bert"]["vocab_size"]
        return SpecialTokens(pad=ids["pad"], cls=ids["cls"], sep=ids["sep"], mask=ids["mask"], vocab_size=vocab_size)

    @classmethod
    def learner(cls, meta: Mapping[str, Any], objectives: tuple[str, ...], **recipe: Any) -> Learner:
        """In training mode, replaying the official code, random weights."""
        config = meta["config"]
        numbers = {
            "momentum": "distill",
            "queue_size": config["queue_size"],
            "momentum_rate": config["momentum"],
            "temperature": config["temp"],
            "code": "official",
        }
        learner = Learner(
            Albef(cls.config(meta)), Recipe(objectives=objectives, **(numbers | recipe)), cls.tokens(meta)
        )
        return learner.train()

    @staticmethod
    def text(step: Mapping[str, Tensor], prefix: str = "") -> Text:
        return Text(ids=step[f"{prefix}input_ids"], mask=step[f"{prefix}attention_mask"].bool())

    @classmethod
    def batch(cls, inputs: Mapping[str, Tensor], ids: Tensor) -> Batch:
        return Batch(image=inputs["image"], text=cls.text(inputs), sample_id=ids)

    @staticmethod
    def draws(step: Mapping[str, Tensor], mask: Tensor) -> Draws:
        """The negatives and, where the step has them, the masked tokens that the official code drew."""
        negatives = Negatives(image=step["neg_image_idx"], text=step["neg_text_idx"])
        if "labels" not in step:
            return Draws(negatives=negatives)
        label = step["labels"].flatten()
        position = (label != IGNORED).nonzero().squeeze(1)
        text = Text(ids=step["input_ids"], mask=mask)
        return Draws(negatives=negatives, masked=Masked(text=text, position=position, label=label[position]))


@pytest.fixture
def albef() -> type[AlbefKit]:
    return AlbefKit


class BlipKit:
    """BLIP as a folder describes it: widths by the shapes, the rest by meta.json."""

    @staticmethod
    def config(opened: Oracle) -> BlipConfig:
        """Heads change no shape; those of an image encoder that is not recorded are as in the set's pre-training."""
        med, state = opened.meta["config"]["med"], opened.state
        assert (med["layer_norm_eps"], med["hidden_act"]) == (1e-12, "gelu")
        conv = state["visual_encoder.patch_embed.proj.weight"]
        width, patch = conv.shape[0], conv.shape[-1]
        side = round((state["visual_encoder.pos_embed"].shape[1] - 1) ** 0.5) * patch
        rows = next(len(x) for name, x in state.items() if name.endswith("embeddings.word_embeddings.weight"))
        pretrain = opened.folder.parent / "blip_pretrain" / "meta.json"
        known = opened.meta if "vit" in opened.meta["config"] else json.loads(pretrain.read_text())
        blocks = {name.split(".")[2] for name in state if name.startswith("visual_encoder.blocks.")}
        return BlipConfig(
            image_size=(side, side),
            patch=patch,
            image_width=width,
            image_layers=len(blocks),
            image_heads=known["config"]["vit"]["heads"],
            image_mlp_ratio=len(state["visual_encoder.blocks.0.mlp.fc1.bias"]) / width,
            vocab_size=rows - 2,
            positions=med["max_position_embeddings"],
            pad=med["pad_token_id"],
            width=med["hidden_size"],
            heads=med["num_attention_heads"],
            layers=med["num_hidden_layers"],
            mlp_ratio=med["intermediate_size"] / med["hidden_size"],
            embed_dim=len(state["vision_proj.bias"]) if "vision_proj.bias" in state else 8,
            dropout=med["hidden_dropout_prob"],
        )

    @staticmethod
    def text(step: Mapping[str, Tensor], ids: str = "input_ids", mask: str = "attention_mask") -> Text:
        return Text(ids=step[ids], mask=step[mask].bool())

    @staticmethod
    def same_saved(module: nn.Module, layout: Layout, state: Mapping[str, Tensor]) -> None:
        """What is saved is what was loaded, bit by bit."""
        saved = save(module, layout)
        assert set(saved) == set(state)
        for name, tensor in state.items():
            assert saved[name].dtype == tensor.dtype
            assert torch.equal(saved[name], tensor), name

    @staticmethod
    def named(module: nn.Module, layout: Layout) -> dict[str, nn.Parameter]:
        """Trained parameters by official name."""
        found = ((layout.official(name), p) for name, p in module.named_parameters() if p.requires_grad)
        return {name: p for name, p in found if name is not None}


@pytest.fixture
def blip() -> type[BlipKit]:
    return BlipKit


def close(ours: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours.detach(), theirs, atol=atol, rtol=0)


class Check:
    """The tolerances of the comparison, in one place."""

    @staticmethod
    def loss(ours: Tensor, theirs: Tensor) -> None:
        # A loss in the hundreds (the lowest temperature) has units in the last place above the absolute bound.
        torch.testing.assert_close(ours.detach(), theirs.to(ours.dtype), atol=5e-6, rtol=2.4e-7)

    @staticmethod
    def feature(ours: Tensor, theirs: Tensor) -> None:
        close(ours, theirs, atol=1e-5)

    @staticmethod
    def moved(ours: Tensor, theirs: Tensor) -> None:
        """A parameter, momentum parameter or queue after a step."""
        close(ours, theirs, atol=1e-6)

    @staticmethod
    def adam(ours: Tensor, theirs: Tensor, lr: float) -> None:
        """A parameter after steps of AdamW, which divides a gradient by its own size.

        Where a gradient is as small as Adam's epsilon, its rounding decides: one element in a thousand may be off, by
        no more than such a step.
        """
        off = (ours.detach() - theirs).abs()
        assert off.max() <= 2 * lr
        assert (off > 1e-6).sum() <= 1e-3 * off.numel()

    @staticmethod
    def grad_norms(parameters: Mapping[str, nn.Parameter], theirs: Mapping[str, float | None]) -> None:
        """Norms by official name: 1e-4 relative, with a floor for what is zero in exact arithmetic."""
        assert set(parameters) == set(theirs)
        for name, norm in theirs.items():
            gradient = parameters[name].grad
            if norm is None:
                assert gradient is None or not gradient.any(), name
            else:
                assert gradient is not None, name
                assert float(gradient.norm()) == pytest.approx(norm, rel=1e-4, abs=1e-6), name


@pytest.fixture
def check() -> type[Check]:
    return Check
