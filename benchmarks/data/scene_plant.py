"""Scenes that hold what a statement is about: chosen objects are planted, others are added around them.

Shape letters: N scenes, P planted objects, K objects, G groups of samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from vlpbench.benchmarks.data.scene_table import (
    COLOURS,
    HELD_PAIRS,
    KINDS,
    PAIRS,
    SHAPES,
    Layout,
    SceneTable,
    below,
    join,
    offsets,
)
from vlpbench.benchmarks.data.scene_text import colour_word, shape_word

KIND = np.arange(KINDS)
HELD = HELD_PAIRS[KIND % PAIRS]
"""(KINDS,) bool, kinds of object that no training scene holds."""
OF_COLOUR = np.stack([KIND // len(SHAPES) % len(COLOURS) == colour for colour in range(len(COLOURS))])
"""(colours, KINDS) bool."""
OF_SHAPE = np.stack([KIND % len(SHAPES) == shape for shape in range(len(SHAPES))])
"""(shapes, KINDS) bool."""
OF_ATTRIBUTE = np.concatenate([OF_COLOUR, OF_SHAPE])
"""(colours + shapes, KINDS) bool; an attribute is a colour or, from ``len(COLOURS)`` on, a shape."""
OF_PAIR = np.stack([pair == KIND % PAIRS for pair in range(PAIRS)])
"""(PAIRS, KINDS) bool."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Samples that belong together, because only all of them are balanced."""

    unit: int
    """Scenes of a group; group g has scenes ``g * unit`` and the following ones."""
    scenes: SceneTable
    said: np.ndarray
    """(G, S, 4) int64, what is said about the scenes of a group."""
    cover: np.ndarray
    """(N,) int64, the cell of a scene that a curtain hides, -1 for none."""

    def __len__(self) -> int:
        return len(self.said)

    def rows(self, index: np.ndarray) -> Groups:
        """The groups at these (ascending) places."""
        scene = (index[:, None] * self.unit + np.arange(self.unit)).ravel()
        return Groups(unit=self.unit, scenes=self.scenes.rows(scene), said=self.said[index], cover=self.cover[scene])


def join_groups(parts: list[Groups]) -> Groups:
    """One after another."""
    return Groups(
        unit=parts[0].unit,
        scenes=join([part.scenes for part in parts]),
        said=np.concatenate([part.said for part in parts]),
        cover=np.concatenate([part.cover for part in parts]),
    )


def gather_groups(count: int, draw: Callable[[int], Groups], seen: np.ndarray) -> Groups:
    """Draws until there are ``count`` groups without a scene whose `SceneTable.key` is among the ``seen`` ones.

    Raises:
        ValueError: where there are too few.
    """
    found: list[Groups] = []
    missing = count
    for _ in range(100):
        drawn = draw(missing + missing // 4 + 8)
        fresh = np.flatnonzero(~np.isin(drawn.scenes.key, seen).reshape(-1, drawn.unit).any(1))
        found.append(drawn.rows(fresh[:missing]))
        missing -= len(found[-1])
        if missing <= 0:
            return join_groups(found)
    raise ValueError(f"only {count - missing} of {count} groups could be drawn; ask for fewer or use a larger grid")


def having(scenes: SceneTable, attribute: np.ndarray) -> np.ndarray:
    """(N, K) bool, which objects of scene n have attribute n, a colour or a shape as in `OF_ATTRIBUTE`."""
    of_colour = (attribute < len(COLOURS))[:, None]
    value = np.where(of_colour, scenes.colour, scenes.shape + len(COLOURS))
    return (value == attribute[:, None]) & scenes.present


def stands(scenes: SceneTable, first: np.ndarray, relation: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) bool, whether an object of pair ``first`` stands in the relation to one of pair ``second``."""
    about = (scenes.pair == first[:, None])[:, :, None] & (scenes.pair == second[:, None])[:, None, :]
    return (about & (scenes.relation == relation[:, None, None])).any((1, 2))


def attribute_word(attribute: np.ndarray) -> np.ndarray:
    """Token ids of attributes."""
    return np.where(attribute < len(COLOURS), colour_word(attribute), shape_word(attribute - len(COLOURS)))


def pair_words(pair: np.ndarray) -> list[np.ndarray | int]:
    """Token ids of colour and shape of pairs; a kind is taken as its pair."""
    return [colour_word(pair % PAIRS // len(SHAPES)), shape_word(pair % len(SHAPES))]


def _near() -> np.ndarray:
    values = np.stack([KIND // PAIRS, KIND // len(SHAPES) % len(COLOURS), KIND % len(SHAPES)])
    return (values[:, :, None] != values[:, None, :]).sum(0) == 1


NEAR = _near()
"""(KINDS, KINDS) bool, kinds that differ in one of size, colour and shape."""
_NEARER = 0.5
"""How far a kind near to a planted one is drawn before others: it comes first seven times in eight."""


def pick(rng: np.random.Generator, allowed: np.ndarray, number: int, *, first: np.ndarray | None = None) -> np.ndarray:
    """(N, number) distinct kinds of the (N, KINDS) ``allowed`` ones, as far as there are any; those in ``first`` first.

    Where too few are allowed the rest is -1.
    """
    rank = rng.random(allowed.shape) + 4 * ~allowed
    if first is not None:
        rank -= first
    order = np.argsort(rank, axis=1, kind="stable")[:, :number]
    return np.where(np.take_along_axis(allowed, order, 1), order, -1)


def plant(
    rng: np.random.Generator,
    layout: Layout,
    planted: np.ndarray,
    fillers: np.ndarray,
    *,
    cell: np.ndarray | None = None,
) -> SceneTable:
    """Scenes that hold the planted objects and, up to a random number of at least two in all, others.

    Args:
        rng: the stream to draw from.
        layout: of the scenes.
        planted: (N, P) kinds, -1 for none; distinct within a scene.
        fillers: (N, KINDS) bool, kinds that may be added; what is planted never is. Kinds near to a planted one are
            preferred, so that no single attribute gives an object away.
        cell: (N, P) cells of the planted objects, all of which are there; at random where None.
    """
    count, places = len(planted), layout.objects
    number = 2 + below(rng, places - 1, count)
    there = planted >= 0
    is_planted, near = np.zeros((count, KINDS), bool), np.zeros((count, KINDS), bool)
    for place in range(planted.shape[1]):
        rows = np.flatnonzero(there[:, place])
        is_planted[rows, planted[rows, place]] = True
        near[rows] |= NEAR[planted[rows, place]]
    allowed = fillers & ~is_planted
    rank = rng.random(allowed.shape) - _NEARER * near + 4 * ~allowed
    extra = np.argsort(rank, axis=1, kind="stable")[:, :places]
    wanted = np.minimum(number - there.sum(1), allowed.sum(1))
    extra = np.where(np.arange(extra.shape[1]) < wanted[:, None], extra, -1)
    kind = np.concatenate([planted, extra], axis=1)
    # Present objects first; planted ones stay before the others.
    kind = np.take_along_axis(kind, np.argsort(kind < 0, axis=1, kind="stable")[:, :places], 1)
    free = rng.random((count, layout.grid**2))
    if cell is not None:
        free[np.arange(count)[:, None], cell] = np.arange(cell.shape[1]) - cell.shape[1]
    cells = np.where(kind < 0, -1, np.argsort(free, axis=1, kind="stable")[:, :places])
    return SceneTable(layout=layout, kind=kind, cell=cells, offset=offsets(rng, layout, kind), group=np.full(count, -1))
