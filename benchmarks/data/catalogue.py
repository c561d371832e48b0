"""The data sets whose files a user brings: what belongs to each, how much of it there is, and where it comes from.

The table is ``catalogue.toml``. Neither torch nor numpy is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.faults import Faults
from vlpbench.benchmarks.data.options import DataOptions
from vlpbench.benchmarks.data.readers.reading import Reading
from vlpbench.benchmarks.data.rows import Found

FOLDER_VARIABLE = "VLPBENCH_DATA"
"""Environment variable with the data root: the folder that has a folder for each data set."""
Kind = Literal["captions", "questions", "statements", "hypotheses", "shards"]
EVERY = "*"
"""Split of a file that all splits share."""


@dataclass(frozen=True, kw_only=True)
class FileSpec:
    """One file of annotations, and what is known to be in it."""

    split: str
    role: str
    """What it holds, by which a reader asks for it."""
    path: str
    """Below the data set's folder, or in its folder ``annotations``."""
    pictures: int | None = None
    rows: int | None = None
    """Captions, questions or statements of the split."""
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """One data set."""

    name: str
    title: str
    kind: Kind
    reader: str
    """``module:function`` below `vlpbench.benchmarks.data.readers`."""
    folder: str
    """Below the data root."""
    images: tuple[str, ...]
    """Folders of pictures below that one; the first that is there counts."""
    files: tuple[FileSpec, ...]
    """Of two files of one split and role the first that is there counts."""
    licence: str
    get: str
    """Where it comes from."""
    package: str = ""
    """Importable package that brings the files, and the folder in it; used where the data root has none."""
    beside: str = ""
    """Data set that splits are taken from which this one lacks."""
    list_from: tuple[str, ...] = ("train",)
    """Splits whose answers make up the list of answers, where no file holds it."""
    least: int = 1
    """Questions that an answer must be the answer of to be on that list."""
    drawn: bool = False
    """Whether pictures are drawn and texts are of few words, so that models start from nothing: pictures are squashed
    to the size and mapped to [-1, 1], and the vocabulary is that of the training set, whatever the architecture."""
    text_len: int = 0
    """Tokens of a text where it is ``drawn``."""
    cut: str = ""
    """Function of `vlpbench.benchmarks.data.photos` that a picture goes through first."""
    wide: int = 1
    """Widths of a picture in heights, where it is ``drawn``."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that it has files of, in order."""
        return tuple(dict.fromkeys(file.split for file in self.files if file.split != EVERY))

    def needs(self) -> str:
        """Where to get it and what it allows, to end a message."""
        return f"get it from {self.get}; licence: {self.licence}"


@cache
def catalogue() -> Mapping[str, SourceSpec]:
    """All data sets by name."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return {name: _spec(name, table) for name, table in tomllib.loads(text).items()}


def _spec(name: str, table: dict[str, Any]) -> SourceSpec:
    files = tuple(FileSpec(**({"role": table["role"]} | file)) for file in table.get("files", ()))
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    defaults: dict[str, Any] = {"folder": name, "images": ("images", ".")}
    return SourceSpec(**(defaults | {k: v for k, v in fields.items() if k != "role"} | {"name": name, "files": files}))


def folder_of(spec: SourceSpec, root: Path | None) -> Path:
    """The folder of a data set below a data root, the one of the environment where None; or that of its package.

    Raises:
        DataError: where neither is there.
    """
    given = str(root) if root is not None else os.environ.get(FOLDER_VARIABLE, "")
    folder = Path(given) / spec.folder if given else None
    if folder is not None and folder.is_dir():
        return folder
    if spec.package:
        package, _, below = spec.package.partition("/")
        found = importlib.util.find_spec(package)
        if found is not None and found.submodule_search_locations:
            return Path(found.submodule_search_locations[0]) / below
    if folder is None:
        raise DataError(
            f"{spec.name} needs its files: give the folder that has them in {spec.folder}/ with --data-root or "
            f"{FOLDER_VARIABLE}; {spec.needs()}"
        )
    raise DataError(f"{spec.name} needs its files in {folder}, which is no folder; {spec.needs()}")


@dataclass(frozen=True, kw_only=True)
class Located:
    """A data set in a folder."""

    spec: SourceSpec
    folder: Path
    images: Path

    def file(self, split: str, role: str) -> tuple[FileSpec, Path] | None:
        """The file of a split and a role that is there; None where none is."""
        for spec in self.spec.files:
            if spec.role == role and spec.split in (split, EVERY):
                for path in (self.folder / spec.path, self.folder / "annotations" / spec.path):
                    if path.is_file():
                        return spec, path
        return None

    def files(self, split: str) -> dict[str, Path]:
        """All files of a split by role.

        Raises:
            DataError: for an unknown split, listing those there are; for a file that is absent.
        """
        if split not in self.spec.splits:
            raise DataError(f"{self.spec.name} has no split {split!r}; it has {', '.join(self.spec.splits)}")
        found = {}
        for role in dict.fromkeys(file.role for file in self.spec.files if file.split == split):
            there = self.file(split, role)
            if there is None:
                names = [file.path for file in self.spec.files if (file.split, file.role) == (split, role)]
                raise DataError(f"{self.folder} has no {' or '.join(names)}; {self.spec.needs()}")
            found[role] = there[1]
        return found

    def read(self, split: str, options: DataOptions, faults: Faults) -> Found:
        """The rows of a split, and those of others in the same file.

        Raises:
            DataError: for files that are absent or of another kind; for a faulty sample if ``faults`` says so.
        """
        module, _, attribute = self.spec.reader.partition(":")
        reader = getattr(importlib.import_module(f"vlpbench.benchmarks.data.readers.{module}"), attribute)
        files = self.files(split)
        return reader(Reading(split=split, files=files, images=self.images, captions=options.captions, faults=faults))


def locate(spec: SourceSpec, folder: Path) -> Located:
    """A data set in its folder. Nothing is read."""
    images = next((folder / name for name in spec.images if (folder / name).is_dir()), folder / spec.images[0])
    return Located(spec=spec, folder=folder, images=images)
