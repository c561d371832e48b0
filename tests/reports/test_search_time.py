"""The time of a search, predicted from its parts, against sums done by hand."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from vlpbench.reports.board import boards
from vlpbench.reports.measured import measure_all
from vlpbench.reports.search_time import crossovers, search_time, searches
from vlpbench.results.record import Cell, Env, Record, Series, Status

ENV = Env(cpu="cpu", cores=2, memory=2**30, os="Linux", python="3.11", versions={}, threads=1)


def timed(arch: str, scorer: Literal["embed", "match"], **seconds: float) -> Record:
    units = dict.fromkeys(("image", "text", "compare", "fuse"), 0.0) | seconds
    detail: dict[str, Any] = {
        "scorer": scorer,
        "units": {"seconds": units},
        "measured": [{"images": n, "texts": n, "seconds": 0.1 * n} for n in (2, 4, 8, 16)],
        "exponent": {"value": 1.0, "low": 0.9, "high": 1.1},
    }
    names = ("search_exponent", "search_flickr", "search_coco", "search_million")
    samples = {name: Series(unit="1" if name == names[0] else "s", values=(1.0,)) for name in names}
    return Record(
        id=arch,
        cell=Cell(arch=arch, size="small", measure="retrieval_cost", scorer=scorer),
        status=Status.OK,
        samples=samples,
        detail=detail,
        env=ENV,
        code="c",
        suite="quick",
        started="2026-11-20T09:15:00Z",
        seconds=1.0,
    )


def test_predicted_and_crossed_by_hand() -> None:
    # n (1 + 1) against n * 0.02 + n n * 0.01: equal at 2 = 0.02 + 0.01 n, n = 198.
    records = [timed("clip", "embed", image=1.0, text=1.0), timed("vilt", "match", image=0.02, fuse=0.01)]
    (board,) = boards(measure_all(records))
    found = {one.title: one for one in searches(board)}
    assert set(found) == {"CLIP, dual", "ViLT, exhaustive"}
    assert found["CLIP, dual"].seconds(10) == pytest.approx(20.0)
    assert found["ViLT, exhaustive"].seconds(10) == pytest.approx(0.2 + 1.0)
    ((at, *_),) = crossovers(list(found.values()))
    assert at == pytest.approx(198, rel=1e-3)


def test_figure_marks_what_is_extrapolated() -> None:
    (board,) = boards(measure_all([timed("clip", "embed", image=1.0, text=1.0)]))
    figure = search_time(board, "")
    assert figure is not None
    assert "dashed where they are extrapolated" in figure.caption
    assert sum(item.note == "extrapolated" for row in figure.table.rows for item in row) == 3
    assert "<svg" in figure.drawing
    (empty,) = boards(measure_all([timed("clip", "embed").model_copy(update={"detail": {}})]))
    assert search_time(empty, "") is None
