"""What each architecture is given: how its paper and its code make pixels of a picture and tokens of a text.

Data without torch or numpy, which listings and plans read; `vlpbench.benchmarks.data.reading` does as it says. Random
crops, flips and colours of training are not in it: every picture is read as it is read in evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Triple = tuple[float, float, float]
Vocabulary = Literal["bert-uncased", "bert-cased", "clip", "xlm-r", "t5", "words"]
WEB: tuple[Triple, Triple] = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and deviation of the pictures that CLIP was trained on, which most models after it took over."""
HALF: tuple[Triple, Triple] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""To [-1, 1]."""
IMAGENET: tuple[Triple, Triple] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE: tuple[Triple, Triple] = (0.4814576, 0.4546922, 0.4038435), (1 / 255, 1 / 255, 1 / 255)
"""Of the detector's ResNet: 0 to 255, centred."""


STRICT, LIGHT = "albef", "blip"
"""Whose way of cleaning texts: all punctuation out, or all but , ' ? - and /."""
BYTE_PAIRS = "clip"
"""The vocabulary that comes with open_clip, and has no file of the user's."""
PAIRS_TITLE = "CLIP's byte pairs, lower case"


@dataclass(frozen=True, kw_only=True)
class VocabularyFile:
    """A vocabulary that the user brings."""

    title: str
    name: str
    origin: str
    """What it comes with."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How a picture becomes an image."""

    fit: Literal["crop", "squash", "within"]
    """``crop``: the picture covers the size and its middle is kept. ``squash``: all of it is kept, out of shape.
    ``within``: all of it is kept in shape, shorter side given, longer side bounded; what is left of the batch's canvas
    is zero."""
    side: int = 224
    """Pixels of the shorter side in evaluation, of a model at full size."""
    filter: Literal["bicubic", "bilinear"] = "bicubic"
    statistics: tuple[Triple, Triple] = WEB
    """Mean and deviation of RGB in [0, 1]."""
    cover: float = 1.0
    """``crop``: the side that is covered, in sides that are kept."""
    longest: float = 1.0
    """``within``: bound of the longer side, in shorter sides."""
    multiple: int = 1
    """``within``: sides are cut to multiples of it."""
    note: str = ""

    def described(self) -> str:
        """In one line, for people."""
        what = {
            "crop": f"shorter side to {round(self.side * self.cover)}, middle {self.side} x {self.side}",
            "squash": f"to {self.side} x {self.side}, out of shape",
            "within": f"shorter side to {self.side}, longer at most {int(self.side * self.longest)}, in shape",
        }[self.fit]
        cut = f", cut to multiples of {self.multiple}" if self.multiple > 1 else ""
        mean, std = (", ".join(f"{x:.3g}" for x in values) for values in self.statistics)
        return f"{what}{cut}; {self.filter}; mean {mean}; deviation {std}" + (f"; {self.note}" if self.note else "")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How a text becomes tokens."""

    vocabulary: Vocabulary
    length: int
    """Tokens of the longest text in evaluation, start and end included."""
    clean: Literal["", "albef", "blip"] = ""
    """Whose released code takes punctuation out first; empty leaves texts as they are."""
    words: int = 0
    """Words of a caption that cleaning keeps."""

    def described(self) -> str:
        """In one line, for people."""
        first = f"; lower case, punctuation out as {self.clean}'s, at most {self.words} words" if self.clean else ""
        title = PAIRS_TITLE if self.vocabulary == BYTE_PAIRS else VOCABULARIES[self.vocabulary].title
        return f"{title}, at most {self.length} tokens{first}"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Both sides of a pair."""

    image: Pixels
    text: Tokens


VOCABULARIES: Mapping[str, VocabularyFile] = {
    "bert-uncased": VocabularyFile(
        title="BERT's WordPiece, lower case", name="vocab.txt", origin="the model bert-base-uncased"
    ),
    "bert-cased": VocabularyFile(
        title="BERT's WordPiece, upper and lower case",
        name="vocab-cased.txt",
        origin="the model bert-base-cased, as vocab.txt",
    ),
    "xlm-r": VocabularyFile(
        title="XLM-R's form of a SentencePiece vocabulary",
        name="beit3.spm",
        origin="the released checkpoints of BEiT-3",
    ),
    "t5": VocabularyFile(
        title="T5's form of a SentencePiece vocabulary", name="spiece.model", origin="the models mt5-small to mt5-xxl"
    ),
    "words": VocabularyFile(
        title="a list of words",
        name="vocab.json",
        origin="the released data of VSE++, as coco_vocab.json or f30k_vocab.json",
    ),
}
"""By the name that `Tokens` gives it; `BYTE_PAIRS` needs none."""
_SQUASH = Pixels(fit="squash")
_BERT = Tokens(vocabulary="bert-uncased", length=40)
DEFAULT = Inputs(image=_SQUASH, text=_BERT)
"""Of an architecture that says nothing."""
_CLIP = Inputs(image=Pixels(fit="crop"), text=Tokens(vocabulary="clip", length=77))
_REGIONS = Pixels(
    fit="within",
    side=600,
    longest=1000 / 600,
    filter="bilinear",
    statistics=_CAFFE,
    note="in the order BGR, for the detector, whose regions the model reads",
)

PUBLISHED: Mapping[str, Inputs] = {
    "vsepp": Inputs(
        image=Pixels(fit="crop", cover=256 / 224, filter="bilinear", statistics=IMAGENET),
        text=Tokens(vocabulary="words", length=60),
    ),
    "vilbert": Inputs(image=_REGIONS, text=Tokens(vocabulary="bert-uncased", length=36)),
    "uniter": Inputs(image=_REGIONS, text=Tokens(vocabulary="bert-cased", length=60)),
    "clip": _CLIP,
    "coca": replace(_CLIP, text=replace(_CLIP.text, length=76)),
    "vilt": Inputs(
        image=Pixels(fit="within", side=384, longest=1333 / 800, multiple=32, statistics=HALF),
        text=_BERT,
    ),
    "albef": Inputs(image=_SQUASH, text=Tokens(vocabulary="bert-uncased", length=30, clean="albef", words=30)),
    "blip": Inputs(image=_SQUASH, text=Tokens(vocabulary="bert-uncased", length=35, clean="blip", words=30)),
    "vlmo": Inputs(image=replace(_SQUASH, statistics=HALF), text=_BERT),
    "beit3": Inputs(image=replace(_SQUASH, statistics=HALF), text=Tokens(vocabulary="xlm-r", length=64)),
    "pali": Inputs(
        image=replace(_SQUASH, filter="bilinear", statistics=HALF),
        text=Tokens(vocabulary="t5", length=64),
    ),
}
"""By architecture: the released code's, PaLI's by its authors' later release. Sides are those of pre-training; a
checkpoint that was fine-tuned at another size says so by its positions."""
