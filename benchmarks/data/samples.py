"""Miniatures of the data sets: a few drawn pictures with annotations in the public form, valid for the very readers.

What a miniature says is true of its pictures, so that it can be learnt; the numbers that come of it mean nothing.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlpbench.benchmarks.data import samples_tasks as tasks
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.catalogue import SourceSpec, catalogue, locate
from vlpbench.benchmarks.data.miniature import Folder, draw

SHARD = 16
"""Samples of a shard."""


def write(spec: SourceSpec, root: Path) -> Path:
    """Writes a miniature of a data set, and of the one beside it, below a data root.

    Returns:
        Its folder.

    Raises:
        DataError: where files of the data set are there already: nothing is overwritten.
    """
    folder = root / spec.folder
    there = [path for split in spec.splits if (path := _existing(spec, folder, split))]
    there += sorted(folder.glob("*.tar"))[:1]
    if there:
        raise DataError(
            f"{there[0]} is there already, and a miniature overwrites nothing: name another folder with --out"
        )
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


def _karpathy(to: Folder) -> None:
    images: list[dict[str, Any]] = []
    for split, pictures in to.splits.items():
        for place, drawn in enumerate(pictures):
            if "coco" in to.spec.name:
                folder = "train2014" if split == "train" and place % 4 else "val2014"
                said = {
                    "filepath": folder,
                    "filename": f"COCO_{folder}_{drawn.number:012d}.jpg",
                    "cocoid": drawn.number,
                }
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
        images = [
            {"id": d.number, "file_name": f"{d.number:012d}.jpg", "height": 64, "width": 96, "license": 4}
            for d in pictures
        ]
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
                drawn, key = draw(shard * SHARD + place), f"{shard:05d}{place:04d}"
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
