"""Scenes as arrays, judged against plain loops over their objects."""

from __future__ import annotations

import numpy as np
import pytest
from vlpbench.benchmarks.data.render import BACKGROUND, render
from vlpbench.benchmarks.data.scene_table import (
    COLOURS,
    HELD_OUT,
    KEY_BASE,
    KINDS,
    RELATIONS,
    SHAPES,
    Layout,
    SceneTable,
    below,
    gather,
    join,
    middle_table,
    relation_table,
    sample,
    sample_siblings,
    stream,
)

LAYOUTS = (Layout(), Layout(image=64, grid=3, objects=4), Layout(image=128, grid=4, objects=6))


def describe_object(scenes: SceneTable, n: int, k: int) -> tuple[str, str]:
    return COLOURS[scenes.colour[n, k]], SHAPES[scenes.shape[n, k]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sampled_scenes_keep_their_promises(layout):
    scenes = sample(stream("t"), layout, 500, fewest=2)
    numbers = scenes.present.sum(1)
    assert numbers.min() == 2
    assert numbers.max() == layout.objects
    for n in range(500):
        k = int(numbers[n])
        assert (scenes.kind[n, k:] == -1).all()
        assert len(set(scenes.kind[n, :k])) == k
        assert len(set(scenes.cell[n, :k])) == k
        assert all(describe_object(scenes, n, i) not in HELD_OUT for i in range(k))
        assert scenes.relation[n, 0, 1] >= 0


def test_held_scenes_show_a_held_out_pair_first():
    scenes = sample(stream("t"), Layout(), 300, fewest=2, held=True)
    shown = {describe_object(scenes, n, 0) for n in range(300)}
    assert shown == set(HELD_OUT)


def test_relations_on_two_by_two():
    table = relation_table(2)  # cells 0 1 / 2 3
    names = {(a, b): RELATIONS[table[a, b]] for a in range(4) for b in range(4) if table[a, b] >= 0}
    assert names == {
        (0, 1): "left-of",
        (2, 3): "left-of",
        (1, 0): "right-of",
        (3, 2): "right-of",
        (0, 2): "above",
        (1, 3): "above",
        (2, 0): "below",
        (3, 1): "below",
    }


@pytest.mark.parametrize("grid", [2, 3, 4])
def test_relations_are_unambiguous_and_flip(grid):
    table = relation_table(grid)
    for a in range(grid**2):
        for b in range(grid**2):
            down, right = b // grid - a // grid, b % grid - a % grid
            if abs(down) == abs(right):
                assert table[a, b] == -1
                continue
            assert table[b, a] == table[a, b] ^ 1
            wanted = ("left-of" if right > 0 else "right-of") if abs(right) > abs(down) else None
            wanted = wanted or ("above" if down > 0 else "below")
            assert RELATIONS[table[a, b]] == wanted


def test_places_on_three_by_three():
    names = [tuple(RELATIONS[r] if r >= 0 else None for r in row) for row in middle_table(3)]
    assert names[0] == ("left-of", "above")
    assert names[1] == (None, "above")
    assert names[4] == (None, None)
    assert names[5] == ("right-of", None)
    assert names[6] == ("left-of", "below")


def test_facts_and_keys_by_hand():
    layout = Layout()
    # kind = (size * 6 + colour) * 4 + shape: 0 = small red square, 29 = large green triangle
    one = SceneTable(
        layout=layout,
        kind=np.array([[0, 29, -1], [29, 0, -1], [0, 29, -1]]),
        cell=np.array([[0, 1, -1], [1, 0, -1], [1, 0, -1]]),
        offset=np.zeros((3, 3, 2), np.int64),
        group=np.full(3, -1),
    )
    # relation 0 = left of, 1 = right of, 2 = above; 48 stands for the middle of the picture
    left, right = (0 * 4 + 0) * 49 + 29, (29 * 4 + 1) * 49 + 0
    high = {(0 * 4 + 2) * 49 + 48, (29 * 4 + 2) * 49 + 48}
    assert set(one.facts[0]) == {left, right, (0 * 4 + 0) * 49 + 48, (29 * 4 + 1) * 49 + 48, *high, -1}
    assert set(one.facts[1]) == set(one.facts[0])
    moved = {(0 * 4 + 1) * 49 + 29, (29 * 4 + 0) * 49 + 0, (0 * 4 + 1) * 49 + 48, (29 * 4 + 0) * 49 + 48}
    assert set(one.facts[2]) == {*moved, *high, -1}
    assert one.key[0] == one.key[1] != one.key[2]
    assert 16 * KINDS < KEY_BASE


def test_siblings_differ_by_the_two_swaps():
    groups = sample_siblings(stream("t"), Layout(), 200)
    assert len(groups) % 4 == 0
    assert len(groups) > 200
    for start in range(0, len(groups), 4):
        base, moved, painted, both = (
            {(int(groups.cell[n, k]), *describe_object(groups, n, k), int(groups.size[n, k])) for k in (0, 1)}
            for n in range(start, start + 4)
        )
        (a, ca, sa, za), (b, cb, sb, zb) = sorted(base)
        assert moved == {(b, ca, sa, za), (a, cb, sb, zb)}
        assert painted == {(a, cb, sa, za), (b, ca, sb, zb)}
        assert both == {(b, cb, sa, za), (a, ca, sb, zb)}
        assert len(set(groups.group[start : start + 4])) == 1
        assert all(describe_object(groups, n, k) not in HELD_OUT for n in range(start, start + 4) for k in (0, 1))
    assert len(np.unique(groups.key)) > 0.9 * len(groups)


def test_join_keeps_groups_apart():
    groups = sample_siblings(stream("t"), Layout(), 20)
    plain = sample(stream("t"), Layout(), 3, fewest=1)
    joined = join([groups, plain, groups])
    assert (joined.group[len(groups) : len(groups) + 3] == -1).all()
    assert not set(joined.group[: len(groups)]) & set(joined.group[len(groups) + 3 :])


def test_gather_says_when_there_are_too_few():
    layout = Layout()
    with pytest.raises(ValueError, match="only 0 of 5 scenes"):
        gather(5, lambda count: sample(stream("t"), layout, count, fewest=1), lambda table: table.kind[:, 0] < -1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"grid": 5}, "not 5"), ({"image": 16}, "20 or more, not 16"), ({"objects": 5}, "2 to 4 .*not 5")],
)
def test_layout_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        Layout(**wrong)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_show_objects_inside_their_boxes_and_nothing_outside(layout):
    scenes = sample(stream("t"), layout, 60, fewest=1)
    pictures = render(scenes, stream("p")).astype(int)
    assert pictures.shape == (60, 3, layout.image, layout.image)
    dark = BACKGROUND[1] + 16
    for n in range(60):
        outside = np.ones((layout.image, layout.image), bool)
        for k in range(layout.objects):
            left, top, right, bottom = scenes.boxes[n, k]
            if scenes.kind[n, k] < 0:
                assert left == -1
                continue
            row, column = divmod(int(scenes.cell[n, k]), layout.grid)
            assert column * layout.cell <= left < right <= (column + 1) * layout.cell
            assert row * layout.cell <= top < bottom <= (row + 1) * layout.cell
            outside[top:bottom, left:right] = False
            box = pictures[n, :, top:bottom, left:right]
            lit = box.max(0) > dark
            assert lit.any(0).sum() >= 0.8 * (right - left)  # the shape spans its box
            assert lit.any(1).sum() >= 0.8 * (bottom - top)
            mean = box[:, lit].mean(1)
            name = COLOURS[scenes.colour[n, k]]
            strong = {c for c, v in zip("rgb", mean, strict=True) if v > 0.6 * mean.max()}
            wanted = {"red": "r", "green": "g", "blue": "b", "yellow": "rg", "purple": "rb", "white": "rgb"}[name]
            assert strong == set(wanted), (name, mean)
        assert pictures[n][:, outside].max() < dark


