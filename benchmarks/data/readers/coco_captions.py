"""COCO's own captions JSON: a list of images, and captions in any order that name the image they belong to."""

from __future__ import annotations

from typing import Any

from vlpbench.benchmarks.data.faults import Fault, Faults, below, mapping, need, words
from vlpbench.benchmarks.data.jsonfiles import listed, read_json
from vlpbench.benchmarks.data.readers.karpathy import chosen
from vlpbench.benchmarks.data.readers.reading import Reading, first_there
from vlpbench.benchmarks.data.rows import Entry, Found

WHAT = "a captions file of COCO"


def read(reading: Reading) -> Found:
    """The split of the file. Captions come in the order of their ids."""
    path, faults = reading.file("captions"), reading.faults
    content = read_json(path, WHAT)
    names = _images(listed(content, "images", path, WHAT), str(path), faults)
    said: dict[int, dict[int, str]] = {image: {} for image in names}
    for number, item in enumerate(listed(content, "annotations", path, WHAT)):
        with faults.at(f"{path}: annotations[{number}]"):
            annotation = mapping(item)
            key, image = need(annotation, "id", int), need(annotation, "image_id", int)
            text = words(annotation.get("caption"), "caption")
            if image not in said:
                raise Fault("no image", f"is of image {image}, which the file does not list: mend the file")
            if key in said[image]:
                raise Fault("repeated", f"repeats the caption {key}: keep one of the two")
            said[image][key] = text
    folder = path.stem.removeprefix("captions_")
    entries = []
    for image, name in names.items():
        with faults.at(f"{path}: image {image}"):
            texts = [said[image][key] for key in sorted(said[image])]
            picture = first_there(reading.images, (f"{folder}/{name}", name))
            entries.append(Entry(picture=picture, split=reading.split, captions=chosen(texts, reading.captions)))
    return {reading.split: entries}


def _images(images: list[Any], path: str, faults: Faults) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, item in enumerate(images):
        with faults.at(f"{path}: images[{number}]"):
            image = mapping(item)
            key, name = need(image, "id", int), below(image.get("file_name"))
            if key in names:
                raise Fault("repeated", f"repeats the image {key}: keep one of the two")
            names[key] = name
    return names
