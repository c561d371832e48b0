"""Forests of effects: ours with intervals around zero, the paper's beside them."""

from __future__ import annotations

import re

from vlpbench.reports.ablation import Study
from vlpbench.reports.ablation_rows import ACCURACIES, Effect, Entry, Line
from vlpbench.reports.effects import factorial, ladder
from vlpbench.reports.stats import Estimate
from vlpbench.reports.svg import style

SETTING = {"arch": "albef", "size": "small", "data": "scenes", "budget": 1200, "batch": 64}
GAIN = Estimate(value=3.0, low=1.0, high=5.0, n=3, method="t over 3 seeds")


def line(name: str, change: Estimate | None) -> Line:
    entry = Entry(value=Estimate(value=70.0), change=change, series={0: 70.0})
    return Line(name=name, protocol="rerank", entries=dict.fromkeys(ACCURACIES, entry), fields={})


def test_each_rung_stands_beside_what_the_paper_says_it_adds():
    lines = (line("MLM + ITM", None), line("+ ITC", GAIN), line("a rung of ours", None))
    study = Study(kind="ladder", title="Ladder", setting=SETTING, env="e", lines=lines)
    with style():
        figure = ladder(study, "a")
        assert factorial(study, "a") is None
    assert figure is not None
    rows = {(row[0].text, row[1].text): row[2:] for row in figure.table.rows}
    assert len(rows) == 2 * 3
    ours, paper = rows["+ ITC", "TR mean"]
    assert (ours.text, ours.note, paper.text) == ("+3.0", "+1.0 to +5.0", "+2.59")  # 96.55 - 93.96
    assert [item.text for item in rows["a rung of ours", "VQA"]] == ["n/a", "n/a"]
    assert "known from memory" in figure.caption


def test_effects_whose_interval_leaves_zero_out_are_filled():
    doubt = Estimate(value=1.0, low=-2.0, high=4.0)
    effects = (Effect(name="ITC", values={"vqa": GAIN}), Effect(name="ITC × ITM", values={"vqa": doubt}))
    study = Study(kind="factorial", title="F", setting=SETTING, env="e", lines=(line("ITC", None),), effects=effects)
    with style():
        figure = factorial(study, "a")
        assert ladder(study, "a") is None
    assert figure is not None
    assert "ITC +3.0 (+1.0 to +5.0) in VQA accuracy" in figure.alt
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", figure.drawing)
    assert {"ITC", "ITC × ITM", "+1.0 (−2.0 to +4.0)"} <= {word.strip() for word in shown}
