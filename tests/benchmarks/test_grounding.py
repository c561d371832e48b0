"""Masked words with the right image and with another one, by models whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from vlpbench.archs.learner import SpecialTokens
from vlpbench.archs.types import Fused, Text, Unsupported
from vlpbench.benchmarks import plan
from vlpbench.benchmarks.env import capture
from vlpbench.benchmarks.measures import base, grounding
from vlpbench.benchmarks.scoring import Engine
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.worker import CACHE_VARIABLE
from vlpbench.results.record import UNITS, Cell

TOKENS = SpecialTokens(pad=0, cls=1, sep=2, mask=3, vocab_size=10)
IDS = torch.tensor([[1, 5, 6, 2, 0], [1, 7, 2, 0, 0], [1, 8, 9, 5, 2]])


class Gallery:
    """Three images, one of which owns no text and one of which owns two; an image is its own number."""

    owner = np.array([2, 0, 2])
    images, texts = 3, 3

    def image_batch(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(rows).float()

    def text_batch(self, rows: np.ndarray) -> Text:
        return Text(ids=IDS[rows], mask=IDS[rows] != 0)


class Reader(nn.Module):
    """Knows every caption by its length; names the hidden word if it is shown the image it expects."""

    def __init__(self, image_of: dict[int, int]) -> None:
        super().__init__()
        self.image_of = image_of

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def encode_text(self, text: Text) -> tuple[torch.Tensor, torch.Tensor]:
        return text.ids, text.mask

    def fuse(self, image: torch.Tensor, text: tuple[torch.Tensor, torch.Tensor]) -> Fused:
        ids, mask = text
        hidden = torch.zeros(*ids.shape, 10)
        for row, length in enumerate(mask.sum(1).tolist()):
            whole = next(one for one in IDS if int((one != 0).sum()) == length)
            known = int(image[row]) == self.image_of[length]
            hidden[row] = nn.functional.one_hot(whole if known else torch.full_like(whole, 4), 10).float()
        return Fused(pooled=hidden[:, 0], text=hidden)


def engine(image_of: dict[int, int]) -> Engine:
    learner: Any = nn.Module()
    learner.model, learner.objectives = Reader(image_of), {"mlm": nn.Module()}
    learner.objectives["mlm"].head = nn.Identity()
    device = torch.device("cpu")
    return Engine(learner=learner, device=device, autocast=lambda: torch.autocast("cpu", enabled=False))


def test_every_word_is_hidden_once_and_alone() -> None:
    found = grounding.holes_of(Gallery(), TOKENS)
    assert found.caption.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.position.tolist() == [1, 2, 1, 1, 2, 3]
    assert found.label.tolist() == [5, 6, 7, 8, 9, 5]
    assert found.ids[0].tolist() == [1, 3, 6, 2, 0]
    assert found.ids[5].tolist() == [1, 8, 9, 3, 2]
    assert ((found.ids == 3).sum(1) == 1).all()
    assert grounding.commonest(found.label) == pytest.approx(100 * 2 / 6)


def test_no_image_stays_with_its_captions_and_each_is_shown_once() -> None:
    for images in (2, 3, 10):
        wrong = grounding.another(images, np.random.default_rng(0))
        assert sorted(wrong) == list(range(images))
        assert not (wrong == np.arange(images)).any()
    with pytest.raises(Unsupported, match="1 image"):
        grounding.another(1, np.random.default_rng(0))


def test_hits_follow_the_image_that_is_shown(monkeypatch) -> None:
    monkeypatch.setattr(grounding, "PAIRED", 4)  # two parts
    gallery, knows = Gallery(), engine({4: 2, 3: 0, 5: 2})
    holes = grounding.holes_of(gallery, TOKENS)
    own = gallery.owner[holes.caption]
    assert grounding.hits(knows, gallery, holes, own).tolist() == [True] * 6
    found = grounding.hits(knows, gallery, holes, np.array([1, 2, 0, 0, 0, 2]))
    assert found.tolist() == [False, True, True, False, False, True]


def test_the_measure_shares_a_training_and_brings_back_paired_bits(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    cell = Cell(
        arch="vilt",
        size="tiny",
        measure="grounding",
        objectives=("itm", "mlm"),
        batch=16,
        threads=1,
        data="scenes",
        budget=4,
    )
    found = grounding.Grounding().run(Subject.build(cell), cell)
    assert set(found.values) == set(base.spec("grounding").quantities) <= set(UNITS)
    detail = found.detail
    assert detail["captions"] == 40
    for name in ("right", "shuffled"):
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(detail["correct"][name]), np.uint8))[: detail["words"]]
        assert found.values[f"mlm_{name}"] == [pytest.approx(100 * bits.mean())]
    assert len(detail["label"]) == detail["words"]


def test_it_is_planned_only_where_words_are_masked() -> None:
    cell = Cell(arch="albef", size="tiny", measure="grounding", objectives=("itc", "itm"), data="scenes", budget=4)
    assert plan.unsupported(cell, capture()) == "grounding needs the objective mlm, which is not among itc, itm"
    with pytest.raises(Unsupported, match="mlm"):
        grounding.Grounding().run(Subject.build(cell), cell)
    clip = cell.model_copy(update={"arch": "clip", "objectives": ("itc",)})
    assert "which clip lacks" in (plan.unsupported(clip, capture()) or "")
