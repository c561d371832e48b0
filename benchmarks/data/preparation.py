"""How a source's files become what a model reads: the architecture's rules for pictures and texts, at a model's size.

The vocabularies are files of the user's; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlpbench.archs.inputs import BYTE_PAIRS, VOCABULARIES, Inputs
from vlpbench.benchmarks.data.base import DataError, Geometry
from vlpbench.benchmarks.data.cleaning import CLEANING
from vlpbench.benchmarks.data.images import ImagePreset, preset_of
from vlpbench.benchmarks.data.tokens import (
    BERT_CASED_SIZE,
    BERT_SIZE,
    BertTokenizer,
    ClipTokenizer,
    Encoded,
    ListTokenizer,
    PieceTokenizer,
    Tokenizer,
)

SIDES = {"tiny": 32, "small": 64, "medium": 128}
"""Side of pictures by size of the models; the architecture's own for all others."""
SHORT = 30
"""Most tokens of a text that those sizes have room for; hardly a caption has more."""
FOLDER = "tokenizers"
"""Folder beside those of the data sets in which vocabularies are looked for too."""
QUESTION_WORDS = 50
"""Words of a question that cleaning keeps, in evaluation."""


OPENERS: Mapping[str, Callable[[Path], Tokenizer]] = {
    "bert-uncased": lambda path: BertTokenizer(path, size=BERT_SIZE),
    "bert-cased": lambda path: BertTokenizer(path, size=BERT_CASED_SIZE, lower=False),
    "xlm-r": lambda path: PieceTokenizer(path, form="xlm-r"),
    "t5": lambda path: PieceTokenizer(path, form="t5"),
    "words": ListTokenizer,
}
"""What reads the file of each vocabulary in `VOCABULARIES`."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a source makes samples with."""

    preset: ImagePreset
    tokenizer: Tokenizer
    text_len: int
    """Tokens that a text has room for."""
    clean: str = ""
    """Whose cleaning, one of `CLEANING`; empty for none."""
    words: int = 0
    """Words of a caption that cleaning keeps."""

    def captions(self, texts: Sequence[str]) -> Encoded:
        """Tokens of captions, statements and hypotheses."""
        if self.clean:
            texts = [CLEANING[self.clean].caption(text, self.words) for text in texts]
        return self.tokenizer.encode(texts, self.text_len)

    def questions(self, texts: Sequence[str]) -> Encoded:
        """Tokens of questions, which released code cleans a little otherwise."""
        if self.clean:
            texts = [CLEANING[self.clean].question(text, QUESTION_WORDS) for text in texts]
        return self.tokenizer.encode(texts, self.text_len)

    def geometry(self) -> Geometry:
        """What a model must be built with."""
        tokens = self.tokenizer
        return Geometry(
            image=self.preset.size,
            text_len=self.text_len,
            vocab_size=tokens.vocab_size,
            pad=tokens.pad,
            cls=tokens.cls,
            sep=tokens.sep,
            mask=-1 if tokens.mask is None else tokens.mask,
            vocabulary=tokens.hash,
            inside=tokens.inside,
            statistics=(self.preset.mean, self.preset.std),
        )


def prepare(
    inputs: Inputs,
    *,
    size: str,
    folder: Path,
    image: tuple[int, int] | None = None,
    text_len: int | None = None,
) -> Preparation:
    """An architecture's rules at a model's size.

    Args:
        inputs: `ArchSpec.inputs` of the architecture.
        size: of the model.
        folder: of the data set. Vocabularies are looked for in it, beside it, and in the folder ``tokenizers``
            beside it.
        image: H, W that are asked for; None for the size's own.
        text_len: tokens that are asked for; None for the architecture's own.

    Raises:
        DataError: for a vocabulary that is not there or is another one, and for an image that is too small.
    """
    side = SIDES.get(size, inputs.image.side)
    return Preparation(
        preset=preset_of(inputs.image, image or (side, side)),
        tokenizer=open_vocabulary(inputs.text.vocabulary, folder),
        text_len=text_len or (min(inputs.text.length, SHORT) if size in SIDES else inputs.text.length),
        clean=inputs.text.clean,
        words=inputs.text.words,
    )


def open_vocabulary(name: str, folder: Path) -> Tokenizer:
    """The tokenizer of a vocabulary, from its file.

    Raises:
        DataError: where the file is not in any of the places, with what it is and where it comes from.
    """
    if name == BYTE_PAIRS:
        return ClipTokenizer()
    file = VOCABULARIES[name]
    places = [folder / file.name, folder.parent / FOLDER / file.name, folder.parent / file.name]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise DataError(
            f"the architecture reads {file.title}, and its file {file.name} is not there: put it into "
            f"{places[1].parent} or {folder}; it comes with {file.origin}"
        )
    return OPENERS[name](found)
