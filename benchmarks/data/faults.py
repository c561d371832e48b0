"""What is wrong with single samples of a data set: named, counted, and left out or refused as the user says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from vlpbench.benchmarks.data.base import DataError

T = TypeVar("T")
LONGEST = 2_000
"""Characters of a text; no caption, question or statement of any known set comes near it."""
NAMED = 10
"""Faulty samples of a kind that are kept by name."""


class Fault(Exception):
    """What is wrong with a sample. The message follows the sample's name, and ends in what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """A few words that samples with the same trouble share."""


@dataclass(kw_only=True)
class Faults:
    """What to do with samples that cannot be used: stop at the first, or leave them out and count them."""

    policy: Literal["skip", "fail"]
    counts: Counter[str] = field(default_factory=Counter)
    """Reason -> samples left out."""
    first: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> names of the first of them."""

    def found(self, reason: str, name: str, message: str) -> None:
        """Raises `DataError` with name and message, or counts the reason and keeps the name."""
        if self.policy == "fail":
            raise DataError(f"{name} {message}, or leave such samples out with faulty = 'skip'")
        self.counts[reason] += 1
        names = self.first.setdefault(reason, [])
        if len(names) < NAMED:
            names.append(name)

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Leaves the block at a `Fault` of the sample of this name."""
        try:
            yield
        except Fault as fault:
            self.found(fault.reason, name, str(fault))

    def left_out(self) -> dict[str, Any]:
        """For a record."""
        return {reason: {"count": count, "first": self.first[reason]} for reason, count in self.counts.items()}


@runtime_checkable
class Sifted(Protocol):
    """A source that may leave out samples that cannot be used."""

    def left_out(self) -> Mapping[str, Any]:
        """Reason -> ``count`` and ``first``, the names of the first of them; empty where all were used."""
        ...


def left_out(source: object) -> dict[str, Any]:
    """``left_out`` for a record, of a source that left something out; empty for all others."""
    found = source.left_out() if isinstance(source, Sifted) else {}
    return {"left_out": dict(found)} if found else {}


def mapping(item: object) -> dict[str, Any]:
    """The item, which must be an object of JSON."""
    if not isinstance(item, dict):
        raise Fault("malformed", f"is a {type(item).__name__} and no object: mend the file")
    return item


def need(item: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """A field of an item, of a type; True and False are no numbers."""
    found = item.get(key)
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise Fault(f"no {key}", f"has no {key!r} of type {kind.__name__}: mend the file")
    return found


def words(value: object, what: str = "text") -> str:
    """A text without the blanks around it: not empty, not endless, and such that UTF-8 can write it down."""
    if not isinstance(value, str) or not value.strip():
        raise Fault(f"no {what}", f"has no words for its {what}: mend the file")
    if len(value) > LONGEST:
        raise Fault(f"long {what}", f"has a {what} of {len(value)} characters, more than {LONGEST}: mend the file")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Fault("not UTF-8", f"has a {what} that is not UTF-8 at character {error.start}: mend the file") from None
    return value.strip()


def below(picture: object) -> str:
    """The path of a picture below the image folder, which nothing in it may lead out of."""
    path = words(picture, "picture")
    windows = PureWindowsPath(path)
    if ".." in windows.parts or windows.drive or windows.root or "\0" in path:
        raise Fault("outside", f"has the path {path!r}, which leads out of the image folder: mend the file")
    return path


def one_of(value: object, known: Mapping[str, T], what: str) -> T:
    """What a name stands for."""
    if not isinstance(value, str) or value not in known:
        raise Fault(f"unknown {what}", f"has the {what} {value!r}, none of {', '.join(known)}: mend the file")
    return known[value]
