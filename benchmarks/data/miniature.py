"""What miniatures of data sets are made of: drawn pictures, and a folder to write them to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from vlpbench.benchmarks.data.catalogue import SourceSpec

COUNTS = {"train": 32, "val": 8, "test": 8}
"""Pictures of each split; 4 of splits with other names."""
COLOURS = {"red": (200, 30, 40), "green": (30, 150, 60), "blue": (40, 70, 200), "yellow": (230, 200, 40)}
SHAPES = ("circle", "square", "triangle")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One picture and what is on it."""

    number: int
    """Counts through all splits."""
    colour: str
    shape: str

    def captions(self) -> list[str]:
        """Five true ones."""
        c, s = self.colour, self.shape
        return [
            f"A {c} {s}.",
            f"There is a {c} {s} in the middle.",
            f"a {s} that is {c}",
            f"One {c} {s} on grey.",
            f"a {c} {s}",
        ]

    def image(self, width: int = 96, height: int = 64) -> Image.Image:
        """The picture."""
        found = Image.new("RGB", (width, height), (128, 128, 128))
        draw_shape(found, (width // 2, height // 2), height // 4 + self.number % 5, self)
        return found


def draw_shape(image: Image.Image, place: tuple[int, int], half: int, what: Drawn) -> None:
    """Draws a shape around a place."""
    pen, (x, y) = ImageDraw.Draw(image), place
    box, fill = (x - half, y - half, x + half, y + half), COLOURS[what.colour]
    if what.shape == "circle":
        pen.ellipse(box, fill=fill)
    elif what.shape == "square":
        pen.rectangle(box, fill=fill)
    else:
        pen.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], fill=fill)


class Folder:
    """Where a miniature is written; what is there already stays."""

    def __init__(self, spec: SourceSpec, folder: Path) -> None:
        """Makes nothing yet."""
        self.spec, self.folder = spec, folder
        self.images = folder if spec.images[0] == "." else folder / spec.images[0]
        self.splits = {
            split: [draw(place * 100 + n) for n in range(COUNTS.get(split, 4))]
            for place, split in enumerate(spec.splits)
        }

    def name(self, split: str, role: str | None = None) -> str:
        """The annotation file of a split, as the catalogue has it."""
        wanted = role or self.spec.files[0].role
        return next(file.path for file in self.spec.files if (file.split, file.role) == (split, wanted))

    def text(self, name: str, content: str) -> None:
        """Writes an annotation file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def json(self, name: str, content: Any) -> None:
        """Writes an annotation file of JSON."""
        self.text(name, json.dumps(content, indent=1))

    def lines(self, name: str, items: Iterable[Mapping[str, Any]]) -> None:
        """Writes an annotation file of an object a line."""
        self.text(name, "".join(json.dumps(item) + "\n" for item in items))

    def picture(self, name: str, image: Image.Image) -> str:
        """Writes a picture below the image folder, and gives its name back."""
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        return name


def draw(number: int) -> Drawn:
    """The picture of a number."""
    return Drawn(number=number, colour=list(COLOURS)[number % len(COLOURS)], shape=SHAPES[number // 4 % len(SHAPES)])
