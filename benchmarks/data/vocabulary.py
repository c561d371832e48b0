"""A vocabulary made of a training set's own words, for models that start from nothing on a small world."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
from vlpbench.benchmarks.data.tokens import Encoded

SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
_WORD = re.compile(r"\w+|[^\w\s]")


def split_words(text: str) -> list[str]:
    """Words and single marks, in lower case."""
    return _WORD.findall(text.lower())


class KnownWords:
    """A word a token, a mark a token, and one token for all that the training set never says.

    A `vlpbench.benchmarks.data.tokens.Tokenizer`.
    """

    pad, cls, sep, unknown = 0, 1, 2, 4
    mask: int | None = 3
    inside: frozenset[int] = frozenset()

    def __init__(self, texts: Iterable[str]) -> None:
        """Takes the words of these texts, in the order of the alphabet."""
        self.words = (*SPECIALS, *sorted({word for text in texts for word in split_words(text)}))
        self.vocab_size = len(self.words)
        self.hash = hashlib.sha256("\n".join(self.words).encode()).hexdigest()
        self._id = {word: number for number, word in enumerate(self.words)}

    def encode(self, texts: Sequence[str], length: int) -> Encoded:
        """See `vlpbench.benchmarks.data.tokens.Tokenizer`."""
        ids = np.full((len(texts), length), self.pad, np.int64)
        for row, text in zip(ids, texts, strict=True):
            known = [self._id.get(word, self.unknown) for word in split_words(text)][: length - 2]
            row[: len(known) + 2] = [self.cls, *known, self.sep]
        return Encoded(ids=ids, mask=ids != self.pad)

    def decode(self, ids: Sequence[int]) -> str:
        """The words, without start, end and padding."""
        return " ".join(self.words[number] for number in ids if number not in (self.pad, self.cls, self.sep))
