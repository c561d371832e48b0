"""Hypotheses about a picture: entailed, contradicted, or neither, in the form of SNLI-VE.

A curtain hides one cell of most pictures. Behind it there may be nothing or any one object. A hypothesis is entailed if
it is true whatever is there, contradicted if it is false whatever is there, and neutral otherwise; what is really
behind the curtain plays no part. A hypothesis and three pictures, one for each label, make three samples: so the text
says nothing. A neutral picture has a curtain by necessity; so do seven in eight of the others.

Shape letters: G groups of three, M = 3 * G samples, as many scenes, K objects, T tries, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from vlpbench.benchmarks.data.scene_plant import (
    HELD,
    OF_ATTRIBUTE,
    OF_PAIR,
    Groups,
    attribute_word,
    gather_groups,
    having,
    join_groups,
    pair_words,
    pick,
    plant,
    stands,
)
from vlpbench.benchmarks.data.scene_table import (
    COLOURS,
    HELD_PAIRS,
    PAIRS,
    RELATIONS,
    SIZES,
    Layout,
    SceneTable,
    below,
    shuffled,
)
from vlpbench.benchmarks.data.scene_text import relation_word, sentence, word

FORMS = ("place", "relation", "count", "compare")
"""Kinds of hypothesis."""
LABELS = ("entailment", "neutral", "contradiction")
_PLACE, _RELATION, _COUNT = range(len(FORMS) - 1)
_NEUTRAL = 1
UNIT = len(LABELS)
"""Samples, and scenes, of a group."""
TRIES = 24
"""Scenes drawn for a hypothesis, of which one is kept for each label; a hypothesis that lacks a label is dropped."""
OPEN = 1 / 8
"""Share of the entailed and of the contradicted samples that have no curtain."""


@dataclass(frozen=True, kw_only=True)
class Supposed:
    """Hypotheses about scenes: sample m is about scene m."""

    hypothesis: np.ndarray
    """(M, 4) int64: kind of hypothesis, and what it names, as `is_true` reads it."""
    cover: np.ndarray
    """(M,) int64 cell behind the curtain, -1 without one."""
    label: np.ndarray
    """(M,) int64 index into `LABELS`."""

    def __len__(self) -> int:
        return len(self.label)


def is_true(scenes: SceneTable, hypothesis: np.ndarray) -> np.ndarray:
    """(M,) bool, whether hypothesis m is true of scene m without a curtain.

    A hypothesis is (kind, a, r, b): an object of pair a is in that ``place`` r of the picture, seen from its middle;
    one of pair a stands in ``relation`` r to one of pair b; more than one object has attribute a (``count``); more
    objects have attribute a than b (``compare``).
    """
    kind, a, r, b = hypothesis.T
    result = np.empty(len(kind), bool)
    for form in np.unique(kind):
        m = np.flatnonzero(kind == form)
        some = scenes.rows(m)
        if form == _PLACE:
            placed = (some.pair == a[m, None])[:, :, None] & (some.middle == r[m, None, None])
            result[m] = placed.any((1, 2))
        elif form == _RELATION:
            result[m] = stands(some, a[m], r[m], b[m])
        elif form == _COUNT:
            result[m] = having(some, a[m]).sum(1) > 1
        else:
            result[m] = having(some, a[m]).sum(1) > having(some, b[m]).sum(1)
    return result


def judge(scenes: SceneTable, cover: np.ndarray, hypothesis: np.ndarray) -> np.ndarray:
    """(M,) int64 labels, by trying what may be behind the curtain.

    That is nothing, or an object of what the hypothesis names first or second: any other object changes no hypothesis,
    and none is of both.
    """
    shown = scenes.cell != cover[:, None]
    kind, cell = np.where(shown, scenes.kind, -1), np.where(shown, scenes.cell, -1)
    by_pair = (hypothesis[:, 0] == _PLACE) | (hypothesis[:, 0] == _RELATION)
    truths = [is_true(_with(scenes, kind, cell, np.full(len(cover), -1), cover), hypothesis)]
    for named in (hypothesis[:, 1], hypothesis[:, 3]):
        of_attribute = OF_ATTRIBUTE[np.where(by_pair, 0, named)].argmax(1)
        content = np.where(cover >= 0, np.where(by_pair, named, of_attribute), -1)
        truths.append(is_true(_with(scenes, kind, cell, content, cover), hypothesis))
    always, ever = np.all(truths, axis=0), np.any(truths, axis=0)
    return np.where(always, 0, np.where(ever, _NEUTRAL, 2))


def _with(scenes: SceneTable, kind: np.ndarray, cell: np.ndarray, content: np.ndarray, cover: np.ndarray) -> SceneTable:
    """The objects seen and one of kind ``content`` behind the curtain, -1 for none."""
    kind = np.concatenate([kind, content[:, None]], 1)
    cell = np.concatenate([cell, np.where(content >= 0, cover, -1)[:, None]], 1)
    nowhere = np.zeros((*kind.shape, 2), np.int64)
    return SceneTable(layout=scenes.layout, kind=kind, cell=cell, offset=nowhere, group=scenes.group)


def hypothesis_ids(hypothesis: np.ndarray) -> np.ndarray:
    """(M, L) token ids: "red square left-of middle", "red square above blue ring", "more than one red thing" ..."""
    kind, a, r, b = hypothesis.T
    rows = len(hypothesis)
    forms = (
        sentence([*pair_words(a), relation_word(r), word("middle")], rows),
        sentence([*pair_words(a), relation_word(r), *pair_words(b)], rows),
        sentence([word("more"), word("than"), word("one"), attribute_word(a), word("thing")], rows),
        sentence([word("more"), attribute_word(a), word("than"), attribute_word(b), word("things")], rows),
    )
    return np.stack(forms)[kind, np.arange(rows)]


def suppose(
    rng: np.random.Generator, layout: Layout, samples: int, *, held: bool = False, seen: np.ndarray | None = None
) -> tuple[SceneTable, Supposed]:
    """Scenes and hypotheses about them, equally many of each kind, in random order.

    Args:
        rng: the stream to draw from.
        layout: of the scenes.
        samples: at most M; rounded down to what is balanced, 12 at least.
        held: whether every hypothesis names a held-out colour-shape pair or the colour or shape of one, and the objects
            that it can be about are of such pairs.
        seen: `SceneTable.key` of scenes that must not occur.
    """
    each = max(1, samples // (UNIT * len(FORMS)))
    seen = np.empty(0, np.int64) if seen is None else seen
    parts = []
    for kind, form in enumerate((_place, _relation, _count, _compare)):
        uncovered = round(OPEN * each)
        for number, covered in ((each - uncovered, True), (uncovered, False)):

            def draw(count: int, kind: int = kind, form: _Form = form, covered: bool = covered) -> Groups:
                said, planted, about = form(rng, count, held)
                scenes = plant(rng, layout, planted, ~(about | HELD))
                return _chosen(rng, scenes, np.insert(said, 0, kind, axis=1), covered)

            parts.append(gather_groups(number, draw, seen))
    groups = join_groups(parts)
    mixed = shuffled(rng, UNIT * len(groups))
    hypothesis = np.repeat(groups.said[:, 0], UNIT, axis=0)[mixed]
    scenes, cover = groups.scenes.rows(mixed), groups.cover[mixed]
    return scenes, Supposed(hypothesis=hypothesis, cover=cover, label=judge(scenes, cover, hypothesis))


def _chosen(rng: np.random.Generator, scenes: SceneTable, hypothesis: np.ndarray, covered: bool) -> Groups:
    """Of `TRIES` scenes for each hypothesis the first of each label; without a curtain where ``covered`` is false."""
    cover = below(rng, scenes.layout.grid**2, len(scenes))
    if not covered:
        cover = np.where(below(rng, 2, len(scenes)) == 1, cover, -1)
    label = judge(scenes, cover, np.repeat(hypothesis, TRIES, axis=0)).reshape(-1, 1, TRIES)
    fits = label == np.arange(UNIT)[:, None]
    if not covered:
        fits &= (cover.reshape(-1, 1, TRIES) >= 0) == (np.arange(UNIT) == _NEUTRAL)[:, None]
    fine = np.flatnonzero(fits.any(2).all(1))
    row = (fine[:, None] * TRIES + fits.argmax(2)[fine]).ravel()
    return Groups(unit=UNIT, scenes=scenes.rows(row), said=hypothesis[fine, None], cover=cover[row])


def _tried(*named: np.ndarray) -> list[np.ndarray]:
    return [np.repeat(name, TRIES) for name in named]


def _place(rng: np.random.Generator, count: int, held: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(G, 3) what is said; (G * T, P) kinds to plant: the object, or not; (G * T, KINDS) bool what no other may be."""
    pair = pick(rng, np.broadcast_to(HELD_PAIRS if held else ~HELD_PAIRS, (count, PAIRS)), 1)[:, 0]
    (named,) = _tried(pair)
    planted = np.where(below(rng, 2, len(named)) == 1, _sized(rng, named), -1)
    said = np.stack([pair, below(rng, len(RELATIONS), count), np.zeros(count, np.int64)], 1)
    return said, planted[:, None], OF_PAIR[named]


