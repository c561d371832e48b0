"""BEiT-3 writing text token by token: image, prompt and written text are kept as keys and values.

Shape letters: B images, R texts (B times beams), C context tokens (image and prompt), L tokens to append, D width,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from vlpbench.archs.beit3_parts import Backbone, Memory, Words
from vlpbench.archs.blocks import KeyValue
from vlpbench.archs.types import Text


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every token of a text may see: the image, and a prompt behind it."""

    keys_values: tuple[KeyValue, ...]
    """(B, C, D) each, of every layer."""
    seen: Tensor | None
    """(B, C) bool, False at the prompt's padding; None without a prompt."""
    asked: Tensor | None
    """(B,) tokens of the prompt; None without one."""


def context(backbone: Backbone, image: Tensor, prompt: Words | None) -> Context:
    """The encoder over an image state and a prompt."""
    memory, split = Memory(), image.shape[1]
    if prompt is None:
        backbone.encoder(image, None, split, memory=memory)
        return Context(keys_values=tuple(memory.kept), seen=None, asked=None)
    seen = torch.cat([prompt.mask.new_ones(image.shape[:2]), prompt.mask], dim=1)
    backbone.encoder(torch.cat([image, backbone.placed(prompt)], dim=1), seen[:, None, None], split, memory=memory)
    return Context(keys_values=tuple(memory.kept), seen=seen, asked=prompt.mask.sum(dim=1))


def step(
    backbone: Backbone,
    vocabulary: nn.Module,
    source: Context,
    ids: Tensor,
    past: tuple[KeyValue, ...] | None,
    beams: int,
) -> tuple[Tensor, tuple[KeyValue, ...]]:
    """Logits (R, L, V) for (R, L) tokens behind ``past``, and keys and values of the text with them."""
    written = 0 if past is None else past[0][0].shape[1]
    before = [(_beams(key, beams), _beams(value, beams)) for key, value in source.keys_values]
    memory = Memory([(pair, *(() if past is None else (past[layer],))) for layer, pair in enumerate(before)])
    start = torch.full((len(ids),), written, device=ids.device)
    if source.asked is not None:
        start = start + _beams(source.asked, beams)
    words = backbone.words(Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool)))
    look = _look(source, ids.shape[1], written, beams)
    x = backbone.encoder(backbone.placed(words, start), look, 0, memory=memory)
    kept = tuple(memory.kept)
    if past is not None:
        kept = tuple(
            (torch.cat([k, key], dim=1), torch.cat([v, value], dim=1))
            for (k, v), (key, value) in zip(past, kept, strict=True)
        )
    return vocabulary(backbone.encoder.layer_norm.B(x)), kept


def _beams(x: Tensor, beams: int) -> Tensor:
    return x if beams == 1 else x.repeat_interleave(beams, dim=0)


def _look(source: Context, length: int, written: int, beams: int) -> Tensor | None:
    """(R or 1, 1, L, C + written + L), True where a new token may look; None if that is everywhere."""
    if source.seen is None and length == 1:
        return None
    device, before = source.keys_values[0][0].device, source.keys_values[0][0].shape[1] + written
    ordered = torch.ones(length, before + length, dtype=torch.bool, device=device).tril(before)
    if source.seen is None:
        return ordered[None, None]
    seen = _beams(source.seen, beams)
    seen = torch.cat([seen, seen.new_ones(len(seen), written + length)], dim=1)
    return seen[:, None, None] & ordered
