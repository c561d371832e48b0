"""CIDEr and BLEU-4 of captions, by the code that COCO's captions are scored with. Needs no Java: texts are in words
already, and the tokenizer, which does need it, is left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass

from vlpbench.archs.types import Unsupported

PACKAGE = "pycocoevalcap"


@dataclass(frozen=True, kw_only=True)
class CaptionScore:
    """Of a set of captions. CIDEr depends on the whole set: rare words weigh more."""

    cider: float
    """Mean of CIDEr-D (Vedantam et al., 2015, arXiv:1411.5726), 10 at most; papers print 100 times it."""
    bleu4: float
    """Percent; of the whole set (Papineni et al., 2002), brevity by the closest reference."""
    each: tuple[float, ...]
    """CIDEr-D of every caption."""


def require() -> None:
    """Raises `Unsupported` where the package is missing, with what to install."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise Unsupported(f"captions are scored by {PACKAGE}, which is not here: pip install 'vlpbench[captions]'")


def caption_score(written: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScore:
    """Scores one caption of each image against the image's references, all of words between single spaces.

    Raises:
        Unsupported: without the package.
        ValueError: for lists of different lengths, or an image without a reference.
    """
    require()
    from pycocoevalcap.bleu.bleu import Bleu  # pyright: ignore[reportMissingImports]  # an extra
    from pycocoevalcap.cider.cider import Cider  # pyright: ignore[reportMissingImports]

    if len(written) != len(references) or not all(references):
        raise ValueError(f"{len(written)} captions for {len(references)} images, each of which needs a reference")
    right = {number: list(texts) for number, texts in enumerate(references)}
    given = {number: [text] for number, text in enumerate(written)}
    cider, each = Cider().compute_score(right, given)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints lengths
        bleu, _ = Bleu(4).compute_score(right, given)
    return CaptionScore(cider=float(cider), bleu4=100 * float(bleu[3]), each=tuple(float(value) for value in each))
