"""Retrieval galleries in which every caption is true of exactly one image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from vlpbench.benchmarks.data.scene_table import Layout, SceneTable, fact, join, sample, sample_siblings
from vlpbench.benchmarks.data.scene_text import describe, statement_ids


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Image n is described by statement n and by no other."""

    scenes: SceneTable
    statement: np.ndarray
    """(N, 3)."""

    def first(self, count: int) -> Drawn:
        """A smaller gallery: what is unique among many is unique among few."""
        return Drawn(scenes=self.scenes.rows(np.arange(count)), statement=self.statement[:count])


@dataclass(kw_only=True)
class _Filter:
    """What has been kept so far: a candidate must not be described by it, nor describe it."""

    facts: set[int] = field(default_factory=set)
    said: set[int] = field(default_factory=set)
    bags: set[bytes] = field(default_factory=set)

    def admit(self, facts: list[set[int]], said: list[int], bag: bytes | None) -> bool:
        """Keeps a unit of one or four images, or leaves everything as it was."""
        for here, own in enumerate(facts):
            others = [said[there] for there in range(len(said)) if there != here]
            if said[here] in self.facts or own & self.said or own.intersection(others):
                return False
        if bag in self.bags:
            return False
        self.facts.update(*facts)
        self.said.update(said)
        if bag is not None:
            self.bags.add(bag)
        return True


def draw_gallery(rng: np.random.Generator, layout: Layout, count: int, *, siblings: float, held: bool = False) -> Drawn:
    """A gallery of ``count`` images.

    A share ``siblings`` of the images comes in groups of four that one bag of words describes, and no two groups share
    a bag; the rest are independent. With ``held`` every caption names an object of a held-out colour-shape pair.

    Raises:
        ValueError: where the layout has too few scenes for it.
    """
    pool = 6 * count + 64
    singles = sample(rng, layout, pool, fewest=2, held=held)
    groups = sample_siblings(rng, layout, pool)
    scenes = join([singles, groups])
    statement = describe(rng, scenes, 1, about_first=held)[:, 0]
    said = fact(*statement.T).tolist()
    facts = [set(row[row >= 0].tolist()) for row in scenes.facts]
    bags = np.sort(statement_ids(statement), axis=1)
    kept: list[int] = []
    grouped, next_single, next_group = 0, 0, len(singles)
    seen = _Filter()
    while len(kept) < count:
        group = grouped < siblings * (len(kept) + 4) and count - len(kept) >= 4
        start, size = (next_group, 4) if group else (next_single, 1)
        next_group, next_single = next_group + 4 * group, next_single + (not group)
        if next_group > len(scenes) or next_single > len(singles):
            raise ValueError(f"only {len(kept)} of {count} images could be told apart; ask for a smaller gallery")
        unit = range(start, start + size)
        bag = bags[start].tobytes() if group else None
        if seen.admit([facts[row] for row in unit], [said[row] for row in unit], bag):
            kept.extend(unit)
            grouped += 4 * group
    rows = np.array(kept)
    return Drawn(scenes=scenes.rows(rows), statement=statement[rows])
