"""Entries of a Karpathy-split JSON file, checked one by one.

``restval`` counts as training and never as test. Captions are read from ``raw``, stripped of blanks and newlines.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from vlpbench.benchmarks.data.base import DataError

SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
"""Name in the file -> split it is read as."""
FIVE = 5


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture with its captions."""

    picture: str
    """Path below the image folder."""
    split: str
    captions: tuple[str, ...]


@dataclass(kw_only=True)
class Faults:
    """What to do with entries that cannot be used: stop at the first, or leave them out and count them."""

    policy: Literal["skip", "fail"]
    counts: Counter[str]
    """Reason -> entries left out."""

    def found(self, reason: str, message: str) -> None:
        """Raises `DataError` with the message, or counts the reason."""
        if self.policy == "fail":
            raise DataError(f"{message}, or leave such entries out with faulty='skip'")
        self.counts[reason] += 1


def read_annotations(path: Path, *, captions: Literal["five", "all"], faults: Faults) -> list[Entry]:
    """The entries of a Karpathy-split JSON file.

    Args:
        path: for example ``dataset_coco.json``.
        captions: ``five`` reads the first five of a picture, as retrieval protocols do, and calls fewer a fault.
        faults: what to do about entries that lack something.

    Raises:
        DataError: for a file that cannot be read or is not of this form; for a faulty entry if ``faults`` says so.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give the Karpathy-split JSON file") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): fetch it again") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path} is not a Karpathy split: it holds {keys} and no list of 'images'")
    entries: dict[str, Entry] = {}
    for number, image in enumerate(images):
        where = f"{path}: images[{number}]"
        try:
            entry = _entry(image, captions)
            if entry.picture in entries:
                raise _Fault("repeated", f"repeats the picture {entry.picture}: keep one of the two")
        except _Fault as fault:
            name = image.get("filename") if isinstance(image, dict) else None
            faults.found(fault.reason, f"{where}{f' ({name})' if name else ''} {fault}")
        else:
            entries[entry.picture] = entry
    return list(entries.values())


class _Fault(Exception):
    """What is wrong with an entry; the message follows the entry's name."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _entry(image: Any, captions: str) -> Entry:
    if not isinstance(image, dict):
        raise _Fault("malformed", f"is a {type(image).__name__} and no object: mend the file")
    for key, kind in (("filename", str), ("split", str), ("sentences", list)):
        if not isinstance(image.get(key), kind):
            raise _Fault(f"no {key}", f"has no {key!r} of type {kind.__name__}: mend the file")
    if image["split"] not in SPLITS:
        raise _Fault("unknown split", f"is in split {image['split']!r}, none of {', '.join(SPLITS)}: mend the file")
    picture = f"{image['filepath']}/{image['filename']}" if image.get("filepath") else image["filename"]
    windows = PureWindowsPath(picture)
    if ".." in windows.parts or windows.drive or windows.root:
        raise _Fault("outside", f"has the path {picture!r}, which leads out of the image folder: mend the file")
    said = [one.get("raw") if isinstance(one, dict) else None for one in image["sentences"]]
    texts = tuple(text.strip() for text in said if isinstance(text, str) and text.strip())
    if len(texts) < len(said) or not texts:
        raise _Fault("no caption", f"has {len(said)} sentences, {len(texts)} with a text in 'raw': mend the file")
    if captions == "five" and len(texts) < FIVE:
        raise _Fault("few captions", f"has {len(texts)} captions and the protocol reads {FIVE}: read 'all' captions")
    return Entry(picture=picture, split=SPLITS[image["split"]], captions=texts[:FIVE] if captions == "five" else texts)
