"""What ranking a whole gallery costs, in FLOPs and in seconds, measured on galleries that grow and predicted beyond.

Cost of N images and M texts, of which either side queries the other:

    N image + M text + N M compare + pairs fuse, pairs = 0 (embed), at most k (N + M) (rerank) or N M (match)

``image`` and ``text`` encode, and embed where the scorer reads embeddings; ``compare`` is the inner product of two
embeddings; ``fuse`` is the pooled fusion and the matching head, what needs the image alone left out, which is paid
with ``image``.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vlpbench.archs.model import take
from vlpbench.archs.types import Can, Text
from vlpbench.benchmarks import clock, flopcount, scoring
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.metrics import rank_embeddings
from vlpbench.benchmarks.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor
    from vlpbench.results.record import Cell

BANK = 32
"""Different images and texts; a gallery repeats them, which costs the same as others would."""
COMPARED = 1024
"""Images, and as many texts, whose products are ranked to time one."""
SMALLEST, LARGEST = 2, 2048
"""Images of the smallest and of the largest gallery that is measured; each has twice those of the one before."""
FITTED = 4
"""Sizes that the exponent is fitted to, the largest ones: three doublings."""
SECONDS = 3.0
"""No gallery is measured that is predicted to take longer, once there are enough to fit."""
REPEATED = 0.2
"""Seconds below which a gallery is ranked three times, and the median counts."""
OFF = 1.5
"""Factor between measured and predicted time of the largest gallery above which a record is flagged."""
TARGETS = {"flickr": (1_000, 5_000), "coco": (5_000, 25_010), "million": (1_000_000, 1_000_000)}
"""Images and texts: Flickr30K's test set, COCO's 5K test set, and what a search engine would hold."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """Cost of one image, one text, one inner product and one fused pair, in FLOPs or in seconds."""

    image: float
    text: float
    compare: float
    fuse: float

    def total(self, scorer: str, images: int, texts: int, k: int) -> float:
        """Of a gallery; an upper bound where shortlists share pairs."""
        pairs = scoring.fusions(scorer, images, texts, k)
        compared = 0 if scorer == "match" else images * texts
        return images * self.image + texts * self.text + compared * self.compare + pairs * self.fuse


class Doubled:
    """As many images as texts, text n of image n, from a few that repeat."""

    def __init__(self, size: int, image: Tensor, text: Text) -> None:
        self.images = self.texts = size
        self.owner = np.arange(size)
        self._image, self._text = image, text

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """(rows, 3, H, W)."""
        return self._image[torch.from_numpy(rows % BANK)]

    def text_batch(self, rows: np.ndarray) -> Text:
        """(rows, L)."""
        return take(self._text, torch.from_numpy(rows % BANK))


class RetrievalCost:
    """See `vlpbench.benchmarks.measures.base.Measure`; weights are random, as time does not depend on them."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """One sample a visit of the exponent and of each extrapolation; everything else is in the detail."""
        scorer, k = cell.scorer or scoring.default_scorer(subject.model.can), cell.k or scoring.K
        flops = count_units(Subject.build(cell, meta=True), scorer)
        bank = replace(subject, cell=cell.model_copy(update={"batch": BANK})).batch()
        learner = subject.learner().eval()
        engine = scoring.Engine(learner=learner, device=subject.device, autocast=subject.autocast)
        with subject.settings():
            seconds = time_units(engine, bank.image, bank.text, scorer)
            points = _measured(engine, scorer, k, seconds, lambda size: Doubled(size, bank.image, bank.text))
        slope, low, high = exponent([p["images"] for p in points[-FITTED:]], [p["seconds"] for p in points[-FITTED:]])
        extrapolated = {
            name: {
                "images": n,
                "texts": m,
                "flops": flops.total(scorer, n, m, k),
                "seconds": seconds.total(scorer, n, m, k),
            }
            for name, (n, m) in TARGETS.items()
        }
        values = {f"search_{name}": [found["seconds"]] for name, found in extrapolated.items()}
        detail: dict[str, Any] = {
            "scorer": scorer,
            "k": k if scorer == "rerank" else None,
            "units": {"flops": asdict(flops), "seconds": asdict(seconds)},
            "measured": [p | {"flops": flops.total(scorer, p["images"], p["texts"], k)} for p in points],
            "exponent": {"value": slope, "low": low, "high": high, "sizes": len(points[-FITTED:])},
            "extrapolated": extrapolated,
        }
        return Samples(values=values | {"search_exponent": [slope]}, detail=detail, flags=_flags(points[-1]))


def count_units(subject: Subject, scorer: str) -> Units:
    """FLOPs of the parts, on the meta device at the cell's image size and text length."""
    model, batch = subject.model, subject.batch()
    embeds, fuses = scorer != "match", scorer != "embed"
    state: dict[str, Any] = {}

    def image() -> None:
        found = model.encode_image(batch.image)
        state["image"] = model.prepare_image(found) if fuses else found
        if embeds:
            model.embed_image(found)

    def text() -> None:
        state["text"] = model.encode_text(batch.text)
        if embeds:
            model.embed_text(state["text"])

    with torch.no_grad(), subject.settings():
        of_image, of_text = flopcount.count(image).flops, flopcount.count(text).flops
        fuse = flopcount.count(lambda: model.fuse_pooled(state["image"], state["text"])).flops if fuses else 0
    rows, head = len(batch.image), 2 * model.width * 2 if fuses else 0
    compare = 2.0 * model.embed_dim if embeds else 0.0
    return Units(image=of_image / rows, text=of_text / rows, compare=compare, fuse=fuse / rows + head)


