"""What a reader is given: the files of a split, the options of the user, and where to put what is faulty."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.faults import Fault, Faults


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One call of a reader."""

    split: str
    files: Mapping[str, Path]
    """What a file holds -> the file; those that the split has in the catalogue."""
    images: Path
    """Folder that pictures are named below."""
    captions: Literal["five", "all"]
    faults: Faults

    def file(self, role: str) -> Path:
        """The file of a role.

        Raises:
            DataError: where the split has none.
        """
        if role not in self.files:
            raise DataError(f"split {self.split!r} has no file of {role}, and the reader needs one")
        return self.files[role]


def inside(folder: Path, picture: str) -> Path:
    """The file of a picture below a folder, links followed.

    The folder itself may be a link of the user's; nothing below it may lead out of it.

    Raises:
        Fault: for a file outside the folder.
    """
    path = Path(os.path.realpath(folder / picture))
    if not path.is_relative_to(os.path.realpath(folder)):
        raise Fault("outside", f"has the picture {picture!r}, a link out of {folder}: put the file itself there")
    return path


def first_there(images: Path, candidates: tuple[str, ...]) -> str:
    """The first of several names of a picture under which it is there; the first of all where it is not."""
    return next((name for name in candidates if (images / name).is_file()), candidates[0])
