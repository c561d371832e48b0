"""Retrieval after pre-training: TR and IR R@1, R@5, R@10, by embedding, by matching every pair, or by reranking."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vlpbench.archs import registry
from vlpbench.benchmarks import scoring
from vlpbench.benchmarks.data.base import Swaps
from vlpbench.benchmarks.data.faults import left_out
from vlpbench.benchmarks.measures.base import Samples
from vlpbench.benchmarks.metrics import Rate, recall_mean, recalls
from vlpbench.benchmarks.train import cache_folder, open_data, pretrain
from vlpbench.benchmarks.validation import swap_rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlpbench.benchmarks.data.base import Gallery, Source
    from vlpbench.benchmarks.scoring import Engine, Scored
    from vlpbench.benchmarks.subject import Subject
    from vlpbench.results.record import Cell

GALLERY = "test"
"""The gallery that the samples are of; what the others give is in the detail."""
EXTRA_FUSIONS = 20_000
"""Further galleries are scored where that takes no more fused pairs than this."""


class Retrieval:
    """See `vlpbench.benchmarks.measures.base.Measure`."""

    def run(self, subject: Subject, cell: Cell) -> Samples:
        """Samples are percent, one each: the training is one draw, its seeds are other cells."""
        source = open_data(cell)
        with subject.settings(), cache_folder() as cache:
            trained = pretrain(subject, source, cache=cache)
            engine = scoring.Engine(learner=trained.learner, device=subject.device, autocast=subject.autocast)
            scorer = cell.scorer or scoring.default_scorer(subject.model.can)
            start = time.process_time(), time.perf_counter()
            scored = scoring.rank(engine, source.gallery(GALLERY), scorer, cell.k)
            spent = {"cpu_seconds": time.process_time() - start[0], "wall_seconds": time.perf_counter() - start[1]}
            detail: dict[str, Any] = {
                "data_hash": source.hash,
                "scorer": scorer,
                "k": (cell.k or scoring.K) if scorer == "rerank" else None,
                "pretraining": trained.detail(),
                "evaluation": {**scored.work, **spent},
                "galleries": {GALLERY: _described(scored)} | _others(engine, source, scorer, cell.k),
            }
            if cell.checkpoint is not None:
                detail["protocol"] = _protocol(subject, source, detail)
            if isinstance(source, Swaps):
                detail["swaps"] = _swaps(engine, source, scorer)
            detail |= folds(detail["galleries"]) | left_out(source)
        rates = recalls(scored.ranks)
        values = {name: [rate.percent] for name, rate in rates.items()} | {"recall_mean": [recall_mean(rates)]}
        return Samples(values=values, detail=detail, flags=_flags(rates, source.gallery(GALLERY)))


def _protocol(subject: Subject, source: Source, detail: dict[str, Any]) -> dict[str, Any]:
    """What a number of somebody else must share to be comparable."""
    cell, gallery, geometry = subject.cell, source.gallery(GALLERY), source.geometry
    inputs = registry.get(cell.arch).inputs
    return {
        "weights": cell.checkpoint,
        "tuned": cell.protocol,
        "images": gallery.images,
        "texts": gallery.texts,
        "image": list(subject.model.image_size),
        "pixels": inputs.image.fit,
        "vocabulary": inputs.text.vocabulary,
        "text_len": geometry.text_len,
        "scorer": detail["scorer"],
        "k": detail["k"],
        "code": cell.code,
    }


def folds(galleries: Mapping[str, Any]) -> dict[str, Any]:
    """``folds``: the mean recalls of the galleries that are parts of one ("1K test"); empty without any."""
    parts = [found["recalls"] for name, found in galleries.items() if name.startswith("fold")]
    means = {rate: sum(part[rate]["percent"] for part in parts) / len(parts) for rate in (parts[0] if parts else ())}
    return {"folds": {"galleries": len(parts), "recalls": means}} if parts else {}


def _described(scored: Scored) -> dict[str, Any]:
    """Rates with Wilson intervals over queries, and the rank of every query, from which any other rate follows."""
    rates = recalls(scored.ranks)
    return {
        "recalls": {name: _rate(rate) for name, rate in rates.items()},
        "recall_mean": recall_mean(rates),
        "ranks": {"image": scored.ranks.image.tolist(), "text": scored.ranks.text.tolist()},
    }


def _rate(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval()
    return {"percent": rate.percent, "total": rate.total, "low": low, "high": high}


def _others(engine: Engine, source: Source, scorer: str, k: int | None) -> dict[str, Any]:
    found = {}
    for name in source.galleries():
        if name == GALLERY:
            continue
        gallery = source.gallery(name)
        if scoring.fusions(scorer, gallery.images, gallery.texts, k) <= EXTRA_FUSIONS:
            found[name] = _described(scoring.rank(engine, gallery, scorer, k))
    return found


def _swaps(engine: Engine, source: Swaps, scorer: str) -> dict[str, Any]:
    foils = source.foils()
    return {kind: _rate(rate) for kind, rate in swap_rates(engine, foils, scorer, len(foils)).items()}


def _flags(rates: dict[str, Rate], gallery: Gallery) -> list[str]:
    chance = 100 * 10 / gallery.images
    low = rates["ir_r10"].interval()[0]
    return [f"retrieval is not above chance: IR R@10 is at least {low:.1f} %, chance {chance:.1f} %"] * (low <= chance)
