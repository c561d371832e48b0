"""What is said about scenes: statements as numbers, their words, and whether they are true.

A statement is three integers (first kind, relation, second kind), read "small red square left-of large blue ring";
(kind, relation, MIDDLE), read "small red square left-of middle", says where in the picture an object is; (kind, -1, -1)
only that it is there. All texts share one vocabulary and one length.

Shape letters: N scenes, M statements, L tokens.
"""

from __future__ import annotations

import numpy as np
from vlpbench.benchmarks.data.scene_table import (
    COLOURS,
    HELD_PAIRS,
    KINDS,
    MIDDLE,
    PAIRS,
    RELATIONS,
    SHAPES,
    SIZES,
    SceneTable,
    below,
    fact,
)

PAD, CLS, SEP, MASK = range(4)
WORDS = (
    *("[PAD]", "[CLS]", "[SEP]", "[MASK]"),
    *SIZES,
    *COLOURS,
    *SHAPES,
    *RELATIONS,
    *("what", "colour", "shape", "is", "there", "how", "many", "thing", "things", "middle"),
    *("both", "one", "left", "right", "more", "same", "than"),
    *("yes", "no", "0", "1", "2", "3", "4", "5", "6"),
)
"""The vocabulary; a word's place is its token id."""
TEXT_LEN = 9
"""[CLS] SIZE COLOUR SHAPE RELATION SIZE COLOUR SHAPE [SEP]."""
_SIZE, _COLOUR, _SHAPE, _RELATION = (WORDS.index(names[0]) for names in (SIZES, COLOURS, SHAPES, RELATIONS))
FOIL_KINDS = ("colour", "shape", "relation")
VERDICTS = ("right", "partial", "wrong")
"""On a caption of a scene: partial is one that is true, but names a single object where more could be said."""
WRONG_SHARE = 0.7
"""Of corrupted captions; the rest are partial."""


def word(name: str) -> int:
    """Token id of a word of the vocabulary."""
    return WORDS.index(name)


def colour_word(colour: np.ndarray) -> np.ndarray:
    """Token ids of colours."""
    return _COLOUR + colour


def shape_word(shape: np.ndarray) -> np.ndarray:
    """Token ids of shapes."""
    return _SHAPE + shape


def relation_word(relation: np.ndarray) -> np.ndarray:
    """Token ids of relations."""
    return _RELATION + relation


def sentence(columns: list[np.ndarray | int], rows: int) -> np.ndarray:
    """(rows, L) int64 token ids: [CLS], the columns of words, [SEP], padding."""
    ids = np.full((rows, TEXT_LEN), PAD, np.int64)
    ids[:, 0], ids[:, len(columns) + 1] = CLS, SEP
    for place, column in enumerate(columns, 1):
        ids[:, place] = column
    return ids