def _relation(rng: np.random.Generator, count: int, held: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_place`: each of the two objects three times in four."""
    pairs = pick(rng, np.broadcast_to(~HELD_PAIRS, (count, PAIRS)), 2)
    if held:
        rare = pick(rng, np.broadcast_to(HELD_PAIRS, (count, PAIRS)), 1)[:, 0]
        pairs[np.arange(count), below(rng, 2, count)] = rare
    named = np.stack(_tried(*pairs.T), 1)
    planted = np.where(below(rng, 4, named.shape) > 0, _sized(rng, named), -1)
    said = np.stack([pairs[:, 0], below(rng, len(RELATIONS), count), pairs[:, 1]], 1)
    return said, planted, np.asarray(OF_PAIR[named].any(1))


def _count(rng: np.random.Generator, count: int, held: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_place`: none to three things of the attribute."""
    (named,) = _attributes(rng, count, held, 1).T
    (tried,) = _tried(named)
    said = np.stack([named, np.zeros_like(named), np.zeros_like(named)], 1)
    return said, _things(rng, tried, held, 3), OF_ATTRIBUTE[tried]


def _compare(rng: np.random.Generator, count: int, held: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_place`: none to two things of either attribute."""
    first, second = _attributes(rng, count, held, 2).T
    tried = _tried(first, second)
    planted = np.concatenate([_things(rng, one, held, 2) for one in tried], 1)
    return (
        np.stack([first, np.zeros_like(first), second], 1),
        planted,
        np.asarray(OF_ATTRIBUTE[np.stack(tried, 1)].any(1)),
    )


_Form = Callable[[np.random.Generator, int, bool], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _sized(rng: np.random.Generator, pair: np.ndarray) -> np.ndarray:
    return below(rng, len(SIZES), pair.shape) * PAIRS + pair


def _attributes(rng: np.random.Generator, count: int, held: bool, number: int) -> np.ndarray:
    """(count, number) different attributes that may be named, all colours or all shapes."""
    known = np.asarray((OF_ATTRIBUTE & (HELD if held else ~HELD)).any(1))
    of_colour = below(rng, 2, count)[:, None] == 1
    return pick(rng, known & ((np.arange(len(known)) < len(COLOURS)) == of_colour), number)


def _things(rng: np.random.Generator, attribute: np.ndarray, held: bool, most: int) -> np.ndarray:
    """(N, most) kinds that have attribute n, -1 beyond a random number of them; held-out ones first, or none."""
    mine = OF_ATTRIBUTE[attribute]
    things = pick(rng, mine & (held | ~HELD), most, first=np.broadcast_to(HELD, mine.shape))
    return np.where(np.arange(most) < below(rng, most + 1, len(mine))[:, None], things, -1)
