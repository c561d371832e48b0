"""Cleaned captions and questions are those of the official functions, to the letter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vlpbench.benchmarks.data.cleaning import clean_caption, clean_question

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = {"caption": clean_caption, "question": clean_question}


def test_texts_are_cleaned_as_officially(oracle: Callable[[str], Any]) -> None:
    texts = oracle("albef_misc").meta["text"]
    seen = set()
    for text in texts:
        for key, expected in text.items():
            if found := re.fullmatch(r"pre_(caption|question)_(\d+)", key):
                kind, words = found.group(1), int(found.group(2))
                assert OURS[kind](text["input"], words) == expected, (key, text["input"])
                seen.add(kind)
    assert seen == set(OURS)
