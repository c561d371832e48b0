"""The embedded data set `scenes`: generated, seeded, hashed, nothing to download.

Small pictures of coloured shapes with captions, questions, retrieval galleries and foils. The training set depends on
the seed and on the rate of caption noise; everything that is evaluated on is the same for all seeds and rates, and no
scene of it, as kinds in cells, occurs in training. Statements and hypotheses have scenes of their own, likewise apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from vlpbench.archs.registry import nearest
from vlpbench.benchmarks.data import scene_text
from vlpbench.benchmarks.data.base import DataError, Geometry
from vlpbench.benchmarks.data.render import render
from vlpbench.benchmarks.data.scene_captions import REFERENCES, SceneCaptions
from vlpbench.benchmarks.data.scene_config import CONFIGS, GALLERIES, ScenesConfig
from vlpbench.benchmarks.data.scene_detector import SceneDetector, kept_in
from vlpbench.benchmarks.data.scene_entailment import Supposed, suppose
from vlpbench.benchmarks.data.scene_galleries import Drawn, draw_gallery
from vlpbench.benchmarks.data.scene_labels import SceneLabels
from vlpbench.benchmarks.data.scene_questions import Asked, ask
from vlpbench.benchmarks.data.scene_reasoning import Claimed, reason
from vlpbench.benchmarks.data.scene_regions import Cutouts, cut
from vlpbench.benchmarks.data.scene_sets import (
    Pictures,
    SceneFoils,
    SceneGallery,
    SceneHypotheses,
    ScenePairs,
    SceneQuestions,
    SceneStatements,
    as_text,
    feed,
    painted,
)
from vlpbench.benchmarks.data.scene_table import (
    HELD_PAIRS,
    SceneTable,
    gather,
    join,
    sample,
    sample_siblings,
    stream,
)
from vlpbench.benchmarks.data.scene_tasks import TaskSplits
from vlpbench.benchmarks.data.tokens import WordTokenizer

if TYPE_CHECKING:
    from vlpbench.archs.types import Text

__all__ = ["CONFIGS", "GALLERIES", "Scenes", "ScenesConfig"]

T = TypeVar("T")

PROBE_IMAGES = 256
"""Training images whose content goes into the hash."""


class Scenes:
    """The data source `scenes`. Parts are generated when they are first asked for, and kept."""

    def __init__(
        self, config: ScenesConfig, *, name: str = "scenes", regions: Literal["", "known", "detected"] = ""
    ) -> None:
        """With ``regions``, models read boxes, of the objects or of what a detector found, and what is in them; what is
        shown stays the same."""
        self.name, self.config, self.regions = name, config, regions
        self._detector = SceneDetector(layout=config.layout, folder=kept_in())
        most = {"": None, "known": config.layout.objects, "detected": self._detector.most}
        self.geometry = Geometry(
            image=(config.layout.image, config.layout.image),
            text_len=scene_text.TEXT_LEN,
            vocab_size=len(scene_text.WORDS),
            pad=scene_text.PAD,
            cls=scene_text.CLS,
            sep=scene_text.SEP,
            mask=scene_text.MASK,
            regions=most[regions],
        )
        self._pictures: dict[str, Pictures] = {}

    # Symbols: what is shown, said and asked.

    def scenes(self, split: str) -> SceneTable:
        """What the pictures of ``train``, ``val``, ``test`` or ``comp`` show: kinds, cells and boxes of objects.

        Raises:
            DataError: for an unknown split.
        """
        if split == "train":
            return self._train
        return _named("split", split, self._tables)

    def drawn(self, gallery: str) -> Drawn:
        """What the pictures of a gallery show, and the statements about them."""
        return _named("gallery", gallery, self._drawn)

    def drawn_foils(self) -> Drawn:
        """What the pictures of the swap test show, and the true statements about them."""
        return self._foils

    def asked(self, split: str) -> Asked:
        """The questions of a split as arrays."""
        scenes, config = self.scenes(split), self.config
        if split == "train":
            return ask(stream("questions", split, config.seed), scenes, config.train_questions)
        count = config.questions if split == "test" else -(-config.questions // 3)
        rng = stream("questions", split)
        if split != "comp":
            return ask(rng, scenes, count)
        return ask(rng, scenes, count, focus=HELD_PAIRS[scenes.pair] & scenes.present, foil_pairs=HELD_PAIRS)

    def claimed(self, split: str) -> tuple[SceneTable, Claimed]:
        """The scenes of a split's statements about two pictures, and the statements."""
        return self._tasks.draw("reasoning", split, reason)

    def supposed(self, split: str) -> tuple[SceneTable, Supposed]:
        """The scenes of a split's hypotheses, what is hidden of them, and the hypotheses as arrays."""
        return self._tasks.draw("entailment", split, suppose)

    @property
    def _tasks(self) -> TaskSplits:
        c = self.config
        return TaskSplits(layout=c.layout, train=c.train_questions // 2, test=c.questions, seed=c.seed)

    @cached_property
    def _tables(self) -> dict[str, SceneTable]:
        layout, count = self.config.layout, self.config.scenes
        held = sample(stream("scenes", "comp"), layout, count - count // 2, fewest=2, held=True)
        # Half of `comp` shows no held-out pair: there it can be asked for in vain, so that no pair says yes or no.
        plain = sample(stream("scenes", "comp", "plain"), layout, count // 2, fewest=2)
        return {
            "val": sample(stream("scenes", "val"), layout, -(-count // 3), fewest=2),
            "test": sample(stream("scenes", "test"), layout, count, fewest=2),
            "comp": join([held, plain]),
        }

    @cached_property
    def _drawn(self) -> dict[str, Drawn]:
        layout, count = self.config.layout, self.config.gallery
        large = draw_gallery(stream("gallery", "large"), layout, 2 * count, siblings=0)
        return {
            "test": large.first(count),
            "val": draw_gallery(stream("gallery", "val"), layout, count, siblings=0),
            "large": large,
            "hard": draw_gallery(stream("gallery", "hard"), layout, count, siblings=1),
            "comp": draw_gallery(stream("gallery", "comp"), layout, count, siblings=0, held=True),
        }

    @cached_property
    def _foils(self) -> Drawn:
        count = self.config.foils
        scenes = sample(stream("scenes", "foils"), self.config.layout, 4 * count + 64, fewest=2)
        statement = scene_text.describe(stream("captions", "foils"), scenes, 1)[:, 0]
        rows = np.flatnonzero(scene_text.has_foils(scenes, statement))[:count]
        return Drawn(scenes=scenes.rows(rows), statement=statement[rows])

    @cached_property
    def _train(self) -> SceneTable:
        config = self.config
        tables = [*self._tables.values(), *(drawn.scenes for drawn in (*self._drawn.values(), self._foils))]
        evaluated = np.unique(np.concatenate([table.key for table in tables]))
        rng = stream("scenes", "train", config.seed)

        def unseen(table: SceneTable) -> np.ndarray:
            seen = np.isin(table.key, evaluated)
            groups = np.zeros(int(table.group.max(initial=-1)) + 1, bool)
            groups[table.group[seen & (table.group >= 0)]] = True
            return ~(seen | ((table.group >= 0) & groups[table.group] if len(groups) else seen))

        together = round(config.siblings * config.train_images / 4) * 4
        alone = config.train_images - together
        parts = [gather(alone, lambda count: sample(rng, config.layout, count, fewest=1), unseen)]
        if together:
            parts.append(gather(together, lambda count: sample_siblings(rng, config.layout, count), unseen))
        return join(parts)

    # Views: what models read.

    def pairs(self, split: str) -> ScenePairs:
        """Captioned pictures."""
        scenes, config = self.scenes(split), self.config
        train = split == "train"
        captions, seed = (config.captions, config.seed) if train else (1, 0)
        statement = scene_text.describe(stream("captions", split, seed), scenes, captions)
        statement = statement.transpose(1, 0, 2).reshape(-1, 3)
        if train and config.noise:
            shown = scenes.rows(np.arange(len(statement)) % len(scenes))
            statement = scene_text.corrupt(stream("noise", seed), shown, statement, config.noise)
        return ScenePairs(self._show(split, scenes), statement, scenes)

    def captions(self, split: str) -> SceneCaptions:
        """Pictures with up to five true captions each, of which the first is that of `pairs`."""
        scenes, seed = self.scenes(split), self.config.seed if split == "train" else 0
        statement = scene_text.describe(stream("captions", split, seed), scenes, REFERENCES)
        return SceneCaptions(self._show(split, scenes), statement, scenes)

    def encode(self, texts: Sequence[str]) -> Text:
        """Words of the vocabulary -> tokens, all of one length."""
        return as_text(WordTokenizer(scene_text.WORDS).encode(texts, self.geometry.text_len).ids)

    def decode(self, text: Text) -> list[str]:
        """Tokens -> words, without start, end and padding."""
        words = WordTokenizer(scene_text.WORDS)
        return [words.decode(ids) for ids in text.ids.tolist()]

    def gallery(self, name: str = "test") -> SceneGallery:
        """A retrieval gallery; `galleries` says what there is."""
        drawn = self.drawn(name)
        return SceneGallery(self._show(f"gallery {name}", drawn.scenes), drawn.statement, drawn.scenes.group)

    def galleries(self) -> Mapping[str, str]:
        """Name -> what it holds."""
        return GALLERIES

    def questions(self, split: str) -> SceneQuestions:
        """Questions with closed answers; ``comp`` asks about colour-shape pairs that were held out of training."""
        return SceneQuestions(self._show(split, self.scenes(split)), self.asked(split), self.config.layout.objects)

    def labelled(self, split: str) -> SceneLabels:
        """Pictures with the coloured shapes that they show."""
        scenes = self.scenes(split)
        return SceneLabels(self._show(split, scenes), scenes)

    def reasoning(self, split: str) -> SceneStatements:
        """Statements about two pictures; ``comp`` is about colour-shape pairs that were held out of training."""
        scenes, claimed = self.claimed(split)
        return SceneStatements(self._show(f"reasoning {split}", scenes), claimed)

    def entailment(self, split: str) -> SceneHypotheses:
        """Hypotheses about pictures with a curtain in most; ``comp`` as in `reasoning`."""
        scenes, supposed = self.supposed(split)
        return SceneHypotheses(self._show(f"entailment {split}", scenes, supposed.cover), supposed)

    def foils(self) -> SceneFoils:
        """The swap test: a true and, by kind of swap, a false statement about each picture."""
        return SceneFoils(self._show("foils", self._foils.scenes), self._foils.statement)

    def _show(self, split: str, scenes: SceneTable, cover: np.ndarray | None = None) -> Pictures:
        if split not in self._pictures:
            seed = self.config.seed if split.endswith("train") else 0
            pictures = render(scenes, stream("pictures", split, seed), cover)
            pictures.setflags(write=False)
            self._pictures[split] = self._as_read(pictures, scenes, cover)
        return self._pictures[split]

    def _as_read(self, pictures: np.ndarray, scenes: SceneTable, cover: np.ndarray | None) -> Pictures:
        if self.regions == "detected":
            return Cutouts(pictures, self._detector.boxes(pictures))
        return cut(pictures, scenes, cover) if self.regions else pictures

    def detector(self) -> Mapping[str, Any]:
        """What found the regions, and how well it does on the pictures of ``val``; empty where none was looked for."""
        if self.regions != "detected":
            return {}
        scenes = self.scenes("val")
        return self._detector.described(painted(self._show("val", scenes)), scenes.boxes)

    @property
    def hash(self) -> str:
        """SHA-256 over all that is evaluated on, the configuration, and a sample of how training sets are drawn.

        Statements and hypotheses have their own. Seed and noise, which a record's cell names, are left out.
        """
        return self._hash

    @cached_property
    def _hash(self) -> str:
        config = replace(self.config, seed=0, noise=0.0)
        digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
        for name in GALLERIES:
            gallery = self.gallery(name)
            feed(digest.update, painted(gallery.pictures), gallery.ids)
        for split in ("val", "test", "comp"):
            asked, pictures = self.asked(split), painted(self.questions(split).pictures)
            feed(digest.update, pictures, asked.scene, asked.ids, asked.answer)
        foils = self.foils()
        feed(digest.update, painted(foils.pictures), foils.true_ids, *foils.false_ids.values())
        probe = Scenes(replace(config, noise=0.5, train_images=PROBE_IMAGES, train_questions=PROBE_IMAGES))
        pairs, asked = probe.pairs("train"), probe.asked("train")
        feed(digest.update, painted(pairs.pictures), pairs.ids, asked.scene, asked.ids, asked.answer)
        return digest.hexdigest()


def _named(what: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise DataError(nearest(f"{what} of scenes", name, list(known)))
    return known[name]
