"""Statements about two pictures, true or false, in the form of NLVR2.

Two pairs of pictures P, Q and two statements s, t make four samples: s is true of P and false of Q, t the other way
round. So every statement, every picture and every pair of pictures is as often in a true sample as in a false one.
Where logic allows (``one``, ``relation``, ``same``) a statement with one of its pictures says nothing either. Of most
kinds what a picture holds counts for or against the statement by what the other one holds; ``any`` is the easy one.

Shape letters: G groups of four, M = 4 * G samples, as many scenes, P planted objects, L tokens.
"""

from __future__ import annotations

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
    SIZES,
    Layout,
    SceneTable,
    below,
    shuffled,
)
from vlpbench.benchmarks.data.scene_text import relation_word, sentence, word

CLAIMS = ("both", "one", "side", "more", "relation", "same", "any")
"""Kinds of statement."""
LABELS = ("false", "true")
_BOTH, _ONE, _SIDE, _MORE, _RELATION, _SAME, _ANY = range(len(CLAIMS))
UNIT = 4
"""Samples, and scenes, of a group."""
FEWEST_OBJECTS = 3
"""That a layout must allow in a scene."""
_UNEQUAL, _EQUAL = ((0, 1), (1, 0)), ((0, 0), (1, 1))
_OPTIONS: tuple[tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]], ...] = (
    (_UNEQUAL, ((1, 1),)),
    (_EQUAL, _UNEQUAL),
    (((0, 1),), ((1, 0),)),
    (((0, 1), (0, 2), (1, 2)), ((1, 0), (2, 0), (2, 1))),
    (_EQUAL, _UNEQUAL),
    (_UNEQUAL, _EQUAL),
    (((0, 0),), ((0, 1), (1, 0), (1, 1))),
)
"""By kind: what left and right picture may hold for a false and for a true statement (that names the left one)."""


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """Statements about pairs of scenes."""

    left: np.ndarray
    """(M,) int64 row of the left scene."""
    right: np.ndarray
    claim: np.ndarray
    """(M, 4) int64: kind of statement, and what it names, as `judge` reads it."""
    label: np.ndarray
    """(M,) int64 index into `LABELS`."""

    def __len__(self) -> int:
        return len(self.label)


def judge(left: SceneTable, right: SceneTable, claim: np.ndarray) -> np.ndarray:
    """(M,) bool, whether statement m is true of scenes m, read off the objects and their places.

    A claim is (kind, a, r, b): ``both`` hold, exactly ``one`` holds an object of kind a; the left (r = 0) or right
    (r = 1) picture holds it (``side``); that picture has ``more`` things of attribute a than the other; in exactly one
    an object of pair a stands in ``relation`` r to one of pair b; the only thing of attribute a, a colour (a shape), in
    the one has the ``same`` shape (colour) as that in the other; ``any`` of them holds an object of kind a.
    """
    kind, a, r, b = claim.T
    sides = (left, right)
    here = [(side.kind == a[:, None]).any(1) for side in sides]
    number = [having(side, a).sum(1) for side in sides]
    related = [stands(side, a, r, b) for side in sides]
    values = [_only(side, a) for side in sides]
    turned = r == 1
    return np.select(
        [kind == _BOTH, kind == _ONE, kind == _SIDE, kind == _MORE, kind == _RELATION, kind == _ANY],
        [
            here[0] & here[1],
            here[0] ^ here[1],
            np.where(turned, here[1], here[0]),
            np.where(turned, number[1] > number[0], number[0] > number[1]),
            related[0] ^ related[1],
            here[0] | here[1],
        ],
        (values[0] == values[1]) & (values[0] >= 0),
    )


def _only(scenes: SceneTable, attribute: np.ndarray) -> np.ndarray:
    """(M,) shape (colour) of the only thing of a colour (shape); -1 without exactly one."""
    mine = having(scenes, attribute)
    value = np.where((attribute < len(COLOURS))[:, None], scenes.shape, scenes.colour)
    return np.where(mine.sum(1) == 1, np.where(mine, value, -1).max(1), -1)


