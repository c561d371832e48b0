"""Verdicts as rows of the page: the word and an icon, the interval against the bounds, the published number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from vlpbench.reports import rulings as page
from vlpbench.reports.claims import Claim, Condition, Evidence, Outcome, Term, Verdict, Word
from vlpbench.reports.published import Published


def verdict(word: Word, effect: float | None = None, low: float | None = None, high: float | None = None, **more: Any):
    condition = Condition(
        name="gain",
        statistic="difference",
        a=(Term(cells="c", quantity="vqa_accuracy"),),
        at_least=1.0,
        margin="more than noise",
    )
    claim = Claim(id="gain", kind="A", quote="效果很好", gloss="It <works> well.", source="3", conditions=(condition,))
    evidence = (Evidence(what="A, VQA", text="61.0 %", records=("r1",)),)
    outcome = Outcome(
        condition=condition, state="open", effect=effect, low=low, high=high, unit="points", evidence=evidence
    )
    fields: dict[str, Any] = {
        "about": "gain",
        "unit": "points",
        "scale": "controlled, small, scenes",
        "why": "Because.",
    }
    return Verdict(claim=claim, word=word, effect=effect, low=low, high=high, outcomes=(outcome,), **(fields | more))


def test_rows_say_word_effect_rule_and_scale_and_measured_ones_come_first():
    number = Published(
        id="p", what="ITC", value=2.1, unit="points", table="Table 1", source="paper", confidence="memory"
    )
    found = page.rulings([verdict("not measured"), verdict("supported", 3.0, 2.0, 4.0, published=(number,))])
    assert [one.kind for one in found] == ["supported", "not measured"]
    first, second = found
    assert (first.effect, first.interval, first.rule) == ("+3.0 points", "+2.0 to +4.0 points", "at least +1.0 points")
    assert first.scale == "controlled, small, scenes"
    assert first.records == ("r1",)
    assert [line.text for line in first.published] == ["+2.1 points"]
    assert "from memory" in first.published[0].note
    assert first.published[0].mark == "from memory"
    assert {first.name, second.name} == {"claim-gain-a", "claim-gain-a-2"}
    assert [(one.word, one.count) for one in page.tallies(found)] == [("supported", 1), ("not measured", 1)]
    assert len({page.ICONS[word] for word in page.ICONS}) == 4


def test_the_picture_has_the_interval_where_it_lies_against_the_bound():
    (one,) = page.rulings([verdict("supported", 3.0, 2.0, 4.0)])
    assert one.picture is not None
    # Ends 1 to 4, padded by 0.18 of that: the bound stands at 0.54 of 4.08 widths, the effect at 2.54.
    (bound,) = re.findall(r'<line x1="([\d.]+)"[^>]*dasharray', one.picture.drawing)
    (effect,) = re.findall(r'<circle cx="([\d.]+)"', one.picture.drawing)
    assert float(bound) == pytest.approx(150 * 0.54 / 4.08, abs=0.1)
    assert float(effect) == pytest.approx(150 * 2.54 / 4.08, abs=0.1)
    (nothing,) = page.rulings([verdict("not measured")])
    assert nothing.picture is None


def test_all_of_it_stands_in_the_page_and_in_the_table(tmp_path: Path, records, monkeypatch: pytest.MonkeyPatch):
    from vlpbench.reports import assemble, render

    monkeypatch.setattr(assemble, "judge", lambda claims, found: (verdict("refuted", 0.2, -0.1, 0.5),))
    only = [record for record in records if record.cell.measure == "params"]
    html = render.render(only, tmp_path, title="t", claims=(verdict("refuted").claim,)).read_text(encoding="utf-8")
    row = html.split('id="claim-gain-a"')[1].split("</tr>")[0]
    assert "refuted" in row
    assert "✗" in row
    assert "It &lt;works&gt; well." in row
    assert '<span class="quote" lang="zh">效果很好</span>' in row
    assert "+0.2 points" in row
    assert html.index('id="claim-gain-a"') < html.index('id="t-comparison"')
    twin = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "✗ refuted" in twin
    assert (tmp_path / "tables" / "verdicts.csv").is_file()
