"""The ablation: statistics by hand, rows found again in made-up records, tables that say what they should."""

from __future__ import annotations

import json
import re

import pytest
from vlpbench.reports.ablation import studies
from vlpbench.reports.ablation_rows import effect, over_seeds, paired
from vlpbench.reports.ablation_text import as_json, text
from vlpbench.reports.ablation_words import published, tables
from vlpbench.reports.render import render
from vlpbench.results.ablation import LADDER, cell_of
from vlpbench.results.record import Env, Status

ALL = ("itc", "itm", "mlm")
BASE = {"arch": "albef", "size": "small", "data": "scenes", "batch": 64, "budget": 1200}
T2 = 4.302652729696142  # 97.5 % point of Student's t with 2 degrees of freedom


def test_differences_are_paired_by_seed_with_students_t():
    # 1, 2, 3: mean 2, standard deviation 1, standard error 1 / sqrt(3).
    found = paired({0: 11.0, 1: 52.0, 2: 33.0, 7: 1.0}, {0: 10.0, 1: 50.0, 2: 30.0, 8: 5.0})
    assert found is not None
    assert found.value == pytest.approx(2.0)
    assert found.interval == pytest.approx((2 - T2 / 3**0.5, 2 + T2 / 3**0.5))
    assert (found.n, found.method) == (3, "t over 3 seeds")
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_one_seed_has_a_value_and_no_interval():
    assert over_seeds([4.0]).interval is None
    only = paired({3: 5.0}, {3: 2.0})
    assert only is not None
    assert (only.value, only.interval) == (3.0, None)


def sets(**values: float) -> dict[frozenset[str], dict[int, float]]:
    """``a_b=5.0`` -> the set of a and b has 5 at seed 0 and 7 at seed 1."""
    return {frozenset(key.split("_")): {0: value, 1: value + 2} for key, value in values.items()}


WHOLE = sets(a=10, b=20, c=40, a_b=33, a_c=55, b_c=63, a_b_c=81)


def test_a_main_effect_is_the_mean_over_the_sets_that_show_it():
    # a beside b: 13, beside c: 15, beside both: 18. Beside nothing would need the empty set.
    found = effect(("a",), WHOLE, "abc")
    assert found is not None
    assert found.value == pytest.approx((13 + 15 + 18) / 3)
    assert found.interval == pytest.approx((found.value, found.value))  # the same at both seeds
    without_c = {key: value for key, value in WHOLE.items() if key != frozenset("c")}
    found = effect(("a",), without_c, "abc")
    assert found is not None
    assert found.value == pytest.approx((13 + 18) / 2)


def test_an_interaction_is_a_difference_of_differences():
    # Beside c alone: (81 - 63) - (55 - 40) = 3.
    found = effect(("a", "b"), WHOLE, "abc")
    assert found is not None
    assert found.value == pytest.approx(3.0)
    without_c = {key: value for key, value in WHOLE.items() if key != frozenset("c")}
    assert effect(("a", "b"), without_c, "abc") is None
    two = sets(a=10, b=20, a_b=33)
    assert effect(("a", "b"), two, "ab") is None
    only = effect(("a",), two, "ab")
    assert only is not None
    assert only.value == pytest.approx(13)


def test_an_effect_uses_the_seeds_that_all_its_rows_have():
    partial = WHOLE | {frozenset("ab"): {1: 100.0}}
    # Seed 1: a beside b 100 - 22, beside c 57 - 42, beside both 83 - 65.
    found = effect(("a",), partial, "abc")
    assert found is not None
    assert (found.value, found.interval) == (pytest.approx((78 + 15 + 18) / 3), None)
    assert effect(("a",), WHOLE | {frozenset("ab"): {9: 100.0}}, "abc") is None


