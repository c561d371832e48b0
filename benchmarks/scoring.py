"""Three ways to rank a gallery, chosen by what a model can do: by its embeddings, by its fusion, or both in turn.

Whatever does not depend on a pair is computed once for each image and text. Pairs are fused image after image, so that
what fusion needs of an image alone (`VLModel.prepare_image`) is computed once for all its texts, and a pair that both
directions ask for is fused once.

Shape letters: N images, M texts, P pairs, E joint embedding size.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from vlpbench.archs.model import take
from vlpbench.archs.types import Can, Text, Unsupported
from vlpbench.benchmarks.data.ahead import expecting_images
from vlpbench.benchmarks.metrics import RankCount, Ranks, rank_candidates, rank_embeddings
from vlpbench.benchmarks.train import text_to
from vlpbench.benchmarks.worker import SCORES_VARIABLE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vlpbench.archs.learner import Learner
    from vlpbench.benchmarks.data.base import Gallery

ENCODED = 256
"""Images or texts encoded at once."""
FUSED = 512
"""Pairs fused at once."""
K = 16
"""Candidates that are reranked where a cell names no number."""
SCORE_MEMORY = 512 * 10**6
"""Bytes of pair scores that are held at once where nothing is asked for."""


def score_memory() -> int:
    """What was asked for (``vlpbench run --score-memory``), in bytes."""
    return int(os.environ.get(SCORES_VARIABLE) or SCORE_MEMORY)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A trained learner, ready to score."""

    learner: Learner
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    score_memory: int = field(default_factory=score_memory)
    """Bytes of pair scores that may be held at once; never less than one score."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Ranks of a gallery and the work that went into them."""

    ranks: Ranks
    encoded: int
    """Images plus texts that went through their encoder."""
    embedded: int
    """Images plus texts that were embedded; 0 where the scorer reads no embedding."""
    fused: int
    """Pairs that went through fusion."""

    @property
    def work(self) -> dict[str, int]:
        """For a record: the terms of N*(encode + embed) + M*(encode + embed) + pairs*fuse."""
        return {"encoded": self.encoded, "embedded": self.embedded, "fused": self.fused}


def by_embed(engine: Engine, gallery: Gallery) -> Scored:
    """Ranks by the inner product of embeddings: N + M encodings and no fusion."""
    with evaluating(engine.learner):
        (_, image), (_, text) = _encode(engine, gallery, keep=False, embed=True)
    ranks = rank_embeddings(image, text, gallery.owner, memory=engine.score_memory)
    total = gallery.images + gallery.texts
    return Scored(ranks=ranks, encoded=total, embedded=total, fused=0)


