"""Whether masked-word prediction uses the image: accuracy with a caption's own image and with another one's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vlpbench.archs.model import take
from vlpbench.archs.types import Text, Unsupported
from vlpbench.benchmarks import scoring
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.metrics import Rate
from vlpbench.benchmarks.train import cache_folder, open_data, pretrain, text_to

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.archs.learner import SpecialTokens
    from vlpbench.benchmarks.data.base import Gallery
    from vlpbench.benchmarks.scoring import Engine
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

OBJECTIVE = "mlm"
GALLERY = "test"
CAPTIONS = 1_000
"""Captions of a larger gallery that are looked at, the first ones."""
PAIRED = 512
"""Masked captions fused at once."""
SEED = 0
"""Of the wrong images: the same ones for every model and training."""


class Grounding:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Samples are percent, one each.

        Raises:
            Unsupported: for a cell that does not train masked words, before it is trained, or a gallery of one image.
        """
        if OBJECTIVE not in cell.objectives:
            raise Unsupported(
                f"masked words are learnt by {OBJECTIVE}, which is not among {', '.join(cell.objectives)}"
            )
        source = open_data(cell)
        gallery = source.gallery(GALLERY)
        wrong = another(gallery.images, np.random.default_rng(SEED))
        with subject.settings(), cache_folder() as cache:
            trained = pretrain(subject, source, cache=cache)
            engine = scoring.Engine(learner=trained.learner, device=subject.device, autocast=subject.autocast)
            holes = holes_of(gallery, subject.tokens)
            own = gallery.owner[holes.caption]
            right, shuffled = (hits(engine, gallery, holes, image) for image in (own, wrong[own]))
        found = {"right": right, "shuffled": shuffled}
        rates = {name: Rate(hits=int(hit.sum()), total=len(hit)) for name, hit in found.items()}
        return Samples(
            values={f"mlm_{name}": [rate.percent] for name, rate in rates.items()},
            detail={
                "data_hash": source.hash,
                "pretraining": trained.detail(),
                "gallery": GALLERY,
                "captions": len(np.unique(holes.caption)),
                "words": len(right),
                "intervals": {name: rate.interval() for name, rate in rates.items()},
                "commonest": commonest(holes.label),
                "correct": {name: _bits(hit) for name, hit in found.items()},
                "label": holes.label.tolist(),
            },
        )


@dataclass(frozen=True, kw_only=True)
class Holes:
    """Words to predict, caption after caption, each from all the others."""

    caption: np.ndarray
    """(P,) int64 text of the gallery."""
    position: np.ndarray
    """(P,) int64 place of the word that is hidden."""
    label: np.ndarray
    """(P,) int64 token id that was there."""
    ids: Tensor
    """(P, L) int64 with the one word masked."""
    mask: Tensor
    """(P, L) bool."""


def holes_of(gallery: Gallery, tokens: SpecialTokens) -> Holes:
    """Every word of the gallery's (first) captions once; class, end and padding tokens are no words."""
    rows = np.arange(min(gallery.texts, CAPTIONS))
    text = gallery.text_batch(rows)
    special = [token for token in (tokens.pad, tokens.cls, tokens.sep) if token is not None]
    words = text.mask & ~torch.isin(text.ids, torch.tensor(special))
    caption, position = words.nonzero(as_tuple=True)
    ids = text.ids[caption].clone()
    place = torch.arange(len(caption))
    label = ids[place, position].clone()
    ids[place, position] = tokens.mask
    return Holes(
        caption=rows[caption.numpy()],
        position=position.numpy(),
        label=label.numpy(),
        ids=ids,
        mask=text.mask[caption],
    )


def another(images: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) for each image a different one, each once: the next on a random round trip through all of them.

    Raises:
        Unsupported: for a single image.
    """
    if images < 2:
        raise Unsupported(f"a gallery of {images} image has no other one to show")
    tour = rng.permutation(images)
    found = np.empty_like(tour)
    found[tour] = np.roll(tour, -1)
    return found


def hits(engine: Engine, gallery: Gallery, holes: Holes, image: np.ndarray) -> np.ndarray:
    """(P,) bool, whether the likeliest word is the one that was there, beside image ``image`` (P,) of the gallery."""
    learner, device, found = engine.learner, engine.device, []
    model: Any = learner.model
    head: Any = learner.objectives[OBJECTIVE]
    with scoring.evaluating(learner):
        for part in torch.arange(len(image)).split(PAIRED):
            shown, place = np.unique(image[part.numpy()], return_inverse=True)
            text = text_to(Text(ids=holes.ids[part], mask=holes.mask[part]), device)
            with engine.autocast():
                image_state = take(
                    model.encode_image(gallery.image_batch(shown).to(device)), torch.from_numpy(place).to(device)
                )
                fused = model.fuse(image_state, model.encode_text(text)).text
                position = torch.from_numpy(holes.position)[part].to(device)
                hidden = fused[torch.arange(len(part), device=device), position]
                found.append(head.head(hidden).argmax(1).cpu())
    return torch.cat(found).numpy() == holes.label


def commonest(label: np.ndarray) -> float:
    """Accuracy in percent of always the commonest word."""
    return 100 * float(np.unique(label, return_counts=True)[1].max()) / len(label)


def _bits(hit: np.ndarray) -> str:
    return np.packbits(hit).tobytes().hex()
