"""Pictures of scenes: uint8 pixels by table look-up, in integers, so that every machine paints the same bytes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from vlpbench.benchmarks.data.scene_table import RADIUS, SHAPES, SIZES, Layout, SceneTable, below, stream

PAINT = np.array(
    [[215, 40, 40], [40, 175, 60], [50, 80, 225], [230, 205, 40], [165, 60, 200], [235, 235, 235]], np.int64
)
"""RGB by colour, in the order of `scene_table.COLOURS`."""
TINT = 17
"""Largest change of an object's colour channels; uniform, standard deviation 10."""
BACKGROUND = (16, 60)
NOISE = 5
"""Standard deviation of pixel noise, in grey levels."""
CURTAIN = (100, 160)
"""Grey levels of a curtain's diagonal stripes: lighter than any background, darker than white, and never so on an
object, which has one colour."""
STRIPE = 8
"""Stripes, light and dark, along the side of a curtain."""
_PEAK = 3 * NOISE
"""Noise is cut here, and clean values keep as much room below and above: their uint8 sum cannot wrap."""
_BANK = 1 << 20
_CHUNK = 256


def _outline(shape: str, radius: int) -> np.ndarray:
    """(2 * radius, 2 * radius) bool mask of a shape that touches its box."""
    at = (np.arange(2 * radius) + 0.5) / radius - 1
    y, x = at[:, None], at[None, :]
    match shape:
        case "square":
            return np.full((2 * radius, 2 * radius), True)
        case "triangle":
            return np.abs(x) <= (y + 1) / 2
        case "ring":
            return (x * x + y * y <= 1) & (x * x + y * y >= 0.3)
        case "cross":
            return np.abs(np.abs(x) - np.abs(y)) <= 0.36
    raise ValueError(f"no outline for shape {shape!r}")


@lru_cache(maxsize=8)
def masks(layout: Layout) -> np.ndarray:
    """(sizes, shapes, moves, moves, cell, cell) uint8, 255 inside; the first move is furthest up and left."""
    room, cell = int(layout.room.max()), layout.cell
    table = np.zeros((len(SIZES), len(SHAPES), 2 * room + 1, 2 * room + 1, cell, cell), np.uint8)
    for size, share in enumerate(RADIUS):
        radius, free = int(cell * share), int(layout.room[size])
        for shape, name in enumerate(SHAPES):
            outline = _outline(name, radius).astype(np.uint8) * 255
            for down in range(-free, free + 1):
                for right in range(-free, free + 1):
                    top, left = cell // 2 - radius + down, cell // 2 - radius + right
                    target = table[size, shape, room + down, room + right]
                    target[top : top + 2 * radius, left : left + 2 * radius] = outline
    table.setflags(write=False)
    return table


@lru_cache(maxsize=8)
def _noise_bank(length: int) -> np.ndarray:
    """Nearly normal noise, uint8 modulo 256: the sum of twelve bytes has standard deviation 256."""
    bytes_ = (
        below(stream("pixel noise"), 1 << 48, 2 * length).astype("<i8").view(np.uint8).reshape(2, length, 8)[..., :6]
    )
    total = bytes_.sum(axis=(0, 2), dtype=np.int64)
    return np.clip((total - 12 * 255 // 2) * NOISE // 256, -_PEAK, _PEAK).astype(np.uint8)


def render(scenes: SceneTable, rng: np.random.Generator, cover: np.ndarray | None = None) -> np.ndarray:
    """(N, 3, H, W) uint8 pictures.

    Colour, background and noise vary from picture to picture by ``rng``, so two scenes that are equal on paper
    are not equal in pixels.

    Args:
        scenes: what is shown.
        rng: the stream to draw from.
        cover: (N,) cell that a curtain hides, -1 for none; no curtains where None.
    """
    layout = scenes.layout
    pixels = 3 * layout.image**2
    tint = below(rng, 2 * TINT + 1, (*scenes.kind.shape, 3)) - TINT
    low, high = BACKGROUND
    background = low + below(rng, high - low + 1, len(scenes))
    start = below(rng, _BANK, len(scenes))
    bank = np.lib.stride_tricks.sliding_window_view(_noise_bank(_BANK + pixels), pixels)
    out = np.empty((len(scenes), 3, layout.image, layout.image), np.uint8)
    for first in range(0, len(scenes), _CHUNK):
        part = slice(first, first + _CHUNK)
        clean = _paint(scenes.rows(np.arange(len(scenes))[part]), tint[part], background[part])
        if cover is not None:
            _hide(clean, layout, cover[part])
        np.add(clean, bank[start[part]].reshape(clean.shape), out=out[part])
    return out


def _paint(scenes: SceneTable, tint: np.ndarray, background: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) uint8 without noise, cell by cell: objects never leave their cell, so none hides another."""
    layout = scenes.layout
    grid, cell, count = layout.grid, layout.cell, len(scenes)
    tiles = np.empty((count, grid * grid, 3, cell, cell), np.uint8)
    tiles[:] = background.astype(np.uint8)[:, None, None, None, None]
    room = int(layout.room.max())
    for place in range(scenes.kind.shape[1]):
        row = np.flatnonzero(scenes.kind[:, place] >= 0)
        move = scenes.offset[row, place] + room
        mask = masks(layout)[scenes.size[row, place], scenes.shape[row, place], move[:, 0], move[:, 1]]
        colour = np.clip(PAINT[scenes.colour[row, place]] + tint[row, place], _PEAK, 255 - _PEAK).astype(np.uint8)
        plain = background[row].astype(np.uint8)
        tiles[row, scenes.cell[row, place]] = np.where(
            mask[:, None] > 0, colour[:, :, None, None], plain[:, None, None, None]
        )
    side = grid * cell
    picture = np.empty((count, 3, layout.image, layout.image), np.uint8)
    picture[:] = background.astype(np.uint8)[:, None, None, None]
    picture[:, :, :side, :side] = (
        tiles.reshape(count, grid, grid, 3, cell, cell).transpose(0, 3, 1, 4, 2, 5).reshape(count, 3, side, side)
    )
    return picture


def _hide(picture: np.ndarray, layout: Layout, cover: np.ndarray) -> None:
    """Hangs curtains into (N, 3, H, W) pictures, in place."""
    side = layout.cell
    at = np.arange(side)
    stripe = (at[:, None] + at) * STRIPE // (2 * side) % 2
    curtain = np.array(CURTAIN, np.uint8)[stripe]
    for cell in range(layout.grid**2):
        top, left = side * (cell // layout.grid), side * (cell % layout.grid)
        picture[cover == cell, :, top : top + side, left : left + side] = curtain
