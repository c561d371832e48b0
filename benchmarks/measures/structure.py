"""What a model is made of, read off the built model on meta: by walking its modules and by watching it run.

A tower is what runs for an image alone, a text alone, a pair (fusion) or a text that is written (decoder). What it is
made of is what it reads and attends to while it runs, whatever the configuration calls it.

Shape letters: B batch, L queries, S keys, A heads.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vlpbench.archs.types import Can
from vlpbench.benchmarks import flopcount
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.measures.params import touched
from vlpbench.benchmarks.measures.step_structure import leaves, watched_step
from vlpbench.benchmarks.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vlpbench.archs.model import VLModel
    from vlpbench.results.record import Cell

TOWERS = ("image", "text", "fusion", "decoder")
REFERENCE = "deit_base_patch16_224"
"""timm's name of the classifier whose weights an image tower may begin with (Touvron et al. 2021)."""
CLASSIFIER = "head"
"""Prefix of the reference's keys that score classes, and are no part of a tower."""


class Structure:
    """Counts of tokens, layers, weights and, where the cell trains, of what one training step runs."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Reads the model on the meta device; a subject that lives elsewhere is built again there."""
        if subject.device.type != "meta":
            subject = Subject.build(cell, meta=True)
        with subject.settings():
            seen = watched(subject)
        values, detail = _built(subject.model, seen)
        detail["tokens"]["regions"] = subject.model.image_shape[0] if subject.spec.input == "regions" else None
        if (found := reference_keys(subject.model)) is not None:
            detail["reference"] = found
            values |= {"deit_missing": float(len(found["missing"])), "deit_unexpected": float(len(found["unexpected"]))}
        if cell.objectives:
            with subject.settings():
                step = watched_step(subject)
            values |= step.values
            detail["step"] = step.detail
        return Samples(values={name: [value] for name, value in values.items()}, detail=detail)


def outline(model: VLModel[Any, Any]) -> dict[str, Any]:
    """Tokens, width, layers and notes, as the model reads them off its own modules."""
    found = model.structure()
    return {
        "tokens": {"image": found.image_tokens, "text": found.text_tokens},
        "width": found.width,
        "layers": {"image": found.image_layers, "text": found.text_layers, "fusion": found.fusion_layers},
        "notes": list(found.notes),
    }


@dataclass(kw_only=True)
class Tower:
    """What ran for one tower."""

    reads: set[str] = field(default_factory=set)
    """Names of the parameters that an operator read."""
    attention: Counter[tuple[int, int, int, bool]] = field(default_factory=Counter)
    """(queries, keys, width over all heads, causal) of scaled dot product attention -> calls."""
    state: list[list[int]] = field(default_factory=list)
    """Shapes, without the batch, of the numbers that it handed on."""

    @property
    def width(self) -> int:
        """The widest that it attends with; without attention the width of what it hands on; 0 if neither."""
        return max((width for _, _, width, _ in self.attention), default=max((s[-1] for s in self.state), default=0))


def watched(subject: Subject) -> dict[str, Tower]:
    """Runs every tower that the model has over a batch."""
    model, batch = subject.model, subject.batch()
    state: dict[str, Any] = {}

    def image() -> Any:
        state["image"] = model.encode_image(batch.image)
        return model.embed_image(state["image"]) if Can.EMBED in model.can else None

    def text() -> Any:
        state["text"] = model.encode_text(batch.text)
        return model.embed_text(state["text"]) if Can.EMBED in model.can else None

    def fusion() -> Any:
        state["fusion"] = model.fuse(state["image"], state["text"]) if Can.FUSE in model.can else None

    def decoder() -> Any:
        state["decoder"] = model.decode(state["image"], state["text"]) if Can.DECODE in model.can else None

    towers = {}
    with torch.no_grad(), flopcount.counting():  # for its memory of shapes
        for name, call in zip(TOWERS, (image, text, fusion, decoder), strict=True):
            tower = towers[name] = Tower()
            with _attention(tower.attention):
                tower.reads = touched(model, call)
            tower.state = [list(leaf.shape[1:]) for leaf in leaves(state[name]) if leaf.is_floating_point()]
    return towers


