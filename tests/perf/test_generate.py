"""Writing with kept keys and values against decoding the whole text anew at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from vlpbench.archs import registry
from vlpbench.archs.generate import Writing, Written, generate
from vlpbench.archs.model import VLModel
from vlpbench.archs.types import Can

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENS = 20


class Forgetful:
    """Steps as every model that decodes has them, before it keeps anything."""

    def __init__(self, model: VLModel[Any, Any]) -> None:
        self.model = model

    def decode_step(self, source: Any, ids: Tensor, past: Any = None, *, beams: int = 1) -> tuple[Tensor, Any]:
        return VLModel.decode_step(self.model, source, ids, past, beams=beams)


SHALLOW: dict[str, dict[str, Any]] = {
    "blip": {"image_layers": 1, "layers": 2},
    "beit3": {"layers": 2},
    "coca": {"image_layers": 1, "text_layers": 1, "fusion_layers": 2},
    "pali": {"image_layers": 1, "encoder_layers": 1, "decoder_layers": 2},
}
"""Fewer layers, so that a race takes seconds; an architecture that is not named here races as it is."""
DECODERS = [name for name, spec in registry.specs().items() if Can.DECODE in spec.can]


@torch.no_grad()
def ways(arch: str, images: int, beams: int) -> tuple[Callable[[], Written], Callable[[], Written]]:
    """Writes ``TOKENS`` tokens for each image, kept and anew. Keys of the images are prepared for both."""
    torch.manual_seed(0)
    changes = {"vocab_size": 2000, "text_len": TOKENS + 4, **SHALLOW.get(arch, {})}
    model = registry.build(arch, "medium", changes).eval()
    image = model.encode_image(torch.randn(images, 3, *model.image_size))
    kept, anew = model.prepare_decode(image), VLModel.prepare_decode(model, image)
    # The end may not come before the last token, so that both ways write all of them.
    how = Writing(end=2, pad=0, max_len=TOKENS + 1, min_len=TOKENS + 1, beams=beams)
    start, plain = torch.ones(images, 1, dtype=torch.long), Forgetful(model)
    return lambda: generate(model, kept, start, how), lambda: generate(plain, anew, start, how)


@pytest.mark.parametrize(("images", "beams"), [(32, 1), (12, 3)])
@pytest.mark.parametrize("arch", DECODERS)
def test_kept_keys_and_values_are_faster(goals: Any, arch: str, images: int, beams: int) -> None:
    ours, anew = ways(arch, images, beams)
    assert torch.equal(ours().text.ids, anew().text.ids)
    what = f"{arch}: decoding anew, {TOKENS} tokens, {beams} beam{'s' * (beams > 1)}"
    goals.race("G11", ours, {what: (anew, 3.0)}, rounds=3)
