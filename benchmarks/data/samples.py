"""Miniatures of the data sets: a few drawn pictures with annotations in the public form, valid for the very readers.

What a miniature says is true of its pictures, so that it can be learnt; the numbers that come of it mean nothing.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from vlpbench.benchmarks.data import samples_tasks as tasks
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.catalogue import SourceSpec, catalogue, locate

COUNTS = {"train": 32, "val": 8, "test": 8}
"""Pictures of each split; 4 of splits with other names."""
COLOURS = {"red": (200, 30, 40), "green": (30, 150, 60), "blue": (40, 70, 200), "yellow": (230, 200, 40)}
SHAPES = ("circle", "square", "triangle")
SHARD = 16
"""Samples of a shard."""


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
        return [f"A {c} {s}.", f"There is a {c} {s} in the middle.", f"a {s} that is {c}", f"One {c} {s} on grey.", f"a {c} {s}"]

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
            split: [_drawn(place * 100 + n) for n in range(COUNTS.get(split, 4))] for place, split in enumerate(spec.splits)
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


def write(spec: SourceSpec, root: Path) -> Path:
    """Writes a miniature of a data set, and of the one beside it, below a data root.

    Returns:
        Its folder.

    Raises:
        DataError: where files of the data set are there already: nothing is overwritten.
    """
    folder = root / spec.folder
    there = [path for split in spec.splits if (path := _existing(spec, folder, split))] + sorted(folder.glob("*.tar"))[:1]
    if there:
        raise DataError(f"{there[0]} is there already, and a miniature overwrites nothing: name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[spec.reader](Folder(spec, folder))
    if spec.beside:
        other = catalogue()[spec.beside]
        if not any(_existing(other, root / other.folder, split) for split in other.splits):
            write(other, root)
    return folder


def _existing(spec: SourceSpec, folder: Path, split: str) -> Path | None:
    found = locate(spec, folder).file(split, spec.files[0].role)
    return None if found is None else found[1]


def _drawn(number: int) -> Drawn:
    return Drawn(number=number, colour=list(COLOURS)[number % len(COLOURS)], shape=SHAPES[number // 4 % len(SHAPES)])


def _karpathy(to: Folder) -> None:
    images: list[dict[str, Any]] = []
    for split, pictures in to.splits.items():
        for place, drawn in enumerate(pictures):
            if "coco" in to.spec.name:
                folder = "train2014" if split == "train" and place % 4 else "val2014"
                said = {"filepath": folder, "filename": f"COCO_{folder}_{drawn.number:012d}.jpg", "cocoid": drawn.number}
                said["split"] = "restval" if (split, folder) == ("train", "val2014") else split
                to.picture(f"{folder}/{said['filename']}", drawn.image())
            else:
                said = {"filename": to.picture(f"{1000 + drawn.number}.jpg", drawn.image()), "split": split}
            first = 5 * len(images)
            sentences = [
                {"tokens": text.lower().strip(".").split(), "raw": text, "imgid": len(images), "sentid": first + n}
                for n, text in enumerate(drawn.captions())
            ]
            ids = {"imgid": len(images), "sentids": list(range(first, first + 5)), "sentences": sentences}
            images.append(said | ids)
    name = to.name("test")
    to.json(name, {"dataset": name.removeprefix("dataset_").removesuffix(".json"), "images": images})


def _coco(to: Folder) -> None:
    for split, pictures in to.splits.items():
        name = to.name(split)
        folder = name.removeprefix("captions_").removesuffix(".json")
        images = [{"id": d.number, "file_name": f"{d.number:012d}.jpg", "height": 64, "width": 96, "license": 4} for d in pictures]
        for drawn in pictures:
            to.picture(f"{folder}/{drawn.number:012d}.jpg", drawn.image())
        # By caption and not by picture, as in the published files.
        said = [(n, d, text) for n in range(5) for d, text in ((d, d.captions()[n]) for d in pictures)]
        annotations = [{"image_id": d.number, "id": 10 * d.number + n, "caption": text} for n, d, text in said]
        to.json(f"annotations/{name}", {"info": {}, "licenses": [], "images": images, "annotations": annotations})


def _retrieval(to: Folder) -> None:
    for split, pictures in to.splits.items():
        named = [(to.picture(f"{split}/{d.number}.jpg", d.image()), d) for d in pictures]
        if split == "train":
            rows = [{"image": n, "caption": t, "image_id": f"x_{d.number}"} for n, d in named for t in d.captions()]
        else:
            rows = [{"image": name, "caption": drawn.captions()} for name, drawn in named]
        to.json(to.name(split), rows)


def _shards(to: Folder) -> None:
    for shard in range(3):
        with tarfile.open(to.folder / f"{shard:05d}.tar", "w") as archive:
            for place in range(SHARD):
                drawn, key = _drawn(shard * SHARD + place), f"{shard:05d}{place:04d}"
                picture = io.BytesIO()
                drawn.image().save(picture, "JPEG")
                about = json.dumps({"caption": drawn.captions()[0], "key": key, "status": "success"})
                for ending, content in (
                    ("jpg", picture.getvalue()),
                    ("txt", drawn.captions()[0].encode()),
                    ("json", about.encode()),
                ):
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


WRITERS: Mapping[str, Callable[[Folder], None]] = {
    "karpathy:read": _karpathy,
    "coco_captions:read": _coco,
    "lists:read_retrieval": _retrieval,
    "shards:read": _shards,
    "vqav2:read": tasks.vqav2,
    "questions:read_rad": tasks.vqa_rad,
    "questions:read_easy": tasks.easy_vqa,
    "lists:read_questions": tasks.list_of_questions,
    "nlvr:read": tasks.nlvr2,
    "nlvr:read_boxes": tasks.nlvr,
    "lists:read_statements": tasks.list_of_statements,
    "snli_ve:read": tasks.snli_ve,
    "lists:read_hypotheses": tasks.list_of_hypotheses,
}
"""By reader."""
