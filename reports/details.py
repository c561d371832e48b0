"""What the measures keep beside their samples, read with tolerance: whatever is absent is None or empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlpbench.results.record import Record

if TYPE_CHECKING:
    import numpy as np

MAIN = "test"
"""Gallery and split that samples are of."""
CLASSIFIED = ("vqa_accuracy", "reasoning_accuracy", "entailment_accuracy")
"""Rates over the rows of a split."""


def scorer(record: Record) -> tuple[str | None, int | None]:
    """How a retrieval was scored and how many candidates were reranked, the measure's own choice included."""
    named, k = record.detail.get("scorer"), record.detail.get("k")
    return record.cell.scorer or (named if isinstance(named, str) else None), record.cell.k or (
        k if isinstance(k, int) else None
    )


def trials(name: str, detail: dict[str, Any]) -> int | None:
    """Test items behind a rate: images for text retrieval, texts for image retrieval, else the rows of a split."""
    if name in CLASSIFIED:
        return _total(_dig(detail, "splits", MAIN, "accuracy"))
    return _total(_dig(detail, "galleries", MAIN, "recalls", name))


def gallery_size(detail: dict[str, Any], gallery: str = MAIN) -> tuple[int, int] | None:
    """Images and texts of a gallery."""
    recalls = _dig(detail, "galleries", gallery, "recalls")
    images, texts = _total(recalls.get("tr_r1")), _total(recalls.get("ir_r1"))
    return (images, texts) if images and texts else None


def recalls(detail: dict[str, Any], gallery: str) -> dict[str, tuple[float, int]]:
    """Percent and queries of every recall of a gallery."""
    return _rates(_dig(detail, "galleries", gallery, "recalls"))


def other_galleries(detail: dict[str, Any]) -> list[str]:
    """Galleries besides the main one."""
    return [name for name in _dig(detail, "galleries") if name != MAIN]


def ranks(detail: dict[str, Any]) -> dict[str, np.ndarray]:
    """``TR`` -> rank of every image's best text in the main gallery, ``IR`` -> that of every text's image."""
    import numpy as np

    kept = _dig(detail, "galleries", MAIN, "ranks")
    return {way: np.asarray(kept[of]) for way, of in (("TR", "image"), ("IR", "text")) if kept.get(of)}


def correct(detail: dict[str, Any]) -> np.ndarray | None:
    """Which rows of the main split were answered rightly, (rows,) bool; None where that was not kept."""
    import numpy as np

    split = _dig(detail, "splits", MAIN)
    bits, total = split.get("correct"), _total(split.get("accuracy"))
    if not isinstance(bits, str) or total is None:
        return None
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=total).astype(bool)


def swaps(detail: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """Kind of swap -> percent of images whose true text scores above the swapped one, and how many images."""
    return _rates(_dig(detail, "swaps"))


def splits(detail: dict[str, Any]) -> list[str]:
    """Splits of questions, the main one first."""
    return sorted(_dig(detail, "splits"), key=lambda name: name != MAIN)


def split_accuracy(detail: dict[str, Any], split: str) -> tuple[float, int] | None:
    """Percent and questions of a split, over all types."""
    return _rates({"all": _dig(detail, "splits", split, "accuracy")}).get("all")


def kinds(detail: dict[str, Any], split: str = MAIN) -> dict[str, tuple[float, int]]:
    """Type of question -> percent and questions."""
    return _rates(_dig(detail, "splits", split, "kinds"))


def classes(detail: dict[str, Any], split: str = MAIN) -> dict[str, tuple[float, int]]:
    """Right label -> percent and rows, where the labels are few."""
    return _rates(_dig(detail, "splits", split, "classes"))


def binding_kinds(detail: dict[str, Any]) -> list[str]:
    """Types of question that need binding, where the record says which."""
    found = detail.get("binding_kinds")
    return [str(kind) for kind in found] if isinstance(found, (list, tuple)) else []


def majority(detail: dict[str, Any], split: str = MAIN) -> float | None:
    """Percent that the commonest answer to each type of question (statement, hypothesis) reaches."""
    found = _dig(detail, "splits", split).get("majority")
    return float(found) if isinstance(found, (int, float)) else None


def pretraining(detail: dict[str, Any]) -> str | None:
    """Key of the pre-training, equal where it is shared."""
    found = _dig(detail, "pretraining").get("key")
    return found if isinstance(found, str) else None


def curve(detail: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Objective -> (step, loss) points of the pre-training."""
    found = _dig(detail, "pretraining", "curve")
    steps, losses = found.get("step", []), _dig(found, "loss")
    if len(steps) < 2:
        return {}
    lines = {k: v for k, v in losses.items() if k != "total" and len(v) == len(steps)}
    return {k: [(float(s), float(x)) for s, x in zip(steps, v, strict=True)] for k, v in lines.items()}


def training_seconds(detail: dict[str, Any], device: str) -> float | None:
    """Time of the whole pre-training: of the processor where it ran there, else on the wall."""
    found = _dig(detail, "pretraining", "curve").get("cpu_seconds" if device == "cpu" else "wall_seconds")
    return float(found[-1]) if isinstance(found, list) and found else None


def looks(detail: dict[str, Any]) -> dict[str, list[float]]:
    """What was seen on the way through the pre-training, by name, beside ``step`` and ``cpu_seconds``; equally long."""
    found = _dig(detail, "pretraining", "curve", "looks")
    series = {"step": found.get("step"), "cpu_seconds": found.get("cpu_seconds"), **_dig(found, "metrics")}
    steps = series["step"]
    if not steps or not isinstance(steps, (list, tuple)):
        return {}
    return {k: [float(x) for x in v] for k, v in series.items() if isinstance(v, list) and len(v) == len(steps)}


def watched(detail: dict[str, Any]) -> dict[str, Any]:
    """What was looked at: scorer, images, texts and pictures of the swap test."""
    return _dig(detail, "pretraining", "curve", "looks", "what")


def reached(detail: dict[str, Any], name: str) -> dict[str, Any]:
    """Threshold, step and the rest of what a record says about the time to an accuracy."""
    return _dig(detail, "reached", name)


def amount(detail: dict[str, Any], name: str) -> float | None:
    """A number that stands in the detail itself."""
    found = detail.get(name)
    return float(found) if isinstance(found, (int, float)) else None


def _dig(found: Any, *path: str) -> dict[str, Any]:
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _total(rate: Any) -> int | None:
    total = rate.get("total") if isinstance(rate, dict) else None
    return total if isinstance(total, int) and total > 0 else None


def _rates(found: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """Entries that hold a percentage of a known number of items."""
    return {
        name: (float(rate["percent"]), rate["total"])
        for name, rate in found.items()
        if isinstance(rate, dict) and isinstance(rate.get("percent"), (int, float)) and _total(rate)
    }