@contextmanager
def _attention(calls: Counter[tuple[int, int, int, bool]]) -> Iterator[None]:
    attend = F.scaled_dot_product_attention

    def noted(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # torch's own signature, passed on
        causal = bool(kwargs.get("is_causal", args[3] if len(args) > 3 else False))
        calls[query.shape[-2], key.shape[-2], query.shape[-3] * query.shape[-1], causal] += 1
        return attend(query, key, *args, **kwargs)

    with mock.patch.object(F, "scaled_dot_product_attention", noted):
        yield


def _built(model: VLModel[Any, Any], seen: Mapping[str, Tower]) -> tuple[dict[str, float], dict[str, Any]]:
    """Quantities that hold of the model whatever it is trained with, and the detail behind them."""
    numel = {name: parameter.numel() for name, parameter in model.named_parameters()}
    reads = {name: tower.reads for name, tower in seen.items()}
    elsewhere = set().union(*(reads[name] for name in TOWERS if name != "decoder"))
    shared = {
        f"{one}+{other}": sum(numel[name] for name in reads[one] & reads[other])
        for one, other in combinations(TOWERS, 2)
    }
    common = {name for one, other in combinations(TOWERS, 2) for name in reads[one] & reads[other]}
    own = reads["decoder"] - elsewhere
    beside = reads["decoder"] - reads["image"] - reads["text"]
    decoder = {
        "read": _sum(numel, reads["decoder"]),
        "own": _sum(numel, own),
        "own_layers": _sum(numel, _layered(model, own)),
        "beside_encoders": _sum(numel, _layered(model, beside)),
    }
    found, part = outline(model), experts(model, reads)
    tokens, layers = found["tokens"], found["layers"]
    crossing = _calls(seen["fusion"], tokens["text"], tokens["image"])
    values = {
        "image_tokens": tokens["image"],
        "text_tokens": tokens["text"],
        "width_image": seen["image"].width,
        "width_text": seen["text"].width,
        "width_fusion": seen["fusion"].width,
        "layers_image": layers["image"],
        "layers_text": layers["text"],
        "layers_fusion": layers["fusion"],
        "layers_cross": crossing,
        "layers_experts": len(part["layers"]),
        "params_shared": _sum(numel, common),
        "params_decoder": decoder["own_layers"],
        "can_decode": int(Can.DECODE in model.can),
    }
    detail = found | {
        "can": model.can.names(),
        "towers": {
            name: {
                "width": tower.width,
                "state": tower.state,
                "params": _sum(numel, tower.reads),
                "attention": [
                    {"queries": queries, "keys": keys, "width": width, "causal": causal, "calls": calls}
                    for (queries, keys, width, causal), calls in tower.attention.items()
                ],
            }
            for name, tower in seen.items()
        },
        "shared": {name: count for name, count in shared.items() if count},
        "experts": part | {"layers": len(part["layers"])},
        "decoder": decoder,
        "components": _components(model, numel),
    }
    return {name: float(value) for name, value in values.items()}, detail


def experts(model: nn.Module, reads: Mapping[str, set[str]]) -> dict[str, Any]:
    """Layers that images and texts both run and in which each reads weights that the other never does.

    A layer is a module whose name is a number; of nested ones the outermost counts.

    Returns:
        ``layers`` (their names), and of their parameters those that ``image`` reads and text does not, the reverse,
        those that ``fusion`` alone reads, and those that all share.
    """
    image, text, fusion = (reads[name] for name in ("image", "text", "fusion"))
    named = dict(model.named_parameters())
    found: list[str] = []
    for name, _ in model.named_modules():
        if not name.rpartition(".")[2].isdigit() or any(name.startswith(f"{layer}.") for layer in found):
            continue
        if _inside(name, image - text) and _inside(name, text - image):
            found.append(name)
    groups = {"image": image - text, "text": text - image, "fusion": fusion - image - text, "shared": image & text}
    inside = {
        which: sum(named[name].numel() for layer in found for name in _inside(layer, names))
        for which, names in groups.items()
    }
    return {"layers": found} | inside


def reference_keys(model: nn.Module) -> dict[str, Any] | None:
    """How the state of timm's DeiT-B/16 fits the image tower, the module that it has most in common with.

    Returns:
        ``module``; ``missing``, keys of the tower that the reference lacks or has in another shape; ``unexpected``,
        keys of the reference that the tower lacks; ``classifier``, keys of the reference that score classes. None where
        less than half of the keys are those of any module.
    """
    import timm

    with torch.device("meta"):
        reference = {name: x.shape for name, x in timm.create_model(REFERENCE).state_dict().items()}
    apart = {name for name in reference if name.partition(".")[0] == CLASSIFIER}
    best: tuple[int, str, dict[str, Any]] = (0, "", {})
    for name, module in model.named_modules():
        own = {key: x.shape for key, x in module.state_dict().items()}
        common = sum(key in own for key in reference)
        if common > best[0]:
            best = (common, name, own)
    common, name, own = best
    if 2 * common < len(reference):
        return None
    return {
        "name": REFERENCE,
        "module": name,
        "missing": sorted(key for key, shape in own.items() if reference.get(key) != shape),
        "unexpected": sorted(reference.keys() - own.keys() - apart),
        "classifier": sorted(apart - own.keys()),
    }


def _calls(tower: Tower, queries: int, keys: int) -> int:
    """Calls of attention from so many positions to so many others; 0 where both are equal, which says nothing."""
    found = sum(calls for (rows, columns, *_), calls in tower.attention.items() if (rows, columns) == (queries, keys))
    return found if queries != keys else 0


def _components(model: VLModel[Any, Any], numel: Mapping[str, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, count in numel.items():
        found[model.component(name)] += count
    return dict(found)


def _layered(model: nn.Module, names: set[str]) -> set[str]:
    """Those of the parameters that belong to a list of layers, and not to what comes before or after them."""
    lists = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    return {name for name in names if any(name.startswith(f"{layers}.") for layers in lists)}


def _inside(layer: str, names: set[str]) -> set[str]:
    return {name for name in names if name.startswith(f"{layer}.")}


def _sum(numel: Mapping[str, int], names: set[str]) -> int:
    return sum(numel[name] for name in names)
