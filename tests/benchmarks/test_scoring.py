"""Scorers against scores written out pair by pair, and the work they do, counted by a model that keeps books."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from vlpbench.archs.model import VLModel, take
from vlpbench.archs.types import Can, Fused, Text, Unsupported
from vlpbench.benchmarks import scoring
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.metrics import rank_scores
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.record import Cell

CPU = torch.device("cpu")
N, OWNER = 9, np.array([3, 0, 1, 2, 8, 4, 5, 6, 7, 0, 3, 3, 8])
M = len(OWNER)


class Pictures:
    """Image n is a constant picture of value n; text m is the single token m."""

    owner, images, texts = OWNER, N, M

    def image_batch(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).float()[:, None, None, None].expand(-1, 3, 2, 2)

    def text_batch(self, rows: np.ndarray) -> Text:
        ids = torch.from_numpy(rows)[:, None]
        return Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))


@dataclass(frozen=True, kw_only=True)
class Seen:
    number: Tensor
    extra: dict[str, Any]
    prepared: Tensor | None = None


class Read(NamedTuple):
    number: Tensor
    nothing: None


class Bookkeeper(VLModel[Seen, Read]):
    """Scores come from two tables; every row that passes is counted."""

    can = Can.EMBED | Can.FUSE

    def __init__(self, nearness: Tensor, match: Tensor) -> None:
        super().__init__()
        self.left, self.right = nearness, torch.eye(M)
        self.match = match
        self.counts: Counter[str] = Counter()
        self.fused: list[tuple[int, int]] = []
        self.most = 0

    def encode_image(self, image: Tensor) -> Seen:
        self.counts["image"] += len(image)
        number = image[:, 0, 0, 0].long()
        return Seen(number=number, extra={"pair": (number, [number])})

    def encode_text(self, text: Text) -> Read:
        self.counts["text"] += len(text.ids)
        return Read(text.ids[:, 0], None)

    def prepare_image(self, image: Seen) -> Seen:
        self.counts["prepared"] += len(image.number)
        return Seen(number=image.number, extra=image.extra, prepared=image.number)

    def embed_image(self, image: Seen) -> Tensor:
        self.most = max(self.most, len(image.number))
        return self.left[image.number]

    def embed_text(self, text: Read) -> Tensor:
        return self.right[text.number]

    def fuse(self, image: Seen, text: Read) -> Fused:
        assert image.prepared is not None
        assert torch.equal(image.number, image.prepared)
        assert torch.equal(image.number, image.extra["pair"][1][0])
        self.fused += zip(image.number.tolist(), text.number.tolist(), strict=True)
        return Fused(pooled=self.match[image.number, text.number][:, None], text=None)


class Matcher(nn.Module):
    def __init__(self, model: VLModel[Any, Any]) -> None:
        super().__init__()
        self.model = model

    def match_logits(self, pooled: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        return pooled[:, 0]


@pytest.fixture
def tables() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    # Distinct values: no ties, so that a shortlist has one answer.
    return tuple(torch.randperm(N * M, generator=generator).float().view(N, M) for _ in range(2))  # pyright: ignore


@pytest.fixture
def engine(tables: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> scoring.Engine:
    monkeypatch.setattr(scoring, "ENCODED", 4)
    monkeypatch.setattr(scoring, "FUSED", 30)
    learner: Any = Matcher(Bookkeeper(*tables))
    return scoring.Engine(learner=learner, device=CPU, autocast=nullcontext)


def books(engine: scoring.Engine) -> Bookkeeper:
    model: Any = engine.learner.model
    return model


def shortlisted(table: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, table, -torch.inf)


def test_match_fuses_every_pair_once(engine: scoring.Engine, tables: tuple[Tensor, Tensor]) -> None:
    scored = scoring.by_match(engine, Pictures())
    expected = rank_scores(tables[1], OWNER)
    assert scored.ranks.image.tolist() == expected.image.tolist()
    assert scored.ranks.text.tolist() == expected.text.tolist()
    assert scored.work == {"encoded": N + M, "embedded": 0, "fused": N * M}
    # 30 pairs at once hold two whole images; the right pairs, which come first, need the images as well.
    assert books(engine).counts == {"image": N, "text": M, "prepared": 2 * N}
    assert sorted(books(engine).fused) == [(i, t) for i in range(N) for t in range(M)]


def test_images_with_more_pairs_than_fit_are_cut(engine: scoring.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scoring.by_match(engine, Pictures())
    monkeypatch.setattr(scoring, "FUSED", 5)
    books(engine).counts.clear()
    cut = scoring.by_match(engine, Pictures())
    assert cut.ranks.image.tolist() == whole.ranks.image.tolist()
    assert books(engine).counts["prepared"] == 3 * N + N  # 13 texts in 5 + 5 + 3, and the right pairs


@pytest.mark.parametrize("k", [1, 3, 5])
def test_rerank_scores_the_union_of_both_shortlists(
    engine: scoring.Engine, tables: tuple[Tensor, Tensor], k: int
) -> None:
    near, match = tables
    for_image = near >= near.sort(dim=1, descending=True).values[:, k - 1, None]
    for_text = near >= near.sort(dim=0, descending=True).values[None, k - 1]
    scored = scoring.by_rerank(engine, Pictures(), k)
    assert scored.ranks.image.tolist() == rank_scores(shortlisted(match, for_image), OWNER).image.tolist()
    assert scored.ranks.text.tolist() == rank_scores(shortlisted(match, for_text), OWNER).text.tolist()
    union = (for_image | for_text).nonzero().tolist()
    assert sorted(books(engine).fused) == [tuple(pair) for pair in union]
    assert scored.work == {"encoded": N + M, "embedded": N + M, "fused": len(union)}
    assert len(union) <= scoring.fusions("rerank", N, M, k)
    assert books(engine).counts["prepared"] <= N


def test_rerank_of_everything_is_match(engine: scoring.Engine) -> None:
    all_pairs, reranked = scoring.by_match(engine, Pictures()), scoring.by_rerank(engine, Pictures(), 1000)
    assert reranked.ranks.image.tolist() == all_pairs.ranks.image.tolist()
    assert reranked.ranks.text.tolist() == all_pairs.ranks.text.tolist()
    assert reranked.fused == all_pairs.fused


def test_embed_fuses_nothing(engine: scoring.Engine, tables: tuple[Tensor, Tensor]) -> None:
    scored = scoring.by_embed(engine, Pictures())
    expected = rank_scores(tables[0], OWNER)
    assert scored.ranks.image.tolist() == expected.image.tolist()
    assert scored.ranks.text.tolist() == expected.text.tolist()
    assert scored.work == {"encoded": N + M, "embedded": N + M, "fused": 0}
    assert books(engine).counts == {"image": N, "text": M}
    assert books(engine).most == scoring.ENCODED < N


def test_named_scorers(engine: scoring.Engine) -> None:
    assert scoring.rank(engine, Pictures(), "rerank", 2).fused <= scoring.fusions("rerank", N, M, 2)
    assert scoring.fusions("match", N, M) == N * M
    assert scoring.fusions("rerank", N, M) == N * M  # 16 candidates are more than there are
    assert scoring.fusions("rerank", 100, 500, 3) == 100 * 3 + 500 * 3
    assert scoring.default_scorer(Can.EMBED | Can.FUSE) == "embed"
    assert scoring.default_scorer(Can.FUSE) == "match"
    with pytest.raises(ValueError, match="unknown scorer 'guess'"):
        scoring.rank(engine, Pictures(), "guess")


def test_pairs_are_scored_row_by_row(engine: scoring.Engine, tables: tuple[Tensor, Tensor]) -> None:
    gallery, rows = Pictures(), np.array([2, 5, 7])
    texts = [gallery.text_batch(np.array([0, 1, 2])), gallery.text_batch(np.array([3, 4, 5]))]
    for scorer, table in (("embed", tables[0]), ("match", tables[1]), ("rerank", tables[1])):
        scores = scoring.score_pairs(engine, gallery.image_batch(rows), texts, scorer)
        assert scores.tolist() == [[table[2, 0], table[2, 3]], [table[5, 1], table[5, 4]], [table[7, 2], table[7, 5]]]


def test_the_mode_of_the_learner_is_put_back(engine: scoring.Engine) -> None:
    engine.learner.train()
    scoring.by_match(engine, Pictures())
    assert engine.learner.training
    engine.learner.eval()
    scoring.by_match(engine, Pictures())
    assert not engine.learner.training


def test_what_cannot_be_scored_is_refused(engine: scoring.Engine, tables: tuple[Tensor, Tensor]) -> None:
    model = books(engine)
    model.can = Can.FUSE
    with pytest.raises(Unsupported, match="cannot embed"):
        scoring.by_rerank(engine, Pictures(), 2)
    model.can = Can.EMBED
    with pytest.raises(Unsupported, match="cannot fuse"):
        scoring.by_match(engine, Pictures())
    model.can = Can.FUSE
    tables[1][4, 4] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        scoring.by_match(engine, Pictures())


def test_joining_is_the_inverse_of_taking() -> None:
    number = torch.arange(12).view(6, 2)
    state = {"a": (number, [number + 1, None]), "b": Seen(number=number[:, 0], extra={"c": Read(number, None)})}
    parts = [take(state, torch.tensor(rows)) for rows in ([0], [1, 2, 3], [4, 5])]
    joined = scoring.join(parts)
    assert torch.equal(joined["a"][1][0], number + 1)
    assert torch.equal(joined["b"].number, number[:, 0])
    assert torch.equal(joined["b"].extra["c"].number, number)
    assert type(joined["b"].extra["c"]) is Read
    with pytest.raises(TypeError, match="not str"):
        scoring.join(["a", "b"])


@pytest.mark.parametrize(("arch", "objectives"), [("albef", ("itc", "itm")), ("vilt", ("itm",))])
def test_real_models_match_as_pair_by_pair(arch: str, objectives: tuple[str, ...]) -> None:
    cell = Cell(arch=arch, size="tiny", measure="retrieval", objectives=objectives, data="scenes", budget=1, batch=2)
    subject, gallery = Subject.build(cell), open_source("scenes", size="tiny").gallery()
    learner = subject.learner().eval()
    engine = scoring.Engine(learner=learner, device=CPU, autocast=subject.autocast)
    with torch.no_grad():
        (images, _), (texts, _) = scoring._encode(engine, gallery, keep=True, embed=False)
        pairs = torch.arange(gallery.images * gallery.texts)
        scores = scoring._match(engine, images, texts, pairs, gallery.texts).view(gallery.images, gallery.texts)
        for i, t in ((0, 0), (3, 17), (gallery.images - 1, gallery.texts - 1), (20, 1)):
            image = learner.model.encode_image(gallery.image_batch(np.array([i])))
            text = learner.model.encode_text(gallery.text_batch(np.array([t])))
            alone = learner.match_logits(learner.model.fuse(image, text).pooled)
            assert alone.item() == pytest.approx(scores[i, t].item(), abs=1e-5)
    assert scores.std() > 0
