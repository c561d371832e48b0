"""Triplet and language-modelling losses against numbers worked out by hand, and what a learner does by objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from vlpbench.archs import registry
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.model import Pass, VLModel
from vlpbench.archs.objectives.base import build
from vlpbench.archs.objectives.table import impossible
from vlpbench.archs.types import Batch, Can, Text, Unsupported

TOKENS = SpecialTokens(pad=0, cls=1, sep=None, mask=2, vocab_size=40)


class Given(VLModel[Tensor, Tensor]):
    """Embeds each image and text as it is told: the test writes the similarities down."""

    can = Can.EMBED
    embed_dim, width, vocab_size = 3, 0, 40

    def __init__(self, image: Tensor, text: Tensor) -> None:
        super().__init__()
        self.image, self.text = nn.Parameter(image), nn.Parameter(text)

    def encode_image(self, image: Tensor) -> Tensor:
        return self.image

    def encode_text(self, text: Text) -> Tensor:
        return self.text

    def embed_image(self, image: Tensor) -> Tensor:
        return image

    def embed_text(self, text: Tensor) -> Tensor:
        return text


class Bigram(VLModel[Tensor, Tensor]):
    """Decodes: the logits at a token are a row of a table, plus the image's brightness on token 3."""

    can = Can.DECODE
    components: ClassVar[Mapping[str, str]] = {"table": "text"}
    width, embed_dim, vocab_size = 0, 0, 4

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def encode_image(self, image: Tensor) -> Tensor:
        return image.mean(dim=(1, 2, 3))

    def encode_text(self, text: Text) -> Tensor:
        return text.ids

    def decode(self, image: Tensor, target: Tensor, prompt: Tensor | None = None) -> Tensor:
        logits = self.table[target].clone()
        logits[..., 3] += image[:, None]
        return logits


def batch(ids: list[list[int]], mask: list[list[int]], *, image: Tensor | None = None, sample_id=None) -> Batch:
    size = len(ids)
    return Batch(
        image=torch.zeros(size, 3, 2, 2) if image is None else image,
        text=Text(ids=torch.tensor(ids), mask=torch.tensor(mask, dtype=torch.bool)),
        sample_id=torch.arange(size) if sample_id is None else torch.tensor(sample_id),
    )


def similarities(matrix: list[list[float]], sample_id: list[int]) -> Pass:
    """A pass whose cosines are ``matrix`` [image, text]: images are unit vectors, texts its columns."""
    rows = len(matrix)
    model = Given(torch.eye(rows), torch.tensor(matrix).T)
    return Pass(model, batch([[1]] * rows, [[1]] * rows, sample_id=sample_id))


MATRIX = [[0.8, 0.7, 0.1], [0.9, 0.5, 0.2], [0.0, 0.4, 0.6]]
# Hinges 0.2 + wrong - own. Texts of image 0: 0.1, 0; of 1: 0.6, 0; of 2: 0, 0.
# Images of text 0: 0.3, 0; of 1: 0.4, 0.1; of 2: 0, 0.


@pytest.mark.parametrize(
    ("name", "expected"),
    [("triplet", (0.1 + 0.6 + 0.0) / 3 + (0.3 + 0.4 + 0.0) / 3), ("triplet_sum", (0.1 + 0.6) / 3 + (0.3 + 0.5) / 3)],
)
def test_triplet_is_the_hinge_worked_out_by_hand(name, expected):
    view = similarities(MATRIX, [0, 1, 2])
    loss = build(name, view.model, Recipe(objectives=(name,)))(view)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_warm_up_is_over_all_negatives_and_counts_steps_of_the_optimiser():
    every, hardest = (0.1 + 0.6) / 3 + (0.3 + 0.5) / 3, (0.1 + 0.6) / 3 + (0.3 + 0.4) / 3
    view = similarities(MATRIX, [0, 1, 2])
    loss = build("triplet", view.model, Recipe(objectives=("triplet",), hinge_warmup=2))
    found = []
    for _ in range(3):
        found.append(loss(view).item())
        assert loss(view).item() == found[-1]  # a forward alone moves nothing on
        loss.after_step()
    assert found == pytest.approx([every, every, hardest])
    resumed = build("triplet", view.model, Recipe(objectives=("triplet",), hinge_warmup=2))
    resumed.load_state_dict(loss.state_dict())
    assert resumed(view).item() == pytest.approx(hardest)
    fresh = build("triplet", view.model, Recipe(objectives=("triplet",), hinge_warmup=2)).eval()
    assert fresh(view).item() == pytest.approx(hardest)


def test_rows_of_the_same_image_are_no_negatives_of_one_another():
    view = similarities(MATRIX, [5, 5, 6])
    loss = build("triplet", view.model, Recipe(objectives=("triplet",)))(view)
    # Left of the above: texts of 0: 0; of 1: 0; images of 1: 0.1 (from image 2).
    assert loss.item() == pytest.approx(0.1 / 3, abs=1e-6)


