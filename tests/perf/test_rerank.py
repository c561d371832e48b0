"""Goal G4: reranking image after image, keys and values once an image and each pair once, against ALBEF's evaluation.

That one walks over the images and then over the texts, makes the image's keys and values anew for every pair, runs the
last layer for every token, and fuses a pair that is on both shortlists twice. Interleaved on one thread and compared
minimum to minimum, with an A/A control.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from vlpbench.archs.albef import build
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.model import take
from vlpbench.archs.types import Text
from vlpbench.benchmarks import scoring
from vlpbench.benchmarks.metrics import rank_scores
from vlpbench.benchmarks.scoring import Engine

IMAGES, TEXTS, K = 12, 60, 12
TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=40)


class Noise:
    """Random images and texts, five of these to an image."""

    images, texts = IMAGES, TEXTS
    owner = np.repeat(np.arange(IMAGES), TEXTS // IMAGES)

    def __init__(self, size: tuple[int, int], length: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.image = torch.randn(IMAGES, 3, *size, generator=draw)
        self.ids = torch.randint(4, 40, (TEXTS, length), generator=draw)

    def image_batch(self, rows: np.ndarray) -> Tensor:
        return self.image[torch.from_numpy(rows)]

    def text_batch(self, rows: np.ndarray) -> Text:
        ids = self.ids[torch.from_numpy(rows)]
        return Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))


def engine_of(size: str) -> tuple[Engine, Noise]:
    torch.manual_seed(0)
    model = build(size, {"image_size": (64, 64)})
    recipe = Recipe(objectives=("itc", "itm"))
    learner = Learner(model, recipe, TOKENS).eval()
    return Engine(learner=learner, device=torch.device("cpu"), autocast=nullcontext), Noise((64, 64), model.text_len)


@torch.no_grad()
def pair_by_pair(engine: Engine, gallery: Noise) -> tuple[Tensor, Tensor]:
    """(N, M) scores of each direction, -inf off the shortlist: the order of work of ALBEF's evaluation."""
    model: Any = engine.learner.model
    images = model.encode_image(gallery.image_batch(np.arange(IMAGES)))
    texts = model.encode_text(gallery.text_batch(np.arange(TEXTS)))
    near = model.embed_image(images) @ model.embed_text(texts).T
    for_image, for_text = (torch.full(near.shape, -torch.inf) for _ in range(2))
    for i, row in enumerate(near):
        best = row.topk(K).indices
        fused = model.fuse(take(images, torch.full((K,), i)), take(texts, best))
        for_image[i, best] = engine.learner.match_logits(fused.pooled)
    for t, column in enumerate(near.T):
        best = column.topk(K).indices
        fused = model.fuse(take(images, best), take(texts, torch.full((K,), t)))
        for_text[best, t] = engine.learner.match_logits(fused.pooled)
    return for_image, for_text


@pytest.mark.usefixtures("one_thread")
def test_reranking_image_by_image_is_faster_than_pair_by_pair(goals: Any) -> None:
    engine, gallery = engine_of("small")
    scored = scoring.by_rerank(engine, gallery, K)
    for_image, for_text = pair_by_pair(engine, gallery)
    assert scored.ranks.image.tolist() == rank_scores(for_image, gallery.owner).image.tolist()
    assert scored.ranks.text.tolist() == rank_scores(for_text, gallery.owner).text.tolist()
    assert scored.fused < IMAGES * K + TEXTS * K
    pairwise = {"encoding keys and values for each pair": (lambda: pair_by_pair(engine, gallery), 1.6)}
    goals.race("G4", lambda: scoring.by_rerank(engine, gallery, K), pairwise, cost="wall", always=True)


def test_fusions_at_paper_size_cost_less_in_operations() -> None:
    """An image with the 128 texts of its shortlist, on the meta device: what needs the image alone is done once."""
    with torch.device("meta"), torch.no_grad():
        model = build("base", {"image_size": (384, 384)}).eval()  # of the paper's retrieval
        ids, rows = torch.zeros(128, model.text_len, dtype=torch.long), torch.zeros(128, dtype=torch.long)
        texts = model.encode_text(Text(ids=ids, mask=ids == 0))
        image = model.encode_image(torch.zeros(1, 3, *model.image_size))
        with FlopCounterMode(display=False) as once:
            model.fuse_pooled(take(model.prepare_image(image), rows), texts)
        with FlopCounterMode(display=False) as each:
            model.fuse(take(image, rows), texts)
    assert each.get_total_flops() / once.get_total_flops() >= 2.5