@pytest.fixture(scope="module")
def make(make_record):
    """Records of one row: retrieval and VQA over seeds, a step in three rounds, FLOPs."""

    def row(recipe, *, scorer="rerank", tr=(80.0, 81.0, 82.0), vqa=(50.0, 51.0, 52.0), step=0.1, flops=2e9, base=BASE):
        fields = {**base, **recipe}
        made = []
        for seed, value in enumerate(tr if scorer else ()):
            cell = cell_of("retrieval", fields | {"seed": seed, "scorer": scorer})
            rates = {"tr_r1": value - 10, "tr_r5": value, "tr_r10": value + 10}
            rates |= {"ir_r1": value - 11, "ir_r5": value - 1, "ir_r10": value + 9, "recall_mean": value - 0.5}
            made.append(make_record(cell, {key: [rate] for key, rate in rates.items()}))
        for seed, value in enumerate(vqa):
            rates = {"vqa_accuracy": [value], "vqa_binding": [value + 20]}
            made.append(make_record(cell_of("vqa", fields | {"seed": seed}), rates))
        cost = {"step": [step, 1.02 * step, 0.98 * step] * 3}
        made.append(make_record(cell_of("train_step", fields), cost, detail={"rounds": [3, 3, 3]}))
        work = {"flops_forward_backward": [flops], "flops_forward": [flops / 3]}
        made.append(make_record(cell_of("flops", fields), work))
        return made

    return row


@pytest.fixture(scope="module")
def ladder(make):
    """The ladder; the last rung adds questions alone, as the command plans it."""
    found = []
    for place, rung in enumerate(LADDER[:5]):
        gain = (0, 10, 13, 14, 14)[place]
        found += make(
            rung.recipe,
            scorer="match" if place == 0 else "rerank",
            tr=(70.0 + gain, 70.0 + gain, 73.0 + gain + (place == 1)),
            step=0.1 * (1 + place / 10),
            flops=1e9 * (place + 1),
        )
    last = make(LADDER[5].recipe, scorer=None, vqa=(53.0, 54.0, 58.0))
    return found + [record for record in last if record.cell.measure == "vqa"]


def test_the_ladder_is_found_again_with_differences_to_the_row_before(ladder):
    (study,) = studies(ladder)
    assert (study.kind, study.seeds, study.arch) == ("ladder", 3, "albef")
    assert [line.name for line in study.lines] == [row.name for row in LADDER]
    assert [line.protocol for line in study.lines] == ["match", *["rerank"] * 5]
    second = study.lines[1].entries
    assert second["tr"].series == {0: 80.0, 1: 80.0, 2: 84.0}
    # Differences 10, 10, 11: mean 31/3, standard deviation 1/sqrt(3), standard error 1/3.
    assert second["tr"].change is not None
    assert second["tr"].change.value == pytest.approx(31 / 3)
    assert second["tr"].change.interval == pytest.approx((31 / 3 - T2 / 3, 31 / 3 + T2 / 3))
    assert second["ir"].value is not None
    assert second["ir"].value.value == pytest.approx(244 / 3 - 1)
    assert second["step"].change is not None
    assert second["step"].change.value == pytest.approx(1.1)
    assert second["step"].change.method == "bootstrap over 3 rounds, paired"
    assert second["flops"].value is not None
    assert second["flops"].value.value == pytest.approx(64 * 2e9)  # of a step of 64 pairs
    assert second["flops"].change is not None
    assert second["flops"].change.value == pytest.approx(2.0)


def test_fine_tuning_alone_changes_the_answers_and_nothing_else(ladder):
    last = studies(ladder)[0].lines[-1].entries
    assert (last["tr"].change, last["tr"].word, last["step"].word) == (None, "same model", "same step")
    # 53 - 50, 54 - 51, 58 - 52.
    assert last["vqa"].change is not None
    assert last["vqa"].change.value == pytest.approx(4.0)


def test_the_papers_ladder_stands_beside_ours_with_how_it_is_known(ladder, shared):
    (table,) = tables(studies(ladder)[0], "ablation-1")
    assert "from memory" in table.heads[-1].group
    tr = [row[-3] for row in table.rows]
    assert [(item.text, item.note) for item in tr[:2]] == [("93.96", ""), ("96.55", "+2.59")]
    source = (shared / "published.yaml").read_text(encoding="utf-8")
    rows = re.findall(r"- \[4M, .*?, ([\d.]+), ([\d.]+), [\d.]+, [\d.]+, ([\d.]+)\]", source)
    assert [tuple(map(float, row)) for row in rows] == [
        tuple(row[key] for key in ("tr", "ir", "vqa")) for row in published()["albef"]["rows"]
    ]
    assert [row["name"] for row in published()["albef"]["rows"]] == [row.name for row in LADDER]


def factorial(make, momentum="off"):
    values = {("itc",): 50, ("itm",): 52, ("mlm",): 45, ("itc", "itm"): 60, ("itc", "mlm"): 58, ("itm", "mlm"): 54}
    found = []
    for objectives, vqa in (values | {ALL: 70}).items():
        recipe = {"objectives": objectives, "momentum": momentum}
        recipe |= {"negatives": "uniform"} if "itm" in objectives else {}
        scorer = {("mlm",): None, ("itm",): "match", ("itm", "mlm"): "match"}.get(objectives, "embed")
        found += make(recipe, scorer=scorer, vqa=(vqa, vqa + 1.0))
    return found


