"""Views of scenes that models read: texts beside uint8 pictures that are normalised a batch at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from vlpbench.archs.types import Batch, Text
from vlpbench.benchmarks.data import scene_entailment, scene_reasoning
from vlpbench.benchmarks.data.base import HypothesisBatch, QuestionBatch, StatementBatch
from vlpbench.benchmarks.data.scene_entailment import Supposed, hypothesis_ids
from vlpbench.benchmarks.data.scene_questions import BINDING, KINDS, Asked, answers
from vlpbench.benchmarks.data.scene_reasoning import Claimed, claim_ids
from vlpbench.benchmarks.data.scene_regions import Cutouts
from vlpbench.benchmarks.data.scene_text import FOIL_KINDS, PAD, VERDICTS, judge, statement_ids, swap

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from vlpbench.benchmarks.data.scene_table import SceneTable


Pictures = np.ndarray | Cutouts
"""(N, 3, H, W) uint8, or the same with boxes, of which models read the regions."""


def normalise(pictures: np.ndarray) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 in [-1, 1]: ``(x / 255 - 0.5) / 0.5``."""
    import torch

    return torch.from_numpy(pictures).to(torch.float32).mul_(2 / 255).sub_(1)


def shown(pictures: Pictures, rows: np.ndarray) -> Tensor:
    """What a model reads of these rows: normalised pixels (B, 3, H, W), or regions (B, R, F + 4)."""
    return pictures.batch(rows) if isinstance(pictures, Cutouts) else normalise(pictures[rows])


def painted(pictures: Pictures) -> np.ndarray:
    """(N, 3, H, W) uint8, whatever models read of them."""
    return pictures.pictures if isinstance(pictures, Cutouts) else pictures


