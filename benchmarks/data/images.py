"""Photos from files: decoded whatever they are, or refused by name, then brought to one size.

Shape letters: H height, W width in pixels.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps
from vlpbench.archs.inputs import HALF, Pixels, Triple
from vlpbench.benchmarks.data.base import DataError

if TYPE_CHECKING:
    from torch import Tensor

PIXEL_LIMIT = 50_000_000
"""Larger pictures are refused before they are decoded: a few bytes can unpack to gigabytes."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What Pillow's decoders raise on broken files."""


@dataclass(frozen=True, kw_only=True)
class ImagePreset:
    """How a picture becomes a model's input."""

    size: tuple[int, int]
    """H, W; with ``within`` of the canvas that pictures of either orientation fit on."""
    fit: Literal["crop", "squash", "within"]
    """``crop``: the picture covers the size and its middle is kept. ``squash``: all of it is kept, out of shape.
    ``within``: all of it is kept, in shape up to ``multiple``."""
    mean: Triple
    """Of RGB in [0, 1], subtracted before the division by ``std``."""
    std: Triple
    filter: Literal["bicubic", "bilinear"] = "bicubic"
    cover: float = 1.0
    """``crop``: what is covered, in sizes that are kept."""
    shorter: int = 0
    """``within``: pixels of the shorter side, unless the longer side would have more than ``longest``."""
    longest: int = 0
    multiple: int = 1
    """``within``: sides are cut to multiples of it."""


def preset(name: str, size: int) -> ImagePreset:
    """A preprocessing to a square, named after what it does.

    ``crop``: the middle, normalised by the statistics of web pictures. ``squash``: all of it, by the same. ``half``:
    all of it, mapped to [-1, 1].
    """
    rules = {
        "crop": Pixels(fit="crop"),
        "squash": Pixels(fit="squash"),
        "half": Pixels(fit="squash", statistics=HALF),
    }
    if name not in rules:
        raise ValueError(f"no image preset is called {name!r}; use crop, squash or half")
    return preset_of(rules[name], (size, size))


def preset_of(rule: Pixels, size: tuple[int, int]) -> ImagePreset:
    """What a rule is at a size; a rule that keeps shapes takes the size's shorter side for the picture's.

    Raises:
        DataError: for a size that leaves such a rule no pixel.
    """
    mean, std = rule.statistics
    if rule.fit != "within":
        return ImagePreset(size=size, fit=rule.fit, mean=mean, std=std, filter=rule.filter, cover=rule.cover)
    shorter = min(size)
    longest = int(rule.longest * shorter)
    side = longest // rule.multiple * rule.multiple
    if shorter < rule.multiple:
        raise DataError(f"a shorter side of {shorter} pixels has no multiple of {rule.multiple}; take a larger image")
    return ImagePreset(
        size=(side, side),
        fit="within",
        mean=mean,
        std=std,
        filter=rule.filter,
        shorter=shorter,
        longest=longest,
        multiple=rule.multiple,
    )


def decode(path: Path, *, content: bytes | None = None, limit: int = PIXEL_LIMIT) -> Image.Image:
    """A picture file as upright 8-bit RGB; with ``content`` these bytes, which ``path`` only names in messages.

    EXIF rotation is applied; CMYK, grey, palette and 16-bit pictures are converted; transparency is dropped, as the
    official loaders do.

    Raises:
        DataError: for a file that is absent, broken, cut short, no picture, or has more than ``limit`` pixels.
    """
    try:
        with warnings.catch_warnings():
            # Own limit below; what Pillow warns of beside it (odd metadata) does not concern pixels.
            warnings.simplefilter("ignore")
            with Image.open(path if content is None else io.BytesIO(content)) as image:
                width, height = image.size
                if width * height > limit:
                    raise DataError(
                        f"{path} has {width} x {height} pixels, more than {limit}: scale it down or leave it out"
                    )
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has far more than {limit} pixels: scale it down or leave it out") from error
    except _BROKEN as error:
        there = content is not None or path.exists()
        what = f"{type(error).__name__}: {error}" if there else "there is no such file"
        raise DataError(f"the picture {path} cannot be read ({what}): fetch it again or leave it out") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits to 255, which is white; the high byte is the picture.
        values = np.asarray(image).astype(np.int64)
        deep = image.mode != "I" or values.max(initial=0) > 255
        image = Image.fromarray(np.clip(values >> 8 if deep else values, 0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def fit(image: Image.Image, how: ImagePreset) -> np.ndarray:
    """(3, h, w) uint8, resized: of the preset's size, or with ``within`` what the picture takes of it."""
    height, width = how.size
    kind = Image.Resampling.BICUBIC if how.filter == "bicubic" else Image.Resampling.BILINEAR
    if how.fit == "squash":
        resized = image.resize((width, height), kind)
    elif how.fit == "within":
        resized = image.resize(_within(image, how), kind)
    else:
        # Rounded as torchvision's Resize and CenterCrop do, which the official preprocessing is made of.
        wide, tall = round(width * how.cover), round(height * how.cover)
        if wide * image.height >= tall * image.width:
            covering = (wide, wide * image.height // image.width)
        else:
            covering = (tall * image.width // image.height, tall)
        resized = image.resize(covering, kind)
        left, top = round((covering[0] - width) / 2), round((covering[1] - height) / 2)
        resized = resized.crop((left, top, left + width, top + height))
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def _within(image: Image.Image, how: ImagePreset) -> tuple[int, int]:
    """Width and height: rounded, then cut to multiples, in the order of ViLT's released code."""
    scale = how.shorter / min(image.size)
    sides = [how.shorter if side == min(image.size) else scale * side for side in image.size]
    if max(sides) > how.longest:
        shrink = how.longest / max(sides)
        sides = [side * shrink for side in sides]
    # A picture so long that nothing is left of its shorter side keeps one multiple of it.
    width, height = (max(how.multiple, int(side + 0.5) // how.multiple * how.multiple) for side in sides)
    return width, height


def normalise(pictures: np.ndarray, how: ImagePreset, extents: np.ndarray | None = None) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 ``(x / 255 - mean) / std``, and 0 outside ``extents`` (B, 2), rows and columns."""
    import torch

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (how.mean, how.std))
    images = torch.from_numpy(pictures).to(torch.float32).div_(255).sub_(mean).div_(std)
    if extents is not None:
        for image, (rows, columns) in zip(images, extents.tolist(), strict=True):
            if (rows, columns) != how.size:
                image[:, rows:], image[:, :, columns:] = 0.0, 0.0
    return images