def test_the_factorial_gives_effects_and_interactions(make):
    (study,) = studies(factorial(make))
    assert study.kind == "factorial"
    assert [line.name for line in study.lines] == [
        "ITC", "ITM", "MLM", "ITC + ITM", "ITC + MLM", "ITM + MLM", "ITC + ITM + MLM"
    ]  # fmt: skip
    found = {one.name: {key: value.value for key, value in one.values.items()} for one in study.effects}
    assert list(found) == ["ITC", "ITM", "MLM", "ITC × ITM", "ITC × MLM", "ITM × MLM"]
    assert found["ITC"]["vqa"] == pytest.approx((60 - 52 + 58 - 45 + 70 - 54) / 3)
    assert found["ITC × ITM"]["vqa"] == pytest.approx(70 - 58 - 54 + 45)
    # Masked words alone are not retrieved by, so neither is their interaction with the two others known.
    assert set(found["ITC × ITM"]) == {"vqa", "binding"}
    assert set(found["ITC × MLM"]) == {"tr", "ir", "recall", "vqa", "binding"}
    mlm = next(line for line in study.lines if line.name == "MLM")
    assert (mlm.protocol, mlm.entries["tr"].value, mlm.entries["tr"].word) == ("none", None, "n/a")


def test_momentum_states_are_factorials_of_their_own(make):
    found = studies([*factorial(make), *factorial(make, "distill")])
    titles = [study.title for study in found if study.kind == "factorial"]
    assert titles == ["Factorial of the objectives", "Factorial of the objectives, momentum distill"]


@pytest.fixture(scope="module")
def noisy(make):
    """Three levels of noise in three states; distillation gains the noise level in tenths of a percent."""
    found = []
    for state, plus in (("off", 0.0), ("queue", 1.0), ("distill", 1.0)):
        for noise in (0.0, 0.25, 0.5):
            gain = 20 * noise * (state == "distill")
            vqa = tuple(60 - 40 * noise + plus + gain + seed for seed in range(3))
            found += make({"objectives": ALL, "momentum": state, "noise": noise}, vqa=vqa)
    return found


def test_a_noise_sweep_gives_the_gain_of_distillation_by_level(noisy):
    (study,) = studies(noisy)
    assert study.kind == "sweep"
    assert len(study.lines) == 9
    gains = {(one.name, one.at): one.values["vqa"].value for one in study.effects}
    queue = {noise: pytest.approx(20 * noise) for noise in (0.0, 0.25, 0.5)}
    assert {noise: gains["distill − queue", noise] for noise in queue} == queue
    assert gains["distill − off", 0.5] == pytest.approx(11.0)
    assert study.lines[0].entries["vqa"].change is None
    assert study.lines[3].entries["vqa"].change is None  # another state begins; no row before it is of its kind
    change = study.lines[1].entries["vqa"].change
    assert change is not None
    assert change.value == pytest.approx(-10.0)


def test_a_sweep_lists_the_values_that_were_named_and_not_the_default(make, ladder):
    alphas = [r for a in (0.0, 0.4) for r in make({"objectives": ALL, "momentum": "distill", "alpha": a})]
    found = {study.title: study for study in studies([*ladder, *alphas])}
    assert list(found) == ["Ladder", "Sweep of alpha"]
    assert [line.name for line in found["Sweep of alpha"].lines] == ["distill, alpha 0.0", "distill, alpha 0.4"]
    queues = [r for q in (64, 512) for r in make({"objectives": ALL, "momentum": "queue", "queue_size": q})]
    queues += make({"objectives": ALL})
    (study,) = studies(queues)
    named = ["no queue (momentum off)", "queue, queue size 64", "queue, queue size 512"]
    assert [line.name for line in study.lines] == named
    deep = [r for n in (0, 2) for r in make({"objectives": ALL, "changes": (("fusion_layers", n),)})]
    (study,) = studies(deep)
    assert [line.name for line in study.lines] == ["off, fusion_layers 0", "off, fusion_layers 2"]


def test_a_quick_run_of_several_models_is_no_ablation(records):
    assert studies(records) == []


