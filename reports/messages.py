"""Messages of a catalogue: English with holes beside the same holes in another language (ADR-0006)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_END = r"(?<!\bSec)\. "
_NUMBER = r"[-+−<>]? ?\d[\d.,]*(?: ?[%×])?"
HOLES: dict[str, str] = {
    "": rf"((?:(?!{_END}).)+?)",
    "list": rf"((?:(?!{_END}).)+?)",
    "term": rf"((?:(?!{_END}|(?<! ): |; ).)+?)",
    "n": rf"({_NUMBER})",
    "q": rf"({_NUMBER}(?: [A-Za-zµ/]+)?)",
    "id": r"([^\s,;]*[^\s,;.:])",
    "raw": rf"((?:(?!{_END}|; ).)+?)",
    "all": rf"((?:(?!{_END}).)+?)",
    "date": r"(\d{4}-\d\d-\d\d)",
}
"""Kind of a hole -> what fits. Words are translated in turn and stay within a sentence; a ``term`` within a clause; the
items of a ``list`` are joined as the language does. Carried over are a number ``n``, one with its unit ``q``, a name
without spaces ``id``, a ``date``, names with spaces within a clause (``raw``) or within a sentence (``all``)."""
CARRIED = ("n", "q", "id", "raw", "all", "date")
HOLE = re.compile(r"\{(\w+)(?::(\w+))?\}")


class LanguageError(Exception):
    """A catalogue that cannot be used; the message names the entry."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message with holes."""

    english: str
    other: str
    holes: tuple[tuple[str, str], ...]
    """Name and kind, in the order of the English text."""
    pattern: re.Pattern[str]
    anchor: str
    """Its longest part without a hole, looked for before the pattern is tried."""
    known: int
    """Characters outside of holes: of two messages that fit, the one with more says more exactly what was meant."""


def message(english: str, other: str) -> Message:
    """One entry of a catalogue.

    Raises:
        LanguageError: for a hole of a kind that is not known, or holes that are not the same on both sides.
    """
    parts = HOLE.split(english)
    literals, holes = parts[::3], tuple((name, kind or "") for name, kind in zip(parts[1::3], parts[2::3], strict=True))
    unknown = [kind for _, kind in holes if kind not in HOLES]
    if unknown:
        raise LanguageError(
            f"{english!r} has a hole of kind {unknown[0]!r}; there are {', '.join(filter(None, HOLES))}"
        )
    names, others = sorted(name for name, _ in holes), sorted(name for name, _ in HOLE.findall(other))
    if names != others:
        raise LanguageError(f"{english!r} has the holes {names}, and its translation {other!r} has {others}")
    tail = "".join(HOLES[kind] + _literal(after) for (_, kind), after in zip(holes, literals[1:], strict=True))
    return Message(
        english=english,
        other=other,
        holes=holes,
        pattern=re.compile(_literal(literals[0]) + tail, re.DOTALL),
        anchor=max(literals, key=len),
        known=sum(map(len, literals)),
    )


def _literal(text: str) -> str:
    """A pattern for what stands between holes; a colon is one behind a word, not that of ``image 3 : text 1``."""
    return ("(?<! )" if text.startswith(": ") else "") + re.escape(text)
