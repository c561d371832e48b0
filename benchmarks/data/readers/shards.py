"""Web-scale pairs in tar shards, the form of webdataset and of img2dataset: members of one stem are one sample.

A shard is never unpacked. Its headers are read once and say where in the file every picture and caption lies; what was
found is kept beside the shards where that can be written, so that an interrupted indexing goes on at its shard.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.faults import LONGEST, Fault, Faults, below, words

PICTURES = ("jpg", "jpeg", "png", "webp")
CAPTION = "txt"
LARGEST = 2**26
"""Bytes of a picture file."""
FOLDER = ".vlpbench-index"
FORM = 1
Place = tuple[int, int]
"""First byte in the shard, number of bytes."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar file and what it holds."""

    path: Path
    keys: tuple[str, ...]
    """Names of the samples, in the order of the file."""
    pictures: tuple[Place, ...]
    captions: tuple[Place, ...]

    def caption(self, file: BinaryIO, row: int) -> str:
        """The caption of a row; ``file`` is the shard, opened."""
        return _bytes(file, self.captions[row]).decode("utf-8").strip()

    def picture(self, file: BinaryIO, row: int) -> bytes:
        """The picture's file of a row."""
        return _bytes(file, self.pictures[row])


def shards(folder: Path, faults: Faults) -> list[Shard]:
    """All shards of a folder, in the order of their names.

    Raises:
        DataError: for a folder without any; for a faulty sample if ``faults`` says so.
    """
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        packed = [path.name for path in folder.glob("*.tar.*")][:3] if folder.is_dir() else []
        more = f"; {', '.join(packed)} must be uncompressed first" if packed else ""
        raise DataError(f"{folder} holds no shard (*.tar){more}: write some with img2dataset or webdataset")
    return [_kept(path) or _keep(index(path, faults), faults) for path in paths]


def index(path: Path, faults: Faults) -> Shard:
    """Where the samples of a shard lie. Samples that cannot be used are left out; pictures are not decoded."""
    found: dict[str, tuple[Place, Place]] = {}
    with path.open("rb") as file:
        for key, members in _samples(path, faults):
            with faults.at(f"{path}: {key}"):
                if key in found:
                    raise Fault("repeated", "is there twice: keep one of the two")
                found[key] = _picture(members), _caption(members, file)
    picture, caption = zip(*found.values(), strict=True) if found else ((), ())
    return Shard(path=path, keys=tuple(found), pictures=tuple(picture), captions=tuple(caption))


def _samples(path: Path, faults: Faults) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Stem and members by ending of every sample; members of a sample stand next to one another."""
    key, members = "", dict[str, tarfile.TarInfo]()
    for member in _members(path, faults):
        with faults.at(f"{path}: {member.name!r}"):
            name = PurePosixPath(below(member.name))
            if not member.isreg() or member.issparse():
                raise Fault("no file", "is a link or something else that is no plain file: pack the shard anew")
            stem, _, ending = name.name.partition(".")
            if (here := str(name.with_name(stem or "-"))) != key:
                if members:
                    yield key, members
                key, members = here, {}
            members[ending.lower()] = member
    if members:
        yield key, members


def _members(path: Path, faults: Faults) -> Iterator[tarfile.TarInfo]:
    """The members that are whole. A shard that breaks off is a fault, and what comes before it is used."""
    size = path.stat().st_size
    with faults.at(str(path)):
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.offset_data + member.size > size:
                        raise Fault("broken shard", f"is cut short in {member.name!r}: fetch the shard again")
                    yield member
                    archive.members = []  # type: ignore[attr-defined]  # or memory grows with the shard
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise Fault("broken shard", f"cannot be read ({error}): fetch the shard again") from None


def _picture(members: dict[str, tarfile.TarInfo]) -> Place:
    found = next((members[ending] for ending in PICTURES if ending in members), None)
    if found is None:
        raise Fault("no picture", f"has no picture ({', '.join(PICTURES)}), only {', '.join(members)}: leave it out")
    if not 0 < found.size <= LARGEST:
        raise Fault("odd picture", f"has a picture of {found.size} bytes, not of 1 to {LARGEST}: leave it out")
    return found.offset_data, found.size


def _caption(members: dict[str, tarfile.TarInfo], file: BinaryIO) -> Place:
    if CAPTION not in members:
        raise Fault("no caption", f"has no caption ({CAPTION}), only {', '.join(members)}: leave it out")
    place = members[CAPTION].offset_data, min(members[CAPTION].size, 4 * LONGEST + 1)
    words(_bytes(file, place).decode("utf-8", errors="surrogateescape"), "caption")
    return place


def _bytes(file: BinaryIO, place: Place) -> bytes:
    file.seek(place[0])
    return file.read(place[1])


def _file(path: Path) -> Path:
    return path.parent / FOLDER / f"{path.name}.json"


def _stamp(path: Path) -> list[int]:
    """Changes with the file."""
    return [FORM, path.stat().st_size, path.stat().st_mtime_ns]


def _kept(path: Path) -> Shard | None:
    """An index that was kept, if it is of this very file."""
    try:
        found: Any = json.loads(_file(path).read_text(encoding="utf-8"))
        if found["stamp"] != _stamp(path):
            return None
        pictures, captions = (tuple((int(a), int(b)) for a, b in found[name]) for name in ("pictures", "captions"))
        keys = tuple(map(str, found["keys"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = len(keys) == len(pictures) == len(captions)
    return Shard(path=path, keys=keys, pictures=pictures, captions=captions) if whole else None


def _keep(shard: Shard, faults: Faults) -> Shard:
    """Keeps an index where the folder can be written, and nothing of the shard is faulty, which must be told again."""
    if any(str(shard.path) in name for names in faults.first.values() for name in names):
        return shard
    content = {"stamp": _stamp(shard.path), "keys": shard.keys, "pictures": shard.pictures, "captions": shard.captions}
    file = _file(shard.path)
    try:
        file.parent.mkdir(exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(file)
    except OSError:  # a folder that cannot be written is only slower
        return shard
    return shard