def statement_ids(statement: np.ndarray) -> np.ndarray:
    """(M, 3) statements -> (M, L) token ids."""
    first, relation, second = statement.T

    def phrase(kind: np.ndarray) -> list[np.ndarray | int]:
        return [_SIZE + kind // PAIRS, colour_word(kind // len(SHAPES) % len(COLOURS)), shape_word(kind % len(SHAPES))]

    whole = sentence([*phrase(first), relation_word(relation), *phrase(second)], len(statement))
    placed = sentence([*phrase(first), relation_word(relation), word("middle")], len(statement))
    ids = np.where((second == MIDDLE)[:, None], placed, whole)
    return np.where(relation[:, None] >= 0, ids, sentence(phrase(first), len(statement)))


def read(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, L) token ids -> (M, 3) statements, and (M,) whether the tokens are a statement; the inverse of the above."""

    def kind(at: int) -> np.ndarray:
        colour = np.clip(ids[:, at + 1] - _COLOUR, 0, len(COLOURS) - 1)
        found = (ids[:, at] - _SIZE) * PAIRS + colour * len(SHAPES) + ids[:, at + 2] - _SHAPE
        return np.clip(found, 0, KINDS - 1)

    alone = ids[:, 4] == SEP
    second = np.where(ids[:, 5] == word("middle"), MIDDLE, kind(5))
    relation = np.clip(ids[:, 4] - _RELATION, 0, len(RELATIONS) - 1)
    statement = np.stack([kind(1), np.where(alone, -1, relation), np.where(alone, -1, second)], -1)
    return statement, (statement_ids(statement) == ids).all(1)


def judge(scenes: SceneTable, ids: np.ndarray) -> np.ndarray:
    """(M,) index into `VERDICTS` of token ids (M, L), each as a caption of its scene; what is no statement is wrong."""
    statement, valid = read(ids)
    true = valid & true_of(scenes, np.where(valid[:, None], statement, [0, -1, -1]))
    partial = (statement[:, 1] < 0) & (scenes.relation >= 0).any((1, 2))
    return np.where(true, np.where(partial, 1, 0), 2)


def describe(rng: np.random.Generator, scenes: SceneTable, captions: int, *, about_first: bool = False) -> np.ndarray:
    """(N, captions, 3) true statements: ordered pairs of objects between which a relation holds, drawn at random.

    Different captions of a scene state different ordered pairs as long as there are any left. Sibling scenes are
    described by their first two objects, with the same relation word in the whole group, so that the bags of words
    agree. A scene of one object gets (kind, -1, -1), and not its place: ADR-0005. With ``about_first`` every caption
    mentions the first object.
    """
    relation = scenes.relation
    rank = rng.random(relation.shape)
    valid = relation >= 0
    first_two = np.zeros(relation.shape[1:], bool)
    first_two[[0, 1], [1, 0]] = True
    sibling = (scenes.group >= 0)[:, None, None]
    orient = below(rng, 2, int(scenes.group.max(initial=-1)) + 1 or 1)[np.maximum(scenes.group, 0)]
    rank = np.where(sibling, (relation & 1) ^ orient[:, None, None], rank)
    valid &= ~sibling | first_two
    if about_first:
        valid[:, 1:, 1:] = False
    rank = np.where(valid, rank, 2).reshape(len(scenes), -1)
    order = np.argsort(rank, axis=1, kind="stable")
    number = np.maximum(valid.sum((1, 2)), 1)
    chosen = np.take_along_axis(order, np.arange(captions)[None] % number[:, None], 1)
    first, second = np.divmod(chosen, relation.shape[1])
    row = np.arange(len(scenes))[:, None]
    pairs = np.stack([scenes.kind[row, first], relation[row, first, second], scenes.kind[row, second]], -1)
    alone = np.stack([scenes.kind[:, 0], np.full(len(scenes), -1), np.full(len(scenes), -1)], -1)[:, None]
    return np.where(np.any(valid, axis=(1, 2))[:, None, None], pairs, alone)


def true_of(scenes: SceneTable, statement: np.ndarray) -> np.ndarray:
    """(M,) whether statement m is true of scene m, read off the objects and their places."""
    first, relation, second = statement.T
    alone = (scenes.kind == first[:, None]).any(1)
    related = (scenes.facts == fact(first, relation, second)[:, None]).any(1)
    return np.where(relation >= 0, related, alone)


def holds(scenes: SceneTable, statement: np.ndarray) -> np.ndarray:
    """(M, N) whether statement m is true of scene n."""
    return np.stack([true_of(scenes, np.broadcast_to(one, (len(scenes), 3))) for one in statement])


def corrupt(rng: np.random.Generator, scenes: SceneTable, statement: np.ndarray, rate: float) -> np.ndarray:
    """A share ``rate`` of statements spoilt: 70 % become another scene's, false here, 30 % name only the first object.

    Statement m belongs to scene m of ``scenes``. A statement that is just one object cannot lose a part, so it becomes
    a false one. The draws do not depend on the rate: what is spoilt at a low rate is spoilt at every higher one.
    """
    luck = rng.random(len(statement))
    spoilt = luck < rate
    partial = spoilt & (luck >= rate * WRONG_SHARE) & (statement[:, 1] >= 0)
    result = statement.copy()
    result[partial, 1:] = -1
    missing = np.flatnonzero(spoilt & ~partial)
    rounds = rng.random((50, len(statement)))
    for draw in rounds:
        other = statement[(missing + 1 + (draw[missing] * (len(statement) - 1)).astype(np.int64)) % len(statement)]
        false = ~true_of(scenes.rows(missing), other)
        result[missing[false]] = other[false]
        missing = missing[~false]
        if not len(missing):
            break
    return result


def swap(statement: np.ndarray, kind: str) -> np.ndarray:
    """The statement with the colours or the shapes of its two objects exchanged, or its relation flipped."""
    first, relation, second = statement.T
    if kind == "relation":
        return np.stack([first, relation ^ 1, second], -1)
    shape = len(SHAPES)
    if kind == "shape":
        return np.stack([first - first % shape + second % shape, relation, second - second % shape + first % shape], -1)
    colour = len(COLOURS) * shape

    def painted(one: np.ndarray, like: np.ndarray) -> np.ndarray:
        return one // colour * colour + like % colour // shape * shape + one % shape

    return np.stack([painted(first, second), relation, painted(second, first)], -1)


def has_foils(scenes: SceneTable, statement: np.ndarray) -> np.ndarray:
    """(M,) whether every kind of foil of statement m is false of scene m, down to the objects.

    The two objects differ in colour and in shape; what a swap describes is nowhere in the scene; and no swap makes a
    held-out pair, which a model could reject for being unheard of.
    """
    fine = statement[:, 1] >= 0
    for kind in FOIL_KINDS:
        foil = swap(statement, kind)
        fine &= ~true_of(scenes, foil)
        if kind != "relation":
            for place in (0, 2):
                fine &= ~(scenes.kind == foil[:, place, None]).any(1) & ~HELD_PAIRS[foil[:, place] % PAIRS]
    return fine
