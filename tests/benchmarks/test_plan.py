"""Plans: what runs, what is done, what cannot be and why, and the estimate."""

from __future__ import annotations

import pytest
from vlpbench.benchmarks import plan as plan_module
from vlpbench.benchmarks.plan import Action, make_plan, unsupported
from vlpbench.benchmarks.suite import Suite
from vlpbench.results.index import Entry
from vlpbench.results.record import Cell, Env, Status

ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={}, threads=1)
GPU = ENV.model_copy(update={"gpu": "H100"})
TASK = {"size": "tiny", "data": "scenes", "budget": 10}


def suite(*cells: Cell, rounds: int = 3) -> Suite:
    return Suite(name="s", title="S", rounds=rounds, cells=cells)


def record(cell: Cell, *, status: Status = Status.OK, seconds: float = 1.0, env: Env = ENV) -> Entry:
    """What a plan knows of a record."""
    known = {"cell": cell, "cell_id": cell.id, "env_id": env.id, "status": status, "code": "", "seconds": seconds}
    return Entry(offset=0, **known)


IMPOSSIBLE = [
    (Cell(arch="clip", measure="vqa", objectives=("itc",), **TASK), "vqa needs FUSE, which clip lacks"),
    (Cell(arch="clip", size="huge", measure="latency"), "clip has no size 'huge'; it has tiny, small"),
    (Cell(arch="albef+late", size="tiny", measure="latency"), "albef+late: late fusion is for"),
    (Cell(arch="clip", measure="train_step", objectives=("itc", "mlm")), "mlm needs FUSE and MASK, which clip lacks"),
    (Cell(arch="vilt", measure="train_step", objectives=("itm",), momentum="queue"), "momentum 'queue' serves"),
    (Cell(arch="vilt", measure="memory", objectives=("itm",), weights=(1.0, 2.0)), "2 weights are given for 1"),
    (Cell(arch="clip", measure="latency", device="cuda"), "device 'cuda' is not there: no GPU is visible"),
    (
        Cell(arch="clip", measure="retrieval", objectives=("itc",), scorer="rerank", **TASK),
        "scorer 'rerank' needs FUSE, which clip lacks",
    ),
    (
        Cell(arch="albef", measure="retrieval", objectives=("itc", "mlm"), scorer="match", **TASK),
        "scorer 'match' needs the objective itm, which is not among itc, mlm",
    ),
    (
        Cell(arch="albef", measure="retrieval", objectives=("itm",), scorer="embed", **TASK),
        "scorer 'embed' needs embeddings, and none of itm trains them",
    ),
    (Cell(arch="clip", measure="retrieval", objectives=("itc",), budget=1), "retrieval needs data to learn from"),
]


@pytest.mark.parametrize(("cell", "reason"), IMPOSSIBLE, ids=[reason[:40] for _, reason in IMPOSSIBLE])
def test_what_cannot_be_is_planned_as_unsupported_with_the_reason(cell, reason):
    (item,) = make_plan(suite(cell), [], ENV, workers=2).items
    assert item.action is Action.UNSUPPORTED
    assert item.reason.startswith(reason)


def test_what_can_be_has_no_reason():
    for cell in (
        Cell(arch="clip+late", measure="vqa", objectives=("itc",), **TASK),
        Cell(arch="albef", measure="retrieval", objectives=("itc", "itm"), scorer="rerank", k=8, **TASK),
        Cell(arch="clip", measure="params", device="cuda"),
        Cell(arch="vilt", measure="latency", objectives=("itc",)),
    ):
        assert unsupported(cell, ENV) is None
    assert unsupported(Cell(arch="clip", measure="latency", device="cuda"), GPU) is None


def test_done_is_what_ended_well_or_cannot_be_in_this_environment():
    cells = [Cell(arch="clip", size="tiny", measure="latency", seed=seed) for seed in range(5)]
    history = [
        record(cells[0]),
        record(cells[1], status=Status.UNSUPPORTED),
        record(cells[2], status=Status.OOM),
        record(cells[3], env=GPU),
        record(cells[4]),
        record(cells[4], status=Status.ERROR),
    ]
    actions = [item.action.value for item in make_plan(suite(*cells), history, ENV, workers=2).items]
    assert actions == ["done", "done", "run", "run", "run"]
    again = make_plan(suite(*cells), history, ENV, workers=2, again=True)
    assert again.count(Action.RUN) == 5


def test_what_other_code_could_not_do_is_tried_again():
    cells = [Cell(arch="clip", size="tiny", measure="latency", seed=seed) for seed in range(2)]
    history = [record(cells[0]), record(cells[1], status=Status.UNSUPPORTED)]
    same = make_plan(suite(*cells), history, ENV, workers=2, code="")
    assert [item.action.value for item in same.items] == ["done", "done"]
    other = make_plan(suite(*cells), history, ENV, workers=2, code="newer")
    assert [item.action.value for item in other.items] == ["done", "run"]


def test_an_earlier_record_of_the_cell_or_of_its_like_makes_the_estimate(monkeypatch):
    monkeypatch.setitem(plan_module.SECONDS, "latency", 10.0)
    monkeypatch.setitem(plan_module.SIZES, "tiny", 0.5)
    first, second, third, other = (Cell(arch="clip", size="tiny", measure="latency", batch=b) for b in (1, 2, 3, 4))
    other = other.model_copy(update={"arch": "vilt"})
    history = [record(first, seconds=7.0), record(second, seconds=9.0)]
    plan = make_plan(suite(first, third, other), history, ENV, workers=2, again=True)
    assert [item.seconds for item in plan.items] == [7.0, 8.0, 3 * 10.0 * 0.5]
    assert plan.seconds == 30.0
    elsewhere = make_plan(suite(first), [record(first, seconds=7.0, env=GPU)], ENV, workers=2)
    assert elsewhere.seconds == 15.0


def test_side_by_side_takes_the_longest_cell_or_the_shared_work(monkeypatch):
    seconds = {"a": 9.0, "b": 1.0, "c": 2.0}
    cells = [Cell(arch="clip", size="tiny", measure="params", changes=((name, 1),)) for name in seconds]
    history = [record(cell, seconds=s) for cell, s in zip(cells, seconds.values(), strict=True)]
    assert make_plan(suite(*cells), history, ENV, workers=2, again=True).seconds == 9.0
    assert make_plan(suite(*cells), history, ENV, workers=1, again=True).seconds == 12.0


def test_a_shared_pretraining_is_paid_once(monkeypatch):
    monkeypatch.setitem(plan_module.STEP, "tiny", 1.0)
    monkeypatch.setitem(plan_module.EVALUATION, "tiny", 5.0)
    task = {"arch": "albef", "objectives": ("itc", "itm"), "measure": "retrieval", **TASK}
    cells = [Cell(scorer="embed", **task), Cell(scorer="match", **task), Cell(scorer="embed", seed=1, **task)]
    plan = make_plan(suite(*cells), [], ENV, workers=1)
    assert [item.seconds for item in plan.items] == [10 + 5.0, 5.0, 10 + 5.0]


def test_trainings_on_one_gpu_are_few_at_a_time():
    cells = [
        Cell(arch="clip", measure="retrieval", objectives=("itc",), scorer="embed", seed=s, **TASK) for s in range(3)
    ]
    assert make_plan(suite(*cells), [], ENV, workers=16).width("accuracy") == 16
    on_gpu = [cell.model_copy(update={"device": "cuda"}) for cell in cells]
    assert make_plan(suite(*on_gpu), [], GPU, workers=16).width("accuracy") == 4
    assert make_plan(suite(*on_gpu), [], GPU, workers=16).width("cost") == 1
