"""Statements about two pictures and hypotheses about curtained ones, judged by readers that share no generator code."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from vlpbench.benchmarks.data import base, render, scene_entailment
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.scene_reasoning import reason
from vlpbench.benchmarks.data.scene_table import COLOURS, HELD_OUT, SHAPES, SIZES, Layout, SceneTable, stream
from vlpbench.benchmarks.data.scene_text import TEXT_LEN, WORDS
from vlpbench.benchmarks.data.scenes import Scenes, ScenesConfig

LAYOUTS = {"tiny": Layout(), "medium": Layout(image=64, grid=3, objects=4)}
Object = tuple[str, str, str, int, int]


@pytest.fixture(scope="module", params=LAYOUTS)
def source(request: pytest.FixtureRequest) -> Scenes:
    layout = LAYOUTS[request.param]
    return Scenes(ScenesConfig(layout=layout, train_images=300, train_questions=2_400, scenes=100, questions=720))


def words(ids: np.ndarray) -> list[str]:
    """The words between [CLS] and [SEP], which must be where they belong."""
    row = ids.tolist()
    end = row.index(2)
    assert row[0] == 1
    assert not any(row[end + 1 :])
    assert len(row) == TEXT_LEN
    return [WORDS[i] for i in row[1:end]]


def objects(scenes: SceneTable, row: int) -> list[Object]:
    """(size, colour, shape, row, column) of everything in a scene."""
    found = []
    for kind, cell in zip(scenes.kind[row].tolist(), scenes.cell[row].tolist(), strict=True):
        if kind >= 0:
            pair = kind % 24
            found.append((SIZES[kind // 24], COLOURS[pair // 4], SHAPES[pair % 4], *divmod(cell, scenes.layout.grid)))
    places = [o[3:] for o in found]
    assert len(set(places)) == len(places)
    return found


def stands(a: Object, relation: str, b: Object) -> bool:
    """Whether "a relation b" by the wider of the two gaps."""
    down, right = b[3] - a[3], b[4] - a[4]
    wide, tall = abs(right) > abs(down), abs(down) > abs(right)
    return {
        "left-of": wide and right > 0,
        "right-of": wide and right < 0,
        "above": tall and down > 0,
        "below": tall and down < 0,
    }[relation]


def related(scene: list[Object], c1: str, s1: str, relation: str, c2: str, s2: str) -> bool:
    pairs = itertools.permutations(scene, 2)
    return any(a[1:3] == (c1, s1) and b[1:3] == (c2, s2) and stands(a, relation, b) for a, b in pairs)


def number(scene: list[Object], name: str) -> int:
    return sum(name in o[1:3] for o in scene)


def is_true(left: list[Object], right: list[Object], said: list[str]) -> bool:
    """The reader of statements about two pictures."""
    both = (left, right)
    match said:
        case ["both", *thing]:
            return all(any(list(o[:3]) == thing for o in side) for side in both)
        case ["one", c1, s1, relation, c2, s2]:
            return sum(related(side, c1, s1, relation, c2, s2) for side in both) == 1
        case ["one", *thing]:
            return sum(any(list(o[:3]) == thing for o in side) for side in both) == 1
        case ["left" | "right" as where, *thing]:
            return any(list(o[:3]) == thing for o in (left if where == "left" else right))
        case ["more", colour, "things", where]:
            gap = number(left, colour) - number(right, colour)
            return gap > 0 if where == "left" else gap < 0
        case ["same", "shape", colour, "thing"]:
            (a,), (b,) = ([o for o in side if o[1] == colour] for side in both)
            return a[2] == b[2]
        case ["same", "colour", shape]:
            (a,), (b,) = ([o for o in side if o[2] == shape] for side in both)
            return a[1] == b[1]
        case [_, _, _]:
            return any(list(o[:3]) == said for side in both for o in side)
    raise AssertionError(said)


def holds(scene: list[Object], said: list[str], grid: int) -> bool:
    """The reader of hypotheses, of a scene without a curtain."""
    middle = (grid - 1) / 2
    match said:
        case [colour, shape, relation, "middle"]:
            found = [o for o in scene if o[1:3] == (colour, shape)]
            inside = {
                "left-of": [o[4] < middle for o in found],
                "right-of": [o[4] > middle for o in found],
                "above": [o[3] < middle for o in found],
                "below": [o[3] > middle for o in found],
            }
            return any(inside[relation])
        case ["more", "than", "one", name, "thing"]:
            return number(scene, name) >= 2
        case ["more", first, "than", second, "things"]:
            return number(scene, first) > number(scene, second)
        case [c1, s1, relation, c2, s2]:
            return related(scene, c1, s1, relation, c2, s2)
    raise AssertionError(said)


def verdict(scene: list[Object], cover: int, said: list[str], grid: int) -> str:
    """By trying everything that may be behind the curtain: all 48 objects and none."""
    at = divmod(cover, grid)
    seen = [o for o in scene if cover < 0 or o[3:] != at]
    worlds = [seen]
    if cover >= 0:
        worlds += [[*seen, (*looks, *at)] for looks in itertools.product(SIZES, COLOURS, SHAPES)]
    truths = {holds(world, said, grid) for world in worlds}
    return "neutral" if len(truths) == 2 else "entailment" if True in truths else "contradiction"


def test_it_is_a_source_of_both_tasks(source: Scenes) -> None:
    assert isinstance(source, base.Reasoning)
    assert isinstance(source, base.Entailment)
    assert isinstance(source.reasoning("val"), base.Statements)
    assert isinstance(source.entailment("val"), base.Hypotheses)
    assert len(set(WORDS)) == len(WORDS)


@pytest.mark.parametrize("split", ["train", "test", "comp"])
def test_statements_are_what_a_reader_says(source: Scenes, split: str) -> None:
    statements = source.reasoning(split)
    scenes, claimed = source.claimed(split)
    for row in range(0, len(statements), 2 if split == "train" else 1):
        left, right = (objects(scenes, int(side[row])) for side in (claimed.left, claimed.right))
        said = words(statements.ids[row])
        assert is_true(left, right, said) == (statements.labels[claimed.label[row]] == "true"), said


@pytest.mark.parametrize("split", ["train", "test", "comp"])
def test_hypotheses_are_what_a_reader_says(source: Scenes, split: str) -> None:
    hypotheses = source.entailment(split)
    scenes, supposed = source.supposed(split)
    for row in range(0, len(hypotheses), 5 if split == "train" else 2):
        said = words(hypotheses.ids[row])
        found = verdict(objects(scenes, row), int(supposed.cover[row]), said, scenes.layout.grid)
        assert found == hypotheses.labels[supposed.label[row]], said


@pytest.mark.parametrize("split", ["train", "test", "comp"])
def test_statements_are_balanced_by_text_picture_and_pair(source: Scenes, split: str) -> None:
    statements = source.reasoning(split)
    claimed = statements.claimed
    assert len(set(Counter(statements.kind.tolist()).values())) == 1
    assert set(statements.kind.tolist()) == set(range(len(statements.kinds)))
    for told in (
        [ids.tobytes() for ids in statements.ids],
        claimed.left.tolist(),
        claimed.right.tolist(),
        list(zip(claimed.left.tolist(), claimed.right.tolist(), strict=True)),
    ):
        labels = defaultdict(list)
        for key, label in zip(told, claimed.label.tolist(), strict=True):
            labels[key].append(label)
        assert {sum(found) / len(found) for found in labels.values()} == {0.5}


def learnt(told: np.ndarray, label: np.ndarray) -> float:
    """Share of the second half of samples that the commonest label in the first, given what is told, gets right."""
    half = len(told) // 2
    rule = {value: np.bincount(label[:half][told[:half] == value]).argmax() for value in np.unique(told[:half])}
    return float(np.mean([rule.get(value, 0) == true for value, true in zip(told[half:], label[half:], strict=True)]))


def test_one_picture_and_the_statement_say_nothing_where_logic_allows() -> None:
    scenes, claimed = reason(stream("one picture"), Layout(), 33_600)
    known = ("one", 0.5), ("relation", 0.5), ("same", 0.5), ("both", 0.75), ("side", 1.0), ("any", 5 / 6)
    for name, expected in known:
        rows = claimed.claim[:, 0] == ("both", "one", "side", "more", "relation", "same", "any").index(name)
        a, r = claimed.claim[rows, 1], claimed.claim[rows, 2]
        for side in (claimed.left[rows], claimed.right[rows]):
            told = (scenes.kind[side] == a[:, None]).any(1) + 2 * r
            if name == "relation":  # where the first object stands tells on which sides of it the others are
                told = scenes.cell[side][scenes.pair[side] == a[:, None]] * 4 + r
            if name == "same":
                value = np.where(a[:, None] < 6, scenes.colour[side], scenes.shape[side] + 6) == a[:, None]
                told = a * 24 + scenes.pair[side][value]
            assert learnt(np.asarray(told), claimed.label[rows]) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("split", ["train", "test", "comp"])
def test_hypotheses_are_balanced_and_a_curtain_says_little(source: Scenes, split: str) -> None:
    hypotheses = source.entailment(split)
    supposed = hypotheses.supposed
    assert len(set(Counter(hypotheses.kind.tolist()).values())) == 1
    labels = defaultdict(list)
    for ids, label in zip(hypotheses.ids, supposed.label.tolist(), strict=True):
        labels[ids.tobytes()].append(label)
    assert all(np.bincount(found, minlength=3).tolist() == [len(found) / 3] * 3 for found in labels.values())
    covered = supposed.cover >= 0
    by_label = [float(covered[supposed.label == label].mean()) for label in range(3)]
    assert by_label[1] == 1
    assert by_label[0] == by_label[2] == pytest.approx(7 / 8, abs=0.03)
    by_curtain = sum(np.bincount(supposed.label[covered == there]).max() for there in (False, True))
    assert by_curtain / len(supposed) == pytest.approx(0.375, abs=0.01)


def test_held_out_pairs_are_named_in_comp_alone(source: Scenes) -> None:
    for split in ("train", "val", "test"):
        for scenes in (source.claimed(split)[0], source.supposed(split)[0]):
            assert not any(o[1:3] in HELD_OUT for row in range(len(scenes)) for o in objects(scenes, row))
    rare = {name for pair in HELD_OUT for name in pair}
    for batch in (source.reasoning("comp"), source.entailment("comp")):
        for kind, ids in zip(batch.kind.tolist(), batch.ids, strict=True):
            said = words(ids)
            pairs = {(c, s) for c, s in itertools.pairwise(said) if c in COLOURS and s in SHAPES}
            assert pairs & set(HELD_OUT) if pairs else rare & set(said), (batch.kinds[kind], said)
    scenes, claimed = source.claimed("comp")
    for left, right in zip(claimed.left.tolist(), claimed.right.tolist(), strict=True):
        assert any(o[1:3] in HELD_OUT for o in objects(scenes, left) + objects(scenes, right))


def test_what_is_evaluated_on_is_not_trained_on_and_does_not_depend_on_the_seed(source: Scenes) -> None:
    other = Scenes(ScenesConfig(**(vars(source.config) | {"seed": 1, "noise": 0.5})))
    for drawn in ("claimed", "supposed"):
        keys = {split: set(getattr(source, drawn)(split)[0].key.tolist()) for split in ("train", "val", "test", "comp")}
        assert not keys["train"] & (keys["val"] | keys["test"] | keys["comp"])
        assert (getattr(source, drawn)("train")[0].key != getattr(other, drawn)("train")[0].key).any()
    for task in ("reasoning", "entailment"):
        assert getattr(source, task)("test").hash == getattr(other, task)("test").hash
        assert getattr(source, task)("test").hash != getattr(source, task)("val").hash


def test_batches(source: Scenes) -> None:
    side = source.config.layout.image
    rows = np.array([3, 0])
    statements, hypotheses = source.reasoning("test"), source.entailment("test")
    pairs, single = statements.batch(rows), hypotheses.batch(rows)
    assert pairs.left.shape == pairs.right.shape == single.image.shape == (2, 3, side, side)
    assert pairs.label.tolist() == statements.claimed.label[rows].tolist()
    assert single.label.tolist() == hypotheses.supposed.label[rows].tolist()
    assert pairs.sample_id.tolist() == single.sample_id.tolist() == [3, 0]
    for text, ids in ((pairs.statement, statements.ids), (single.hypothesis, hypotheses.ids)):
        assert text.ids.tolist() == ids[rows].tolist()
        assert text.mask.tolist() == (ids[rows] != 0).tolist()
    assert not pairs.left.equal(pairs.right)


def test_a_curtain_hides_its_cell_and_nothing_else(source: Scenes) -> None:
    scenes, supposed = source.supposed("test")
    layout, cell = scenes.layout, scenes.layout.cell
    plain, hung = (render.render(scenes, stream("curtain"), cover) for cover in (None, supposed.cover))
    for row, cover in enumerate(supposed.cover[:100].tolist()):
        hidden = np.zeros((layout.image, layout.image), bool)
        if cover >= 0:
            top, left = (cell * part for part in divmod(cover, layout.grid))
            hidden[top : top + cell, left : left + cell] = True
            tile = hung[row][:, hidden].reshape(3, cell, cell).astype(int)
            assert 84 <= tile.min() < 116 <= 144 <= tile.max() <= 176
            assert tile.mean(0).std() > 15  # stripes, so no object and no background
        assert (plain[row][:, ~hidden] == hung[row][:, ~hidden]).all()


def test_errors(source: Scenes) -> None:
    for task in (source.reasoning, source.entailment):
        with pytest.raises(DataError, match=r"split of scenes 'tset'.*test"):
            task("tset")
    with pytest.raises(ValueError, match="up to 3 objects, not 2"):
        reason(stream("few"), Layout(objects=2), 24)
    scenes, supposed = scene_entailment.suppose(stream("least"), Layout(objects=2), 1)
    assert len(scenes) == len(supposed) == 12
