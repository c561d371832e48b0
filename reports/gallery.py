"""What a search over a gallery costs, predicted from the measured FLOPs of the stages.

With N images and M texts, N*image + M*text is paid once. Ranking by embeddings stops there; reranking adds a fusion for
the k best candidates of every query, in both directions; exhaustive matching adds one for every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vlpbench.reports.board import Board
from vlpbench.reports.measured import Measured
from vlpbench.reports.names import Row

TEXTS_PER_IMAGE = 5
"""Captions of an image in Flickr30K and COCO."""
CANDIDATES = 128
"""k of the prediction: ALBEF's on Flickr30K (arXiv:2107.07651, section 4)."""
WAYS = {"embed": "dual", "rerank": "rerank", "match": "exhaustive"}
"""Scorer -> what it costs."""
GALLERIES = {1000: "Flickr30K test", 5000: "COCO 5K test"}
"""Images of the galleries that papers report on."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """FLOPs of the stages of one pair."""

    image: float
    text: float
    fusion: float


@dataclass(frozen=True, kw_only=True)
class Search:
    """One way of searching with one architecture."""

    row: Row
    way: str
    """``dual``, ``rerank`` or ``exhaustive``."""
    stages: Stages
    measured: Measured
    """The FLOPs it is predicted from."""

    @property
    def title(self) -> str:
        """What a figure calls the line."""
        return f"{self.row.plain_title}, {self.way}"

    def flops(self, images: float) -> float:
        """Ranks all texts for every image and all images for every text."""
        return search_flops(self.way, self.stages, images, TEXTS_PER_IMAGE * images)


def search_flops(way: str, stages: Stages, images: float, texts: float, k: int = CANDIDATES) -> float:
    """FLOPs of a search in both directions.

    Raises:
        ValueError: for an unknown way.
    """
    once = images * stages.image + texts * stages.text
    if way == "dual":
        return once
    if way == "exhaustive":
        return once + images * texts * stages.fusion
    if way == "rerank":
        pairs = min(images * texts, images * min(k, texts) + texts * min(k, images))
        return once + pairs * stages.fusion
    raise ValueError(f"a gallery is searched {', '.join(WAYS.values())}, not {way!r}")


def searches(board: Board) -> list[Search]:
    """Every way that every architecture was measured to retrieve by, once for all momentum states.

    A detector in front is part of encoding an image.
    """
    found: dict[tuple[str, str], Search] = {}
    for row in board.rows:
        measured = board.get(row, "flops_forward")
        stages = stages_of(measured) if measured and measured.ok else None
        if measured is None or stages is None:
            continue
        detector = board.at_size(row, "detector", dict(measured.setting)["size"])
        if detector and "flops_detector" in detector.estimates:
            stages = replace(stages, image=stages.image + detector.estimates["flops_detector"].value)
        for way in _ways(board, row, stages):
            key = (row.plain_title, way)
            found.setdefault(key, Search(row=row, way=way, stages=stages, measured=measured))
    return list(found.values())


def stages_of(measured: Measured) -> Stages | None:
    """FLOPs by stage; None where the record does not tell them apart."""
    parts = measured.detail("by_component")
    if not isinstance(parts, dict) or not parts:
        return None
    get = {name: float(value) for name, value in parts.items()}
    return Stages(image=get.get("image", 0.0), text=get.get("text", 0.0), fusion=get.get("fusion", 0.0))


def _ways(board: Board, row: Row, stages: Stages) -> Sequence[str]:
    """As measured; where nothing was, what the split of the FLOPs allows."""
    scorers = {m.scorer for m in board.everything if m.ok and m.scorer in WAYS and m.row.arch == row.arch}
    found = list(WAYS) if "rerank" in scorers else [scorer for scorer in WAYS if scorer in scorers]
    if stages.fusion and not stages.text:
        # A pair goes through fusion alone: what embedding would cost is not among the FLOPs of a pair.
        found = [scorer for scorer in found if scorer == "match"]
    if found:
        return [WAYS[scorer] for scorer in found]
    return ["exhaustive"] if stages.fusion else ["dual"]


def crossing(a: Callable[[float], float], b: Callable[[float], float], low: float, high: float) -> float | None:
    """Gallery size between ``low`` and ``high`` where the cheaper of two searches changes, or first differs.

    Returns:
        None if one is the cheaper throughout, or if both cost the same throughout.
    """

    def sign(size: float) -> int:
        one, other = a(size), b(size)
        return 0 if abs(one - other) <= 1e-9 * max(one, other) else 1 if one > other else -1

    start = sign(low)
    if start == sign(high):
        return None
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if sign(middle) == start else (low, middle)
    return (low * high) ** 0.5
