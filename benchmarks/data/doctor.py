"""What is there of a data set, what is missing, and what is wrong with it. Neither torch nor a model is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.catalogue import FileSpec, Located, SourceSpec, locate
from vlpbench.benchmarks.data.faults import NAMED, Faults
from vlpbench.benchmarks.data.options import DataOptions
from vlpbench.benchmarks.data.rows import Row, count, pictures_of
from vlpbench.benchmarks.data.sifting import absent, unreadable


@dataclass(frozen=True, kw_only=True)
class FileFound:
    """One file of annotations."""

    split: str
    role: str
    path: str
    """Where it is; where it should be if it is not there."""
    there: bool
    content: str = "unknown"
    """``as published``, ``differs`` or, without a published hash or a file, ``unknown``."""


@dataclass(frozen=True, kw_only=True)
class SplitFound:
    """One split."""

    split: str
    error: str = ""
    """Why nothing of it can be read."""
    pictures: int = 0
    rows: int = 0
    """Captions, questions or statements that can be read; whether their pictures are there is below."""
    expected: Mapping[str, int] = field(default_factory=dict)
    """``pictures`` and ``rows`` as published."""
    faults: Mapping[str, Any] = field(default_factory=dict)
    """Samples that cannot be used: reason -> ``count`` and ``first``."""
    missing: int = 0
    """Pictures that are not there."""
    first_missing: Sequence[str] = ()
    unreadable: int | None = None
    """Pictures that are there and are broken; None where nobody looked."""
    first_unreadable: Sequence[str] = ()
    """Messages."""

    @property
    def partial(self) -> bool:
        """Whether there is less or more than was published."""
        return any(getattr(self, name) != number for name, number in self.expected.items())

    @property
    def sound(self) -> bool:
        """Whether all that is there can be used."""
        return not (self.error or self.faults or self.missing or self.unreadable)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of a data set."""

    name: str
    folder: str
    images: str
    licence: str
    get: str
    files: tuple[FileFound, ...]
    splits: tuple[SplitFound, ...]

    @property
    def sound(self) -> bool:
        """Whether something is there, and all of it can be used."""
        read = [split for split in self.splits if not split.error]
        return bool(read) and all(split.sound for split in read)

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self) | {"sound": self.sound}


def check(spec: SourceSpec, folder: Path, *, decode: bool = True) -> Report:
    """Looks at a data set.

    Args:
        spec: what should be there.
        folder: where.
        decode: whether to decode every picture, which takes minutes for a hundred thousand.
    """
    located = locate(spec, folder)
    splits = [_shards(spec, folder, decode)] if spec.kind == "shards" else _splits(located, decode)
    return Report(
        name=spec.name,
        folder=str(folder),
        images=str(located.images),
        licence=spec.licence,
        get=spec.get,
        files=tuple(_file(located, split, role) for split, role in _roles(spec)),
        splits=tuple(splits),
    )


def _roles(spec: SourceSpec) -> list[tuple[str, str]]:
    return list(dict.fromkeys((file.split, file.role) for file in spec.files))


def _file(located: Located, split: str, role: str) -> FileFound:
    found = located.file(split, role)
    if found is None:
        name = next(file.path for file in located.spec.files if (file.split, file.role) == (split, role))
        return FileFound(split=split, role=role, path=str(located.folder / name), there=False)
    spec, path = found
    return FileFound(split=split, role=role, path=str(path), there=True, content=_content(spec, path))


def _content(spec: FileSpec, path: Path) -> str:
    if spec.sha256 is None:
        return "unknown"
    try:
        return "as published" if hashlib.sha256(path.read_bytes()).hexdigest() == spec.sha256 else "differs"
    except OSError:
        return "differs"


