"""Questions about scenes with closed answers, balanced so that the text alone says next to nothing about the answer.

Every type of question is built the same way: list all candidates (scene, words, answer), then draw the same number for
each answer. Yes/no answers are exactly balanced, and a "no" differs from a "yes" only in what is bound to what.

Shape letters: N scenes, K objects, C candidates, M questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from vlpbench.benchmarks.data.scene_table import COLOURS, HELD_PAIRS, PAIRS, SHAPES, SceneTable, shuffled
from vlpbench.benchmarks.data.scene_text import colour_word, relation_word, sentence, shape_word, word

KINDS = ("colour", "shape", "exist", "count", "relation")
BINDING = frozenset({"colour", "shape", "exist"})
"""Types that need an attribute bound to the right object."""
MOST = 6
"""Largest number that a layout allows in a scene."""


def answers(objects: int) -> tuple[str, ...]:
    """The closed list for scenes of at most this many objects."""
    return (*COLOURS, *SHAPES, "yes", "no", *(str(number) for number in range(objects + 1)))


_COLOUR, _SHAPE = 0, len(COLOURS)
_YES = _SHAPE + len(SHAPES)
_NUMBER = _YES + 2


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Questions as arrays."""

    scene: np.ndarray
    """(M,) int64 row of the scene asked about."""
    ids: np.ndarray
    """(M, L) int64 tokens."""
    answer: np.ndarray
    """(M,) int64 index into `answers`."""
    kind: np.ndarray
    """(M,) int64 index into `KINDS`."""

    def __len__(self) -> int:
        return len(self.scene)


@dataclass(frozen=True, kw_only=True)
class _Candidates:
    scene: np.ndarray
    words: list[np.ndarray | int]
    answer: np.ndarray
    stratum: np.ndarray
    """(C,) int64; as many are drawn of each, as far as there are any."""


def _unique(values: np.ndarray) -> np.ndarray:
    """(N, K) whether no other object of the scene has this value; absent objects, -1, are never unique."""
    same = values[:, :, None] == values[:, None, :]
    return (same.sum(2) == 1) & (values >= 0)