def by_match(engine: Engine, gallery: Gallery) -> Scored:
    """Ranks by the matching score of every pair: N * M fusions.

    The right pairs come first, so that the others are counted as they come and none of their scores is kept.
    """
    n, m, owner = gallery.images, gallery.texts, torch.from_numpy(gallery.owner)
    with evaluating(engine.learner):
        (images, _), (texts, _) = _encode(engine, gallery, keep=True, embed=False)
        own, order = (owner * m + torch.arange(m)).sort()
        right = torch.empty(m).index_copy(0, order, _match(engine, images, texts, own, m))
        count = RankCount(right, gallery.owner, images=n)
        for pairs in _wrong_pairs(owner, n, most=min(FUSED, max(1, engine.score_memory // 4))):
            count.add(pairs // m, pairs % m, _match(engine, images, texts, pairs, m))
    return Scored(ranks=count.ranks, encoded=n + m, embedded=0, fused=n * m)


def by_rerank(engine: Engine, gallery: Gallery, k: int) -> Scored:
    """Shortlists by embedding, ranks the shortlist by the matching score (ALBEF, section 4.1).

    Each direction ranks its own shortlist; everything outside it shares the last place. A pair on both is fused once.

    Args:
        engine: can embed and match.
        gallery: what is ranked.
        k: length of the shortlist; all of the gallery where it has fewer.
    """
    n, m = gallery.images, gallery.texts
    with evaluating(engine.learner):
        (images, image), (texts, text) = _encode(engine, gallery, keep=True, embed=True)
        memory = engine.score_memory
        texts_of, images_of = _nearest(image, text, min(k, m), memory), _nearest(text, image, min(k, n), memory)
        for_image = torch.arange(n)[:, None] * m + texts_of  # (N, k) pair i, t as the number i * M + t
        for_text = images_of * m + torch.arange(m)[:, None]  # (M, k)
        pairs = torch.cat([for_image.flatten(), for_text.flatten()]).unique()
        scores = _match(engine, images, texts, pairs, m)
    owner = torch.from_numpy(gallery.owner)
    own = torch.bincount(owner, minlength=n)
    ranks = Ranks(
        image=rank_candidates(
            scores[torch.searchsorted(pairs, for_image)], owner[texts_of] == torch.arange(n)[:, None], m - own
        ),
        text=rank_candidates(
            scores[torch.searchsorted(pairs, for_text)], images_of == owner[:, None], torch.full((m,), n - 1)
        ),
    )
    return Scored(ranks=ranks, encoded=n + m, embedded=n + m, fused=len(pairs))


def rank(engine: Engine, gallery: Gallery, scorer: str, k: int | None = None) -> Scored:
    """Ranks a gallery by the named scorer.

    Raises:
        Unsupported: where the model lacks the capability or was not trained to match.
        ValueError: for an unknown scorer.
    """
    if scorer == "embed":
        return by_embed(engine, gallery)
    if scorer == "match":
        return by_match(engine, gallery)
    if scorer == "rerank":
        return by_rerank(engine, gallery, k or K)
    raise ValueError(f"unknown scorer {scorer!r}: known are embed, match, rerank")


def fusions(scorer: str, images: int, texts: int, k: int | None = None) -> int:
    """The most pairs that ranking a gallery may fuse; two shortlists cannot hold more than there are."""
    n, m = images, texts
    return {"embed": 0, "match": n * m, "rerank": min(n * m, n * min(k or K, m) + m * min(k or K, n))}[scorer]


def default_scorer(can: Can) -> str:
    """How a cell that names no scorer is scored: by embedding where the model can, as that serves every gallery."""
    return "embed" if Can.EMBED in can else "match"


def score_pairs(engine: Engine, image: Tensor, texts: list[Text], scorer: str) -> Tensor:
    """(B, len(texts)) scores of each image with the text in its row of every batch of ``texts``.

    ``rerank`` decides between few candidates as ``match`` does.
    """
    model = engine.learner.model
    with evaluating(engine.learner), engine.autocast():
        images = model.encode_image(image.to(engine.device))
        states = [model.encode_text(text_to(text, engine.device)) for text in texts]
        if scorer == "embed":
            embedded = model.embed_image(images).float()
            columns = [(embedded * model.embed_text(state).float()).sum(1) for state in states]
        else:
            prepared = model.prepare_image(images)
            columns = [engine.learner.match_logits(model.fuse_pooled(prepared, state)) for state in states]
    return torch.stack(columns, dim=1).float().cpu()


@contextmanager
def evaluating(learner: Learner) -> Iterator[None]:
    """No gradients, and evaluation mode, which is put back."""
    before = learner.training
    learner.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        learner.train(before)


def _encode(
    engine: Engine, gallery: Gallery, *, keep: bool, embed: bool
) -> tuple[tuple[Any, Tensor], tuple[Any, Tensor]]:
    """Encoder states and (N, E) or (M, E) float32 embeddings of all images and all texts; None where not asked for.

    Embeddings are taken batch by batch, so that without states memory grows by embeddings alone.
    """
    model = engine.learner.model
    if embed and Can.EMBED not in model.can:
        raise Unsupported(f"{type(model).__name__} cannot embed, so it has no embeddings to rank by; score by match")
    with expecting_images(gallery, _slices(gallery.images, ENCODED)), engine.autocast():
        states = (
            model.encode_image(gallery.image_batch(rows).to(engine.device)) for rows in _slices(gallery.images, ENCODED)
        )
        images = _gathered(states, model.embed_image if embed else None, keep)
    with engine.autocast():
        states = (
            model.encode_text(text_to(gallery.text_batch(rows), engine.device))
            for rows in _slices(gallery.texts, ENCODED)
        )
        texts = _gathered(states, model.embed_text if embed else None, keep)
    return images, texts


def _gathered(states: Iterator[Any], embed: Callable[[Any], Tensor] | None, keep: bool) -> tuple[Any, Any]:
    kept, embedded = [], []
    for state in states:
        if keep:
            kept.append(state)
        if embed is not None:
            embedded.append(embed(state).float())
    return join(kept) if keep else None, torch.cat(embedded) if embedded else None


def _nearest(queries: Tensor, candidates: Tensor, k: int, memory: int) -> Tensor:
    """(Q, k) on the CPU: the candidates of the largest inner product, from blocks of at most ``memory`` bytes.

    What does not fit for a single query is looked at in parts of which the k best go on, k + 1 candidates at least.
    """
    fit = memory // 4
    rows = min(ENCODED, max(1, fit // len(candidates)))
    columns = min(len(candidates), max(fit // rows - k, 1))
    found = []
    for block in queries.split(rows):
        best, indices = (block @ candidates[:columns].T).topk(min(k, columns), dim=1)
        for start in range(columns, len(candidates), columns):
            further = block @ candidates[start : start + columns].T
            places = torch.arange(start, start + further.shape[1], device=further.device).expand_as(further)
            best, chosen = torch.cat([best, further], 1).topk(min(k, best.shape[1] + further.shape[1]), dim=1)
            indices = torch.cat([indices, places], 1).gather(1, chosen)
        found.append(indices.cpu())
    return torch.cat(found)


def _match(engine: Engine, images: Any, texts: Any, pairs: Tensor, m: int) -> Tensor:
    """(P,) float32 on the CPU: matching scores of pairs (i, t) given as sorted numbers ``i * m + t``."""
    model = engine.learner.model
    if Can.FUSE not in model.can:
        raise Unsupported(f"{type(model).__name__} cannot fuse, so it cannot match pairs; score by embed")
    image_rows, text_rows = pairs // m, pairs % m
    scores = torch.empty(len(pairs))
    for part in _image_major(image_rows):
        unique, position = image_rows[part].unique_consecutive(return_inverse=True)
        with engine.autocast():
            prepared = model.prepare_image(take(images, unique.to(engine.device)))
            here, there = position.to(engine.device), text_rows[part].to(engine.device)
            pooled = model.fuse_pooled(take(prepared, here), take(texts, there))
            scores[part] = engine.learner.match_logits(pooled).float().cpu()
    return scores


def _wrong_pairs(owner: Tensor, n: int, *, most: int) -> Iterator[Tensor]:
    """Numbers ``i * M + t`` of all pairs but the right ones, image after image: whole images where ``most`` allows."""
    m = len(owner)
    images, texts = max(1, most // m), min(m, most)
    for i in torch.arange(n).split(images):
        for t in torch.arange(m).split(texts):
            pairs = (i[:, None] * m + t)[owner[t] != i[:, None]]
            if len(pairs):
                yield pairs


def _image_major(image_rows: Tensor) -> Iterator[slice]:
    """Consecutive pairs, at most `FUSED` at once, cut between images wherever a single image has no more than that."""
    ends = np.cumsum(image_rows.unique_consecutive(return_counts=True)[1].numpy())
    start, total = 0, len(image_rows)
    while start < total:
        whole = ends[(ends > start) & (ends <= start + FUSED)]
        stop = int(whole[-1]) if len(whole) else min(start + FUSED, total)
        yield slice(start, stop)
        start = stop


def _slices(size: int, step: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + step, size)) for start in range(0, size, step))


def join(states: list[Any]) -> Any:
    """One encoder state from several, along the batch: the inverse of taking rows (`vlpbench.archs.model.take`).

    Raises:
        TypeError: for a state of anything but tensors, None, tuples, lists, dicts and dataclasses.
    """
    first = states[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(states)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(join(list(items)) for items in zip(*states, strict=True)))
    if isinstance(first, (tuple, list)):
        return type(first)(join(list(items)) for items in zip(*states, strict=True))
    if isinstance(first, dict):
        return {key: join([state[key] for state in states]) for key in first}
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(first, **{name: join([getattr(state, name) for state in states]) for name in names})
    raise TypeError(
        f"an encoder state may hold tensors, tuples, lists, dicts and dataclasses, not {type(first).__name__}"
    )
