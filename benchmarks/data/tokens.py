"""Tokenizers over local vocabularies: words, WordPiece, byte pairs, SentencePiece. Nothing is ever downloaded.

All return right-padded ids of one length that start with a start token and end with an end token; a text that is too
long loses words at its end and keeps the end token, as in the official implementations.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from vlpbench.archs.registry import nearest
from vlpbench.benchmarks.data.base import DataError

BERT_SIZE = 30_522
"""Lines of the vocabulary of bert-base-uncased."""
BERT_CASED_SIZE = 28_996
"""The same of bert-base-cased."""
_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Texts as numbers, M texts of L tokens."""

    ids: np.ndarray
    """(M, L) int64."""
    mask: np.ndarray
    """(M, L) bool, False at padding. Not to be read off the ids: CLIP pads with 0, which is also its "!"."""


class Tokenizer(Protocol):
    """What all tokenizers offer."""

    vocab_size: int
    pad: int
    cls: int
    sep: int
    mask: int | None
    """None where the vocabulary knows no mask token, so that nothing can be masked."""
    hash: str
    """Of the file that the vocabulary was read from; empty where there is none."""
    inside: frozenset[int]
    """Tokens that go on with the word before them."""

    def encode(self, texts: Sequence[str], length: int) -> Encoded:
        """Ids of ``length`` tokens a text, start and end token included."""
        ...


class WordTokenizer:
    """A word a token; the vocabulary is a list that starts with [PAD], [CLS], [SEP], [MASK]."""

    pad, cls, sep = 0, 1, 2
    mask: int | None = 3
    hash = ""
    inside: frozenset[int] = frozenset()

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.vocab_size = len(self.words)
        self._id = {word: number for number, word in enumerate(self.words)}

    def encode(self, texts: Sequence[str], length: int) -> Encoded:
        """See `Tokenizer`.

        Raises:
            DataError: for a word that is not in the vocabulary, with the nearest one.
        """
        return _pack([[self._number(word) for word in text.split()] for text in texts], length, self)

    def decode(self, ids: Sequence[int]) -> str:
        """The words, without start, end and padding."""
        return " ".join(self.words[number] for number in ids if number not in (self.pad, self.cls, self.sep))

    def _number(self, word: str) -> int:
        if word not in self._id:
            raise DataError(nearest("word", word, list(self.words[4:])))
        return self._id[word]