def _splits(located: Located, decode: bool) -> list[SplitFound]:
    """A file that holds several splits is read once; what is faulty in it is told of the first of them."""
    read: dict[str, Sequence[Row]] = {}
    found = []
    for split in located.spec.splits:
        faults = Faults(policy="skip")
        try:
            if split not in read:
                read |= {name: rows for name, rows in located.read(split, _OPTIONS, faults).items() if name not in read}
        except DataError as error:
            found.append(SplitFound(split=split, error=str(error)))
            continue
        found.append(_split(located, split, read.get(split, ()), faults, decode))
    return found


_OPTIONS = DataOptions(faulty="skip")


def _split(located: Located, split: str, rows: Sequence[Row], faults: Faults, decode: bool) -> SplitFound:
    pictures = pictures_of(rows)
    missing, outside = absent(pictures, located.images, faults)
    gone = outside | set(missing)
    broken = unreadable((name for name in pictures if name not in gone), located.images) if decode else None
    spec = located.file(split, located.spec.files[0].role)
    known = {"pictures": spec[0].pictures, "rows": spec[0].rows} if spec else {}
    return SplitFound(
        split=split,
        pictures=len(pictures),
        rows=count(rows)["rows"],
        expected={name: number for name, number in known.items() if number is not None},
        faults=faults.left_out(),
        missing=len(missing),
        first_missing=tuple(missing[:NAMED]),
        unreadable=None if broken is None else len(broken),
        first_unreadable=tuple((broken or {}).values())[:NAMED],
    )


def _shards(spec: SourceSpec, folder: Path, decode: bool) -> SplitFound:
    from vlpbench.benchmarks.data.images import decode as decoded
    from vlpbench.benchmarks.data.readers.shards import shards

    faults, broken = Faults(policy="skip"), []
    try:
        found = shards(folder, faults)
        for shard in found if decode else ():
            with shard.path.open("rb") as file:
                for row, key in enumerate(shard.keys):
                    try:
                        decoded(shard.path / key, content=shard.picture(file, row))
                    except DataError as error:
                        broken.append(str(error))
    except (DataError, OSError) as error:
        return SplitFound(split="train", error=f"{error}; {spec.needs()}")
    total = sum(len(shard.keys) for shard in found)
    return SplitFound(
        split="train",
        pictures=total,
        rows=total,
        faults=faults.left_out(),
        unreadable=len(broken) if decode else None,
        first_unreadable=tuple(broken[:NAMED]),
    )


def told(report: Report) -> list[str]:
    """A report in lines, for people."""
    lines = [f"{report.name} in {report.folder}, pictures in {report.images}"]
    lines += [
        f"  {'there  ' if file.there else 'missing'} {file.path} ({file.split}, {file.role}"
        + (f"; {file.content})" if file.content != "unknown" else ")")
        for file in report.files
    ]
    for split in report.splits:
        lines += _told(split)
    if any(split.error or split.missing or split.partial for split in report.splits):
        lines += [f"get it from {report.get}", f"licence: {report.licence}"]
    lines.append("all that is there can be used" if report.sound else "not all of it can be used as it is")
    return lines


def _told(split: SplitFound) -> list[str]:
    if split.error:
        return [f"{split.split}: nothing to read: {split.error}"]
    said = [f"{split.split}: {split.pictures} pictures, {split.rows} texts"]
    if split.expected:
        wanted = ", ".join(f"{number} {'texts' if name == 'rows' else name}" for name, number in split.expected.items())
        said[0] += f"; published: {wanted}" + (" (this is another number)" if split.partial else "")
    for reason, found in split.faults.items():
        said.append(f"  {found['count']} samples left out, {reason}: {', '.join(found['first'])}")
    if split.missing:
        said.append(f"  {split.missing} pictures are missing, e.g. {', '.join(split.first_missing)}")
    if split.unreadable:
        said.append(f"  {split.unreadable} pictures cannot be read:")
        said += [f"    {message}" for message in split.first_unreadable]
    elif split.unreadable is None:
        said.append("  pictures were not decoded (--fast)")
    return said
