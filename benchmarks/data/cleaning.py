"""Captions and questions as ALBEF's release cleans them before it makes tokens of them (and BLIP's its captions)."""

from __future__ import annotations

import re

_DROPPED = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~"), "-": " ", "/": " "})
"""Punctuation goes, and what joins words becomes a space."""


def clean_caption(text: str, words: int) -> str:
    """Lower case without punctuation, words a space apart, at most ``words`` of them."""
    text = text.lower().translate(_DROPPED).replace("<person>", "person")
    return _first(re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" "), words)


def clean_question(text: str, words: int) -> str:
    """The same, but spaces stay as they are, but for those at the end, and two in a row hold an empty word."""
    return _first(text.lower().translate(_DROPPED).rstrip(" "), words)


def _first(text: str, words: int) -> str:
    return " ".join(text.split(" ")[:words])
