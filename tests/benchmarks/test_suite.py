"""Suite files: axes, defaults, merging, filters, and errors that name the line."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from vlpbench.benchmarks import suite as suite_module
from vlpbench.benchmarks.fields import SuiteError, select
from vlpbench.benchmarks.suite import load_suite, names, parse_suite


def parse(text: str, **options):
    return parse_suite(dedent(text).lstrip("\n"), Path("my.toml"), **options)


def refused(text: str) -> str:
    with pytest.raises(SuiteError) as caught:
        parse(text)
    return str(caught.value)


def test_lists_are_axes_and_a_matrix_overrides_the_defaults():
    suite = parse("""
        title = "Mine"
        rounds = 5
        timeout = 9

        [defaults]
        size = "tiny"
        batch = 2

        [[matrix]]
        arch = ["clip", "vilt"]
        measure = ["latency", "throughput"]
        batch = [4, 8]

        [[matrix]]
        arch = "albef"
        measure = "flops"
    """)
    assert (suite.name, suite.title, suite.rounds, suite.timeout) == ("my", "Mine", 5, 9.0)
    found = [(c.arch, c.measure, c.batch, c.size) for c in suite.cells]
    assert found == [
        *[(a, m, b, "tiny") for a in ("clip", "vilt") for m in ("latency", "throughput") for b in (4, 8)],
        ("albef", "flops", 2, "tiny"),
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('objectives = "itc+itm"', [("itc", "itm")]),
        ('objectives = [["itc", "itm"], ["mlm"]]', [("itc", "itm"), ("mlm",)]),
        ('objectives = ["itc", "itc+itm"]', [("itc",), ("itc", "itm")]),
    ],
)
def test_fields_of_several_values_are_strings_or_lists_in_lists(written, meant):
    suite = parse(f"""
        [[matrix]]
        arch = "albef"
        measure = "train_step"
        {written}
    """)
    assert [cell.objectives for cell in suite.cells] == meant


def test_images_weights_and_changes_are_read_as_the_cell_wants_them():
    (cell,) = parse("""
        [[matrix]]
        arch = "albef"
        measure = "train_step"
        image = "224x192"
        objectives = "itc+mlm"
        weights = "1+0.5"
        [matrix.changes]
        text_layers = 2
        depth = 1
    """).cells
    assert (cell.image, cell.weights) == ((224, 192), (1.0, 0.5))
    assert cell.changes == (("depth", 1), ("text_layers", 2))


def test_equal_cells_are_merged_and_training_fields_dropped_where_nothing_trains():
    suite = parse("""
        [[matrix]]
        arch = "albef"
        momentum = ["off", "queue", "distill"]
        measure = ["latency", "train_step"]

        [[matrix]]
        arch = "albef"
        measure = "latency"
    """)
    found = [(c.measure, c.momentum, c.objectives) for c in suite.cells]
    paper = ("itc", "itm", "mlm")
    assert found == [
        ("latency", "off", ()),
        *[("train_step", momentum, paper) for momentum in ("off", "queue", "distill")],
    ]


def test_auto_is_the_device_that_is_there_and_an_option_replaces_any(monkeypatch):
    monkeypatch.setattr(suite_module.env, "default_device", lambda: "cuda")
    text = """
        [[matrix]]
        arch = "clip"
        measure = "latency"
        device = ["auto", "cpu"]
    """
    assert [c.device for c in parse(text).cells] == ["cuda", "cpu"]
    assert [c.device for c in parse(text, device="cuda:1").cells] == ["cuda:1"]


BAD = {
    "an unknown field": ("batchsize = 4", "my.toml:4: unknown field 'batchsize': did you mean 'batch'?"),
    "an unknown measure": ('measure = "latencies"', "my.toml:3: unknown measure 'latencies': did you mean 'latency'?"),
    "an unknown size": ('size = "smal"', "my.toml:4: unknown size 'smal': did you mean 'small'?"),
    "an unknown objective": ('objectives = "itc+itn"', "my.toml:4: unknown objective 'itn': did you mean"),
    "an unknown state": ('momentum = "distil"', "my.toml:4: unknown momentum 'distil': did you mean 'distill'?"),
    "an unknown device": ('device = "gpu"', "my.toml:4: unknown device 'gpu'"),
    "an unknown data source": ('data = "scene"', "my.toml:4: unknown data source 'scene': did you mean 'scenes'?"),
    "an unknown scorer": ('scorer = "ranked"', "my.toml:4: unknown scorer 'ranked'"),
    "a number out of range": ("batch = 0", "my.toml:4: batch = 0: Input should be greater than or equal to 1"),
    "a wrong type": ('batch = "many"', "my.toml:4: batch = 'many': Input should be a valid integer"),
    "an ambiguous list": (
        'objectives = ["itc", "itm"]',
        "my.toml:4: objectives = ['itc', 'itm'] may be an axis or one value: write 'itc+itm' for one value",
    ),
    "an ambiguous image": ("image = [224, 224]", "my.toml:4: image = [224, 224] may be an axis or one value"),
    "an image of words": ('image = "big"', "my.toml:4: image = 'big' cannot be read; write for example '224x224'"),
    "an empty axis": ("seed = []", "my.toml:4: seed = [] has no value"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_matrix_is_refused_with_the_line_and_the_nearest_right_thing(case):
    line, message = BAD[case]
    measure = line if line.startswith("measure") else 'measure = "latency"'
    text = f"""
        [[matrix]]
        arch = "clip"
        {measure}
        {"" if measure == line else line}
    """
    assert refused(text).startswith(message)


def test_the_line_of_a_value_inside_a_list_over_several_lines_is_found():
    text = """
        # arch = "vlit" in a comment is not it
        [[matrix]]
        arch = "clip"
        measure = "latency"

        [[matrix]]
        measure = "latency"
        arch = [
          "vilt",
          "vilt-late",
          "vlit",
        ]
    """
    assert refused(text).startswith("my.toml:10: unknown architecture 'vilt-late': did you mean 'vilt'?")
    assert refused(text.replace('"vilt-late",', "")).startswith("my.toml:11: unknown architecture 'vlit'")


def test_late_fusion_of_what_fuses_already_is_refused_where_it_is_written():
    assert refused('[[matrix]]\narch = "vilt+late"\nmeasure = "vqa"').startswith(
        "my.toml:2: vilt+late: late fusion is for"
    )


def test_a_typo_in_the_head_or_the_defaults_names_its_line():
    matrix = '[[matrix]]\narch = "clip"\nmeasure = "flops"\n'
    assert refused(f"titel = 'x'\n{matrix}").startswith("my.toml:1: unknown key 'titel': did you mean 'title'?")
    assert refused(f"# mine\n[default]\nbatch = 1\n{matrix}").startswith("my.toml:2: unknown key 'default'")
    assert refused(f"[defaults]\nbatch = 1\nbatsh = 2\n{matrix}").startswith("my.toml:3: unknown field 'batsh'")
    assert refused(f"rounds = 0\n{matrix}").startswith("my.toml:1: rounds = 0 must be more than 0")
    assert refused(f"rounds = 'three'\n{matrix}").startswith("my.toml:1: rounds = 'three' is not of the right type")


def test_broken_toml_and_missing_parts_are_refused():
    assert refused('[[matrix]]\narch = "clip\n').startswith("my.toml:2: Illegal character")
    assert refused("title = 'x'").startswith("my.toml:1: a suite needs one or more [[matrix]] tables")
    assert refused('title = "x"\n[[matrix]]\narch = "clip"\n').startswith("my.toml:2: this matrix has no 'measure'")


def test_unknown_suites_and_missing_files_are_refused(tmp_path):
    with pytest.raises(SuiteError, match="unknown suite 'smok': did you mean 'smoke'"):
        load_suite("smok")
    with pytest.raises(SuiteError, match=r"cannot read suite .*none\.toml: No such file"):
        load_suite(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("name", names())
def test_the_suites_that_come_along_are_valid_and_say_what_they_are(name):
    suite = load_suite(name)
    assert suite.cells
    assert suite.title != name
    assert suite.description
    assert len({cell.id for cell in suite.cells}) == len(suite.cells)


CELLS = parse("""
    [defaults]
    size = "tiny"
    [[matrix]]
    arch = ["clip", "clip+late", "albef"]
    measure = ["flops", "latency", "throughput"]
    image = ["64x64", "32x32"]
""").cells


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("arch=albef", 6),
        ("arch=clip+late,measure=flops|latency", 4),
        ("image=64x64, measure = flops", 3),
        ("size=tiny", 18),
    ],
)
def test_a_filter_keeps_what_meets_all_conditions(expression, kept):
    assert len(select(CELLS, expression)) == kept


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("albef", "'albef' is not FIELD=VALUE"),
        ("arch=", "'arch=' is not FIELD=VALUE"),
        ("archs=albef", "unknown field 'archs': did you mean 'arch'"),
        ("arch=alpef", "unknown arch 'alpef': did you mean 'albef'"),
        ("measure=vqa", "unknown measure 'vqa'"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(expression, message):
    with pytest.raises(SuiteError, match="--only: " + message.replace("[", r"\[")):
        select(CELLS, expression)
