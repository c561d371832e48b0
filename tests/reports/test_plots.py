"""Labels that keep apart, and colours that stay what they are."""

from __future__ import annotations

import itertools

import pytest
from vlpbench.reports import plots
from vlpbench.reports.names import FAMILIES, SPARE, Row, family
from vlpbench.reports.svg import ROLES, palette


def test_labels_apart_stay_where_they_are():
    assert plots.spread([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]


def test_labels_together_are_centred_on_what_they_name():
    assert plots.spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])


def test_a_block_that_grows_into_the_next_takes_it_in():
    found = plots.spread([0.50, 0.52, 0.60], 0.1)
    assert found == pytest.approx([0.44, 0.54, 0.64])


def test_labels_do_not_leave_the_axis():
    assert plots.inside([-0.1, 0.0, 0.5], 0.1) == pytest.approx([0.0, 0.1, 0.5])
    assert plots.inside([0.5, 1.05, 0.98], 0.1) == pytest.approx([0.5, 1.0, 0.9])


def test_every_family_has_a_shape_of_its_own_and_every_momentum_state_a_filling():
    shapes = [one.marker for one in FAMILIES.values()] + [marker for *_, marker in SPARE]
    assert len(shapes) == len(set(shapes))
    looks = [plots.point("albef", state) for state in ("off", "queue", "distill")]
    assert [look["marker"] for look in looks] == ["D", "D", "D"]
    assert len({(look.get("markerfacecolor"), look.get("fillstyle")) for look in looks}) == 3


def test_stand_in_colours_are_all_different():
    hues = [one.light for one in FAMILIES.values()] + [light for light, *_ in SPARE] + list(ROLES)
    assert len(hues) == len(set(hues)) == len(palette())


def contrast(a: str, b: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(hue: str) -> float:
        parts = [int(hue[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_family_stands_out_on_its_page():
    paper = ROLES["#fefefe"]
    for one in FAMILIES.values():
        assert contrast(one.light, paper[1]) >= 3
        assert contrast(one.dark, paper[2]) >= 3


def test_text_reads_on_the_page_and_on_the_families_compared_most():
    ink, faint, paper, on = (ROLES[key] for key in ("#101018", "#5b6070", "#fefefe", "#fffffe"))
    for place in (1, 2):
        assert contrast(ink[place], paper[place]) >= 7
        assert contrast(faint[place], paper[place]) >= 4.5
        for key in ("clip", "vilt", "albef"):
            hue = FAMILIES[key].light if place == 1 else FAMILIES[key].dark
            assert contrast(on[place], hue) >= 4


def test_the_three_main_families_differ_in_lightness_or_hue_for_the_colour_blind():
    # Machado, Oliveira and Fernandes 2009, deuteranomaly at full severity, applied to linear RGB.
    matrix = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881))

    def seen(hue: str) -> list[float]:
        linear = [(int(hue[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
        return [max(0.0, sum(m * c for m, c in zip(row, linear, strict=True))) ** (1 / 2.2) for row in matrix]

    main = [FAMILIES[key] for key in ("clip", "vilt", "albef")]
    for hues in ([one.light for one in main], [one.dark for one in main]):
        for a, b in itertools.combinations(map(seen, hues), 2):
            assert sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 > 0.2


def test_relatives_share_a_colour_and_strangers_keep_theirs():
    assert family("clip+late") == family("clip")
    assert family("my_model") == family("my_model")
    assert family("my_model").title == "my_model"


def test_titles():
    assert Row(arch="clip", extra=(("size", "l14"),)).title == "CLIP l14"
    assert Row(arch="albef", momentum="distill").title == "ALBEF (distill)"
    assert Row(arch="albef", states=True).title == "ALBEF (off)"
    assert Row(arch="albef", states=True).plain_title == "ALBEF"
