"""Ranks and rates. Ranks are counted, never sorted, and tile by tile, so that memory does not grow with the gallery.

Rank of a query = 1 + the number of wrong candidates that score at least as much as its best right one. A tie with a
wrong candidate counts against the model (pessimistic), so a constant score has the worst rank and not a lucky one.

Shape letters: N images, M texts, E joint embedding size, Q queries, K candidates of a query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Tile = Callable[[slice, slice], Tensor]

TILE = (256, 1280)
"""Images x texts scored at once: 1.3 MB in fp32, so that a tile is counted while it is in the cache."""
KS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Ranks from 1 of all queries of a gallery, in the gallery's order."""

    image: np.ndarray
    """(N,) int64, text retrieval: the best of an image's own texts among all texts."""
    text: np.ndarray
    """(M,) int64, image retrieval: a text's image among all images."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """``hits`` out of ``total`` independent samples."""

    hits: int
    total: int

    @property
    def percent(self) -> float:
        """0 to 100."""
        return 100.0 * self.hits / self.total

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's score interval in percent. It covers the sampling of the test set, not that of seeds."""
        z = NormalDist().inv_cdf(0.5 + level / 2)
        share, n = self.hits / self.total, self.total
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        # At 0 and n hits one end is the share itself; rounding would leave it beside.
        low = 0.0 if self.hits == 0 else 100 * (centre - half)
        high = 100.0 if self.hits == n else 100 * (centre + half)
        return low, high


class RankCount:
    """Ranks from scores of single pairs that come in parts, in any order: no more of them is held than a part."""

    def __init__(self, right: Tensor, owner: np.ndarray, *, images: int) -> None:
        """Starts from the scores of the right pairs.

        Args:
            right: (M,) score of each text with its image.
            owner: (M,) the image that each text describes; every image owns at least one.
            images: N.

        Raises:
            ValueError: for a NaN score, or an ``owner`` that does not fit.
        """
        _order(owner, images=images, texts=len(right))
        self.right, rows = _ranked(right), torch.from_numpy(owner).to(right.device)
        self.best = right.new_full((images,), -math.inf).scatter_reduce(0, rows, right, "amax")
        self.image = torch.ones(images, dtype=torch.int64, device=right.device)
        self.text = torch.ones(len(right), dtype=torch.int64, device=right.device)

    def add(self, image: Tensor, text: Tensor, scores: Tensor) -> None:
        """Counts wrong pairs, (P,) each: rows of images, rows of texts, scores.

        Raises:
            ValueError: for a NaN score.
        """
        _ranked(scores)
        self.image.index_add_(0, image, (scores >= self.best[image]).long())
        self.text.index_add_(0, text, (scores >= self.right[text]).long())

    @property
    def ranks(self) -> Ranks:
        """Once all wrong pairs are in."""
        return Ranks(image=self.image.cpu().numpy(), text=self.text.cpu().numpy())


def rank_embeddings(image: Tensor, text: Tensor, owner: np.ndarray, *, memory: int | None = None) -> Ranks:
    """Ranks by the inner product of embeddings, in fp32, without ever holding the (N, M) scores.

    Args:
        image: (N, E).
        text: (M, E).
        owner: (M,) the image that each text describes; every image owns at least one.
        memory: bytes of scores that may be held at once; None is a `TILE`, and more is never used.

    Raises:
        ValueError: for an embedding that is not finite, or an ``owner`` that does not fit.
    """
    for name, embedding in (("image", image), ("text", text)):
        _require(
            bool(torch.isfinite(embedding).all()), f"{name} embeddings hold NaN or infinity, so nothing can be ranked"
        )
    order = _order(owner, images=len(image), texts=len(text))
    rows, columns = image.float(), text.float()[torch.from_numpy(order).to(text.device)].T
    return _rank(lambda r, c: rows[r] @ columns[:, c], owner, order, rows, _tile_shape(memory))


def rank_scores(scores: Tensor, owner: np.ndarray) -> Ranks:
    """Ranks by given (N, M) scores; pairs that were not scored are -inf, which ties with every other such pair.

    Raises:
        ValueError: for a NaN score, or an ``owner`` that does not fit.
    """
    order = _order(owner, images=scores.shape[0], texts=scores.shape[1])
    sorted_already = bool((order == np.arange(len(order))).all())
    columns = torch.from_numpy(order).to(scores.device)

    def tile(r: slice, c: slice) -> Tensor:
        block = scores[r, c] if sorted_already else scores[r][:, columns[c]]
        return _ranked(block)

    return _rank(tile, owner, order, scores)


