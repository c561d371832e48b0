"""Claims: files, rules and verdicts, on made-up records whose answers are known."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
from vlpbench.benchmarks.fields import check_value, normalise
from vlpbench.benchmarks.suite import load_suite, names
from vlpbench.reports import claim_text, published
from vlpbench.reports.claim_numbers import Effect
from vlpbench.reports.claims import judge, load
from vlpbench.reports.judge import holm
from vlpbench.results.matrix import SuiteError
from vlpbench.results.record import UNITS, Cell, Env, Record, Series, Status

HERE = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={"torch": "2"}, threads=2)
THERE = HERE.model_copy(update={"cpu": "other"})
PAPER = """
[[matrix]]
name = "A"
arch = "vilt"
measure = "latency"

[[matrix]]
name = "B"
arch = "albef"
measure = "latency"
"""
TRAINED = """
[[matrix]]
name = "A"
arch = "albef"
measure = "vqa"
size = "small"
objectives = "itc+itm+mlm"
data = "scenes"
budget = 9
seed = [0, 1, 2]

[[matrix]]
name = "B"
arch = "vilt"
measure = "vqa"
size = "small"
objectives = "itm+mlm"
data = "scenes"
budget = 9
seed = [0, 1, 2]
"""


def claim(matrices: str, *conditions: str, kind: str = "A", id: str = "c") -> str:
    head = f'[[claim]]\nid = "{id}"\nkind = "{kind}"\nquote = "引文"\ngloss = "gloss"\nsource = "here"\n'
    return "\n".join([matrices, head, *(f"[[claim.condition]]\n{dedent(text).strip()}\n" for text in conditions)])


def condition(
    bounds: str, statistic: str = "difference", quantity: str = "vqa_accuracy", name: str = "A minus B"
) -> str:
    b = 'b = "B"\n' if statistic in ("difference", "ratio") else ""
    head = f'name = "{name}"\nstatistic = "{statistic}"\na = "A"\n{b}quantity = "{quantity}"\n'
    return head + bounds + ('\nmargin = "why"' if bounds else "")


@pytest.fixture
def read(tmp_path):
    def of(text: str):
        path = tmp_path / "my.toml"
        path.write_text(text, encoding="utf-8")
        return load(path, check=check_value, complete=normalise)

    return of


@pytest.fixture
def refused(read):
    def of(text: str) -> str:
        with pytest.raises(SuiteError) as caught:
            read(text)
        return str(caught.value).rpartition("my.toml:")[2]

    return of


def like(cell: Cell, **fields) -> Cell:
    """A cell with some fields replaced, and an id of its own."""
    return Cell(**(cell.model_dump() | fields))


def record(cell: Cell, detail=None, *, env=HERE, data=None, status=Status.OK, started="1", **values) -> Record:
    samples = {name: Series(unit=UNITS[name].unit, values=tuple(found)) for name, found in values.items()}
    name = f"{cell.id[:8]}{env.id[:4]}{started[-4:]:0>4}"
    return Record(
        id=name,
        cell=cell,
        status=status,
        reason="" if status is Status.OK else "no room",
        samples=samples,
        detail=detail or {},
        env=env,
        code="c",
        data=data,
        suite="s",
        started=started,
        seconds=1,
    )


def answers(claims, a, b, *, data="d", **options) -> list[Record]:
    """VQA accuracies of both sides by seed."""
    found = []
    for name, values in (("A", a), ("B", b)):
        by_seed = {cell.seed: cell for cell in claims[0].cells[name]}
        for seed, value in enumerate(values):
            cell = by_seed.get(seed) or like(by_seed[0], seed=seed)
            found.append(record(cell, vqa_accuracy=[value], data=data, **options))
    return found


def timed(cell: Cell, values, *, rounds=(2, 2, 2), run=7, **options) -> Record:
    visits = [{"round": n, "seed": run, "of": 2} for n in range(len(rounds))]
    return record(cell, {"rounds": list(rounds), "visits": visits}, latency=values, **options)


def only(verdicts):
    assert len(verdicts) == 1
    return verdicts[0]


# The words


@pytest.mark.parametrize(
    ("bounds", "word"),
    [
        ("at_least = 2", "supported"),
        ("at_least = 9", "refuted"),
        ("at_least = 4", "inconclusive"),
        ("at_most = 9", "supported"),
        ("at_most = 2", "refuted"),
        ("at_least = 2\nat_most = 6", "supported"),
        ("at_least = -2\nat_most = 2", "refuted"),
        ("at_least = 0\nat_most = 4", "inconclusive"),
    ],
)
def test_each_word_is_reached_by_the_interval_against_its_bounds(read, bounds, word):
    claims = read(claim(TRAINED, condition(bounds)))
    found = only(judge(claims, answers(claims, [54.0, 64.3, 73.7], [50.0, 60.0, 70.0])))  # differences 4, 4.3, 3.7
    assert found.word == word
    half = 4.302652729911275 * 0.3 / math.sqrt(3)  # Student's t of two degrees of freedom
    assert (found.effect, found.low, found.high) == pytest.approx((4.0, 4 - half, 4 + half))
    assert (found.unit, found.scale, found.family) == ("points", "controlled, small, scenes", 1)
    assert len(found.records) == 6


def test_seeds_are_paired_and_only_those_that_both_have(read):
    claims = read(claim(TRAINED, condition("at_least = 2")))
    records = answers(claims, [54.0, 64.0, 74.5, 99.0], [50.0, 60.0, 70.0])
    found = only(judge(claims, records))
    assert found.word == "supported"  # spread over 20 points of seeds cancels
    assert found.outcomes[0].method == "t over 3 seeds, paired"
    fourth = like(claims[0].cells["B"][0], seed=3)
    more = [*records, record(fourth, vqa_accuracy=[95.0], data="d")]
    assert only(judge(claims, more)).outcomes[0].method == "t over 4 seeds, paired"


def test_an_end_that_touches_the_bound_decides_nothing(read):
    # The differences 0, 2, 4 have the mean 2 and so an interval of 2 -+ t 2 / sqrt 3.
    half = 4.302652729911275 * 2 / math.sqrt(3)
    records = answers(claims := read(claim(TRAINED, condition(f"at_least = {2 - half!r}"))), [50, 62, 74], [50, 60, 70])
    outcome = only(judge(claims, records)).outcomes[0]
    assert outcome.low == pytest.approx(2 - half)
    assert outcome.p_holds == pytest.approx(0.05)
    equal = read(claim(TRAINED, condition("at_least = 0")))
    tie = only(judge(equal, answers(equal, [50, 60, 70], [50, 60, 70])))
    assert (tie.word, tie.effect, tie.low, tie.high) == ("inconclusive", 0, 0, 0)
    assert "reaches across or up to a bound" in tie.why


def test_a_counted_number_is_compared_with_its_bounds_included(read):
    cells = PAPER.replace("latency", "flops").replace('arch = "vilt"', 'arch = "vilt"\nobjectives = "itm+mlm"').replace(
        'arch = "albef"', 'arch = "albef"\nobjectives = "itc+itm+mlm"')  # fmt: skip
    for bound, word in ((5, "supported"), (5.001, "refuted")):
        claims = read(claim(cells, condition(f"at_least = {bound}", "ratio", "flops_forward"), kind="E"))
        sides = {name: claims[0].cells[name][0] for name in "AB"}
        records = [record(sides["A"], flops_forward=[10.0]), record(sides["B"], flops_forward=[2.0], env=THERE)]
        found = only(judge(claims, records))
        assert (found.word, found.effect, found.low, found.p, found.family) == (word, 5, 5, None, 0)
        assert found.scale == "paper size, random weights"


def test_all_conditions_have_to_hold_and_one_that_fails_refutes(read):
    holds, fails, wide = (condition(f"at_least = {n}", name=f"at least {n}") for n in (2, 9, 4))
    shown = condition("", name="beside")
    for conditions, word, about in (
        ((shown, holds), "supported", "at least 2"),
        ((holds, wide), "inconclusive", "at least 4"),
        ((holds, wide, fails), "refuted", "at least 9"),
    ):
        claims = read(claim(TRAINED, *conditions))
        found = only(judge(claims, answers(claims, [54.0, 64.3, 73.7], [50.0, 60.0, 70.0])))
        assert (found.word, found.about) == (word, about)
    states = [outcome.state for outcome in found.outcomes]
    assert states == ["holds", "open", "fails"]


def test_a_mutated_record_changes_the_verdict(read):
    claims = read(claim(TRAINED, condition("at_least = 2")))
    records = answers(claims, [54.0, 64.3, 73.7], [50.0, 60.0, 70.0])
    assert only(judge(claims, records)).word == "supported"
    changed = records[0].model_copy(update={"samples": {"vqa_accuracy": Series(unit="%", values=(44.0,))}})
    assert only(judge(claims, [changed, *records[1:]])).word == "inconclusive"


# What is not measured, and what must not be compared


def test_missing_cells_are_listed_with_their_seeds_and_how_they_ended(read):
    claims = read(claim(TRAINED, condition("at_least = 2")))
    records = answers(claims, [54.0, 64.3, 73.7], [50.0, 60.0])
    third = claims[0].cells["B"][2]
    found = only(judge(claims, [*records, record(third, status=Status.OOM)]))
    assert (found.word, found.effect, found.records != ()) == ("not measured", None, True)
    assert found.missing == ("vqa of ViLT, small, objectives itm+mlm, data scenes, budget 9, seed 2 (oom: no room)",)
    nothing = only(judge(claims, []))
    assert len(nothing.missing) == 2
    assert all("seed 0, 1, 2" in cell for cell in nothing.missing)


def test_a_ratio_of_times_is_never_taken_across_environments(read):
    claims = read(claim(PAPER, condition("at_least = 2", "ratio", "latency"), kind="E"))
    a, b = (claims[0].cells[name][0] for name in "AB")
    slow, fast = [4.0, 4.0, 4.1, 4.1, 4.0, 4.0], [1.0, 1.0, 1.0, 1.1, 1.0, 1.0]
    apart = only(judge(claims, [timed(a, slow), timed(b, fast, env=THERE)]))
    assert apart.word == "not measured"
    assert "measured apart" in apart.why
    both = [timed(a, slow, started="1"), timed(b, fast, started="2"), timed(a, [1.0] * 6, env=THERE, started="3")]
    found = only(judge(claims, both))
    assert (found.word, len(found.records)) == ("supported", 2)
    threads = like(a, threads=1)
    assert only(judge(claims, [timed(threads, slow), timed(b, fast)])).word == "not measured"


def test_accuracies_are_compared_within_one_data_hash(read):
    claims = read(claim(TRAINED, condition("at_least = 2")))
    old = answers(claims, [54.0, 64.3, 73.7], [50.0, 60.0, 70.0], data="old")
    new = answers(claims, [1.0, 1.0, 1.0], [50.0, 60.0, 70.0], data="new", started="2")
    assert only(judge(claims, [*old[:3], *new[3:]])).word == "not measured"
    assert only(judge(claims, old)).word == "supported"
    assert only(judge(claims, [*old, *new])).effect < 0  # the newer data, where both are complete
    assert only(judge(claims, [*answers(claims, [54.0, 64.3, 73.7], [], env=THERE), *answers(claims, [], [50, 60, 70])])
                ).word == "supported"  # fmt: skip


def test_one_seed_alone_decides_nothing(read):
    one = TRAINED.replace("seed = [0, 1, 2]", "seed = 0")
    claims = read(claim(one, condition("at_least = 2")))
    found = only(judge(claims, answers(claims, [90.0], [10.0])))
    assert (found.word, found.effect, found.low) == ("inconclusive", 80.0, None)
    assert "single draw" in found.why


# Statistics


def test_a_ratio_is_the_mean_log_ratio_of_round_medians_paired_within_one_run(read):
    claims = read(claim(PAPER, condition("at_least = 1.9", "ratio", "latency"), kind="E"))
    a, b = (claims[0].cells[name][0] for name in "AB")
    over, under = [2.0, 2.0, 4.0, 4.0, 8.0, 8.4], [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    outcome = only(judge(claims, [timed(a, over), timed(b, under)])).outcomes[0]
    logs = [math.log(2), math.log(2), math.log(2.05)]
    assert outcome.effect == pytest.approx(math.exp(sum(logs) / 3))
    assert outcome.method == "t over 3 rounds, paired"
    assert outcome.state == "holds"
    separate = only(judge(claims, [timed(a, over), timed(b, under, run=8)])).outcomes[0]
    assert separate.method == "t over 3 rounds, not paired"
    assert separate.state == "open"  # the machine's drift over the rounds no longer cancels


def test_sums_of_terms_are_differences_of_differences(read):
    names = {"A": (10, 20, 30), "B": (9, 18, 29), "C": (5, 6, 7), "D": (5, 5, 5)}
    matrices = TRAINED + TRAINED.replace('"A"', '"C"').replace('"B"', '"D"').replace(
        "budget = 9", "budget = 9\nnoise = 0.5"
    )
    text = 'name = "n"\nstatistic = "difference"\ncombine = "sum"\na = ["A", "D"]\nb = ["B", "C"]\n'
    claims = read(claim(matrices, text + 'quantity = "vqa_accuracy"\nat_least = 0\nmargin = "why"'))
    records = [
        record(cell, vqa_accuracy=[names[name][cell.seed]], data="d")
        for name in names
        for cell in claims[0].cells[name]
    ]
    assert only(judge(claims, records)).effect == pytest.approx(((1 + 2 + 1) - (0 + 1 + 2)) / 3)
    means = read(claim(matrices, text.replace("sum", "mean") + 'quantity = "vqa_accuracy"\nat_least = 0\nmargin = "w"'))
    assert only(judge(means, records)).effect == pytest.approx(((1 + 2 + 1) - (0 + 1 + 2)) / 6)


def test_places_are_counted_from_the_best(read):
    text = 'name = "n"\nstatistic = "difference"\nrank_of = "vilt"\na = ["A", "B"]\nb = ["C", "D"]\n'
    matrices = TRAINED + TRAINED.replace('"A"', '"C"').replace('"B"', '"D"').replace("budget = 9", "budget = 8")
    claims = read(claim(matrices, text + 'quantity = "vqa_accuracy"\nat_least = 0\nmargin = "why"'))
    values = {"A": (9, 9, 9), "B": (1, 9, 1), "C": (1, 1, 1), "D": (9, 9, 9)}
    records = [
        record(cell, vqa_accuracy=[values[name][cell.seed]], data="d")
        for name in values
        for cell in claims[0].cells[name]
    ]
    found = only(judge(claims, records))
    assert found.effect == pytest.approx((1 + 0.5 + 1) / 3)  # second, tied, second; first in the other task
    assert found.unit == "places"


def test_a_training_that_does_not_arrive_is_a_lower_bound(read):
    matrices = TRAINED.replace('"vqa"', '"learning"')
    for bound, word in (
        ("at_least = 1.5", "supported"),
        ("at_most = 1.5", "refuted"),
        ("at_most = 99", "inconclusive"),
    ):
        claims = read(claim(matrices, condition(bound, "ratio", "cpu_seconds_to_recall")))
        records = [record(cell, cpu_seconds_to_recall=[10.0 + cell.seed], data="d") for cell in claims[0].cells["B"]]
        never = {"reached": {"recall": {"within": 9}}, "pretraining": {"curve": {"cpu_seconds": [1.0, 40.0]}}}
        records += [record(cell, never, data="d") for cell in claims[0].cells["A"]]
        found = only(judge(claims, records))
        assert found.word == word
        assert found.effect == pytest.approx((40 / 10 * 40 / 11 * 40 / 12) ** (1 / 3))
        assert "did not get there" in " ".join(item.method for item in found.evidence)


def test_structure_is_exact_and_holds_for_all_cells(read):
    cells = '[[matrix]]\nname = "A"\narch = ["albef", "blip"]\nmeasure = "structure"\n'
    text = 'name = "n"\nstatistic = "exact"\na = "A"\nquantity = "image_tokens"\nequals = 197\nmargin = "why"'
    claims = read(claim(cells, text, kind="S"))
    for values, word in (((197, 197), "supported"), ((197, 577), "refuted")):
        records = [record(c, image_tokens=[v]) for c, v in zip(claims[0].cells["A"], values, strict=True)]
        found = only(judge(claims, records))
        assert (found.word, found.scale, found.p) == (word, "structure", None)
    assert "found: 197, 577; asked for: equal to 197" in found.why


# Several claims at once


def test_holm_steps_down_from_the_smallest_p():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_verdict_that_does_not_survive_holm_is_inconclusive(read):
    weak = claim(TRAINED, condition("at_least = 2"))
    wide = "".join(claim("", condition("at_least = 4", name=f"wide {n}"), id=f"w{n}") for n in range(9))
    alone = read(weak)
    records = answers(alone, [54.0, 64.5, 73.5], [50.0, 60.0, 70.0])  # p of 4 -+ 0.5 against 2 is about 0.02
    single = only(judge(alone, records))
    assert (single.word, single.p) == ("supported", pytest.approx(single.p_holm))
    among = judge(read(weak + wide), records)
    assert {v.family for v in among} == {10}
    assert among[0].word == "inconclusive"
    assert among[0].p_holm == pytest.approx(10 * single.p)
    assert "By itself it would be supported" in among[0].why
    sure = answers(alone, [54.0, 64.001, 73.999], [50.0, 60.0, 70.0])
    assert judge(read(weak + wide), sure)[0].word == "supported"


def test_p_and_interval_agree():
    effect = Effect(mean=4.0, error=0.5, freedom=2, method="t")
    low, high = effect.interval
    assert (effect.p_above(low), effect.p_below(high)) == pytest.approx((0.05, 0.05))
    assert effect.p_above(low - 0.1) < 0.05 < effect.p_above(low + 0.1)


# Scales


def test_another_scale_has_a_verdict_of_its_own_and_disagreement_is_said(read):
    claims = read(claim(TRAINED, condition("at_least = 2")))
    small = answers(claims, [54.0, 64.01, 73.99], [50.0, 60.0, 70.0])
    other = {"size": "medium", "budget": 10_000, "batch": 256}
    medium = [
        r.model_copy(update={"cell": like(r.cell, **other), "id": f"m{n}"})
        for n, r in enumerate(answers(claims, [50.0, 60.01, 69.99], [50.0, 60.0, 70.0]))
    ]
    here, there = judge(claims, [*small, *medium])
    assert (here.word, here.scale) == ("supported", "controlled, small, scenes")
    assert (there.word, there.scale) == ("refuted", "controlled, medium, scenes")
    assert here.notes == ("At another scale (controlled, medium, scenes) it is refuted.",)
    assert there.notes == ("At another scale (controlled, small, scenes) it is supported.",)
    assert len(judge(claims, [*small, *medium[:5]])) == 1  # a scale without all cells is none
    fixed = (replace(claims[0], fixed=("batch",)),)
    assert len(judge(fixed, [*small, *medium])) == 1
    longer = [r.model_copy(update={"cell": like(r.cell, budget=50)}) for r in small]
    assert only(judge(claims, longer)).word == "not measured"  # the same scale, and not the cells that were asked for


# Files of users


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('kind = "A"', 'kind = "X"'), "unknown kind 'X'"),
        (('a = "A"', 'a = "AA"'), "unknown matrix 'AA': did you mean 'A'?"),
        (('"vqa_accuracy"', '"vqa_acuracy"'), "unknown quantity 'vqa_acuracy': did you mean 'vqa_accuracy'?"),
        (('"difference"', '"diference"'), "unknown statistic 'diference': did you mean 'difference'?"),
        (("at_least = 2", "atleast = 2"), "unknown key of a condition 'atleast': did you mean 'at_least'?"),
        (("at_least = 2", "at_least = 2\nat_most = 1"), "nothing is at least 2 and at most 1"),
        (("at_least = 2", 'at_least = "2"'), "at_least = '2' is not of the right type"),
        (('margin = "why"', ""), "a bound needs a margin"),
        (('b = "B"', ""), "the statistic 'difference' needs b"),
        (('"difference"', '"level"'), "the statistic 'level' looks at a alone"),
        (('arch = "albef"', 'arch = "albeff"'), "did you mean 'albef'?"),
        (('name = "B"', ""), "this matrix has no name"),
        (("budget = 9", ""), "names no budget, so it trains nothing, and the claim is of kind A"),
        (('kind = "A"', 'kind = "E"'), "is of trained cells, and the claim is of kind E"),
        (('gloss = "gloss"', ""), "this claim has no 'gloss'"),
        (("at_least = 2\n", ""), "has no condition with a bound"),
        (
            ("[[claim]]", '[[matrix]]\nname = "C"\narch = "clip"\nmeasure = "latency"\n[[claim]]'),
            "no claim needs the matrix",
        ),
        (('id = "c"', 'id = "c"\nfixed = ["batsh"]'), "unknown field 'batsh': did you mean 'batch'?"),
        (("[[claim]]", "rounds = = 2\n[[claim]]"), "Invalid value"),
        (("[[claim]]", "[more]\n[[claim]]"), "unknown key 'more'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(refused, change, message):
    text = claim(TRAINED, condition("at_least = 2"))
    said = refused(text.replace(*change))
    line, _, rest = said.partition(":")
    assert message in rest
    assert int(line) >= 1


def test_an_error_names_the_line_it_is_about(refused):
    text = claim(TRAINED, condition("at_least = 2"), condition("at_least = 2", name="second"))
    lines = text.splitlines()
    for wrong, right, place in (
        ('arch = "albeff"', 'arch = "albef"', -1),
        ("budjet = 9", "budget = 9", 0),
        ("at_leest = 2", "at_least = 2", 1),
        ('kind = "B"', 'kind = "A"', 0),
    ):
        number = [n for n, line in enumerate(lines) if line == right][place]
        changed = "\n".join([*lines[:number], wrong, *lines[number + 1 :]])
        assert refused(changed).partition(":")[0] == str(number + 1)


def test_a_claim_of_the_users_own_is_a_suite(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(claim(TRAINED, condition("at_least = 2")), encoding="utf-8")
    suite = load_suite(str(path))
    assert len(suite.cells) == 6
    assert {cell.id for cell in suite.cells} == {c.id for cells in load(path)[0].cells.values() for c in cells}


# The claims of the notes


def test_every_claim_of_the_list_is_there(shared):
    rows = re.findall(
        r"^\| ([\w., -]+) \| ([SEA+]+) \|", (shared / "claims.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    wanted = {(name.strip(), kind) for names, kinds in rows for name in names.split(",") for kind in kinds.split("+")}
    assert len(wanted) > 25
    assert wanted <= {claim.key for claim in load()}


def test_the_suite_notes_is_the_cells_that_the_claims_need():
    suite = load_suite("notes")
    needed = {like(cell, device="cpu").id for c in load() for cells in c.cells.values() for cell in cells}
    assert "notes" in names()
    assert suite.name == "notes"
    assert {like(cell, device="cpu").id for cell in suite.cells} == needed
    explicit, completed = load(), load(check=check_value, complete=normalise)
    assert explicit == completed  # every objective is written out, so that no table decides what is measured


def test_cells_that_suites_and_ablations_have_are_the_same():
    from vlpbench.benchmarks.ablation import Wish, suite_of

    notes = {cell.id for cell in load_suite("notes").cells}
    ladder = suite_of(Wish(arch="albef", parts=("ladder",))).cells
    noise = Wish(
        arch="albef",
        parts=("sweep",),
        sweeps=("noise",),
        data="scenes-few",
        momentum=("queue", "distill"),
    )
    few = suite_of(noise).cells
    paper = load_suite("paper").cells
    shared = {"ladder": ladder, "noise": few, "paper": paper}
    counts = {name: sum(cell.id in notes for cell in cells) for name, cells in shared.items()}
    assert counts["ladder"] >= 24  # four rows, two measures, three seeds
    assert counts["noise"] == 18  # two states, three levels, three seeds
    assert counts["paper"] >= 24


def test_the_claims_are_sound():
    for found in load():
        assert re.search(r"[\u4e00-\u9fff]|MLM|cls", found.quote)
        for item in found.conditions:
            assert not item.decides or item.margin
            if item.statistic == "ratio" and item.at_least and item.at_most:
                assert item.at_least < 1 < item.at_most or item.at_least > 1


# Published numbers


def test_published_numbers_agree_with_the_list(shared):
    yaml = pytest.importorskip("yaml")
    listed = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?", (shared / "published.yaml").read_text(encoding="utf-8")))
    known = {float(number) for number in listed}
    assert yaml
    for number in published.library().numbers.values():
        assert number.value in known, number
        assert number.confidence == "seen" or number.mark == "from memory"


def test_a_time_needs_its_hardware_and_stands_in_a_ratio(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        '[[number]]\nid = "t"\nwhat = "t"\nvalue = 5\nunit = "ms"\ntable = "T"\nsource = "s"\nconfidence = "seen"\n'
    )
    with pytest.raises(ValueError, match="a time without the hardware"):
        published.load(path)
    known = {claim.key: {item.name for item in claim.conditions} for claim in load()}
    for name, kind, number in published.library().beside:
        assert number.unit in ("x", "points")
        assert (name, kind) in known
        assert not number.condition or number.condition in known[name, kind]
    times = [n for _, _, n in published.library().beside if n.hardware]
    assert times
    assert all("P40" in n.hardware for n in times)
    flops = next(n for _, _, n in published.library().beside if n.id == "uniter-flops over vilt-flops")
    assert flops.value == pytest.approx(949.9 / 55.9)


def test_a_measured_number_that_is_off_needs_an_explanation():
    def counted(size: str, arch: str, value: float, name: str = "flops_forward") -> Record:
        measure = "params" if name.startswith("params") else "flops"
        return record(Cell(arch=arch, size=size, measure=measure, batch=2), **{name: [value]})

    found = {
        item.published.id: item
        for item in published.compared(
            [counted("base", "vilt", 51.78e9), counted("b32", "clip", 20e9), counted("b16", "clip", 41.09e9)]
        )
    }
    assert found["vilt-flops"].ratio == pytest.approx(51.78 / 55.9)
    assert "302 or 303 tokens" in found["vilt-flops"].words
    assert found["clip-b32-flops"].words == "Nothing that we know of explains it."
    assert (found["clip-b16-flops"].apart, found["clip-b16-flops"].words) == (False, "")


# Text


def test_the_explanation_has_rule_cells_numbers_interval_scale_and_published_number():
    claims = load()
    verdicts = [v for v in judge(claims, []) if v.claim.id == "detector-cost"]
    text = re.sub(r"\s+", " ", claim_text.explanation(verdicts))
    for part in ("NOT MEASURED", "at least 5.00×", "paper size, random weights", "missing: detector of UNITER", "17.0×",
                 "one NVIDIA P40"):  # fmt: skip
        assert part in text
    table = claim_text.table(judge(claims, []))
    assert f"{len(claims)} not measured" in table
    assert "Holm" in table


def test_json_has_what_it_promises(read):
    claims = read(claim(TRAINED, condition("at_least = 2")))
    (found,) = claim_text.as_json(judge(claims, answers(claims, [54.0, 64.3, 73.7], [50.0, 60.0, 70.0])))
    assert found["id"] == "c"
    assert (found["kind"], found["verdict"], found["scale"]) == ("A", "supported", "controlled, small, scenes")
    assert found["ci"][0] < found["effect"] < found["ci"][1]
    assert len(found["records"]) == 6


def test_the_command_prints_verdicts_and_names_the_nearest_claim(tmp_path, monkeypatch, capsys):
    from vlpbench.benchmarks.cli import main
    from vlpbench.results.store import Store

    monkeypatch.chdir(tmp_path)
    path = Path("mine.toml")
    path.write_text(claim(TRAINED, condition("at_least = 2")), encoding="utf-8")
    for found in answers(load(path), [54.0, 64.3, 73.7], [50.0, 60.0, 70.0]):
        Store(tmp_path / "vlpbench-results" / "one").append(found)
    assert main(["claims", "--claims", "mine.toml"]) == 0
    assert "c      accuracy  supported  +4.0 points" in capsys.readouterr().out
    assert main(["claims", "c", "--claims", "mine.toml", "--json"]) == 0
    assert '"verdict": "supported"' in capsys.readouterr().out
    assert main(["claims", "detector-cast"]) == 2
    assert "did you mean 'detector-cost'?" in capsys.readouterr().err
    assert main(["plan", "--claims", "mine.toml"]) == 0
    assert "6 cells" in capsys.readouterr().out
