"""What readers make of annotation files: plain rows, without a tensor in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One picture with its captions."""

    picture: str
    """Path below the image folder."""
    split: str
    captions: tuple[str, ...]

    @property
    def pictures(self) -> tuple[str, ...]:
        """The one there is."""
        return (self.picture,)

    @property
    def texts(self) -> tuple[str, ...]:
        """The captions."""
        return self.captions


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question about a picture."""

    picture: str
    text: str
    answers: tuple[str, ...] = ()
    """One of each person who was asked; empty where answers are not published."""
    chosen: str = ""
    """The answer that counts for the list of answers, where that is not the first one."""
    kind: str = "all"
    """The type of the answer, such as yes/no."""
    form: str = ""
    """The type of the question, such as "what color"."""
    number: int = 0
    """Of the question, in its data set."""

    @property
    def pictures(self) -> tuple[str, ...]:
        """The one there is."""
        return (self.picture,)

    @property
    def texts(self) -> tuple[str, ...]:
        """The question."""
        return (self.text,)

    def annotation(self) -> dict[str, Any]:
        """In the official form of VQA v2; answers are numbered from 1, as all published ones are."""
        given = [{"answer": answer, "answer_id": place} for place, answer in enumerate(self.answers, start=1)]
        kinds = {"question_type": self.form, "answer_type": self.kind}
        return {"question_id": self.number, **kinds, "answers": given}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A sentence about one or two pictures, with the label that it has been given."""

    pictures: tuple[str, ...]
    text: str
    label: str
    kind: str = "all"
    group: str = ""
    """Equal for claims that are one sentence about several pictures; empty for one that stands alone."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The sentence."""
        return (self.text,)


Row = Entry | Asked | Claim


def pictures_of(rows: Iterable[Row]) -> list[str]:
    """The pictures of rows, each once, in their order."""
    return list(dict.fromkeys(picture for row in rows for picture in row.pictures))


def count(rows: Sequence[Row]) -> dict[str, int]:
    """How many ``pictures`` and ``rows`` (captions, questions, statements) there are."""
    return {"pictures": len(pictures_of(rows)), "rows": sum(len(row.texts) for row in rows)}


Found = Mapping[str, Sequence[Row]]
"""Rows by split: the one that was asked for, and others that the same file holds."""