def test_shapes_have_their_outlines():
    layout = Layout(image=128, grid=2)
    kinds = np.array([[4 + shape, -1, -1] for shape in range(4)])  # small green ones
    scenes = SceneTable(
        layout=layout,
        kind=kinds,
        cell=np.where(kinds >= 0, 0, -1),
        offset=np.zeros((4, 3, 2), np.int64),
        group=np.full(4, -1),
    )
    left, top, right, bottom = scenes.boxes[0, 0]
    area = {}
    for n, name in enumerate(SHAPES):
        lit = render(scenes, stream("p"))[n, 1, top:bottom, left:right] > 100
        area[name] = lit.mean()
        middle, corner = lit[lit.shape[0] // 2, lit.shape[1] // 2], lit[0, 0]
        assert (middle, corner) == {
            "square": (True, True),
            "triangle": (True, False),
            "ring": (False, False),
            "cross": (True, True),
        }[name]
    assert area["square"] == 1
    assert area["triangle"] == pytest.approx(0.5, abs=0.05)
    assert area["ring"] == pytest.approx(np.pi / 4 * 0.7, abs=0.05)


def test_noise_is_normal_enough_and_never_wraps():
    layout = Layout()
    scenes = sample(stream("t"), layout, 400, fewest=1)
    pictures = render(scenes, stream("p")).astype(int)
    corner = pictures[:, :, 0, 0]  # no object reaches it
    empty = scenes.cell != 0
    grey = pictures[empty.all(1)][:, :, :16, :16].reshape(empty.all(1).sum(), -1)
    assert grey.std(1).mean() == pytest.approx(5, abs=0.3)
    assert corner.max() <= BACKGROUND[1] + 15
    assert pictures.min() >= 0
    assert (pictures.reshape(400, -1).max(1) > 100).all()


def test_equal_scenes_do_not_share_pixels():
    scenes = sample(stream("t"), Layout(), 1, fewest=2)
    twice = render(join([scenes, scenes]), stream("p"))
    assert not np.array_equal(twice[0], twice[1])


def test_draws_are_uniform_and_named_streams_are_independent():
    drawn = below(stream("a"), 6, 60_000)
    assert np.bincount(drawn).tolist() == pytest.approx([10_000] * 6, rel=0.05)
    assert stream("a", 1).random() == stream("a", 1).random() != stream("a", 2).random()
