"""NLVR2 (arXiv:1811.00491), statements about two photographs, and NLVR (ACL 2017), about three boxes in one picture.

Both files hold an object a line. A label is a text, of which ``bool`` would make True whatever it says.
"""

from __future__ import annotations

from typing import Any

from vlpbench.benchmarks.data.faults import Fault, below, mapping, one_of, words
from vlpbench.benchmarks.data.jsonfiles import read_lines
from vlpbench.benchmarks.data.readers.reading import Reading
from vlpbench.benchmarks.data.rows import Claim, Found

LABELS = {"True": "true", "False": "false"}
LABELS_1 = {"true": "true", "false": "false"}
PERMUTATIONS = 6
"""Orders of the three boxes, each a picture of its own with the same label."""


def read(reading: Reading) -> Found:
    """NLVR2. A statement's group is its sentence: consistency asks that all its pairs of photographs are right."""
    claims: dict[str, Claim] = {}
    for where, item in read_lines(reading.file("statements"), "statements of NLVR2", reading.faults):
        with reading.faults.at(where):
            line = mapping(item)
            identifier = _identifier(line, 4)
            if identifier in claims:
                raise Fault("repeated", f"repeats the identifier {identifier}: keep one of the two")
            split, number, pair, sentence = identifier.split("-")
            folder = f"images/train/{line['directory']}" if "directory" in line else split
            left, right = (below(f"{folder}/{split}-{number}-{pair}-img{side}.png") for side in (0, 1))
            claims[identifier] = Claim(
                pictures=(left, right),
                text=words(line.get("sentence"), "sentence"),
                label=one_of(line.get("label"), LABELS, "label"),
                group=f"{split}-{number}-{sentence}",
            )
    return {reading.split: list(claims.values())}


def read_boxes(reading: Reading) -> Found:
    """NLVR: a row for every permutation of a statement that is there; for all six where none is.

    A statement's group is what its identifier has before the hyphen, as in the official evaluation.
    """
    path, claims, seen = reading.file("statements"), [], set[str]()
    split = path.stem
    for where, item in read_lines(path, "statements of NLVR", reading.faults):
        with reading.faults.at(where):
            line = mapping(item)
            identifier = _identifier(line, 2)
            if identifier in seen:
                raise Fault("repeated", f"repeats the identifier {identifier}: keep one of the two")
            text, label = words(line.get("sentence"), "sentence"), one_of(line.get("label"), LABELS_1, "label")
            folder = words(line.get("directory"), "directory")
            names = [below(f"{split}/images/{folder}/{split}-{identifier}-{k}.png") for k in range(PERMUTATIONS)]
            seen.add(identifier)
            there = [name for name in names if (reading.images / name).is_file()] or names
            group = identifier.partition("-")[0]
            claims += [Claim(pictures=(name,), text=text, label=label, group=group) for name in there]
    return {reading.split: claims}


def _identifier(line: dict[str, Any], parts: int) -> str:
    found = words(line.get("identifier"), "identifier")
    if found.count("-") != parts - 1 or not all(found.split("-")):
        raise Fault("no identifier", f"has the identifier {found!r}, not of {parts} parts: give the right file")
    return found
