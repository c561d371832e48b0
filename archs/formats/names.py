"""Renaming of the keys of a checkpoint, for forms that write the same tensors under other names or in other pieces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def renamed(state: State, rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Each key by the first pattern that it matches; keys that match none stay."""
    compiled = [(re.compile(pattern), new) for pattern, new in rules]
    found = {}
    for key, tensor in state.items():
        hit = next(((pattern, new) for pattern, new in compiled if pattern.search(key)), None)
        found[key if hit is None else hit[0].sub(hit[1], key, count=1)] = tensor
    return found


def joined(state: State, pattern: str, parts: Sequence[str], whole: str) -> dict[str, Tensor]:
    """Queries, keys and values of an attention, which are written apart, one below the other in one tensor.

    Args:
        state: all tensors.
        pattern: with a group ``part``, which ``parts`` fill; other groups tell one attention from another.
        parts: what the group may be, in the order of the rows.
        whole: what the pattern is replaced by.
    """
    compiled = re.compile(pattern)
    groups: dict[str, dict[str, Tensor]] = {}
    found = {}
    for key, tensor in state.items():
        hit = compiled.search(key)
        if hit is None or hit["part"] not in parts:
            found[key] = tensor
        else:
            groups.setdefault(compiled.sub(whole, key, count=1), {})[hit["part"]] = tensor
    for key, pieces in groups.items():
        if len(pieces) == len(parts):
            found[key] = torch.cat([pieces[part] for part in parts])
    return found


def with_positions(state: dict[str, Tensor], embeddings: str) -> dict[str, Tensor]:
    """Adds the numbers of positions, a constant that released code stores and others do not."""
    table = state.get(f"{embeddings}.position_embeddings.weight")
    if table is not None:
        state.setdefault(f"{embeddings}.position_ids", torch.arange(len(table))[None])
    return state
