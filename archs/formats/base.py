"""What a published checkpoint looks like, and how its tensors find their places in a learner, each of them named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from vlpbench.archs.pretrained import CheckpointError, Layout, check_ties, resize_positions

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.learner import Learner

    State = Mapping[str, Tensor]

MOST = 20
"""Keys of a kind that a message lists."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of positions over the patches of an image."""

    extra: int = 1
    """Rows before those of the patches."""
    antialias: bool = False
    """Whether the released code smooths where it makes a grid smaller."""
    field: str = "image_size"
    """Configuration field that has to be as large as the checkpoint's grid. With ``position_size`` the model resizes
    the table at every call, so that it is never resized here."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One form. Keys of ours are those of a `Learner` without momentum."""

    name: str
    marks: tuple[str, ...]
    """Keys, or their first parts, that tell it from others: all are there."""
    rules: Mapping[str, str]
    """Our prefix -> theirs, as in a `Layout`."""
    without: tuple[str, ...] = ()
    """Keys, or their first parts, of which none is there."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Our prefix -> why this form has no such tensor; these keep the weights that they were built with."""
    made: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = field(default_factory=dict)
    """Our key -> theirs and what to do with it, where the numbers are written in another way."""
    apart: Mapping[str, str] = field(default_factory=dict)
    """Their prefix -> why it is not read. What `rules` name and a learner lacks is known without this."""
    grids: Mapping[str, Grid] = field(default_factory=dict)
    """Our key -> what to do where an image of another size is asked for."""
    sizes: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)
    """Configuration field -> their key, its dimension, and what to add: what their shapes say of the model."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Configuration fields that the form fixes."""
    configure: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    """What the config.json beside the weights says of the configuration; it gets an empty one where there is none."""
    translate: Callable[[State], dict[str, Tensor]] | None = None
    """Into the form that `rules` are about."""
    part: str = ""
    """What it holds, where that is not a whole model: such weights are a start, and no result."""

    def fits(self, state: State) -> bool:
        """Whether a checkpoint is of this form."""
        return all(_has(state, mark) for mark in self.marks) and not any(_has(state, mark) for mark in self.without)

    def official(self, state: State) -> dict[str, Tensor]:
        """The checkpoint in the form that `rules` are about."""
        return dict(state) if self.translate is None else self.translate(state)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What became of a checkpoint."""

    format: str
    tensors: int
    """Of ours that were loaded."""
    random: tuple[str, ...]
    """Of ours, shortened to where they differ, that the form lacks."""
    unread: tuple[str, ...]
    """Of theirs, likewise, that nothing here reads."""
    resized: tuple[str, ...]
    """Tables of positions that were resized."""
    part: str

    def detail(self) -> dict[str, Any]:
        """For a record."""
        found: dict[str, Any] = {"format": self.format, "tensors": self.tensors}
        for name in ("random", "unread", "resized"):
            if keys := getattr(self, name):
                found[name] = list(keys)
        return found | ({"part": self.part} if self.part else {})


def recognise(state: State, formats: Sequence[Format], what: str) -> Format:
    """The form of a checkpoint.

    Raises:
        CheckpointError: for one of none of these forms, with what it begins with.
    """
    found = next((form for form in formats if form.fits(state)), None)
    if found is None:
        first = ", ".join(list(state)[:5]) or "nothing"
        known = ", ".join(form.name for form in formats) or "none"
        raise CheckpointError(f"{what} is of no form known for this architecture ({known}): its first keys are {first}")
    return found


def changes_of(
    form: Format,
    state: State,
    config: Mapping[str, Any],
    own: Mapping[str, Tensor],
    *,
    image: tuple[int, int],
    patch: int | None = None,
) -> dict[str, Any]:
    """What a checkpoint says of the model that it is for: configuration fields to replace.

    Args:
        form: of the checkpoint.
        state: in the form that the rules are about.
        config: content of the config.json beside it, or empty.
        own: the tensors of a learner of the size, which may be on meta.
        image: H, W that the size is built for where nothing is asked for.
        patch: side of its patches; None to tell it by image and positions.
    """
    found: dict[str, Any] = dict(form.changes) | (form.configure(config) if form.configure else {})
    for name, (key, dimension, more) in form.sizes.items():
        if key in state:
            found[name] = state[key].shape[dimension] + more
    layout = _layout(form)
    for key, grid in form.grids.items():
        official = layout.official(key)
        if key not in own or official is None or official not in state:
            continue
        ours, theirs = (table.shape[-2] - grid.extra for table in (own[key], state[official]))
        pixels = patch or round((image[0] * image[1] / ours) ** 0.5)
        side = round(theirs**0.5)
        if side * side == theirs:
            found[grid.field] = (side * pixels, side * pixels)
    return found


def load_weights(learner: Learner, form: Format, state: State, what: str) -> Loaded:
    """Loads a checkpoint into model and heads; a momentum copy starts as what was loaded.

    Args:
        learner: of the configuration that `changes_of` gives, but for the size of its images.
        form: of the checkpoint.
        state: in the form that the rules are about.
        what: names it in messages.

    Raises:
        CheckpointError: where a tensor of ours finds none, one of theirs has no place, shapes differ, or tensors that
            are one here differ there; key by key.
    """
    own = {key: tensor for key, tensor in learner.state_dict().items() if not key.startswith("momentum.")}
    placed = _place(form, own, state, learner.model.image_size)
    problems = [
        *_listed("not in the checkpoint", placed.missing),
        *_listed("of another shape", placed.misfits),
        *_listed("in the checkpoint, and nothing of this architecture", _strangers(form, placed, state)),
    ]
    if problems:
        raise CheckpointError(
            "\n".join([f"{what} ({form.name}) does not fit the model:", *problems, *_remedies(placed)])
        )
    check_ties(own, placed.names, state)
    rest = {key: tensor for key, tensor in learner.state_dict().items() if key not in placed.values}
    learner.load_state_dict({**rest, **placed.values})
    if learner.momentum is not None:
        learner.momentum.twin.load_state_dict(learner.student().state_dict())
    return Loaded(
        format=form.name,
        tensors=len(placed.values),
        random=_short(placed.kept),
        unread=_short(sorted(set(state) - placed.read)),
        resized=tuple(placed.resized),
        part=form.part,
    )


@dataclass(kw_only=True)
class _Placed:
    """Where tensors went."""

    values: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)


def _place(form: Format, own: Mapping[str, Tensor], state: State, image: tuple[int, int]) -> _Placed:
    placed, layout = _Placed(), _layout(form)
    for key, tensor in own.items():
        official, change = form.made.get(key, (None, None))
        if official is None:
            try:
                official = layout.official(key)
            except KeyError:
                placed.missing.append(f"{key} (no tensor of this form)")
                continue
        if official is None:
            placed.kept.append(key)
            continue
        if official not in state:
            placed.missing.append(f"{key} ({official})")
            continue
        value = state[official] if change is None else change(state[official])
        if value.shape != tensor.shape and key in form.grids and value.ndim == tensor.ndim:
            value = _resized(value, tensor, form.grids[key], image)
            placed.resized.append(key)
        if value.shape != tensor.shape:
            placed.misfits.append(f"{key}: {tuple(tensor.shape)}, {official} has {tuple(value.shape)}")
        placed.values[key] = value
        placed.read.add(official)
        if change is None and key not in form.grids:
            placed.names[key] = official
    return placed


def _resized(table: Tensor, like: Tensor, grid: Grid, image: tuple[int, int]) -> Tensor:
    """A table (1, N, D) or (N, D) for as many patches as ``like`` has, in the shape of the image."""
    rows = round(((like.shape[-2] - grid.extra) * image[0] / image[1]) ** 0.5)
    columns = (like.shape[-2] - grid.extra) // max(1, rows)
    try:
        whole = table if table.ndim == 3 else table[None]
        found = resize_positions(whole.float(), (rows, columns), extra=grid.extra, antialias=grid.antialias)
    except ValueError:  # no square: its shape is listed as it is
        return table
    return found if table.ndim == 3 else found[0]


def _strangers(form: Format, placed: _Placed, state: State) -> list[str]:
    known = [*form.rules.values(), *form.apart, *(theirs for theirs, _ in form.made.values())]
    left = sorted(set(state) - placed.read)
    return [key for key in left if not any(key == name or key.startswith(name + ".") for name in known)]


def _remedies(placed: _Placed) -> list[str]:
    heads = sorted({key.split(".")[1] for key in placed.missing if key.startswith("objectives.")})
    found = [f"leave the objective {head} out, whose weights the checkpoint lacks" for head in heads]
    if placed.misfits:
        found.append("name the size that the checkpoint is of (size = ...), and a tokenizer with its vocabulary")
    return found


def _listed(what: str, keys: Sequence[str]) -> list[str]:
    more = [f"  and {len(keys) - MOST} more"] if len(keys) > MOST else []
    return [f"{len(keys)} {what}:", *(f"  {key}" for key in keys[:MOST]), *more] if keys else []


def _short(keys: Sequence[str]) -> tuple[str, ...]:
    """First parts with how many keys begin with them, for a record."""
    parts = Counter(".".join(key.split(".")[:2]) for key in keys)
    return tuple(part if count == 1 else f"{part} ({count})" for part, count in sorted(parts.items()))


def _layout(form: Format) -> Layout:
    return Layout(name=form.name, rules=form.rules, absent=form.absent)


def _has(state: State, mark: str) -> bool:
    return mark in state or any(key.startswith(mark + ".") for key in state)


def inverse_exponential(scale: Tensor) -> Tensor:
    """A temperature from the logarithm of its inverse, as CLIP's and its successors' are written."""
    return (-scale.float()).exp()


def without(rules: Mapping[str, str], *parts: str) -> dict[str, str]:
    """Rules but for those of some of our prefixes, and of what lies below them."""
    return {own: theirs for own, theirs in rules.items() if not any(own == p or own.startswith(p + ".") for p in parts)}


def scored_alone(weight: Tensor) -> Tensor:
    """(2, D) or (2,) of a head with one output: the log-odds of "match" are that output."""
    return torch.cat([torch.zeros_like(weight), weight])
