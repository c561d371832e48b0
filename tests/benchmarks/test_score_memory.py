"""However little memory scores may take, ranks stay as they are, and no block of scores is larger than asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from vlpbench.archs.model import VLModel
from vlpbench.archs.types import Can, Fused, Text
from vlpbench.benchmarks import cli, scoring
from vlpbench.benchmarks.cli_run import size_of
from vlpbench.benchmarks.fields import SuiteError
from vlpbench.benchmarks.metrics import RankCount, rank_scores
from vlpbench.benchmarks.scoring import Engine, Scored

WIDTH = 4


class Numbers:
    """Image n and text m are the rows n and m of two tables of small whole numbers, whose products are exact."""

    def __init__(self, image: Tensor, text: Tensor, owner: np.ndarray) -> None:
        self.image, self.text, self.owner = image, text, owner
        self.images, self.texts = len(image), len(text)

    def image_batch(self, rows: np.ndarray) -> Tensor:
        return self.image[torch.from_numpy(rows)][:, :, None, None]

    def text_batch(self, rows: np.ndarray) -> Text:
        ids = self.text[torch.from_numpy(rows)].long()
        return Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))


class Product(VLModel[Tensor, Tensor]):
    """Embeds by the numbers themselves, and matches by their product."""

    can = Can.EMBED | Can.FUSE

    def encode_image(self, image: Tensor) -> Tensor:
        return image[:, :, 0, 0]

    def encode_text(self, text: Text) -> Tensor:
        return text.ids.float()

    def embed_image(self, image: Tensor) -> Tensor:
        return image

    def embed_text(self, text: Tensor) -> Tensor:
        return text

    def fuse(self, image: Tensor, text: Tensor) -> Fused:
        return Fused(pooled=(image * text).sum(1, keepdim=True), text=None)


class Matcher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Product()

    def match_logits(self, pooled: Tensor) -> Tensor:
        return pooled[:, 0]


def engine(memory: int) -> Engine:
    learner: Any = Matcher()
    return Engine(learner=learner, device=torch.device("cpu"), autocast=nullcontext, score_memory=memory)


def gallery(images: int, extra: int, seed: int) -> Numbers:
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.concatenate([np.arange(images), rng.integers(0, images, extra)]))
    draw = torch.Generator().manual_seed(seed)
    image, text = (torch.randint(-4, 5, (n, WIDTH), generator=draw).float() for n in (images, len(owner)))
    return Numbers(image, text, owner)


def ranks(scored: Scored) -> tuple[list[int], list[int]]:
    return scored.ranks.image.tolist(), scored.ranks.text.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 10**6), st.integers(1, 700))
def test_ranks_are_the_same_for_any_limit(images: int, extra: int, seed: int, memory: int) -> None:
    given = gallery(images, extra, seed)
    expected = rank_scores(given.image @ given.text.T, given.owner)
    for scorer in ("embed", "match"):
        found = ranks(scoring.rank(engine(memory), given, scorer))
        assert found == (expected.image.tolist(), expected.text.tolist())
        assert found == ranks(scoring.rank(engine(10**9), given, scorer))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(0, 12), st.integers(0, 10**6), st.integers(1, 300), st.integers(1, 4))
def test_a_shortlist_holds_the_same_scores_for_any_limit(
    images: int, extra: int, seed: int, memory: int, k: int
) -> None:
    """Among equals, which one a shortlist holds is open; how near they are is not."""
    given = gallery(images, extra, seed)
    nearness = given.image @ given.text.T
    k = min(k, given.texts)
    chosen = scoring._nearest(given.image, given.text, k, memory)
    assert torch.equal(nearness.gather(1, chosen), nearness.topk(k, dim=1).values)
    assert all(len(set(row)) == k for row in chosen.tolist())


class Largest(TorchDispatchMode):
    """Elements of the largest floating-point tensor that an operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point():
            self.elements = max(self.elements, out.numel())
        return out


@contextmanager
def largest() -> Iterator[Largest]:
    with Largest() as mode:
        yield mode


@pytest.mark.parametrize("scorer", ["embed", "match", "rerank"])
def test_no_block_of_scores_is_larger_than_asked_for(scorer: str) -> None:
    given = gallery(300, 900, 0)
    states = WIDTH * given.texts  # the numbers themselves are no scores
    for memory in (40_000, 4_000_000):
        with largest() as seen:
            scoring.rank(engine(memory), given, scorer, k=2)
        assert seen.elements <= max(memory // 4, states, 2 * 2 * given.texts), (memory, seen.elements)
    assert given.images * given.texts > 10 * states


def test_counting_pairs_by_hand() -> None:
    # Texts 0 and 1 belong to image 0, text 2 to image 1.
    count = RankCount(torch.tensor([0.9, 0.2, 0.5]), np.array([0, 0, 1]), images=2)
    count.add(torch.tensor([1]), torch.tensor([1]), torch.tensor([0.2]))  # ties with text 1's own image
    count.add(torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([0.4, 0.7]))
    assert count.ranks.image.tolist() == [1, 2]
    assert count.ranks.text.tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match="NaN"):
        count.add(torch.tensor([0]), torch.tensor([2]), torch.tensor([torch.nan]))
    with pytest.raises(ValueError, match="own no text"):
        RankCount(torch.tensor([1.0]), np.array([0]), images=2)


def test_what_is_asked_for_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert size_of(None) is None
    assert size_of("64MB") == 64_000_000
    assert size_of("2 GiB") == 2 * 1024**3
    for wrong in ("512", "0MB", "-1MB", "1TB", "1.5GB"):
        with pytest.raises(SuiteError, match="is no size; write one like 64MB"):
            size_of(wrong)
    assert cli.main(["run", "smoke", "--out", str(tmp_path / "out"), "--score-memory", "much"]) == 2
    assert "'much' is no size" in capsys.readouterr().err
    monkeypatch.setenv("VLPBENCH_SCORE_MEMORY", "64000000")
    assert scoring.score_memory() == 64_000_000
    monkeypatch.setenv("VLPBENCH_SCORE_MEMORY", "")
    assert scoring.score_memory() == 512_000_000