def claim_ids(claim: np.ndarray) -> np.ndarray:
    """(M, L) token ids: "both small red square", "one red square left-of blue ring", "same shape red thing" ...

    ``any`` is said as a caption says it: "small red square".
    """
    kind, a, r, b = claim.T
    rows = len(claim)
    side = np.where(r == 1, word("right"), word("left"))
    thing = [word(SIZES[0]) + a // PAIRS, *pair_words(a)]
    # Of a colour the shape is asked: "same shape red thing"; of a shape the colour: "same colour square".
    shape = sentence([word("same"), word("shape"), attribute_word(a), word("thing")], rows)
    colour = sentence([word("same"), word("colour"), attribute_word(a)], rows)
    forms = (
        sentence([word("both"), *thing], rows),
        sentence([word("one"), *thing], rows),
        sentence([side, *thing], rows),
        sentence([word("more"), attribute_word(a), word("things"), side], rows),
        sentence([word("one"), *pair_words(a), relation_word(r), *pair_words(b)], rows),
        np.where((a < len(COLOURS))[:, None], shape, colour),
        sentence(thing, rows),
    )
    return np.stack(forms)[kind, np.arange(rows)]


def reason(
    rng: np.random.Generator, layout: Layout, samples: int, *, held: bool = False, seen: np.ndarray | None = None
) -> tuple[SceneTable, Claimed]:
    """Scenes and statements about pairs of them, equally many of each kind, in random order.

    Args:
        rng: the stream to draw from.
        layout: of the scenes.
        samples: at most M; rounded down to what is balanced, 28 at least.
        held: whether every statement is about objects of held-out colour-shape pairs: it names one or, where it names
            a colour or a shape alone, is about a thing of one.
        seen: `SceneTable.key` of scenes that must not occur.

    Raises:
        ValueError: for a layout with too few objects.
    """
    if layout.objects < FEWEST_OBJECTS:
        raise ValueError(f"statements need scenes of up to {FEWEST_OBJECTS} objects, not {layout.objects}")
    each = max(1, samples // (UNIT * len(CLAIMS)))
    parts = []
    for kind, draw in enumerate((_objects, _objects, _objects, _more, _relation, _same, _objects)):
        form = _Form(rng=rng, layout=layout, kind=kind, held=held)
        parts.append(gather_groups(each, lambda count, draw=draw, form=form: draw(form, count), _none(seen)))
    groups = join_groups(parts)
    number = len(groups)
    pair = np.arange(2 * number).reshape(number, 2, 1)  # (G, pairs, statements)
    mixed = shuffled(rng, UNIT * number)
    left = 2 * np.broadcast_to(pair, (number, 2, 2)).ravel()[mixed]
    claim = np.broadcast_to(groups.said[:, None], (number, 2, 2, 4)).reshape(-1, 4)[mixed]
    label = judge(groups.scenes.rows(left), groups.scenes.rows(left + 1), claim).astype(np.int64)
    return groups.scenes, Claimed(left=left, right=left + 1, claim=claim, label=label)


def _none(seen: np.ndarray | None) -> np.ndarray:
    return np.empty(0, np.int64) if seen is None else seen


@dataclass(frozen=True, kw_only=True)
class _Form:
    """One kind of statement. What is drawn by group is repeated for its four scenes (pairs, then left and right)."""

    rng: np.random.Generator
    layout: Layout
    kind: int
    held: bool

    @property
    def pool(self) -> np.ndarray:
        """(KINDS,) bool, what may be named."""
        return HELD if self.held else ~HELD

    def pick(self, allowed: np.ndarray, groups: int) -> np.ndarray:
        """(G, 2) different ones, for the one statement and for the other."""
        return pick(self.rng, np.broadcast_to(allowed, (groups, len(allowed))), 2)

    def bits(self, turned: np.ndarray) -> np.ndarray:
        """(4 * G, 2) what each scene holds of either statement: the first is true of the first pair, the other not."""
        values = np.empty((len(turned), 2, 2, 2), np.int64)  # (G, pairs, statements, sides)
        for pair, statement in np.ndindex(2, 2):
            options = np.array(_OPTIONS[self.kind][int(pair == statement)])
            values[:, pair, statement] = options[below(self.rng, len(options), len(turned))]
        values = np.where(turned[:, None, None, None] == 1, values[..., ::-1], values)
        return values.transpose(0, 1, 3, 2).reshape(-1, 2)

    def groups(
        self, planted: np.ndarray, about: np.ndarray, said: np.ndarray, cell: np.ndarray | None = None
    ) -> Groups:
        """Takes (4 * G, P) planted kinds, (4 * G, KINDS) bool kinds that no other object may have, and (G, 2, 3)."""
        scenes = plant(self.rng, self.layout, planted, ~(HELD | about), cell=cell)
        kind = np.full((len(said), 2, 1), self.kind)
        return Groups(unit=UNIT, scenes=scenes, said=np.concatenate([kind, said], 2), cover=np.full(len(planted), -1))


def _said(a: np.ndarray, r: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(a, r, b), -1)


def _objects(form: _Form, groups: int) -> Groups:
    """Either object is there or not."""
    named = form.pick(form.pool, groups)
    turned = below(form.rng, 2, groups) if form.kind == _SIDE else np.zeros(groups, np.int64)
    four = np.repeat(named, UNIT, axis=0)
    planted = np.where(form.bits(turned) == 1, four, -1)
    about = np.zeros((len(four), len(HELD)), bool)
    np.put_along_axis(about, four, True, 1)
    return form.groups(planted, about, _said(named, turned[:, None], np.array(0)))


def _more(form: _Form, groups: int) -> Groups:
    """As many things of either colour as there are to be, the first one held out where one should be."""
    rng, colours = form.rng, OF_ATTRIBUTE[: len(COLOURS)]
    named, turned = form.pick(np.asarray((colours & form.pool).any(1)), groups), below(form.rng, 2, groups)
    four, number = np.repeat(named, UNIT, axis=0), form.bits(turned)
    planted = []
    for place in (0, 1):
        mine = colours[four[:, place]]
        things = pick(rng, mine & (form.held | ~HELD), 2, first=np.broadcast_to(HELD, mine.shape))
        planted.append(np.where(np.arange(2) < number[:, place, None], things, -1))
    about = colours[four[:, 0]] | colours[four[:, 1]]
    return form.groups(np.concatenate(planted, 1), about, _said(named, turned[:, None], np.array(0)))


def _relation(form: _Form, groups: int) -> Groups:
    """Three objects at a corner: one beside and one above or below the first; each way round as the bits say."""
    rng, grid = form.rng, form.layout.grid
    plain = np.broadcast_to(~HELD_PAIRS, (groups, PAIRS))
    first = pick(rng, np.broadcast_to(form.held == HELD_PAIRS, (groups, PAIRS)), 1)
    others = pick(rng, plain & (np.arange(PAIRS) != first), 2)
    upright = below(rng, 2, groups)  # whether the first statement is about what is above and below
    relation = np.stack([2 * upright, 2 * (1 - upright)], 1) + below(rng, 2, (groups, 2))
    four = np.repeat(np.concatenate([first, others], 1), UNIT, axis=0)
    rows = np.arange(len(four))
    stated = np.repeat(relation, UNIT, axis=0) ^ (1 - form.bits(np.zeros(groups, np.int64)))
    low_high = np.sort(pick(rng, np.ones((2 * len(four), grid), bool), 2), axis=1).reshape(len(four), 2, 2)
    tall = np.repeat(upright, UNIT)
    across, down = stated[rows, tall], stated[rows, 1 - tall] - 2
    columns, lines = low_high[:, 0], low_high[:, 1]
    corner = lines[rows, down] * grid + columns[rows, across]
    beside = lines[rows, down] * grid + columns[rows, 1 - across]
    upon = lines[rows, 1 - down] * grid + columns[rows, across]
    cell = np.stack([corner, np.where(tall, upon, beside), np.where(tall, beside, upon)], 1)
    planted = below(rng, len(SIZES), four.shape) * PAIRS + four
    about = np.asarray(OF_PAIR[four].any(1))
    return form.groups(planted, about, _said(first, relation, others), cell)


def _same(form: _Form, groups: int) -> Groups:
    """One thing of either colour (or shape), in one of two shapes (or colours), of which one may be held out."""
    rng, colours = form.rng, len(COLOURS)
    known = np.asarray((OF_ATTRIBUTE & form.pool).any(1))
    of_colour = below(rng, 2, groups)[:, None] == 1
    named = pick(rng, known & ((np.arange(len(known)) < colours) == of_colour), 2)
    pairs = OF_ATTRIBUTE[:, :PAIRS]
    four, bits = np.repeat(named, UNIT, axis=0), form.bits(np.zeros(groups, np.int64))
    planted = []
    for place in (0, 1):
        mine = pairs[np.repeat(named[:, place], 2)]  # the two things are drawn for a pair of pictures
        things = pick(rng, mine & (form.held | ~HELD_PAIRS), 2, first=np.broadcast_to(HELD_PAIRS, mine.shape))
        things = np.repeat(things, 2, axis=0)[np.arange(len(four)), bits[:, place]]
        planted.append(below(rng, len(SIZES), len(four)) * PAIRS + things)
    about = np.asarray(OF_ATTRIBUTE[four].any(1))
    return form.groups(np.stack(planted, 1), about, _said(named, np.array(0), np.array(0)))
