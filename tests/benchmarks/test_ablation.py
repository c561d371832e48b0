"""Rows of an ablation: which cells they are, what is shared, what is refused; fine-tuning with a teacher."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from vlpbench.archs.registry import UnknownName
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks import schedule
from vlpbench.benchmarks.ablation import Wish, rows, scorer_of, suite_of
from vlpbench.benchmarks.cli import parser
from vlpbench.benchmarks.cli_ablate import wish_of
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.depths import depths
from vlpbench.benchmarks.fields import SuiteError
from vlpbench.benchmarks.measures.vqa import Answering
from vlpbench.benchmarks.plan import sharing, unsupported
from vlpbench.benchmarks.subject import Subject
from vlpbench.results.ablation import cell_of, shared
from vlpbench.results.record import Cell, Env

ALL = ("itc", "itm", "mlm")
ENV = Env(cpu="c", cores=2, memory=1, os="Linux", python="3.11", versions={}, threads=1)


def cells(measure: str, **wish) -> list[Cell]:
    return [cell for cell in suite_of(Wish(**({"arch": "albef"} | wish))).cells if cell.measure == measure]


def test_the_factorial_is_every_set_of_objectives_but_the_empty_one():
    found = cells("vqa", parts=("factorial",), seeds=1)
    assert {cell.objectives for cell in found} == {
        ("itc",),
        ("itm",),
        ("mlm",),
        ("itc", "itm"),
        ("itc", "mlm"),
        ("itm", "mlm"),
        ALL,
    }
    assert {cell.momentum for cell in found} == {"off"}
    # Matching draws alike in every set, so that no effect holds that of hard negatives.
    assert {cell.negatives for cell in found if "itm" in cell.objectives} == {"uniform"}


def test_retrieval_is_scored_by_the_best_protocol_that_a_row_trains():
    assert {c.objectives: c.scorer for c in cells("retrieval", parts=("factorial",), seeds=1)} == {
        ("itc",): "embed",
        ("itm",): "match",
        ("itc", "itm"): "rerank",
        ("itc", "mlm"): "embed",
        ("itm", "mlm"): "match",
        ALL: "rerank",
    }  # masked words alone score no pairs
    assert scorer_of(("mlm",)) is None
    assert scorer_of(("triplet",)) == "embed"
    assert scorer_of(("triplet", "itm")) == "rerank"


def test_the_ladder_is_the_papers():
    found = [row.recipe for row in rows(Wish(arch="albef", parts=("ladder",)))]
    assert found == [
        {"objectives": ("itm", "mlm"), "negatives": "uniform"},
        {"objectives": ALL, "momentum": "queue", "negatives": "uniform"},
        {"objectives": ALL, "momentum": "queue"},
        {"objectives": ALL, "momentum": "distill", "distilled": ("itc",)},
        {"objectives": ALL, "momentum": "distill"},
        {"objectives": ALL, "momentum": "distill", "finetune_momentum": "distill"},
    ]


def test_rows_that_are_equal_as_cells_are_run_once():
    both = suite_of(Wish(arch="albef", seeds=3)).cells
    assert len({cell.id for cell in both}) == len(both)
    count = {
        measure: sum(cell.measure == measure for cell in both)
        for measure in ("retrieval", "vqa", "train_step", "flops")
    }
    # Ladder 6 rows and factorial 7, of which MLM + ITM is in both; the last rung differs in fine-tuning alone, and
    # masked words alone are not retrieved by.
    assert count == {"retrieval": 3 * (5 + 6 - 1), "vqa": 3 * (6 + 7 - 1), "train_step": 5 + 7 - 1, "flops": 5 + 7 - 1}
    assert len({sharing(cell) for cell in both if cell.budget}) == 3 * (5 + 7 - 1)  # trainings


def test_seeds_are_shared_across_rows_and_cost_is_measured_once():
    for measure in ("retrieval", "vqa"):
        found = cells(measure, seeds=2)
        by_row = {}
        for cell in found:
            by_row.setdefault(shared(cell), []).append(cell.seed)
        assert set(map(tuple, by_row.values())) == {(0, 1)}
    assert {cell.seed for cell in cells("train_step", seeds=2)} == {0}


def test_another_architecture_gets_the_factorial_of_what_it_can():
    found = cells("vqa", arch="vilt", seeds=1)
    assert [cell.objectives for cell in found] == [("itm",), ("mlm",), ("itm", "mlm")]
    assert all(unsupported(cell, ENV) is None for cell in suite_of(Wish(arch="vilt")).cells)


def test_what_is_impossible_is_refused_with_the_reason():
    assert {unsupported(cell, ENV) for cell in cells("vqa", arch="vilt", objectives=("itc", "itm"), seeds=1)} == {
        None,
        "itc needs EMBED, which vilt lacks",
    }
    reasons = {
        c.objectives: unsupported(c, ENV) for c in cells("vqa", momentum=("queue",), seeds=1, parts=("factorial",))
    }
    assert reasons["itm", "mlm"] == "momentum 'queue' serves contrastive negatives, and itm, mlm has none"
    assert reasons[ALL] is None
    with pytest.raises(Unsupported, match="the ladder is over itc, itm, mlm, and itc is not among vilt's objectives"):
        suite_of(Wish(arch="vilt", parts=("ladder",)))
    with pytest.raises(UnknownName, match="did you mean 'alpha'"):
        suite_of(Wish(arch="albef", sweeps=("alhpa",)))
    with pytest.raises(SuiteError, match="--budget"):
        suite_of(Wish(arch="albef", size="base"))
    with pytest.raises(Unsupported, match="lm needs DECODE, which albef lacks"):
        suite_of(Wish(arch="albef", objectives=("lm",)))
    for bad in ({"seeds": 0}, {"budget": 0}, {"noise": (0.0, 1.5)}):
        with pytest.raises(SuiteError, match=f"--{next(iter(bad))}"):
            suite_of(Wish(arch="albef", **bad))
    with pytest.raises(SuiteError, match="name a --sweep"):
        suite_of(Wish(arch="albef", parts=("sweep",)))


def test_a_sweep_takes_one_field_through_values_and_shares_what_it_can():
    found = cells("vqa", parts=("sweep",), sweeps=("alpha",), seeds=1)
    assert [(c.alpha, c.momentum) for c in found] == [(a, "distill") for a in (0.0, 0.2, 0.4, 0.6, 0.8)]
    found = cells("vqa", parts=("sweep",), sweeps=("queue_size",), seeds=1)
    assert [(c.momentum, c.queue_size) for c in found][:2] == [("off", None), ("queue", 64)]
    noisy = suite_of(Wish(arch="albef", parts=("sweep",), sweeps=("noise",), noise=(0.0, 0.4), seeds=1)).cells
    ladder = {cell.id for cell in suite_of(Wish(arch="albef", parts=("ladder",), seeds=1)).cells}
    assert [(c.momentum, c.noise) for c in noisy if c.measure == "vqa"] == [
        (state, noise) for state in ("off", "queue", "distill") for noise in (0.0, 0.4)
    ]
    assert {c.momentum for c in noisy if c.id in ladder and c.noise == 0 and c.measure == "vqa"} == {"queue", "distill"}
    assert sum(c.measure == "train_step" for c in noisy) == 3  # noise costs nothing


def test_depths_are_read_off_the_built_model():
    assert depths("fusion_depth", "albef", "small") == tuple((("fusion_layers", n),) for n in (1, 2))  # not 0
    assert depths("fusion_depth", "vilt", "small") == tuple((("layers", n),) for n in (0, 1, 3, 7))
    assert depths("depth_ratio", "clip", "small") == tuple(
        (("image_layers", image), ("text_layers", text)) for image, text in ((6, 2), (4, 4), (2, 6))
    )
    with pytest.raises(Unsupported, match="vilt small has no image layers"):
        depths("depth_ratio", "vilt", "small")
    with pytest.raises(Unsupported, match="are no equals"):
        depths("depth_ratio", "clip", "base")


def test_a_measure_does_not_look_at_what_its_numbers_do_not_depend_on():
    fields = {
        "arch": "albef",
        "objectives": ALL,
        "budget": 9,
        "finetune": 5,
        "noise": 0.5,
        "seed": 2,
        "scorer": "rerank",
    }
    fields |= {"finetune_momentum": "distill", "momentum": "distill", "batch": 8}
    kept = {m: cell_of(m, fields).model_dump(exclude_defaults=True) for m in ("retrieval", "vqa", "flops")}
    common = {"arch": "albef", "objectives": ALL, "momentum": "distill", "batch": 8}
    assert kept["flops"] == common | {"measure": "flops"}
    trained = common | {"budget": 9, "noise": 0.5, "seed": 2}
    assert kept["retrieval"] == trained | {"measure": "retrieval", "scorer": "rerank"}
    assert kept["vqa"] == trained | {"measure": "vqa", "finetune": 5, "finetune_momentum": "distill"}


def test_planning_imports_no_torch():
    code = (
        "import sys; from vlpbench.benchmarks.ablation import Wish, suite_of; suite_of(Wish(arch='albef')); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def answering(**fields) -> Answering:
    cell = Cell(
        arch="albef",
        size="tiny",
        measure="vqa",
        objectives=ALL,
        data="scenes",
        batch=16,
        budget=4,
        finetune=10,
        **fields,
    )
    subject = Subject.build(cell)
    questions = open_source("scenes", size="tiny").questions("train")
    return Answering(subject=subject, model=subject.model, questions=questions)


def test_fine_tuning_with_a_teacher_mixes_in_its_answers_and_moves_it():
    task = answering(finetune_momentum="distill", momentum_rate=0.9, alpha=0.4)
    assert task.teacher is not None
    rows, generator = np.arange(8), torch.Generator()
    batch = task.data.batch(rows)
    with torch.no_grad():
        for parameter in task.student.parameters():
            parameter.add_(0.3)  # away from the teacher, which is a copy of the start
        own, other = task.logits(batch), task.logits(batch, task.teacher.twin)
    hard, soft = F.cross_entropy(own, batch.answer), F.cross_entropy(own, other.softmax(1))
    assert not torch.isclose(hard, soft)
    # 10 steps of fine-tuning, so alpha is ramped over 4 of them.
    for step, alpha in ((0, 0.0), (2, 0.2), (9, 0.4)):
        loss = task.losses(rows, step, generator)["answer"]
        torch.testing.assert_close(loss, (1 - alpha) * hard + alpha * soft)

    before = [parameter.clone() for parameter in task.teacher.twin.parameters()]
    task.after_step()
    for old, new, student in zip(before, task.teacher.twin.parameters(), task.student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)
    assert not any(parameter.requires_grad for parameter in task.teacher.parameters())


def test_the_official_teacher_of_fine_tuning_moves_before_it_is_asked_and_drops_out():
    task = answering(finetune_momentum="distill", momentum_rate=0.9, code="official")
    assert task.teacher is not None
    assert task.teacher.dropout
    assert not answering(finetune_momentum="distill").teacher.dropout
    with torch.no_grad():
        for parameter in task.student.parameters():
            parameter.add_(0.3)
    before = [parameter.clone() for parameter in task.teacher.twin.parameters()]
    task.losses(np.arange(8), 0, torch.Generator())
    for old, new, student in zip(before, task.teacher.twin.parameters(), task.student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)
    moved = [parameter.clone() for parameter in task.teacher.twin.parameters()]
    task.after_step()
    assert all(map(torch.equal, moved, task.teacher.twin.parameters()))


def test_fine_tuning_without_a_teacher_is_plain_cross_entropy_from_the_same_start():
    plain, taught = answering(), answering(finetune_momentum="distill")
    assert plain.teacher is None
    rows = np.arange(8)
    batch = plain.data.batch(rows)
    loss = plain.losses(rows, 9, torch.Generator())["answer"]
    torch.testing.assert_close(loss, F.cross_entropy(plain.logits(batch), batch.answer))
    for a, b in zip(plain.student.parameters(), taught.student.parameters(), strict=True):
        assert torch.equal(a, b)
    assert schedule.finetuning(plain.subject.cell) == schedule.finetuning(taught.subject.cell)


def wish(*argv: str) -> Wish:
    return wish_of(parser().parse_args(["ablate", "--device", "cpu", *argv]))


def test_the_command_line_says_what_is_asked_for():
    assert wish("--arch", "vilt") == Wish(arch="vilt")
    found = wish(
        *("--arch", "albef", "--objectives", "itc, mlm", "--momentum", "off,queue", "--noise", "0,0.5"),
        *("--only", "ladder,sweep", "--seeds", "2", "--size", "tiny", "--budget", "20", "--finetune", "5"),
    )
    assert found == Wish(
        arch="albef",
        objectives=("itc", "mlm"),
        momentum=("off", "queue"),
        sweeps=("noise",),
        noise=(0.0, 0.5),
        parts=("ladder", "sweep"),
        seeds=2,
        size="tiny",
        budget=20,
        finetune=5,
    )
    with pytest.raises(SuiteError, match="--noise 'much'"):
        wish("--arch", "albef", "--noise", "much")
    with pytest.raises(SuiteError, match="--data: unknown data source 'scene'"):
        wish("--arch", "albef", "--data", "scene")


@pytest.mark.slow
def test_an_ablation_runs_ends_with_its_tables_and_is_not_run_twice(tmp_path):
    command = [sys.executable, "-m", "vlpbench.benchmarks.cli", "ablate", "--arch", "vilt", "--size", "tiny"]
    command += ["--budget", "2", "--finetune", "2", "--seeds", "1", "--device", "cpu", "--out", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Factorial of the objectives: ViLT tiny, scenes, 2 steps" in first.stdout
    assert "no ladder: the ladder is over itc, itm, mlm" in first.stderr
    # Three rows: retrieval by the two that match, questions, steps and FLOPs by all.
    assert "11 done, 0 skipped, 0 failed" in first.stdout
    assert (tmp_path / "report" / "index.html").is_file()
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    summary = json.loads(again.stdout.splitlines()[-1])
    assert (summary["done"], summary["skipped"], summary["failed"]) == (0, 11, 0)
    (study,) = summary["ablation"]
    assert [row["scored_by"] for row in study["rows"]] == ["match", "none", "match"]