def _once(scene: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scenes and pairs asked for, without repeats and without -1."""
    return np.divmod(np.unique((scene * PAIRS + asked)[asked >= 0]), PAIRS)


def _attribute(scenes: SceneTable, focus: np.ndarray, asked: str) -> _Candidates:
    """Asks "what colour is SHAPE" or "what shape is COLOUR thing".

    The object is the only one of its shape (or colour). Unless it is alone in the scene, another one differs in what
    is asked, so that it is not enough to see which colours (or shapes) there are.
    """
    wanted, given = (scenes.colour, scenes.shape) if asked == "colour" else (scenes.shape, scenes.colour)
    differs = ((wanted[:, :, None] != wanted[:, None, :]) & scenes.present[:, None, :]).any(2)
    alone = scenes.present.sum(1, keepdims=True) == 1
    scene, place = np.nonzero(_unique(given) & (differs | alone) & focus)
    value, by = wanted[scene, place], given[scene, place]
    named: list[np.ndarray | int] = [shape_word(by)] if asked == "colour" else [colour_word(by), word("thing")]
    base = _COLOUR if asked == "colour" else _SHAPE
    words: list[np.ndarray | int] = [word("what"), word(asked), word("is"), *named]
    return _Candidates(scene=scene, words=words, answer=base + value, stratum=by * len(COLOURS) + value)


def _exist(scenes: SceneTable, focus: np.ndarray, foil_pairs: np.ndarray) -> _Candidates:
    """Asks "is there COLOUR SHAPE". No: the colour of one object with the shape of another, together on none.

    A scene of one object has no such recombination; there, one attribute is replaced by the next one.
    """
    pair, colour, shape = scenes.pair, scenes.colour, scenes.shape
    named = np.where(focus, pair, -1)
    scene, yes = _once(np.repeat(np.arange(len(scenes)), pair.shape[1]), named.ravel())
    first = np.broadcast_to(colour[:, :, None], (*colour.shape, colour.shape[1]))
    second = np.broadcast_to(shape[:, None, :], first.shape)
    crossed = np.where((first >= 0) & (second >= 0), first * len(SHAPES) + second, -1).reshape(len(scenes), -1)
    alone = scenes.present.sum(1) == 1
    crossed[alone, 0] = (pair[alone, 0] + len(SHAPES)) % PAIRS
    crossed[alone, 1] = pair[alone, 0] // len(SHAPES) * len(SHAPES) + (pair[alone, 0] + 1) % len(SHAPES)
    false = (crossed >= 0) & foil_pairs[crossed] & (crossed[:, :, None] != pair[:, None, :]).all(2)
    other, no = _once(np.repeat(np.arange(len(scenes)), crossed.shape[1]), np.where(false, crossed, -1).ravel())
    asked, answer = np.concatenate([yes, no]), np.repeat([0, 1], [len(yes), len(no)])
    words: list[np.ndarray | int] = [word("is"), word("there")]
    words += [colour_word(asked // len(SHAPES)), shape_word(asked % len(SHAPES))]
    # One stratum a question string and answer: a pair seen more often may then not hint at yes or no.
    return _Candidates(
        scene=np.concatenate([scene, other]), words=words, answer=_YES + answer, stratum=asked * 2 + answer
    )


def _count(scenes: SceneTable, focus: np.ndarray) -> _Candidates:
    """Asks "how many COLOUR things" or "how many SHAPE things"; zero is an answer."""
    scene = np.repeat(np.flatnonzero(focus.any(1)), len(COLOURS) + len(SHAPES))
    asked = np.tile(np.arange(len(COLOURS) + len(SHAPES)), len(scene) // (len(COLOURS) + len(SHAPES)))
    is_colour = asked < len(COLOURS)
    there = np.where(is_colour[:, None], scenes.colour[scene], scenes.shape[scene] + len(COLOURS))
    number = ((there == asked[:, None]) & scenes.present[scene]).sum(1)
    name = np.where(is_colour, colour_word(asked), shape_word(asked - len(COLOURS)))
    return _Candidates(
        scene=scene,
        words=[word("how"), word("many"), name, word("things")],
        answer=_NUMBER + number,
        stratum=asked * (MOST + 1) + number,
    )


def _relation(scenes: SceneTable, focus: np.ndarray) -> _Candidates:
    """Asks "is COLOUR SHAPE REL COLOUR SHAPE" about two objects, each the only one of its pair. No: the flip."""
    named = _unique(scenes.pair)
    about = named[:, :, None] & named[:, None, :] & (focus[:, :, None] | focus[:, None, :])
    scene, first, second = np.nonzero((scenes.relation >= 0) & about)
    relation = np.concatenate([scenes.relation[scene, first, second], scenes.relation[scene, first, second] ^ 1])
    answer = np.repeat([0, 1], len(scene))
    scene, first, second = (np.tile(part, 2) for part in (scene, first, second))
    words: list[np.ndarray | int] = [word("is")]
    for place in (first, second):
        words += [colour_word(scenes.colour[scene, place]), shape_word(scenes.shape[scene, place])]
    words.insert(3, relation_word(relation))
    return _Candidates(scene=scene, words=words, answer=_YES + answer, stratum=relation * 2 + answer)


def balanced(rng: np.random.Generator, stratum: np.ndarray, count: int) -> np.ndarray:
    """(count,) distinct rows, as many of each stratum as of any other as far as it has that many, in random order.

    Raises:
        ValueError: where there are fewer rows than asked for.
    """
    if len(stratum) < count:
        raise ValueError(f"{count} questions were asked for and the scenes give only {len(stratum)}")
    order = shuffled(rng, len(stratum))
    by_stratum = order[np.argsort(stratum[order], kind="stable")]
    values, number = np.unique(stratum, return_counts=True)
    turn = np.arange(len(stratum)) - np.repeat(np.cumsum(number) - number, number)
    # Round-robin over the strata; the last, incomplete round goes to strata at random.
    lot = rng.random(len(values))[np.searchsorted(values, stratum[by_stratum])]
    chosen = by_stratum[np.lexsort((lot, turn))[:count]]
    return chosen[shuffled(rng, count)]


def ask(
    rng: np.random.Generator,
    scenes: SceneTable,
    count: int,
    *,
    focus: np.ndarray | None = None,
    foil_pairs: np.ndarray | None = None,
) -> Asked:
    """``count`` questions, a fifth of each type.

    Args:
        rng: the stream to draw from.
        scenes: what to ask about.
        count: M.
        focus: (N, K) objects that may be asked about; all where None.
        foil_pairs: (PAIRS,) pairs that may be asked for in vain; those that are not held out where None.
    """
    focus = scenes.present if focus is None else focus & scenes.present
    foil_pairs = ~HELD_PAIRS if foil_pairs is None else foil_pairs
    candidates = {
        "colour": _attribute(scenes, focus, "colour"),
        "shape": _attribute(scenes, focus, "shape"),
        "exist": _exist(scenes, focus, foil_pairs),
        "count": _count(scenes, focus),
        "relation": _relation(scenes, focus),
    }
    parts: list[Asked] = []
    for kind, name in enumerate(KINDS):
        found = candidates[name]
        share = (count * (kind + 1)) // len(KINDS) - (count * kind) // len(KINDS)
        rows = balanced(rng, found.stratum, share)
        ids = sentence([part if isinstance(part, int) else part[rows] for part in found.words], share)
        parts.append(
            Asked(scene=found.scene[rows], ids=ids, answer=found.answer[rows], kind=np.full(share, kind, np.int64))
        )
    mixed = shuffled(rng, count)
    names = ("scene", "ids", "answer", "kind")
    return Asked(**{name: np.concatenate([getattr(part, name) for part in parts])[mixed] for name in names})
