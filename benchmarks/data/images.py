"""Photos from files: decoded whatever they are, or refused by name, then brought to one size.

Shape letters: H height, W width in pixels.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps
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
    """H, W."""
    fit: Literal["crop", "squash"]
    """``crop``: the picture covers the size and its middle is kept. ``squash``: all of it is kept, out of shape."""
    mean: tuple[float, float, float]
    """Of RGB in [0, 1], subtracted before the division by ``std``."""
    std: tuple[float, float, float]


_WEB = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
"""Statistics of the pictures that CLIP was trained on, which most models after it took over."""


def preset(name: str, size: int) -> ImagePreset:
    """A preprocessing to a square, named after what it does.

    ``crop``: the middle, normalised by the statistics of web pictures (CLIP). ``squash``: all of it, by the same (ALBEF
    and BLIP in evaluation). ``half``: all of it, mapped to [-1, 1] (ViLT, whose aspect ratio the fixed size loses).
    """
    side = (size, size)
    match name:
        case "crop" | "squash":
            return ImagePreset(size=side, fit=name, **_WEB)
        case "half":
            return ImagePreset(size=side, fit="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    raise ValueError(f"no image preset is called {name!r}; use crop, squash or half")


def decode(path: Path, *, limit: int = PIXEL_LIMIT) -> Image.Image:
    """A picture file as upright 8-bit RGB.

    EXIF rotation is applied; CMYK, grey, palette and 16-bit pictures are converted; transparency is dropped, as the
    official loaders do.

    Raises:
        DataError: for a file that is absent, broken, cut short, no picture, or has more than ``limit`` pixels.
    """
    try:
        with warnings.catch_warnings():
            # Own limit below; what Pillow warns of beside it (odd metadata) does not concern pixels.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
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
        what = f"{type(error).__name__}: {error}" if path.exists() else "there is no such file"
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
    """(3, H, W) uint8, resized with a bicubic filter."""
    height, width = how.size
    if how.fit == "squash":
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
    else:
        # Rounded as torchvision's Resize and CenterCrop do, which the official preprocessing is made of.
        if width * image.height >= height * image.width:
            covering = (width, width * image.height // image.width)
        else:
            covering = (height * image.width // image.height, height)
        resized = image.resize(covering, Image.Resampling.BICUBIC)
        left, top = round((covering[0] - width) / 2), round((covering[1] - height) / 2)
        resized = resized.crop((left, top, left + width, top + height))
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def normalise(pictures: np.ndarray, how: ImagePreset) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 ``(x / 255 - mean) / std``."""
    import torch

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (how.mean, how.std))
    return torch.from_numpy(pictures).to(torch.float32).div_(255).sub_(mean).div_(std)
