"""The subject of the contract check: one architecture's models, inputs and outputs, shared by all clauses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from vlpbench.archs.model import VLModel
from vlpbench.archs.types import Can, Text

Build = Callable[[Mapping[str, Any]], VLModel[Any, Any]]
"""Changes of the configuration -> a model with random weights."""
BATCH = 4


class Case:
    """One architecture under examination, with a model and inputs that all clauses share."""

    def __init__(self, build: Build, declared: Can) -> None:
        self.build = build
        self.declared = declared

    def fresh(self, changes: Mapping[str, Any] | None = None, *, device: str = "cpu") -> VLModel[Any, Any]:
        """A model as built with seed 0, in evaluation mode."""
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(0)
            return self.build(changes or {}).eval()

    @cached_property
    def model(self) -> VLModel[Any, Any]:
        """On the CPU, all weights moved by noise."""
        model = self.fresh()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        return model

    @cached_property
    def image(self) -> Tensor:
        """(BATCH, 3, H, W), or (BATCH, R, F + 4) of a model that reads regions."""
        return images(self.model)

    @cached_property
    def text(self) -> Text:
        """(BATCH, L) of several lengths; the first row has no padding."""
        return texts(self.model)

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """What the model makes of ``image`` and ``text``."""
        return outputs(self.model, self.image, self.text)


def images(model: VLModel[Any, Any]) -> Tensor:
    """Random images of the model's size."""
    return torch.randn(BATCH, *model.image_shape, generator=torch.Generator().manual_seed(2))


def texts(model: VLModel[Any, Any]) -> Text:
    """Random texts of the model's length, right-padded with zeros."""
    length = model.text_len
    ids = torch.randint(1, model.vocab_size, (BATCH, length), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([length, max(2, length // 2), max(2, length - 1), 2])
    mask = torch.arange(length) < lengths[:, None]
    return Text(ids=ids * mask, mask=mask)


def outputs(model: VLModel[Any, Any], image: Tensor, text: Text) -> dict[str, Tensor]:
    """Everything the model can do with these pairs, by name, batch first; token outputs are zeroed at padding."""
    i, t = model.encode_image(image), model.encode_text(text)
    found: dict[str, Tensor] = {}
    if Can.EMBED in model.can:
        found |= {"embed_image": model.embed_image(i), "embed_text": model.embed_text(t)}
    if Can.FUSE in model.can:
        fused = model.fuse(i, t)
        found["pooled"] = fused.pooled
        if fused.text is not None:
            found["fused text"] = fused.text * text.mask[..., None]
    if Can.DECODE in model.can:
        found["decode"] = model.decode(i, t) * text.mask[..., None]
    return found


def close(a: Tensor, b: Tensor) -> bool:
    """Equal but for the rounding of kernels that depend on the batch size."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference."""
    return (a - b).abs().max().item() if a.shape == b.shape else float("nan")


def differing(case: Case, found: Mapping[str, Tensor], index: Tensor, what: str) -> Iterator[str]:
    """Where ``found`` is not rows ``index`` of the reference."""
    for name, tensor in found.items():
        expected = case.outputs[name][index]
        if not close(tensor, expected):
            yield f"{name} {what} differs by {gap(tensor, expected):.2g}"
