"""Scenes as arrays: coloured shapes in the cells of a grid, how they are drawn at random, and what is true of them.

Everything that the data set `scenes` shows, says or asks is derived from one `SceneTable`. Random numbers come from
named streams of uniform doubles alone, so that the same numbers arise on every machine and numpy version.

Shape letters: N scenes, K places for objects in a scene, M texts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("square", "triangle", "ring", "cross")
SIZES = ("small", "large")
RELATIONS = ("left-of", "right-of", "above", "below")
"""Neighbours are opposites: relation ``r ^ 1`` is the flip of ``r``."""

HELD_OUT = (("red", "square"), ("green", "triangle"), ("blue", "ring"), ("yellow", "cross"))
"""Colour-shape pairs that no training scene holds; each shape loses one colour."""

PAIRS = len(COLOURS) * len(SHAPES)
KINDS = len(SIZES) * PAIRS
"""A kind of object is ``(size * colours + colour) * shapes + shape``; its pair is ``kind % PAIRS``."""
RADIUS = (0.27, 0.42)
"""Of an object by size, as a share of its cell."""
MIDDLE = KINDS
"""Stands for the middle of the picture where a fact has its second kind."""
KEY_BASE = 1024
"""More than ``cells * KINDS`` of the largest grid, so that six objects make one int64 key."""


def _held_out_pairs() -> np.ndarray:
    held = np.zeros(PAIRS, bool)
    for colour, shape in HELD_OUT:
        held[COLOURS.index(colour) * len(SHAPES) + SHAPES.index(shape)] = True
    held.setflags(write=False)
    return held


HELD_PAIRS = _held_out_pairs()
"""(PAIRS,) bool, read-only."""


def stream(*path: str | int) -> np.random.Generator:
    """An independent random stream for a purpose, e.g. ``stream("train", 3)``."""
    words = [zlib.crc32(str(part).encode()) for part in path]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def below(rng: np.random.Generator, bound: int | np.ndarray, shape: int | tuple[int, ...]) -> np.ndarray:
    """Uniform int64 in [0, bound), from doubles: numpy may change how it draws integers."""
    return (rng.random(shape) * bound).astype(np.int64)


def shuffled(rng: np.random.Generator, count: int) -> np.ndarray:
    """A random permutation of ``range(count)``."""
    return np.argsort(rng.random(count), kind="stable")


@lru_cache(maxsize=8)
def relation_table(grid: int) -> np.ndarray:
    """(cells, cells) relation of the object in the first cell to the one in the second, -1 where none is stated.

    The axis along which two objects are further apart decides, so exactly one relation holds; on an exact diagonal
    none does, because "left of" and "above" would both be true and a text could not be judged.
    """
    row, column = np.divmod(np.arange(grid * grid), grid)
    down, right = row[None] - row[:, None], column[None] - column[:, None]
    table = np.where(np.abs(right) > np.abs(down), np.where(right > 0, 0, 1), np.where(down > 0, 2, 3))
    table[np.abs(right) == np.abs(down)] = -1
    table.setflags(write=False)
    return table


@lru_cache(maxsize=8)
def middle_table(grid: int) -> np.ndarray:
    """(cells, 2) relations of a cell to the middle of the picture, across and down; -1 on the middle line."""
    row, column = np.divmod(np.arange(grid * grid), grid)
    across, down = 2 * column - (grid - 1), 2 * row - (grid - 1)
    table = np.stack([np.where(across < 0, 0, 1), np.where(down < 0, 2, 3)], 1)
    table[np.stack([across, down], 1) == 0] = -1
    table.setflags(write=False)
    return table


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The world that scenes are drawn from."""

    image: int = 32
    """Height and width in pixels."""
    grid: int = 2
    """Cells along a side."""
    objects: int = 3
    """Most objects in a scene."""

    def __post_init__(self) -> None:
        if not 2 <= self.grid <= 4:
            raise ValueError(f"grid must be 2 to 4 cells a side, not {self.grid}")
        if self.cell < 10:
            raise ValueError(f"image must give a cell at least 10 px: {10 * self.grid} or more, not {self.image}")
        if not 2 <= self.objects <= min(6, self.grid**2):
            raise ValueError(f"objects must be 2 to {min(6, self.grid**2)} on this grid, not {self.objects}")

    @property
    def cell(self) -> int:
        """Pixels along a cell's side; what is left over is a margin at the bottom and right."""
        return self.image // self.grid

    @cached_property
    def room(self) -> np.ndarray:
        """(sizes,) pixels that an object may be moved from the middle of its cell without leaving it."""
        return np.array([int(self.cell * (0.5 - radius)) for radius in RADIUS])