def as_text(ids: np.ndarray) -> Text:
    """(B, L) int64 token ids with their mask."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(ids))
    return Text(ids=tensor, mask=tensor != PAD)


class ScenePairs:
    """Captioned pictures: row r is caption ``r // images`` of image ``r % images``."""

    verdicts = VERDICTS

    def __init__(self, pictures: Pictures, statement: np.ndarray, scenes: SceneTable) -> None:
        """Takes (N, 3, H, W) uint8 pictures, (captions * N, 3) statements and the N scenes that are shown."""
        self.pictures, self.statement, self.scenes, self.group = pictures, statement, scenes, scenes.group
        self.ids = statement_ids(statement)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: np.ndarray) -> Batch:
        """``sample_id`` is the image."""
        import torch

        image = rows % len(self.pictures)
        return Batch(image=shown(self.pictures, image), text=as_text(self.ids[rows]), sample_id=torch.from_numpy(image))

    def judge(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """(K,) verdicts on token ids (K, L) as captions of the pictures of these rows."""
        return judge(self.scenes.rows(rows % len(self.pictures)), ids)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """All rows at random, but the same-bag captions of a sibling group in a row, so that a batch holds them all.

        Only against a sibling does it matter which object is red and which is left; among independent scenes two
        objects already tell the image.
        """
        images = len(self.pictures)
        caption, image = np.divmod(np.arange(len(self)), images)
        group = self.group[image]
        unit = np.where(group >= 0, group, len(self.group) + image)
        number = int(unit.max()) + 1
        lot = rng.random(number * (int(caption.max()) + 1))
        return np.argsort(lot[caption * number + unit], kind="stable")


class SceneGallery:
    """One caption an image, true of that image alone."""

    def __init__(self, pictures: Pictures, statement: np.ndarray, group: np.ndarray) -> None:
        """Takes (N, 3, H, W) uint8 pictures, (N, 3) statements and the (N,) sibling groups."""
        self.pictures, self.statement, self.group = pictures, statement, group
        self.ids = statement_ids(statement)
        self.owner = np.arange(len(statement))
        self.images, self.texts = len(pictures), len(statement)

    def image_batch(self, rows: np.ndarray) -> Tensor:
        """(K, 3, H, W) float32."""
        return shown(self.pictures, rows)

    def text_batch(self, rows: np.ndarray) -> Text:
        """The captions of these rows."""
        return as_text(self.ids[rows])


class SceneQuestions:
    """Questions with closed answers."""

    def __init__(self, pictures: Pictures, asked: Asked, objects: int) -> None:
        """Takes (N, 3, H, W) uint8 pictures, questions about them and the most objects that a scene may have."""
        self.pictures, self.asked = pictures, asked
        self.answers = answers(objects)
        self.kinds: tuple[str, ...] = KINDS
        self.kind = asked.kind
        self.binding = BINDING

    def __len__(self) -> int:
        return len(self.asked)

    def batch(self, rows: np.ndarray) -> QuestionBatch:
        """``sample_id`` is the row."""
        import torch

        return QuestionBatch(
            image=shown(self.pictures, self.asked.scene[rows]),
            question=as_text(self.asked.ids[rows]),
            answer=torch.from_numpy(self.asked.answer[rows]),
            sample_id=torch.from_numpy(np.asarray(rows, np.int64)),
        )


@dataclass(frozen=True, kw_only=True)
class FoilBatch:
    """Pictures, a true statement of each, and false ones that differ from it by one swap."""

    image: Tensor
    """(B, 3, H, W)."""
    true: Text
    false: dict[str, Text]
    """By kind of swap."""


class SceneFoils:
    """The swap test: which of two statements of nearly the same words is true of the picture?"""

    kinds = FOIL_KINDS
    attributes = ("colour", "shape")

    def __init__(self, pictures: Pictures, statement: np.ndarray) -> None:
        """Takes (N, 3, H, W) uint8 pictures and (N, 3) true statements."""
        self.pictures, self.statement = pictures, statement
        self.true_ids = statement_ids(statement)
        self.false_ids = {kind: statement_ids(swap(statement, kind)) for kind in FOIL_KINDS}

    def __len__(self) -> int:
        return len(self.statement)

    def batch(self, rows: np.ndarray) -> FoilBatch:
        """The pictures and statements of these rows."""
        false = {kind: as_text(ids[rows]) for kind, ids in self.false_ids.items()}
        return FoilBatch(image=shown(self.pictures, rows), true=as_text(self.true_ids[rows]), false=false)


class SceneStatements:
    """Statements about two pictures, true or false."""

    sides = 2
    labels = scene_reasoning.LABELS
    kinds = scene_reasoning.CLAIMS

    def __init__(self, pictures: Pictures, claimed: Claimed) -> None:
        """Takes (N, 3, H, W) uint8 pictures and statements about pairs of them."""
        self.pictures, self.claimed = pictures, claimed
        self.ids, self.kind = claim_ids(claimed.claim), claimed.claim[:, 0]

    def __len__(self) -> int:
        return len(self.claimed)

    @property
    def hash(self) -> str:
        """Over pictures, words and labels."""
        return digest(painted(self.pictures), self.ids, self.claimed.left, self.claimed.right, self.claimed.label)

    def batch(self, rows: np.ndarray) -> StatementBatch:
        """``sample_id`` is the row."""
        import torch

        return StatementBatch(
            left=shown(self.pictures, self.claimed.left[rows]),
            right=shown(self.pictures, self.claimed.right[rows]),
            statement=as_text(self.ids[rows]),
            label=torch.from_numpy(self.claimed.label[rows]),
            sample_id=torch.from_numpy(np.asarray(rows, np.int64)),
        )


class SceneHypotheses:
    """Hypotheses about pictures, in part of which a curtain hides a cell."""

    labels = scene_entailment.LABELS
    kinds = scene_entailment.FORMS

    def __init__(self, pictures: Pictures, supposed: Supposed) -> None:
        """Takes (N, 3, H, W) uint8 pictures and as many hypotheses, one about each."""
        self.pictures, self.supposed = pictures, supposed
        self.ids, self.kind = hypothesis_ids(supposed.hypothesis), supposed.hypothesis[:, 0]

    def __len__(self) -> int:
        return len(self.supposed)

    @property
    def hash(self) -> str:
        """Over pictures, words and labels."""
        return digest(painted(self.pictures), self.ids, self.supposed.label)

    def batch(self, rows: np.ndarray) -> HypothesisBatch:
        """``sample_id`` is the row."""
        import torch

        return HypothesisBatch(
            image=shown(self.pictures, rows),
            hypothesis=as_text(self.ids[rows]),
            label=torch.from_numpy(self.supposed.label[rows]),
            sample_id=torch.from_numpy(np.asarray(rows, np.int64)),
        )


def feed(update: Callable[[bytes], object], *arrays: np.ndarray) -> None:
    """Arrays into a hash, with their shapes and types."""
    for array in arrays:
        update(f"{array.shape}{array.dtype.str}".encode())
        update(np.ascontiguousarray(array).tobytes())


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 over arrays."""
    found = hashlib.sha256()
    feed(found.update, *arrays)
    return found.hexdigest()