def time_units(engine: scoring.Engine, image: Tensor, text: Text, scorer: str) -> Units:
    """Seconds of the parts for one image, text, product and pair, from `BANK` images and texts that repeat."""
    model, device = engine.learner.model, engine.device
    embeds, fuses = scorer != "match" and Can.EMBED in model.can, scorer != "embed"
    state: dict[str, Any] = {}

    def images(rows: Tensor) -> None:
        found = model.encode_image(image[rows])
        state["image"] = model.prepare_image(found) if fuses else found
        state["left"] = model.embed_image(found).float() if embeds else None

    def texts(rows: Tensor) -> None:
        state["text"] = model.encode_text(take(text, rows))
        state["right"] = model.embed_text(state["text"]).float() if embeds else None

    def compare(rows: Tensor) -> None:
        rank_embeddings(state["left"][rows], state["right"][rows], np.arange(len(rows)), memory=engine.score_memory)

    def fuse(rows: Tensor) -> None:
        engine.learner.match_logits(model.fuse_pooled(take(state["image"], rows), take(state["text"], rows))).cpu()

    def each(call: Callable[[Tensor], None], most: int) -> float:
        return _seconds_of_one(call, most, device)

    with scoring.evaluating(engine.learner), engine.autocast():
        return Units(
            image=each(images, scoring.ENCODED),
            text=each(texts, scoring.ENCODED),
            compare=each(compare, COMPARED) / COMPARED if embeds else 0.0,
            fuse=each(fuse, scoring.FUSED) if fuses else 0.0,
        )


def _seconds_of_one(call: Callable[[Tensor], None], most: int, device: torch.device) -> float:
    """Seconds of a row of ``call``, the fastest of three calls: of ``most`` rows, as many as the scoring code takes at
    once, or where `BANK` rows show that these would take more than `SECONDS`, of those."""

    def seconds(count: int) -> float:
        rows = torch.arange(count, device=device) % BANK
        return _seconds(lambda: call(rows), device)

    first = seconds(BANK)
    count = most if first * most / BANK <= SECONDS else BANK
    if count == BANK and first > SECONDS:
        return first / BANK
    return min(seconds(count) for _ in range(3)) / count


def _measured(
    engine: scoring.Engine, scorer: str, k: int, units: Units, gallery: Callable[[int], Doubled]
) -> list[dict[str, Any]]:
    """Galleries ranked by the real code, each of twice the images and texts of the one before."""
    points: list[dict[str, Any]] = []
    size = SMALLEST
    scoring.rank(engine, gallery(size), scorer, k)  # the first call loads and allocates
    while size <= LARGEST:
        predicted = units.total(scorer, size, size, k)
        if len(points) >= FITTED and predicted > SECONDS:
            break
        works: list[dict[str, int]] = []
        one = gallery(size)

        def ranked(one: Doubled = one, works: list[dict[str, int]] = works) -> None:
            works.append(scoring.rank(engine, one, scorer, k).work)

        took = [_seconds(ranked, engine.device)]
        took += [_seconds(ranked, engine.device) for _ in range(2)] if took[0] < REPEATED else []
        fused = works[0]["fused"]
        point = {"images": size, "texts": size, "seconds": statistics.median(took), "fused": fused}
        points.append(point | {"predicted": predicted})
        size *= 2
    return points


def exponent(sizes: list[int], seconds: list[float]) -> tuple[float, float, float]:
    """Slope of log time over log size by least squares, and the ends of its 95 % interval (Student's t).

    Raises:
        ValueError: for fewer than three sizes, which leave nothing to tell an interval from.
    """
    from scipy.special import stdtrit

    if len(sizes) < 3:
        raise ValueError(f"an exponent with an interval needs three sizes, not {len(sizes)}")
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    slope, intercept = statistics.linear_regression(x, y)
    residual = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((a - statistics.fmean(x)) ** 2 for a in x)
    half = float(stdtrit(len(x) - 2, 0.975)) * math.sqrt(residual / (len(x) - 2) / spread)
    return slope, slope - half, slope + half


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    clock.synchronize(device)
    start = time.perf_counter()
    call()
    clock.synchronize(device)
    return time.perf_counter() - start


def _flags(largest: dict[str, Any]) -> list[str]:
    off = largest["seconds"] / largest["predicted"]
    if 1 / OFF <= off <= OFF:
        return []
    return [f"ranking {largest['images']} images took {off:.2f} of the time predicted from its parts"]