def test_rows_of_other_settings_and_machines_are_kept_apart(ladder, make):
    longer = [r for rung in LADDER[:3] for r in make(rung.recipe, base=BASE | {"budget": 50})]
    first, second = studies([*ladder, *longer])
    assert (first.setting["budget"], len(first.lines)) == (1200, 6)
    assert (second.setting["budget"], len(second.lines)) == (50, 3)
    other = Env(**(ladder[0].env.model_dump() | {"cpu": "other"}))
    elsewhere = [record.model_copy(update={"env": other}) for record in ladder]
    assert len({study.env for study in studies([*ladder, *elsewhere])}) == 2


def test_what_failed_or_is_impossible_says_so(ladder, make_record):
    lost = [r for r in ladder if not (r.cell.measure == "vqa" and r.cell.distilled)]
    for seed in range(3):
        cell = cell_of("vqa", {**BASE, **LADDER[3].recipe, "seed": seed})
        lost.append(make_record(cell, status=Status.ERROR, reason="Diverged: loss is nan\nTraceback"))
    study = studies(lost)[0]
    assert study.lines[3].entries["vqa"].word == "error: Diverged: loss is nan"
    assert study.lines[4].entries["vqa"].change is None
    assert "+ MoD on ITC: error: Diverged: loss is nan" in text(study)
    (table,) = tables(study, "a")
    column = [(head.title, head.group) for head in table.heads].index(("VQA", "VQA"))
    assert (table.rows[3][column].text, table.rows[3][column].kind) == ("error", "failed")


def test_the_terminal_shows_values_differences_and_intervals_in_columns(ladder):
    shown = text(studies(ladder)[0])
    lines = shown.splitlines()
    assert lines[0] == "Ladder: ALBEF small, scenes, 1,200 steps, batch 64, 3 seeds"
    row = next(place for place, line in enumerate(lines) if line.startswith("+ ITC"))
    assert re.match(r"\+ ITC +rerank +81\.3 +80\.3 ", lines[row])
    assert re.match(r" +\+10\.3 +\+10\.3 ", lines[row + 1])
    assert re.match(r" +\+8\.9 to \+11\.8 ", lines[row + 2])
    assert max(map(len, lines[: row + 3])) <= 150


def test_json_holds_the_same_numbers(ladder, noisy):
    found = json.loads(json.dumps(as_json(studies(ladder)[0])))
    row = found["rows"][1]
    assert row["scored_by"] == "rerank"
    assert row["tr"]["change"]["value"] == pytest.approx(31 / 3)
    assert row["tr"]["change"]["ci"] == pytest.approx([31 / 3 - T2 / 3, 31 / 3 + T2 / 3])
    gains = json.loads(json.dumps(as_json(studies(noisy)[0])))["effects"]
    assert {"distill − queue", "distill − off"} == {gain["name"] for gain in gains}
    assert {gain["noise"] for gain in gains} == {0.0, 0.25, 0.5}


def test_the_report_has_a_section_with_tables_figures_and_commands(ladder, noisy, make, tmp_path):
    everything = [*ladder, *factorial(make), *noisy]
    records = [record.model_copy(update={"suite": "ablation"}) for record in everything]
    page = render(records, tmp_path, title="Ablation").read_text(encoding="utf-8")
    assert '<section id="ablation">' in page
    assert "Known from memory" in page
    assert "Student&#39;s t over seeds" in page
    names = {path.stem for path in (tmp_path / "figures").glob("ablation-*.svg")}
    bars = {f"ablation-{n}-{key}" for n in (1, 2, 3) for key in ("recall", "vqa")}
    assert names == bars | {"ablation-1-added", "ablation-2-forest", "ablation-3-gain"}
    assert (
        page.index('<section id="ablation">') < page.index('<section id="noise">') < page.index("fig-ablation-3-gain")
    )
    assert {path.stem for path in (tmp_path / "tables").glob("ablation-*.csv")} >= {"ablation-1", "ablation-2-effects"}
    words = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Ablation" in words
    assert "vlpbench ablate --arch albef --size small --data scenes --budget 1200 --again" in words
    assert "--only sweep --sweep noise" in words


def test_a_report_without_rows_of_an_ablation_has_no_such_section(records, tmp_path):
    page = render(records, tmp_path, title="Quick").read_text(encoding="utf-8")
    assert 'id="ablation"' not in page
    assert "## Ablation" not in (tmp_path / "report.md").read_text(encoding="utf-8")
