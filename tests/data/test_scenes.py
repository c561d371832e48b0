"""Every caption, foil and answer of the data set, judged by a reader of words that shares no generator code."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from vlpbench.benchmarks.data.base import DataError, Gallery, Pairs, Questions, Source
from vlpbench.benchmarks.data.scene_table import COLOURS, HELD_OUT, SHAPES, SIZES, Layout
from vlpbench.benchmarks.data.scene_text import WORDS
from vlpbench.benchmarks.data.scenes import CONFIGS, Scenes, ScenesConfig

SMALL_HASH = "f3d1bd05acbdc8dc774808cd3ea0cc54501b6d9619e661eea915f95fa4dfabaa"
CONFIG = ScenesConfig(train_images=4_000, train_questions=8_000, scenes=900, questions=1_500)


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(CONFIG)


def words(ids) -> list[str]:
    """The words between [CLS] and [SEP], which must be where they belong."""
    ids = ids.tolist()
    end = ids.index(2)
    assert ids[0] == 1
    assert not any(ids[end + 1 :])
    return [WORDS[i] for i in ids[1:end]]


def objects(scenes) -> list[list[tuple[str, str, str, int, int]]]:
    """(size, colour, shape, row, column) of the objects of every scene."""
    columns = (scenes.size, scenes.colour, scenes.shape, scenes.cell)
    return [
        [
            (SIZES[z], COLOURS[c], SHAPES[s], *divmod(cell, scenes.layout.grid))
            for z, c, s, cell in zip(*row, strict=True)
            if cell >= 0
        ]
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]


def stands(a, relation: str, b) -> bool:
    """Whether "a relation b" by the wider of the two gaps."""
    down, right = b[3] - a[3], b[4] - a[4]
    if abs(right) == abs(down):
        return False
    if abs(right) > abs(down):
        return relation == ("left-of" if right > 0 else "right-of")
    return relation == ("above" if down > 0 else "below")


def is_true(scene, said: list[str]) -> bool:
    if len(said) == 3:
        return any(list(o[:3]) == said for o in scene)
    return any(
        list(a[:3]) == said[:3] and list(b[:3]) == said[4:] and stands(a, said[3], b)
        for a in scene
        for b in scene
        if a is not b
    )


def the_answer(scene, asked: list[str]) -> str | None:
    """The right answer of a question, None where it has no single one."""
    match asked:
        case ["what", "colour", "is", shape]:
            found = [o[1] for o in scene if o[2] == shape]
            return found[0] if len(found) == 1 else None
        case ["what", "shape", "is", colour, "thing"]:
            found = [o[2] for o in scene if o[1] == colour]
            return found[0] if len(found) == 1 else None
        case ["is", "there", colour, shape]:
            return "yes" if any(o[1:3] == (colour, shape) for o in scene) else "no"
        case ["how", "many", name, "things"]:
            return str(sum(name in o[1:3] for o in scene))
        case ["is", c1, s1, relation, c2, s2]:
            first = [o for o in scene if o[1:3] == (c1, s1)]
            second = [o for o in scene if o[1:3] == (c2, s2)]
            if len(first) != 1 or len(second) != 1:
                return None
            return "yes" if stands(first[0], relation, second[0]) else "no"
    raise AssertionError(asked)


def pairs_named(said: list[str]) -> set[tuple[str, str]]:
    return {(a, b) for a, b in itertools.pairwise(said) if a in COLOURS and b in SHAPES}


def test_it_is_a_source(source):
    assert isinstance(source, Source)
    assert isinstance(source.pairs("train"), Pairs)
    assert isinstance(source.gallery(), Gallery)
    assert isinstance(source.questions("test"), Questions)
    assert source.geometry.vocab_size == len(WORDS) == len(set(WORDS))
    assert (source.geometry.pad, source.geometry.cls, source.geometry.sep, source.geometry.mask) == (0, 1, 2, 3)
    assert WORDS[:4] == ("[PAD]", "[CLS]", "[SEP]", "[MASK]")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_captions_are_true(source, split):
    pairs, shown = source.pairs(split), objects(source.scenes(split))
    for row in range(0, len(pairs), 3):
        assert is_true(shown[row % len(shown)], words(pairs.ids[row]))


def test_two_captions_of_a_picture_differ_where_they_can(source):
    pairs, scenes = source.pairs("train"), source.scenes("train")
    several = scenes.present.sum(1) > 1
    first, second = pairs.ids[: len(scenes)], pairs.ids[len(scenes) :]
    assert (first != second).any(1)[several].all()


def test_training_never_shows_or_names_a_held_out_pair(source):
    assert not {o[1:3] for scene in objects(source.scenes("train")) for o in scene} & set(HELD_OUT)
    for ids in (source.pairs("train").ids, source.asked("train").ids, source.foils().false_ids["colour"]):
        assert not set().union(*(pairs_named(words(row)) for row in np.unique(ids, axis=0))) & set(HELD_OUT)


def test_no_evaluated_scene_occurs_in_training(source):
    def symbols(scenes):
        return {frozenset(scene) for scene in objects(scenes)}

    train = symbols(source.scenes("train"))
    for split in ("val", "test", "comp"):
        assert not train & symbols(source.scenes(split))
    for gallery in source.galleries():
        assert not train & symbols(source.drawn(gallery).scenes)
    assert not train & symbols(source.drawn_foils().scenes)


@pytest.mark.parametrize("name", ["test", "val", "large", "hard", "comp"])
def test_every_gallery_caption_is_true_of_exactly_its_image(source, name):
    gallery, scenes = source.gallery(name), source.drawn(name).scenes
    assert gallery.images == gallery.texts == len(scenes) == CONFIG.gallery * (2 if name == "large" else 1)
    shown = objects(scenes)
    for text, ids in enumerate(gallery.ids):
        said = words(ids)
        assert [n for n, scene in enumerate(shown) if is_true(scene, said)] == [gallery.owner[text]]


def test_large_gallery_holds_the_test_gallery(source):
    test, large = source.gallery("test"), source.gallery("large")
    assert np.array_equal(test.ids, large.ids[:200])


def test_hard_gallery_has_one_bag_of_words_a_group_and_no_bag_twice(source):
    ids = source.gallery("hard").ids
    bags = [tuple(sorted(words(row))) for row in ids]
    groups = [set(bags[start : start + 4]) for start in range(0, len(bags), 4)]
    assert all(len(group) == 1 for group in groups)
    assert len(set().union(*groups)) == len(groups) == 50
    assert len({tuple(row) for row in ids}) == 200


def test_siblings_are_in_the_hard_gallery_alone(source):
    sizes = Counter(source.drawn("hard").scenes.group)
    assert set(sizes.values()) == {4}
    assert sum(sizes.values()) == 200
    for name in ("test", "val", "large", "comp"):
        assert not (source.drawn(name).scenes.group >= 0).any()


def test_comp_gallery_captions_name_a_held_out_pair(source):
    assert all(pairs_named(words(row)) & set(HELD_OUT) for row in source.gallery("comp").ids)


def test_training_order_keeps_same_bag_siblings_together(source):
    pairs = source.pairs("train")
    order = pairs.order(np.random.default_rng(0))
    assert sorted(order) == list(range(len(pairs)))
    group = pairs.group[order % len(pairs.pictures)]
    starts = np.flatnonzero(group >= 0)[::4]
    assert len(starts) * 4 == pytest.approx(source.config.siblings * len(pairs), abs=8)
    for start in starts:
        together = order[start : start + 4]
        assert len(set(pairs.group[together % len(pairs.pictures)])) == 1
        assert len({tuple(sorted(words(row))) for row in pairs.ids[together]}) == 1
        assert len({tuple(row) for row in pairs.ids[together]}) == 4
    with_siblings = [bool((group[s : s + 64] >= 0).sum() >= 4) for s in range(0, len(order) - 63, 64)]
    assert np.mean(with_siblings) > 0.5
    assert not np.array_equal(order, pairs.order(np.random.default_rng(1)))


def test_siblings_say_false_things_of_one_another(source):
    pairs, scenes = source.pairs("train"), source.scenes("train")
    shown = objects(scenes)
    for group in range(0, int(scenes.group.max()), 25):
        members = np.flatnonzero(scenes.group == group)
        for a in members:
            for b in members:
                assert is_true(shown[b], words(pairs.ids[a])) == (a == b)


def test_foils_are_false_down_to_the_objects(source):
    foils, shown = source.foils(), objects(source.drawn_foils().scenes)
    assert len(foils) == CONFIG.foils
    for n in range(len(foils)):
        scene, true = shown[n], words(foils.true_ids[n])
        assert is_true(scene, true)
        z1, c1, s1, relation, z2, c2, s2 = true
        flipped = {"left-of": "right-of", "right-of": "left-of", "above": "below", "below": "above"}[relation]
        wanted = {
            "colour": [z1, c2, s1, relation, z2, c1, s2],
            "shape": [z1, c1, s2, relation, z2, c2, s1],
            "relation": [z1, c1, s1, flipped, z2, c2, s2],
        }
        for kind, ids in foils.false_ids.items():
            assert words(ids[n]) == wanted[kind]
            assert not is_true(scene, wanted[kind])
            if kind != "relation":
                there = [list(o[:3]) for o in scene]
                assert wanted[kind][:3] not in there
                assert wanted[kind][4:] not in there


def test_foils_cannot_be_told_by_their_words_alone(source):
    """Trained statements are as often of the false form as of the true: neither reads more familiar."""
    foils = source.foils()
    seen = Counter(tuple(words(row)[1:3]) for row in source.pairs("train").ids)
    for kind in ("colour", "shape", "relation"):
        lead = [
            seen[tuple(words(true)[1:3])] - seen[tuple(words(false)[1:3])]
            for true, false in zip(foils.true_ids, foils.false_ids[kind], strict=True)
        ]
        more_familiar = np.mean(np.array(lead) > 0) + np.mean(np.array(lead) == 0) / 2
        assert 0.4 < more_familiar < 0.6


@pytest.mark.parametrize("split", ["train", "val", "test", "comp"])
def test_answers_are_right(source, split):
    asked, shown, questions = source.asked(split), objects(source.scenes(split)), source.questions(split)
    forms = {"what colour": "colour", "what shape": "shape", "is there": "exist", "how many": "count"}
    for row in range(0, len(asked), 2):
        said = words(asked.ids[row])
        assert the_answer(shown[asked.scene[row]], said) == questions.answers[asked.answer[row]]
        assert questions.kinds[asked.kind[row]] == forms.get(" ".join(said[:2]), "relation")


@pytest.mark.parametrize("split", ["train", "test", "comp"])
def test_answers_are_balanced_by_type(source, split):
    questions = source.questions(split)
    majority = {}
    for kind, name in enumerate(questions.kinds):
        answer = questions.asked.answer[questions.kind == kind]
        assert len(answer) == len(questions) / 5
        majority[name] = 100 * np.bincount(answer).max() / len(answer)
    assert majority["exist"] <= 52
    assert majority["relation"] <= 52
    assert majority["count"] <= 36
    if split != "comp":
        assert majority["colour"] <= 21
        assert majority["shape"] <= 29
    assert questions.binding == {"colour", "shape", "exist"}


def test_relation_questions_use_every_relation_equally(source):
    for split in ("train", "test"):
        asked = source.asked(split)
        said = [words(row)[3] for row in asked.ids[asked.kind == 4]]
        answer = asked.answer[asked.kind == 4]
        counts = Counter(zip(said, answer.tolist(), strict=True))
        assert len(counts) == 8
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("split", ["test", "comp"])
def test_the_question_alone_does_not_give_the_answer(source, split):
    """The best answer of every question string, learnt on training questions, hardly beats chance on yes/no types."""
    train, test = source.asked("train"), source.asked(split)
    votes: dict[tuple[int, ...], Counter] = defaultdict(Counter)
    by_kind: dict[int, Counter] = defaultdict(Counter)
    for ids, answer, kind in zip(train.ids, train.answer, train.kind, strict=True):
        votes[tuple(ids)][answer] += 1
        by_kind[kind][answer] += 1
    right = defaultdict(list)
    for ids, answer, kind in zip(test.ids, test.answer, test.kind, strict=True):
        best = (votes.get(tuple(ids)) or by_kind[kind]).most_common(1)[0][0]
        right[kind].append(best == answer)
    for kind in (2, 4):
        assert np.mean(right[kind]) < 0.6
    for kind, limit in ((0, 0.33), (1, 0.4), (3, 0.5)):
        assert np.mean(right[kind]) < limit


def test_the_set_of_words_seen_does_not_give_the_attribute(source):
    """Another object differs in what a test question asks for, so seeing which colours there are is not enough."""
    asked, shown = source.asked("test"), objects(source.scenes("test"))
    for row in np.flatnonzero(asked.kind == 0):
        assert len({o[1] for o in shown[asked.scene[row]]}) > 1


def test_no_question_is_asked_twice(source):
    for split in ("train", "test"):
        asked = source.asked(split)
        assert len({(int(s), *ids) for s, ids in zip(asked.scene, asked.ids.tolist(), strict=True)}) == len(asked)


def noisy(rate: float, **changes) -> Scenes:
    return Scenes(dataclasses.replace(CONFIG, noise=rate, **changes))


def test_caption_noise_by_rate(source):
    clean, shown = source.pairs("train").ids, objects(source.scenes("train"))
    spoilt = {rate: noisy(rate).pairs("train").ids for rate in (0.2, 0.5)}
    for rate, ids in spoilt.items():
        changed = (ids != clean).any(1)
        assert changed.mean() == pytest.approx(rate, abs=0.015)
        said = [words(row) for row in ids[changed]]
        images = np.flatnonzero(changed) % len(shown)
        truth = np.array([is_true(shown[image], text) for image, text in zip(images, said, strict=True)])
        length = np.array([len(text) for text in said])
        had_two = np.array([len(words(row)) == 7 for row in clean[changed]])
        assert (length[truth] == 3).all()  # what is still true is a part of the caption
        assert truth[had_two].mean() == pytest.approx(0.3, abs=0.03)
        assert not truth[~had_two].any()
    nested = (spoilt[0.2] != clean).any(1) <= (spoilt[0.5] != clean).any(1)
    assert nested.all()


def test_noise_touches_training_captions_only(source):
    other = noisy(0.5)
    assert np.array_equal(other.pairs("train").pictures, source.pairs("train").pictures)
    assert np.array_equal(other.asked("train").ids, source.asked("train").ids)
    assert np.array_equal(other.pairs("test").ids, source.pairs("test").ids)
    assert np.array_equal(other.gallery().ids, source.gallery().ids)
    assert other.hash == source.hash


def test_seed_changes_training_and_nothing_that_is_evaluated(source):
    other = Scenes(dataclasses.replace(CONFIG, seed=1))
    assert not np.array_equal(other.pairs("train").ids, source.pairs("train").ids)
    assert not np.array_equal(other.pairs("train").pictures, source.pairs("train").pictures)
    assert np.array_equal(other.gallery("large").pictures, source.gallery("large").pictures)
    assert np.array_equal(other.questions("test").pictures, source.questions("test").pictures)
    assert np.array_equal(other.asked("test").ids, source.asked("test").ids)
    assert other.hash == source.hash


def test_batches(source):
    pairs = source.pairs("train")
    rows = np.array([5, 4_005, 7])  # rows 5 and 4,005 are the two captions of image 5
    batch = pairs.batch(rows)
    assert batch.image.dtype == torch.float32
    assert batch.image.shape == (3, 3, 32, 32)
    assert batch.sample_id.tolist() == [5, 5, 7]
    wanted = (torch.from_numpy(pairs.pictures[[5, 5, 7]].astype(np.float32)) / 255 - 0.5) / 0.5
    torch.testing.assert_close(batch.image, wanted, atol=1e-6, rtol=0)
    assert batch.text.ids.dtype == torch.int64
    assert batch.text.ids.shape == (3, source.geometry.text_len)
    assert torch.equal(batch.text.mask, batch.text.ids != 0)
    asked = source.questions("test").batch(np.array([3, 1]))
    assert asked.sample_id.tolist() == [3, 1]
    assert asked.answer.tolist() == source.asked("test").answer[[3, 1]].tolist()
    foils = source.foils().batch(np.arange(4))
    assert set(foils.false) == {"colour", "shape", "relation"}
    assert foils.image.shape == (4, 3, 32, 32)


def test_a_batch_of_64_takes_less_than_a_millisecond(source):
    pairs = source.pairs("train")
    rows = np.arange(64)
    times = []
    for _ in range(200):
        start = time.process_time()
        pairs.batch(rows)
        times.append(time.process_time() - start)
    assert np.median(times) < 1e-3


def test_ten_thousand_pairs_take_less_than_three_seconds():
    start = time.process_time()
    pairs = Scenes(ScenesConfig(train_images=5_000)).pairs("train")
    assert len(pairs) == 10_000
    assert time.process_time() - start < 3


def test_hash_is_recorded_and_the_same_in_another_process():
    code = (
        "from vlpbench.benchmarks.data.sources import open_source; print(open_source('scenes', seed=3, noise=.1).hash)"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert there.stdout.strip() == Scenes(CONFIGS["small"]).hash == SMALL_HASH


def test_hash_sees_every_part_of_the_configuration():
    changes = ({"train_images": 900}, {"captions": 1}, {"siblings": 0.5}, {"layout": Layout(image=36)}, {"gallery": 44})
    hashes = {Scenes(dataclasses.replace(CONFIGS["tiny"], **change)).hash for change in ({}, *changes)}
    assert len(hashes) == len(changes) + 1


@pytest.mark.parametrize("size", ["tiny", "medium"])
def test_other_sizes_hold_what_they_say(size):
    source = Scenes(CONFIGS[size])
    config = source.config
    assert source.gallery("test").images == config.gallery
    assert source.gallery("hard").images == config.gallery
    assert len(source.questions("comp")) == config.questions // 3
    assert len(source.foils()) == config.foils
    if size == "tiny":
        assert len(source.pairs("train")) == config.captions * config.train_images
        assert len(source.questions("train")) == config.train_questions


def test_unknown_names_are_refused(source):
    with pytest.raises(DataError, match="unknown gallery of scenes 'tset': did you mean 'test'"):
        source.gallery("tset")
    with pytest.raises(DataError, match="unknown split of scenes 'dev'"):
        source.questions("dev")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"noise": 1.5}, "noise .*1.5"), ({"gallery": 30}, "multiple of 4.*30"), ({"captions": 0}, "captions .*0")],
)
def test_configuration_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        ScenesConfig(**change)