class BertTokenizer:
    """WordPiece over a vocabulary file with one token a line."""

    def __init__(self, path: Path, *, size: int | None = BERT_SIZE, lower: bool = True) -> None:
        """Reads the vocabulary.

        Args:
            path: the file, usually called ``vocab.txt``.
            size: lines that it must have, None for any number.
            lower: whether texts are read in lower case and without accents.

        Raises:
            DataError: for a file that is absent or is not such a vocabulary.
        """
        from tokenizers import Tokenizer as Pipeline
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        vocabulary = _read_vocabulary(path, size)
        self.vocab_size, self.hash = len(vocabulary), _hash(path)
        self.inside = frozenset(number for token, number in vocabulary.items() if token.startswith("##"))
        self.pad, self.unknown, self.cls, self.sep, mask = (vocabulary[name] for name in _BERT_SPECIALS)
        self.mask: int | None = mask
        self._pipeline = Pipeline(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
        self._pipeline.normalizer = BertNormalizer(lowercase=lower)
        self._pipeline.pre_tokenizer = BertPreTokenizer()

    def encode(self, texts: Sequence[str], length: int) -> Encoded:
        """See `Tokenizer`. The specials written out in a text are ordinary characters."""
        encoded = self._pipeline.encode_batch(list(texts), add_special_tokens=False)
        return _pack([one.ids for one in encoded], length, self)


class ClipTokenizer:
    """CLIP's lower-cased byte-pair encoding, whose vocabulary comes with open_clip. It has no mask token."""

    mask: int | None = None
    pad = 0
    hash = ""
    inside: frozenset[int] = frozenset()

    def __init__(self) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._pairs = SimpleTokenizer()
        self.vocab_size = self._pairs.vocab_size
        self.cls, self.sep = self._pairs.sot_token_id, self._pairs.eot_token_id

    def encode(self, texts: Sequence[str], length: int) -> Encoded:
        """See `Tokenizer`."""
        return _pack([self._pairs.encode(text) for text in texts], length, self)


class PieceTokenizer:
    """A SentencePiece vocabulary in the form of T5 or of XLM-R, which number its pieces differently.

    T5 has no start token: what its decoder starts from is padding, and so are texts here.
    """

    def __init__(self, path: Path, *, form: Literal["t5", "xlm-r"]) -> None:
        """Reads the vocabulary.

        Raises:
            DataError: for a file that is absent or is not such a vocabulary.
        """
        from sentencepiece import SentencePieceProcessor

        if not path.is_file():
            raise DataError(f"there is no vocabulary {path}; give a SentencePiece model")
        self._pieces = SentencePieceProcessor()
        try:
            self._pieces.Load(str(path))
        except (RuntimeError, OSError) as error:
            raise DataError(f"{path} is not a SentencePiece model ({error}); fetch it again") from error
        self.form, self.hash, count = form, _hash(path), self._pieces.GetPieceSize()
        self._unknown = self._pieces.unk_id()
        if form == "t5":
            self.pad, self.cls, self.sep, self.mask = 0, 0, self._pieces.eos_id(), None
            self.vocab_size = count
        else:
            # fairseq's four, the pieces behind the model's own three, then the mask.
            self.cls, self.pad, self.sep, self.mask = 0, 1, 2, count + 1
            self.vocab_size = count + 2
        self.inside = frozenset(
            piece + (form == "xlm-r")
            for piece in range(count)
            if not (self._pieces.IsControl(piece) or self._pieces.IsUnknown(piece))
            and not self._pieces.IdToPiece(piece).startswith("\u2581")
        )
        if self.sep < 0 or self._unknown < 0:
            raise DataError(f"{path} is no vocabulary of this form: it has no token of end or none of the unknown")

    def encode(self, texts: Sequence[str], length: int) -> Encoded:
        """See `Tokenizer`."""
        rows: list[list[int]] = self._pieces.EncodeAsIds(list(texts))
        if self.form == "xlm-r":
            rows = [[3 if piece == self._unknown else piece + 1 for piece in row] for row in rows]
        return _pack(rows, length, self)


class ListTokenizer:
    """Lower-case words of a JSON file with ``word2idx``, the form of VSE++'s vocabularies; it has no mask token.

    Words are cut as its released code's are, by the rules of the Penn treebank: punctuation stands alone, and so does
    what is shortened ("is n't", "man 's").
    """

    mask: int | None = None
    inside: frozenset[int] = frozenset()
    _WORD = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|m|d|ll|re|ve)\b|\w+(?:-\w+)*(?:[.,]\d+)*|[^\w\s]")

    def __init__(self, path: Path) -> None:
        """Reads the vocabulary.

        Raises:
            DataError: for a file that is absent or is not such a vocabulary.
        """
        remedy = "give the vocabulary of VSE++'s data, an object with 'word2idx'"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"the vocabulary {path} cannot be read ({error}); {remedy}") from error
        known = content.get("word2idx") if isinstance(content, dict) else None
        if not isinstance(known, dict) or not all(isinstance(number, int) for number in known.values()):
            raise DataError(f"{path} is not a vocabulary: it has no 'word2idx' of numbers; {remedy}")
        missing = [name for name in ("<pad>", "<start>", "<end>", "<unk>") if name not in known]
        if missing or sorted(known.values()) != list(range(len(known))):
            what = f"has no {', '.join(missing)}" if missing else "does not number its words from 0 on"
            raise DataError(f"{path} is not a vocabulary: it {what}; {remedy}")
        self._id: dict[str, int] = known
        self.vocab_size, self.hash = len(known), _hash(path)
        self.pad, self.cls, self.sep = known["<pad>"], known["<start>"], known["<end>"]

    def encode(self, texts: Sequence[str], length: int) -> Encoded:
        """See `Tokenizer`."""
        unknown = self._id["<unk>"]
        rows = [[self._id.get(word, unknown) for word in self._WORD.findall(text.lower())] for text in texts]
        return _pack(rows, length, self)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _pack(rows: list[list[int]], length: int, tokenizer: Tokenizer) -> Encoded:
    if length < 2:
        raise ValueError(f"a text needs room for its start and end token: length must be at least 2, not {length}")
    ids = np.full((len(rows), length), tokenizer.pad, np.int64)
    size = np.array([min(len(row), length - 2) + 2 for row in rows], np.int64)
    ids[:, 0] = tokenizer.cls
    for line, row, end in zip(ids, rows, size, strict=True):
        line[1 : end - 1] = row[: end - 2]
        line[end - 1] = tokenizer.sep
    return Encoded(ids=ids, mask=np.arange(length) < size[:, None])


def _read_vocabulary(path: Path, size: int | None) -> dict[str, int]:
    remedy = "give the vocab.txt of bert-base-uncased, one token a line"
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise DataError(f"the vocabulary {path} cannot be read ({error.strerror}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a vocabulary: it is not UTF-8 text at byte {error.start}; {remedy}") from error
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(line.removesuffix("\r") for line in lines):
        if not token or token in vocabulary:
            what = f"repeats {token!r}" if token else "is empty"
            raise DataError(f"{path} is not a vocabulary: line {number + 1} {what}; {remedy}")
        vocabulary[token] = number
    missing = [name for name in _BERT_SPECIALS if name not in vocabulary]
    if missing:
        raise DataError(f"{path} is not a BERT vocabulary: it has no {', '.join(missing)}; {remedy}")
    if size is not None and len(vocabulary) != size:
        raise DataError(f"the vocabulary {path} has {len(vocabulary)} tokens and {size} are expected; {remedy}")
    return vocabulary
