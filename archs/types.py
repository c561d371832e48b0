"""What passes between a model and everything that uses it.

This module is imported by commands that must start without torch (``vlpbench plan``, ``vlpbench archs``), so torch is
imported for type checkers only.

Shape letters: B batch, L text tokens, N image tokens, D width, E joint embedding size, H image height, W image width,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Can(Flag):
    """What a model can do. Benchmarks ask this and never which architecture they hold."""

    EMBED = auto()
    """Image and text are embedded separately into one joint space: ``embed_image``, ``embed_text``."""
    FUSE = auto()
    """An image and a text are processed jointly: ``fuse``."""
    MASK = auto()
    """Fused text tokens see both sides of a position, so a masked token can be predicted from ``Fused.text``."""
    DECODE = auto()
    """Text is generated or scored left to right: ``decode``."""

    @classmethod
    def parse(cls, names: str) -> Can:
        """Reads ``"EMBED|FUSE"``; the empty string is no capability at all.

        Raises:
            ValueError: for a name that is not a capability.
        """
        found = cls(0)
        for name in filter(None, (part.strip() for part in names.split("|"))):
            if name not in cls.__members__:
                raise ValueError(f"{name!r} is no capability; use one of {', '.join(cls.__members__)}")
            found |= cls[name]
        return found

    def names(self) -> list[str]:
        """The single capabilities held, in declaration order."""
        return [member.name for member in type(self) if member in self and member.name]


NOTHING = Can(0)


class Unsupported(Exception):
    """Something a model cannot do was asked of it. The message is the reason a record or a plan shows."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Token ids, right-padded."""

    ids: Tensor
    """(B, L) int64."""
    mask: Tensor
    """(B, L) bool, True at tokens and False at padding."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Matching image-text pairs: row b of ``image`` belongs to row b of ``text``."""

    image: Tensor
    """(B, 3, H, W) float pixels, normalised the way the data source states.

    For an architecture whose ``input`` is ``regions``, (B, R, F + 4): of each region its features and its box as left,
    top, right and bottom in shares of the image; all zero where an image has fewer than R regions.
    """
    text: Text
    sample_id: Tensor
    """(B,) int64; rows with an equal id show the same image, so they are not negatives of one another."""


@dataclass(frozen=True, kw_only=True)
class Fused:
    """The joint representation of image-text pairs."""

    pooled: Tensor
    """(B, D), one vector for a pair: what classification heads read."""
    text: Tensor | None
    """(B, L, D), one vector for a text token; None where the model keeps none (late fusion)."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Image-text pairs with the tokens of both sides behind fusion, of a model that keeps those of the image too."""

    pooled: Tensor
    """(B, D)."""
    text: Tensor
    """(B, L, D)."""
    image: Tensor
    """(B, N, D)."""
    text_mask: Tensor
    """(B, L) bool, tokens that are aligned with the image."""
    image_mask: Tensor
    """(B, N) bool, tokens that are aligned with the text."""


@dataclass(frozen=True, kw_only=True)
class HiddenPatches:
    """Patches of a batch of images that are to be predicted, row by row of the image."""

    chosen: Tensor
    """(B, N) bool, patches to predict."""
    replaced: Tensor
    """(B, N) bool, those of them that the model does not get to see."""


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A masked copy of a batch's text for masked language modelling."""

    text: Text
    """The text with masked, replaced or kept tokens."""
    position: Tensor
    """(M,) int64 index into the flattened (B * L) tokens that are to be predicted."""
    label: Tensor
    """(M,) int64 original token ids at ``position``."""


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """For every pair one text that does not belong to the image, and one image that does not belong to the text."""

    image: Tensor
    """(B,) int64, row of the image drawn against text b."""
    text: Tensor
    """(B,) int64, row of the text drawn against image b."""
    replaced: Tensor | None = None
    """(B,) bool, pairs whose image is replaced by the drawn one, so that B pairs are matched in all (ViLT);
    None matches 3B pairs: the true ones, and each side with its wrong partner (ALBEF)."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Read off a built model by walking it, never from its configuration."""

    image_tokens: int
    """Length of the image sequence that attention sees, class token included."""
    text_tokens: int
    width: int
    """D of the (fusion or, without one, image) transformer."""
    image_layers: int
    text_layers: int
    fusion_layers: int
    notes: tuple[str, ...] = ()
