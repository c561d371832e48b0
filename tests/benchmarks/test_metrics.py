"""Ranks and rates against hand-made matrices, a naive sort-free reference, and recorded official values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy.stats import binomtest
from vlpbench.benchmarks import metrics
from vlpbench.benchmarks.metrics import (
    Rate,
    by_kind,
    rank_candidates,
    rank_embeddings,
    rank_scores,
    recall_mean,
    recalls,
)


def naive(scores: np.ndarray, owner: np.ndarray) -> tuple[list[int], list[int]]:
    """The definition, word by word."""
    image_ranks = []
    for i, row in enumerate(scores):
        best = max(s for s, o in zip(row, owner, strict=True) if o == i)
        image_ranks.append(1 + sum(s >= best for s, o in zip(row, owner, strict=True) if o != i))
    text_ranks = [1 + sum(s >= scores[o, t] for i, s in enumerate(scores[:, t]) if i != o) for t, o in enumerate(owner)]
    return image_ranks, text_ranks


def test_hand_made_matrix() -> None:
    # Image 0 owns texts 0, 1; image 1 owns 2; image 2 owns 3, 4.
    scores = torch.tensor(
        [
            [0.1, 0.9, 0.9, 0.2, 0.0],  # best own .9, text 2 ties: rank 2
            [0.5, 0.3, 0.4, 0.6, 0.7],  # own .4; .5 .6 .7 above: rank 4
            [0.0, 0.1, 0.2, 0.3, 0.8],  # own best .8, own second .3 is no rival: rank 1
        ]
    )
    ranks = rank_scores(scores, np.array([0, 0, 1, 2, 2]))
    assert ranks.image.tolist() == [2, 4, 1]
    # Columns: .1 <- .5: 2 | .9 best: 1 | .4 <- .9: 2 | .3 <- .6: 2 | .8 best: 1
    assert ranks.text.tolist() == [2, 1, 2, 2, 1]
    rates = recalls(ranks)
    assert {k: (r.hits, r.total) for k, r in rates.items()} == {
        "tr_r1": (1, 3),
        "tr_r5": (3, 3),
        "tr_r10": (3, 3),
        "ir_r1": (2, 5),
        "ir_r5": (5, 5),
        "ir_r10": (5, 5),
    }
    assert recall_mean(rates) == pytest.approx((100 / 3 + 100 + 100 + 40 + 100 + 100) / 6)


def test_constant_scores_have_the_worst_rank() -> None:
    ranks = rank_scores(torch.zeros(4, 8), np.repeat(np.arange(4), 2))
    assert ranks.image.tolist() == [7] * 4  # 6 wrong texts, all tied
    assert ranks.text.tolist() == [4] * 8


def test_unscored_pairs_share_the_last_place() -> None:
    inf = -torch.inf
    scores = torch.tensor([[0.5, inf, 0.1], [inf, inf, 0.2], [inf, 0.3, inf]])
    ranks = rank_scores(scores, np.arange(3))
    assert ranks.image.tolist() == [1, 3, 3]
    assert ranks.text.tolist() == [1, 3, 3]


@st.composite
def galleries(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    images = draw(st.integers(1, 9))
    owner = draw(st.permutations(list(range(images)) + draw(st.lists(st.integers(0, images - 1), max_size=12))))
    values = st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 0.5, 2.0])
    scores = draw(st.lists(values, min_size=images * len(owner), max_size=images * len(owner)))
    return np.array(scores).reshape(images, len(owner)), np.array(owner)


@settings(max_examples=150, deadline=None)
@given(galleries(), st.sampled_from([(1, 1), (2, 3), (256, 1280)]))
def test_equals_the_definition_for_any_tiling(gallery: tuple[np.ndarray, np.ndarray], tile: tuple[int, int]) -> None:
    scores, owner = gallery
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "TILE", tile)
        ranks = rank_scores(torch.from_numpy(scores), owner)
    assert (ranks.image.tolist(), ranks.text.tolist()) == naive(scores, owner)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(2, 3), (3, 4), (256, 1280)]))
def test_embeddings_rank_as_their_products(seed: int, tile: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    # Small integers: products are exact in fp32 however they are summed, and ties are frequent.
    image, owner = rng.integers(-2, 3, (7, 4)), rng.permutation(np.r_[np.arange(7), rng.integers(0, 7, 10)])
    text = rng.integers(-2, 3, (17, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "TILE", tile)
        ranks = rank_embeddings(torch.tensor(image).float(), torch.tensor(text).float(), owner)
    assert (ranks.image.tolist(), ranks.text.tolist()) == naive((image @ text.T).astype(float), owner)


def test_equal_images_tie_whatever_the_rounding() -> None:
    torch.manual_seed(0)
    image, text = torch.randn(600, 50), torch.randn(600, 50)
    image[1::2] = image[::2]
    ranks = rank_embeddings(image, text, np.arange(600))
    scores = image.double() @ text.double().T
    strictly = (scores > scores.diagonal()[None]).sum(0)
    assert (ranks.text == (strictly + 2).numpy()).all()  # every text's twin image ties with its own


@pytest.mark.parametrize("seed", range(3))
def test_shortlists_rank_as_scores_with_minus_infinity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.permutation(np.r_[np.arange(6), rng.integers(0, 6, 8)]))
    dense = np.full((6, 14), -np.inf)
    shortlist = np.stack([rng.permutation(14)[:5] for _ in range(6)])
    values = rng.integers(0, 3, (6, 5)).astype(float)
    np.put_along_axis(dense, shortlist, values, 1)
    own = owner[shortlist] == np.arange(6)[:, None]
    wrong = 14 - np.bincount(owner)
    got = rank_candidates(torch.from_numpy(values), torch.from_numpy(own), torch.from_numpy(wrong))
    assert got.tolist() == naive(dense, owner)[0]


def test_refuses_what_has_no_rank() -> None:
    with pytest.raises(ValueError, match="NaN"):
        rank_scores(torch.tensor([[0.0, torch.nan], [0.0, 1.0]]), np.arange(2))
    with pytest.raises(ValueError, match="text embeddings hold NaN"):
        rank_embeddings(torch.ones(1, 2), torch.tensor([[torch.nan, 0.0]]), np.zeros(1, dtype=int))
    with pytest.raises(ValueError, match="NaN"):
        rank_candidates(torch.tensor([[torch.nan]]), torch.tensor([[True]]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"1 images own no text \(first: \[1\]\)"):
        rank_scores(torch.zeros(2, 2), np.zeros(2, dtype=int))
    with pytest.raises(ValueError, match=r"belongs to image \[2\], but there are 2"):
        rank_scores(torch.zeros(2, 2), np.array([0, 2]))
    with pytest.raises(ValueError, match="an owner each"):
        rank_scores(torch.zeros(2, 2), np.array([0, 1, 1]))


def test_equals_the_official_evaluation(oracles: Path) -> None:
    folder = oracles / "retrieval_eval"
    results = json.loads((folder / "meta.json").read_text())["results"]
    tensors = load_file(folder / "tensors.safetensors")
    checked = 0
    for case, official in results.items():
        if case == "ties":
            continue  # the order of exact ties is numpy's there, and ours is pessimistic
        owner = tensors[f"{case}.txt2img"]
        image = rank_scores(torch.from_numpy(tensors[f"{case}.scores_i2t"]), owner).image
        text = rank_scores(torch.from_numpy(tensors[f"{case}.scores_t2i"].T.copy()), owner).text
        rates = recalls(metrics.Ranks(image=image, text=text))
        for k in (1, 5, 10):
            assert rates[f"tr_r{k}"].percent == pytest.approx(official[f"txt_r{k}"], abs=1e-9)
            assert rates[f"ir_r{k}"].percent == pytest.approx(official[f"img_r{k}"], abs=1e-9)
        assert recall_mean(rates) == pytest.approx(official["r_mean"], abs=1e-9)
        checked += 1
    assert checked >= 5


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_interval_is_wilsons(case: tuple[int, int], level: float) -> None:
    rate = Rate(hits=case[0], total=case[1])
    expected = binomtest(*case).proportion_ci(level, method="wilson")
    assert rate.interval(level) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


def test_accuracy_by_kind() -> None:
    correct = np.array([True, False, True, True, False])
    rates = by_kind(correct, np.array([0, 0, 2, 2, 2]), ("colour", "shape", "count"))
    assert rates == {"colour": Rate(hits=1, total=2), "count": Rate(hits=2, total=3)}  # no shape was asked
    assert rates["colour"].percent == 50.0