def rank_candidates(scores: Tensor, right: Tensor, wrong: Tensor) -> np.ndarray:
    """Ranks of queries that only scored a shortlist; everything outside it shares the last place.

    Args:
        scores: (Q, K) of the shortlist.
        right: (Q, K) bool, which of the shortlist are right.
        wrong: (Q,) how many wrong candidates the whole gallery has for the query: the rank of a query
            without a right candidate on its shortlist is ``1 + wrong``.

    Returns:
        (Q,) int64.

    Raises:
        ValueError: for a NaN score.
    """
    best = _ranked(scores).masked_fill(~right, -math.inf).amax(1, keepdim=True)
    above = ((scores >= best) & ~right).sum(1)
    return (1 + torch.where(right.any(1), above, wrong)).cpu().numpy()


def _require(fine: bool, message: str) -> None:
    if not fine:
        raise ValueError(message)


def _ranked(scores: Tensor) -> Tensor:
    _require(not bool(torch.isnan(scores).any()), "a score is NaN, so nothing can be ranked")
    return scores


def _tile_shape(memory: int | None) -> tuple[int, int]:
    """Images x texts of fp32 scores that fit, `TILE` at most and one pair at least."""
    pairs = TILE[0] * TILE[1] if memory is None else max(1, memory // 4)
    rows = min(TILE[0], math.isqrt(pairs))
    return rows, min(TILE[1], pairs // rows)


def _order(owner: np.ndarray, *, images: int, texts: int) -> np.ndarray:
    """Texts sorted by their image, so that the right pairs lie near the diagonal of the score matrix."""
    _require(owner.shape == (texts,), f"{texts} texts need an owner each, got owners of shape {owner.shape}")
    outside = owner[(owner < 0) | (owner >= images)]
    _require(not outside.size, f"a text belongs to image {outside[:1]}, but there are {images} images")
    without = np.flatnonzero(np.bincount(owner, minlength=images) == 0)
    _require(
        not without.size, f"{without.size} images own no text (first: {without[:1]}): they have no rank; leave them out"
    )
    return np.argsort(owner, kind="stable")


def _tiles(size: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _rank(
    tile: Tile, owner: np.ndarray, order: np.ndarray, like: Tensor, shape: tuple[int, int] | None = None
) -> Ranks:
    """Both directions in one sweep of tiles whose columns are texts in ``order``; ``like`` gives N, type and device.

    The right pairs' scores are taken from the very tiles that are counted, not computed apart: a product of another
    shape may round differently and would break ties at random.
    """
    image_of, images, device = owner[order], len(like), like.device
    height, width = shape or TILE
    rows, columns = torch.from_numpy(image_of).to(device), list(_tiles(len(order), width))
    right = torch.empty(len(order), device=device, dtype=like.dtype)
    for r in _tiles(images, height):
        first, last = np.searchsorted(image_of, (r.start, r.stop))
        for c in columns:
            inside = slice(max(c.start, int(first)), min(c.stop, int(last)))
            if inside.start < inside.stop:
                positions = torch.arange(inside.start, inside.stop, device=device)
                right[inside] = tile(r, c)[rows[inside] - r.start, positions - c.start]
    best = torch.full((images,), -math.inf, device=device, dtype=like.dtype).scatter_reduce(0, rows, right, "amax")
    # Counting >= also counts right texts that equal the best one: they are taken off again.
    image_rank = 1 - torch.zeros(images, device=device, dtype=torch.int64).scatter_add(
        0, rows, (right == best[rows]).long()
    )
    text_rank = torch.zeros(len(order), device=device, dtype=torch.int64)  # its own >= stands for the 1 it starts from
    for r in _tiles(images, height):
        for c in columns:
            block = tile(r, c)
            image_rank[r] += (block >= best[r, None]).sum(1)
            text_rank[c] += (block >= right[None, c]).sum(0)
    ranked = np.empty(len(order), dtype=np.int64)
    ranked[order] = text_rank.cpu().numpy()
    return Ranks(image=image_rank.cpu().numpy(), text=ranked)


def recalls(ranks: Ranks) -> dict[str, Rate]:
    """R@1, R@5 and R@10 as ``tr_r1`` ... ``ir_r10``: TR queries are images, IR queries are texts."""
    return {
        f"{name}_r{k}": Rate(hits=int((of <= k).sum()), total=len(of))
        for name, of in (("tr", ranks.image), ("ir", ranks.text))
        for k in KS
    }


def recall_mean(rates: Mapping[str, Rate]) -> float:
    """Mean of the six recalls in percent."""
    return sum(rate.percent for rate in rates.values()) / len(rates)


def by_kind(correct: np.ndarray, kind: np.ndarray, kinds: Sequence[str]) -> dict[str, Rate]:
    """Accuracy of every kind of question that occurs.

    Args:
        correct: (rows,) bool.
        kind: (rows,) index into ``kinds``.
        kinds: names.
    """
    hits = np.bincount(kind, weights=correct, minlength=len(kinds))
    totals = np.bincount(kind, minlength=len(kinds))
    return {
        name: Rate(hits=round(float(hit)), total=int(total))
        for name, hit, total in zip(kinds, hits, totals, strict=True)
        if total
    }
