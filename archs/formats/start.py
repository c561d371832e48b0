"""What architectures start from before their own pre-training: a ViT of timm (DeiT) and BERT.

What is made of two files has timm's keys under ``image`` and BERT's under ``text`` (`vlpbench.archs.weights`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vlpbench.archs.formats.base import Format, Grid

if TYPE_CHECKING:
    from torch import Tensor

IMAGE, TEXT = "image", "text"
"""What the keys of two files in one begin with."""
_VIT = ("cls_token", "pos_embed", "patch_embed", "blocks", "norm")
_CLASSES: Mapping[str, str] = dict.fromkeys(
    (f"{IMAGE}.head", f"{IMAGE}.fc_norm", f"{IMAGE}.pre_logits"), "the classes of images"
)
_BERT = ("embeddings", "encoder")
_REST: Mapping[str, str] = {f"{TEXT}.{name}": "a head of BERT's own tasks" for name in ("cls", "pooler")}


def image(ours: str, grids: Mapping[str, Grid]) -> Format:
    """A ViT alone, under our prefix."""
    return Format(
        name="timm",
        marks=("patch_embed", "blocks.0", "pos_embed"),
        rules=_vit(ours),
        absent={"model": "of no image classifier", "objectives": "of no image classifier"},
        apart=_CLASSES,
        grids=grids,
        translate=lambda state: {f"{IMAGE}.{key}": tensor for key, tensor in state.items()},
        part="the image encoder",
    )


def text(ours: str) -> Format:
    """BERT alone, under our prefix."""
    return Format(
        name="bert",
        marks=("bert.embeddings.word_embeddings",),
        rules=_bert(ours),
        absent={"model": "of no text encoder", "objectives": "of no text encoder"} | _cross(ours),
        apart=_REST,
        translate=lambda state: _plain({f"{TEXT}.{key}": tensor for key, tensor in state.items()}),
        part="the text encoder",
    )


def image_and_text(ours: str, words: str, grids: Mapping[str, Grid]) -> Format:
    """Both, of two files."""
    return Format(
        name="timm+bert",
        marks=(f"{IMAGE}.patch_embed", f"{TEXT}.bert.embeddings"),
        rules=_vit(ours) | _bert(words),
        absent={"model": "made by pre-training", "objectives": "made by pre-training"} | _cross(words),
        apart={**_CLASSES, **_REST},
        grids=grids,
        translate=lambda state: _plain(dict(state)),
        part="the image encoder and the text encoder",
    )


def _vit(ours: str) -> dict[str, str]:
    return {f"{ours}.{name}": f"{IMAGE}.{name}" for name in _VIT}


def _bert(ours: str) -> dict[str, str]:
    return {f"{ours}.{name}": f"{TEXT}.{name}" for name in _BERT}


def _cross(ours: str) -> dict[str, str]:
    """Cross-attention, by layers as far as models go."""
    why = "cross-attention, which BERT has not"
    return {f"{ours}.encoder.layer.{number}.crossattention": why for number in range(48)}


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without BERT's own prefix, with the present names of the parts of a LayerNorm, and with ``position_ids``."""
    import torch

    found = {}
    for key, tensor in state.items():
        name = key.replace(f"{TEXT}.bert.", f"{TEXT}.", 1) if key.startswith(f"{TEXT}.bert.") else key
        if name.startswith(f"{TEXT}.") and "LayerNorm." in name:
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        found[name] = tensor
    places = f"{TEXT}.embeddings.position_embeddings.weight"
    if places in found:
        found.setdefault(f"{TEXT}.embeddings.position_ids", torch.arange(len(found[places]))[None])
    return found