def test_only_the_hardest_negative_carries_a_gradient():
    matrix = [[0.5, 0.6, 0.65], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    grads = {}
    for name in ("triplet", "triplet_sum"):
        view = similarities(matrix, [0, 1, 2])
        build(name, view.model, Recipe(objectives=(name,)))(view).backward()
        grads[name] = view.model.text.grad[:, 0]  # d loss / d s(image 0, text j)
    assert grads["triplet"].tolist() == pytest.approx([-1 / 3, 0.0, 1 / 3])
    assert grads["triplet_sum"].tolist() == pytest.approx([-2 / 3, 1 / 3, 1 / 3])


def test_matching_may_mine_its_negatives_by_triplet_similarities():
    view = similarities(MATRIX, [0, 1, 2])
    objective = build("triplet", view.model, Recipe(objectives=("triplet",), temperature=0.1))
    found = objective.similarity(view, None)
    assert found is not None
    torch.testing.assert_close(found[0], torch.tensor(MATRIX) / 0.1)
    torch.testing.assert_close(found[1], torch.tensor(MATRIX).T / 0.1)


def test_lm_predicts_each_token_from_the_one_before_and_no_padding():
    table = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 4.0, 0.0]])
    view = Pass(Bigram(table), batch([[1, 2, 3], [1, 3, 0]], [[1, 1, 1], [1, 1, 0]]))
    loss = build("lm", view.model, Recipe(objectives=("lm",)))(view)

    def surprise(logits: list[float], token: int) -> float:
        return math.log(sum(math.exp(x) for x in logits)) - logits[token]

    expected = (surprise([0, 1, 2, 3], 2) + surprise([1, 0, 0, 1], 3) + surprise([0, 1, 2, 3], 3)) / 3
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_lm_looks_at_the_image_and_smooths_its_labels():
    table = torch.zeros(4, 4)
    image = torch.full((1, 3, 2, 2), 2.0)
    view = Pass(Bigram(table), batch([[1, 3]], [[1, 1]], image=image))
    logits = [0.0, 0.0, 0.0, 2.0]
    norm = math.log(sum(math.exp(x) for x in logits))
    plain = norm - 2.0
    smoothed = 0.9 * plain + 0.1 * sum(norm - x for x in logits) / 4
    assert build("lm", view.model, Recipe(objectives=("lm",)))(view).item() == pytest.approx(plain, abs=1e-6)
    recipe = Recipe(objectives=("lm",), label_smoothing=0.1)
    assert build("lm", view.model, recipe)(view).item() == pytest.approx(smoothed, abs=1e-6)


def test_what_an_architecture_lacks_is_refused_with_the_reason():
    albef, clip = registry.get("albef"), registry.get("clip")
    assert impossible(albef, ("lm",), "off") == "lm needs DECODE, which albef lacks"
    assert impossible(clip, ("triplet",), "off") is None
    assert (
        impossible(clip, ("triplet",), "queue") == "momentum 'queue' serves contrastive negatives, and triplet has none"
    )
    with pytest.raises(Unsupported, match="lm needs DECODE"):
        build("lm", registry.build("clip", "tiny"), Recipe(objectives=("lm",)))


def albef(**recipe) -> Learner:
    torch.manual_seed(3)
    return Learner(registry.build("albef", "tiny"), Recipe(queue_size=8, **recipe), TOKENS).train()


def losses(learner: Learner, alpha: float) -> dict[str, float]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 40, (4, 16), generator=generator)
    image = torch.randn(4, 3, 32, 32, generator=generator)
    given = Batch(
        image=image, text=Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool)), sample_id=torch.arange(4)
    )
    return {name: loss.item() for name, loss in learner(given, alpha=alpha, generator=generator).items()}


def test_a_learner_distils_the_objectives_that_are_named_and_no_other():
    recipe = {"objectives": ("itc", "itm", "mlm"), "momentum": "distill"}
    hard, soft = losses(albef(**recipe), 0.0), losses(albef(**recipe), 0.4)
    some = losses(albef(**recipe, distilled=("itc",)), 0.4)
    assert hard["itc"] != soft["itc"]
    assert hard["mlm"] != soft["mlm"]
    assert some == {"itc": soft["itc"], "itm": hard["itm"], "mlm": hard["mlm"]}


def test_a_teacher_keeps_no_head_that_it_softens_nothing_with():
    learner = albef(objectives=("itc", "mlm"), momentum="distill", distilled=("itc",))
    assert not any(key.startswith("momentum.twin.heads") for key in learner.state_dict())


@pytest.mark.parametrize(
    ("momentum", "distilled", "reason"),
    [
        ("queue", ("itc",), "needs momentum 'distill'"),
        ("distill", ("mlm",), "not among the objectives"),
        ("distill", ("itm",), "no targets that can be softened"),
    ],
)
def test_distilling_what_cannot_be_is_refused(momentum, distilled, reason):
    objectives = ("itc", "itm")
    with pytest.raises(Unsupported, match=reason):
        albef(objectives=objectives, momentum=momentum, distilled=distilled)
    assert reason in (impossible(registry.get("albef"), objectives, momentum, distilled) or "")


def test_a_head_starts_alike_whatever_is_trained_beside_it():
    alone, beside = albef(objectives=("mlm",)), albef(objectives=("itc", "itm", "mlm"), momentum="queue")
    shared = alone.state_dict()
    assert any(key.startswith("objectives.mlm") for key in shared)
    for key, value in shared.items():
        torch.testing.assert_close(value, beside.state_dict()[key], rtol=0, atol=0)
    torch.manual_seed(4)
    other = Learner(registry.build("albef", "tiny"), Recipe(objectives=("itm",)), TOKENS)
    assert not torch.equal(other.objectives["itm"].head.weight, beside.objectives["itm"].head.weight)
