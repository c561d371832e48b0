"""Which rows have pictures that can be used. No torch: the doctor asks the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.faults import NAMED, Fault, Faults
from vlpbench.benchmarks.data.readers.reading import inside
from vlpbench.benchmarks.data.rows import Row, pictures_of

R = TypeVar("R", bound=Row)


def absent(pictures: Iterable[str], images: Path, faults: Faults) -> tuple[list[str], set[str]]:
    """Pictures of which there is no file, and those that lead out of the folder, which are faults."""
    missing, outside = [], set[str]()
    for name in pictures:
        try:
            there = inside(images, name).is_file()
        except Fault as fault:
            outside.add(name)
            faults.found(fault.reason, name, str(fault))
        else:
            if not there:
                missing.append(name)
    return missing, outside


def unreadable(pictures: Iterable[str], images: Path) -> dict[str, str]:
    """Pictures that cannot be decoded, and why."""
    from vlpbench.benchmarks.data.images import decode

    found = {}
    for name in pictures:
        try:
            decode(inside(images, name))
        except DataError as error:
            found[name] = str(error)
    return found


def usable(rows: Sequence[R], images: Path, faults: Faults, remedy: str) -> Sequence[R]:
    """The rows of which all pictures can be used; where faults are to fail, that they are there is enough.

    Raises:
        DataError: for pictures that are not there if ``faults`` says so, naming the first of them.
    """
    pictures = pictures_of(rows)
    missing, bad = absent(pictures, images, faults)
    if missing and faults.policy == "fail":
        raise DataError(
            f"{len(missing)} of {len(pictures)} pictures are not in {images}, e.g. {', '.join(missing[:NAMED])}: "
            f"fetch them or give the right folder ({remedy}), or leave such samples out with faulty = 'skip'"
        )
    for name in missing:
        faults.found("no picture", name, "")
    bad |= set(missing)
    if faults.policy == "skip":
        broken = unreadable((name for name in pictures if name not in bad), images)
        for name in broken:
            faults.found("unreadable picture", name, "")
        bad |= set(broken)
    return [row for row in rows if not bad.intersection(row.pictures)] if bad else rows
