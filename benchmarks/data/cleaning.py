"""Captions and questions as released code cleans them before it makes tokens of them: ALBEF's, and BLIP's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlpbench.archs.inputs import LIGHT, STRICT

_DROPPED = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~"), "-": " ", "/": " "})
"""ALBEF: punctuation goes, and what joins words becomes a space."""
_BLIP = '.!"()*#:;~'
"""Commas, apostrophes, question marks, hyphens and slashes stay."""
_SPACED, _GONE = str.maketrans(dict.fromkeys(_BLIP, " ")), str.maketrans(dict.fromkeys(_BLIP))


def clean_caption(text: str, words: int) -> str:
    """Lower case without punctuation, words a space apart, at most ``words`` of them (ALBEF)."""
    return _first(_narrow(text.lower().translate(_DROPPED).replace("<person>", "person")), words)


def clean_question(text: str, words: int) -> str:
    """The same, but spaces stay as they are, but for those at the end, and two in a row hold an empty word."""
    return _first(text.lower().translate(_DROPPED).rstrip(" "), words)


def blip_caption(text: str, words: int) -> str:
    """Lower case, a space for each mark but , ' ? - and /, words a space apart, at most ``words`` of them (BLIP)."""
    return _first(_narrow(text.lower().translate(_SPACED)), words)


def blip_question(text: str, words: int) -> str:
    """The same marks dropped, and spaces left as they are but for those at the end."""
    return _first(text.lower().translate(_GONE).rstrip(" "), words)


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """One release's two functions of a text and the most words it may keep."""

    caption: Callable[[str, int], str]
    question: Callable[[str, int], str]


CLEANING: Mapping[str, Cleaning] = {
    STRICT: Cleaning(caption=clean_caption, question=clean_question),
    LIGHT: Cleaning(caption=blip_caption, question=blip_question),
}
"""By release."""


def _narrow(text: str) -> str:
    return re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")


def _first(text: str, words: int) -> str:
    return " ".join(text.split(" ")[:words])
