"""Karpathy-split JSON (arXiv:1412.2306): Flickr8k, Flickr30k and COCO in one form, all splits in a file.

``restval`` counts as training and never as test. Captions are read from ``raw``, stripped of blanks and newlines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlpbench.benchmarks.data.faults import Fault, Faults, below, mapping, need, one_of, words
from vlpbench.benchmarks.data.jsonfiles import listed, read_json
from vlpbench.benchmarks.data.readers.reading import Reading
from vlpbench.benchmarks.data.rows import Entry, Found

SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
"""Name in the file -> split it is read as."""
FIVE = 5


def read(reading: Reading) -> Found:
    """All splits of the file; see `read_annotations`."""
    entries = read_annotations(reading.file("captions"), captions=reading.captions, faults=reading.faults)
    return {split: [e for e in entries if e.split == split] for split in dict.fromkeys(e.split for e in entries)}


def read_annotations(path: Path, *, captions: str, faults: Faults) -> list[Entry]:
    """The entries of a Karpathy-split JSON file.

    Args:
        path: for example ``dataset_coco.json``.
        captions: ``five`` reads the first five of a picture, as retrieval protocols do, and calls fewer a fault;
            ``all`` reads every one.
        faults: what to do about entries that lack something.

    Raises:
        DataError: for a file that cannot be read or is not of this form; for a faulty entry if ``faults`` says so.
    """
    what = "a Karpathy split"
    entries: dict[str, Entry] = {}
    for number, image in enumerate(listed(read_json(path, what), "images", path, what)):
        name = image.get("filename") if isinstance(image, dict) else None
        with faults.at(f"{path}: images[{number}]{f' ({name})' if name else ''}"):
            entry = _entry(mapping(image), captions)
            if entry.picture in entries:
                raise Fault("repeated", f"repeats the picture {entry.picture}: keep one of the two")
            entries[entry.picture] = entry
    return list(entries.values())


def _entry(image: dict[str, Any], captions: str) -> Entry:
    filename, split, sentences = need(image, "filename", str), need(image, "split", str), need(image, "sentences", list)
    folder = image.get("filepath")
    return Entry(
        picture=below(f"{folder}/{filename}" if folder else filename),
        split=one_of(split, SPLITS, "split"),
        captions=chosen([mapping(sentence).get("raw") for sentence in sentences], captions),
    )


def chosen(said: list[Any], captions: str) -> tuple[str, ...]:
    """The captions of a picture that a protocol reads, all of them checked."""
    texts = tuple(words(text, "caption") for text in said)
    if not texts:
        raise Fault("no caption", "has no caption: mend the file")
    if captions == "five" and len(texts) < FIVE:
        raise Fault("few captions", f"has {len(texts)} captions and the protocol reads {FIVE}: read 'all' captions")
    return texts[:FIVE] if captions == "five" else texts