@dataclass(frozen=True, kw_only=True)
class SceneTable:
    """N scenes of up to K objects. Object k is absent where ``kind`` is -1; present objects come first."""

    layout: Layout
    kind: np.ndarray
    """(N, K) int64."""
    cell: np.ndarray
    """(N, K) int64, row-major index of the object's cell; -1 where absent."""
    offset: np.ndarray
    """(N, K, 2) int64, pixels by which an object is moved down and right."""
    group: np.ndarray
    """(N,) int64; scenes of one sibling group are described by the same bag of words. -1: no siblings."""

    def __len__(self) -> int:
        return len(self.kind)

    def rows(self, index: np.ndarray) -> SceneTable:
        """The scenes at these rows, or where this mask is true."""
        return SceneTable(layout=self.layout, **{name: getattr(self, name)[index] for name in ARRAYS})

    @property
    def present(self) -> np.ndarray:
        """(N, K) bool."""
        return self.kind >= 0

    @property
    def colour(self) -> np.ndarray:
        """(N, K), -1 where absent, as are ``shape``, ``size`` and ``pair``."""
        return np.where(self.present, self.kind // len(SHAPES) % len(COLOURS), -1)

    @property
    def shape(self) -> np.ndarray:
        """(N, K)."""
        return np.where(self.present, self.kind % len(SHAPES), -1)

    @property
    def size(self) -> np.ndarray:
        """(N, K)."""
        return np.where(self.present, self.kind // PAIRS, -1)

    @property
    def pair(self) -> np.ndarray:
        """(N, K) colour-shape pair."""
        return np.where(self.present, self.kind % PAIRS, -1)

    @cached_property
    def relation(self) -> np.ndarray:
        """(N, K, K) relation of object a to object b, -1 where none is stated or one is absent."""
        table = relation_table(self.layout.grid)
        found = table[self.cell[:, :, None], self.cell[:, None, :]]
        return np.where(self.present[:, :, None] & self.present[:, None, :], found, -1)

    @cached_property
    def middle(self) -> np.ndarray:
        """(N, K, 2) relations of the objects to the middle of the picture, across and down, -1 where none is stated."""
        return np.where(self.present[..., None], middle_table(self.layout.grid)[self.cell], -1)

    @cached_property
    def facts(self) -> np.ndarray:
        """(N, K * (K + 2)) code of every "a REL b" and "a REL middle" that is true, -1 in unused places."""
        between = fact(self.kind[:, :, None], self.relation, self.kind[:, None, :])
        placed = fact(self.kind[:, :, None], self.middle, np.array(MIDDLE))
        code = np.concatenate([np.where(self.relation >= 0, between, -1), np.where(self.middle >= 0, placed, -1)], 2)
        return code.reshape(len(self), -1)

    @cached_property
    def key(self) -> np.ndarray:
        """(N,) int64, equal exactly where the same kinds stand in the same cells."""
        code = np.sort(np.where(self.present, self.cell * KINDS + self.kind + 1, 0), axis=1)
        return code @ (KEY_BASE ** np.arange(code.shape[1], dtype=np.int64))

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, K, 4) int64 pixels left, top, right, bottom (exclusive), -1 where absent: an ideal detector."""
        side = self.layout.cell
        row, column = np.divmod(self.cell, self.layout.grid)
        middle = np.stack([column, row], -1) * side + side // 2 + self.offset[..., ::-1]
        radius = np.array([int(side * share) for share in RADIUS])[self.size][..., None]
        box = np.concatenate([middle - radius, middle + radius], -1)
        return np.where(self.present[..., None], box, -1)


ARRAYS = tuple(field.name for field in fields(SceneTable) if field.name != "layout")


def fact(first: np.ndarray, relation: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Code of "first REL second" from two kinds and a relation; the second may be `MIDDLE`."""
    return (first * len(RELATIONS) + relation) * (KINDS + 1) + second


def join(tables: list[SceneTable]) -> SceneTable:
    """One table after another; group numbers stay apart."""
    shift, groups = 0, []
    for table in tables:
        groups.append(np.where(table.group >= 0, table.group + shift, -1))
        shift += int(table.group.max(initial=-1)) + 1
    arrays = {name: np.concatenate([getattr(table, name) for table in tables]) for name in ARRAYS if name != "group"}
    return SceneTable(layout=tables[0].layout, group=np.concatenate(groups), **arrays)


def offsets(rng: np.random.Generator, layout: Layout, kind: np.ndarray) -> np.ndarray:
    """(N, K, 2) places of objects (N, K) of these kinds within their cells."""
    room = layout.room[np.maximum(kind, 0) // PAIRS][..., None]
    return below(rng, 2 * room + 1, (*kind.shape, 2)) - room


def sample(rng: np.random.Generator, layout: Layout, count: int, *, fewest: int, held: bool = False) -> SceneTable:
    """Independent scenes of ``fewest`` to ``layout.objects`` objects, no two of a kind in one scene.

    The first two objects stand so that a relation holds between them. With ``held``, the first object is of a held-out
    colour-shape pair; otherwise no object is.
    """
    most, cells = layout.objects, layout.grid**2
    number = fewest + below(rng, most - fewest + 1, count)
    allowed = np.flatnonzero(~HELD_PAIRS[np.arange(KINDS) % PAIRS])
    kind = allowed[np.argsort(rng.random((count, len(allowed))), axis=1, kind="stable")[:, :most]]
    if held:
        rare = np.flatnonzero(HELD_PAIRS[np.arange(KINDS) % PAIRS])
        kind[:, 0] = rare[below(rng, len(rare), count)]
    first, second = np.nonzero(relation_table(layout.grid) >= 0)
    chosen = below(rng, len(first), count)
    rank = rng.random((count, cells)) + 2
    rank[np.arange(count), first[chosen]] = 0
    rank[np.arange(count), second[chosen]] = 1
    cell = np.argsort(rank, axis=1, kind="stable")[:, :most]
    absent = np.arange(most) >= number[:, None]
    kind, cell = np.where(absent, -1, kind), np.where(absent, -1, cell)
    return SceneTable(layout=layout, kind=kind, cell=cell, offset=offsets(rng, layout, kind), group=np.full(count, -1))


def sample_siblings(rng: np.random.Generator, layout: Layout, count: int) -> SceneTable:
    """Groups of four scenes whose captions of the first two objects are the same bag of words.

    Within a group: as drawn, the two objects with places swapped, with colours swapped, and with both. Nothing but the
    binding of colour to shape, and of shape to place, tells the four apart. At most ``count`` groups: draws in
    which a swap would change nothing, hit a held-out pair or double an object are dropped.
    """
    base = sample(rng, layout, count, fewest=2)
    colour, shape, size = base.colour, base.shape, base.size
    kind = base.kind.copy()
    for here, there in ((0, 1), (1, 0)):
        kind[:, here] = size[:, here] * PAIRS + colour[:, there] * len(SHAPES) + shape[:, here]
    fine = (colour[:, 0] != colour[:, 1]) & (shape[:, 0] != shape[:, 1])
    fine &= ~HELD_PAIRS[kind[:, :2] % PAIRS].any(1)
    fine &= (kind[:, :2, None] != kind[:, None, 2:]).all((1, 2))
    swapped = base.cell.copy()
    swapped[:, :2] = base.cell[:, 1::-1]
    kinds = np.stack([base.kind, base.kind, kind, kind], 1)[fine].reshape(-1, layout.objects)
    cells = np.stack([base.cell, swapped, base.cell, swapped], 1)[fine].reshape(-1, layout.objects)
    group = np.repeat(np.arange(int(fine.sum())), 4)
    return SceneTable(layout=layout, kind=kinds, cell=cells, offset=offsets(rng, layout, kinds), group=group)


def gather(count: int, draw: Callable[[int], SceneTable], keep: Callable[[SceneTable], np.ndarray]) -> SceneTable:
    """Draws until ``count`` scenes are kept; ``keep`` gives a mask of scenes."""
    found: list[SceneTable] = []
    missing = count
    for _ in range(100):
        table = draw(missing + missing // 4 + 16)
        found.append(table.rows(keep(table)))
        missing -= len(found[-1])
        if missing <= 0:
            return join(found).rows(np.arange(count))
    raise ValueError(f"only {count - missing} of {count} scenes could be drawn; ask for fewer or use a larger grid")
