"""A report in another language: made in English, then said again message by message from a catalogue (ADR-0006).

A message of the catalogue is English with holes, ``{n:n} of {all:n} seeds``, and stands beside the same holes in the
other language. What a hole holds is carried over from the English text, so no number can differ.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from html import escape, unescape
from pathlib import Path
from typing import Any, TypeVar

from vlpbench.reports.messages import CARRIED, HOLE, LanguageError, Message, message

ENGLISH = "en"
LANGUAGES = (ENGLISH, "zh")
"""What a report can be written in."""
VERBATIM = frozenset({"name", "record", "records", "family", "kind", "better", "unit", "command", "fields"})
"""Fields of what a report is made of that hold no words for a reader: ids, file names, commands, stored units."""

_WORD = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]+(?![A-Za-z0-9])")
_ENGLISH = re.compile(r"[A-Z]?[a-z]{2,}")
_SENTENCE = re.compile(r"(?<!\bSec\.)(?<=[.!?]) (?=\S)")
_CODE = re.compile(r"`[^`]*`")
_DRAWN = re.compile(r"(<(?:text|tspan)\b[^>]*>)([^<]+)(?=</)")
_HAN, _WIDE = "\u4e00-\u9fff", "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef"
_SUPERFLUOUS = re.compile(f"(?<=[{_WIDE}]) (?=[{_WIDE}])")
_MISSING = re.compile(f"(?<=[{_HAN}])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9%×])(?=[{_HAN}])")

Thing = TypeVar("Thing")


class Language:
    """Says English texts in another language, from a catalogue."""

    def __init__(
        self,
        code: str,
        tag: str,
        messages: Sequence[Message] = (),
        *,
        keep: Sequence[str] = (),
        comma: str = ", ",
        last: str = " and ",
        clause: str = "; ",
        stop: str = ".",
    ) -> None:
        self.code = code
        self.tag = tag
        """For ``<html lang>``."""
        self.keep = frozenset(keep)
        """English words that stay: names of options, fields, data sets and units."""
        self.comma, self.last, self.clause, self.stop = comma, last, clause, stop
        """Between the items of an enumeration, before its last item, between clauses, and behind a sentence."""
        self._plain = {one.english: one.other for one in messages if not one.holes}
        self._holed = sorted((one for one in messages if one.holes), key=lambda one: -one.known)
        self._said: dict[str, str] = {}

    @property
    def english(self) -> bool:
        """Whether nothing has to be said again."""
        return self.code == ENGLISH

    def say(self, text: str) -> str:
        """The text in this language; what the catalogue does not hold stays as it is."""
        if self.english or not _ENGLISH.search(text):
            return text
        if text not in self._said:
            inner = text.strip()
            start = text.index(inner)
            found = self._say(inner)
            self._said[text] = text[:start] + (found if found == inner else _spaced(found)) + text[start + len(inner) :]
        return self._said[text]

    def left(self, text: str) -> list[str]:
        """English words of a text that neither are names nor stay English on purpose."""
        found = _WORD.findall(_CODE.sub("", text))
        return [word for word in found if _ENGLISH.fullmatch(word) and word not in self.keep]

    def _say(self, text: str) -> str:
        whole, left = self._whole(text)
        if whole is not None and left == 0:
            return whole
        sentences = _SENTENCE.split(text)
        if len(sentences) > 1:
            ways = (whole, _joined([self.say(sentence) for sentence in sentences]))
        else:
            ended = f"{self.say(text[:-1])}{self.stop}" if text.endswith(".") else None
            ways = (whole, self._clauses(text), self._listed(text), ended)
        return min(filter(None, (*ways, text)), key=lambda way: len(self.left(way)))

    def _whole(self, text: str) -> tuple[str | None, int]:
        """The text by one message of the catalogue, and how many words stay English that were not to be carried over.

        Of several messages that fit the one that leaves least. A text that is not in the catalogue may look like an
        entry: then most of its words are left in the holes, and there is none.
        """
        if text in self._plain:
            return self._plain[text], 0
        best, fewest, words = None, 0, len(self.left(text))
        for one in self._holed:
            if one.anchor not in text or not (held := one.pattern.fullmatch(text)):
                continue
            found = self._filled(one, held.groups())
            kept = zip(one.holes, held.groups(), strict=True)
            carried = sum(len(self.left(word)) for (_, kind), word in kept if kind in ("raw", "all"))
            left = len(self.left(found)) - carried
            if 2 * left <= words - carried and (best is None or left < fewest):
                best, fewest = found, left
            if best is not None and fewest == 0:
                break
        return best, fewest

    def _clauses(self, text: str) -> str | None:
        """Messages one behind the other with semicolons, which may stand within a message too: parted where least is
        left in English."""
        parts = [part for part, _ in _pieces(text, ("; ",))]
        ways = []
        for end in range(1, len(parts)):
            head, tail = (self.say("; ".join(some)) for some in (parts[:end], parts[end:]))
            ways.append(f"{head.removesuffix(self.stop)}{self.clause}{tail}")
        return min(ways, key=lambda way: len(self.left(way)), default=None)

    def _filled(self, one: Message, held: Sequence[str]) -> str:
        values = {
            name: word if kind in CARRIED else self._enumerated(word) if kind == "list" else self.say(word)
            for (name, kind), word in zip(one.holes, held, strict=True)
        }
        return HOLE.sub(lambda hole: values[hole[1]], one.other)

    def _enumerated(self, text: str) -> str:
        """``a, b and c``, joined as the language joins."""
        marks = {", ": self.comma, " and ": self.last, "": ""}
        return "".join(self.say(part) + marks[mark] for part, mark in _pieces(text, tuple(filter(None, marks))))

    def _listed(self, text: str) -> str:
        """Settings and names with commas between them: all parts of it translated, or left alone."""
        pieces = _pieces(text, ("; ", ", ", " and ", " · "))
        if len(pieces) < 2:
            return text
        marks = {"; ": self.clause, " and ": self.last}
        found = "".join(self.say(part) + marks.get(mark, mark) for part, mark in pieces)
        return text if self.left(found) else found


@cache
def language(code: str) -> Language:
    """A language by its code.

    Raises:
        LanguageError: for a code that is none of `LANGUAGES`, or a catalogue that is wrong.
    """
    if code not in LANGUAGES:
        raise LanguageError(f"there is no report in {code!r}; there is {', '.join(LANGUAGES)}")
    return Language(ENGLISH, ENGLISH) if code == ENGLISH else _read(code)


def catalogue(code: str) -> Mapping[str, Any]:
    """The file of a language: its settings, and its messages by section."""
    return tomllib.loads(Path(__file__).with_name(f"{code}.toml").read_text(encoding="utf-8"))


def _read(code: str) -> Language:
    found, seen = catalogue(code), dict(_quotes()) if code == "zh" else {}
    for section, entries in found["messages"].items():
        for english, other in entries.items():
            if english in seen:
                raise LanguageError(f"{english!r} stands twice in {code}.toml, the second time in [messages.{section}]")
            seen[english] = message(english, other)
    return Language(code, messages=tuple(seen.values()), **found["language"])


def _quotes() -> Iterator[tuple[str, Message]]:
    """Claims were Chinese sentences first: what their file calls the gloss is the translation."""
    for claim in tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf-8"))["claim"]:
        yield claim["gloss"], message(claim["gloss"], claim["quote"])


def translated(thing: Thing, into: Language) -> Thing:
    """The same dataclass, tuple or dictionary with every text said again; drawings too, whose words are text.

    Records are data and stay as they are, and so do fields in `VERBATIM`.
    """
    return thing if into.english else _translated(thing, into)


def _translated(thing: Any, into: Language) -> Any:
    if isinstance(thing, str):
        return into.say(thing)
    if isinstance(thing, (tuple, list)):
        return type(thing)(_translated(part, into) for part in thing)
    if isinstance(thing, dict):
        return {key: _translated(value, into) for key, value in thing.items()}
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **dict(_fields(thing, into)))
    return thing


def _fields(thing: Any, into: Language) -> Iterator[tuple[str, Any]]:
    for field in fields(thing):
        value = getattr(thing, field.name)
        if field.name == "drawing":
            yield field.name, drawn(value, into)
        elif field.name not in VERBATIM and field.init:
            yield field.name, _translated(value, into)


def drawn(svg: str, into: Language) -> str:
    """An SVG with its words said again."""
    return _DRAWN.sub(lambda found: found[1] + escape(into.say(unescape(found[2])), quote=False), svg)


def _joined(sentences: Sequence[str]) -> str:
    """Sentences one after the other, with a space behind those that end as English ones do."""
    return "".join(s if s.endswith(("。", "！", "？")) else f"{s} " for s in sentences).rstrip()


def _pieces(text: str, marks: Sequence[str]) -> list[tuple[str, str]]:
    """Parts of a text and the mark behind each, empty behind the last; marks within brackets do not part."""
    found, start, depth, place = [], 0, 0, 0
    while place < len(text):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        mark = next((m for m in marks if depth == 0 and text.startswith(m, place)), None)
        if mark is None:
            place += 1
            continue
        found.append((text[start:place], mark))
        place += len(mark)
        start = place
    return [*found, (text[start:], "")]


def _spaced(text: str) -> str:
    """A space between Chinese and Latin letters or digits, and none between Chinese ones."""
    return _MISSING.sub(" ", _SUPERFLUOUS.sub("", text))
