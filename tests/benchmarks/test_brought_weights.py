"""Weights that the user brings: named by content, found by the cell's process, evaluated to the model's own numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vlpbench.archs import registry
from vlpbench.archs.learner import Learner, Recipe, SpecialTokens
from vlpbench.archs.pretrained import CheckpointError, save
from vlpbench.benchmarks import scoring, weights
from vlpbench.benchmarks.data.sources import FOLDER_VARIABLE
from vlpbench.benchmarks.fields import SuiteError
from vlpbench.benchmarks.measures import base
from vlpbench.benchmarks.metrics import recalls
from vlpbench.benchmarks.subject import Subject
from vlpbench.benchmarks.suite import load_suite, parse_suite
from vlpbench.benchmarks.train import open_data, pretrain_key
from vlpbench.results.record import Cell

TOKENS = SpecialTokens(pad=0, cls=101, sep=102, mask=103, vocab_size=30_522)
SUITE = """
[defaults]
size = "tiny"
measure = "retrieval"
data = "coco"
[[matrix]]
arch = ["albef", "clip"]
[[matrix]]
arch = "vilt"
measure = "params"
"""


def albef(seed: int = 0, **changes: Any) -> tuple[Learner, dict[str, torch.Tensor]]:
    """A random ALBEF and its official state."""
    from vlpbench.archs.pretrained import ALBEF_RETRIEVAL

    torch.manual_seed(seed)
    sizes = {"vocab_size": 30_522, "text_len": 30}
    made = Learner(registry.build("albef", "tiny", sizes | changes), Recipe(objectives=("itc", "itm")), TOKENS)
    return made.eval(), save(made, ALBEF_RETRIEVAL)


def clip(seed: int = 0) -> tuple[Learner, dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    made = Learner(
        registry.build("clip", "tiny", {"vocab_size": 49_408, "text_len": 77}), Recipe(objectives=("itc",)), TOKENS
    )
    state = {key.removeprefix("model."): t for key, t in made.model.state_dict().items()}
    return made.eval(), state | {"logit_scale": torch.tensor(2.0)}


def vilt(seed: int = 0) -> tuple[Learner, dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    made = Learner(
        registry.build("vilt", "tiny", {"vocab_size": 30_522, "text_len": 40}), Recipe(objectives=("itm",)), TOKENS
    )
    state = dict(made.model.state_dict())
    return made.eval(), state | {
        f"itm_score.fc.{k}": t for k, t in made.objectives["itm"].get_submodule("head").state_dict().items()
    }


def blip(seed: int = 0) -> tuple[Learner, dict[str, torch.Tensor]]:
    from vlpbench.archs.blip_tasks import RETRIEVAL

    torch.manual_seed(seed)
    made = Learner(
        registry.build("blip", "tiny", {"vocab_size": 30_522, "text_len": 35}),
        Recipe(objectives=("itc", "itm")),
        TOKENS,
    )
    return made.eval(), save(made, RETRIEVAL)


MADE = {"albef": albef, "clip": clip, "vilt": vilt, "blip": blip}
HOW = {
    "albef": {"objectives": ("itc", "itm"), "scorer": "rerank", "k": 4},
    "clip": {"objectives": ("itc",), "scorer": "embed"},
    "vilt": {"objectives": ("itm",), "scorer": "match"},
    "blip": {"objectives": ("itc", "itm"), "scorer": "rerank", "k": 4},
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tells this process where weights lie, as a cell's process is told."""

    def tell(*brought: weights.Brought) -> None:
        monkeypatch.setenv(weights.VARIABLE, weights.places(brought))

    return tell


def test_weights_are_named_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"one")
    (tmp_path / "b.pth").write_bytes(b"one")
    a, b = (weights.resolve(name, folder=tmp_path) for name in ("a.pth", "b.pth"))
    assert a.name.partition("@")[2] == b.name.partition("@")[2]
    assert (len(a.name.partition("@")[2]), a.name[:6]) == (16, "a.pth@")
    (tmp_path / "a.pth").write_bytes(b"two")
    assert weights.resolve("a.pth", folder=tmp_path).name != a.name
    both = weights.resolve("a.pth+b.pth", folder=tmp_path)
    assert both.name.startswith("a.pth+b.pth@")
    assert [Path(path).name for path in both.paths] == ["a.pth", "b.pth"]
    with pytest.raises(SuiteError, match=r"there are no weights .*c\.pth"):
        weights.resolve("c.pth", folder=tmp_path)


def test_names_of_open_clip_are_fetched_only_when_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SuiteError, match="is not on this machine, and nothing is fetched unasked: add --download"):
        weights.resolve("open_clip:ViT-B-32/openai", folder=tmp_path)
    with pytest.raises(SuiteError, match="unknown model of open_clip 'ViT-B-33': did you mean 'ViT-B-32'"):
        weights.resolve("open_clip:ViT-B-33/openai", folder=tmp_path)
    with pytest.raises(SuiteError, match="unknown weights of ViT-B-32 'opnai': did you mean 'openai'"):
        weights.resolve("open_clip:ViT-B-32/opnai", folder=tmp_path)
    (tmp_path / "mine.pt").write_bytes(b"x")
    found = weights.resolve("open_clip:ViT-B-32-quickgelu/mine.pt", folder=tmp_path)
    assert found.name.startswith("open_clip:ViT-B-32-quickgelu/mine.pt@")
    assert found.changes == {"quick_gelu": True}


def test_a_suite_gets_its_weights(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"one")
    suite = parse_suite(SUITE, tmp_path / "x.toml")
    with pytest.raises(SuiteError, match=r"--checkpoint 'albef' is not NAME=FILE; docs/checkpoints"):
        weights.assign(suite, ["albef"], folder=tmp_path)
    with pytest.raises(SuiteError, match="unknown architecture of the suite 'albeef': did you mean 'albef'"):
        weights.assign(suite, ["albeef=x"], folder=tmp_path)
    given = weights.assign(suite, [f"albef={tmp_path / 'a.pth'}"], folder=tmp_path)
    assert [(cell.arch, cell.checkpoint is not None) for cell in given.cells] == [("albef", True), ("vilt", False)]
    assert given.cells[0].checkpoint == given.weights[0].name
    keyed = parse_suite(SUITE.replace('data = "coco"', 'data = "coco"\ncheckpoint = "a.pth"'), tmp_path / "x.toml")
    named = weights.assign(keyed, [], folder=tmp_path)
    assert {cell.checkpoint for cell in named.cells} == {given.weights[0].name, None}  # params read no weights
    only = parse_suite(SUITE.partition('[[matrix]]\narch = "vilt"')[0], tmp_path / "x.toml")
    with pytest.raises(SuiteError, match="evaluates weights that you bring, and none are given: add --checkpoint"):
        weights.assign(only, [], folder=tmp_path)


def test_identity_holds_the_weights() -> None:
    cell = Cell(arch="albef", size="tiny", measure="retrieval", data="coco", checkpoint="a.pth@0")
    other = cell.model_copy(update={"checkpoint": "a.pth@1"})
    assert cell.id != other.id
    assert pretrain_key(cell) != pretrain_key(other)
    assert Cell(arch="albef", measure="retrieval").id == Cell(arch="albef", measure="retrieval", protocol=None).id


@pytest.mark.shared
@pytest.mark.parametrize(
    "arch", [pytest.param(name, marks=pytest.mark.slow) if name == "vilt" else name for name in MADE]
)
def test_zero_shot_gives_the_numbers_of_the_model_itself(
    arch: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("VLPBENCH_WORKERS", "1")
    (tmp_path / "coco").symlink_to(shared / "data/coco_cc")
    (tmp_path / "tokenizers").symlink_to(shared / "data/bert_vocab")
    made, state = MADE[arch](seed=3)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    brought = weights.resolve("w.pth", folder=tmp_path)
    told(brought)
    fields: dict[str, Any] = HOW[arch]
    cell = Cell(
        arch=arch,
        size="tiny",
        measure="retrieval",
        data="coco",
        checkpoint=brought.name,
        protocol="zero_shot",
        threads=1,
        code="official",
        **fields,
    )
    found = base.load("retrieval").run(Subject.build(cell), cell)
    source = open_data(cell)
    assert source.geometry.vocab_size == made.model.vocab_size
    made.recipe = made.recipe.__class__(objectives=made.recipe.objectives, code="official")
    for objective in made.objectives.values():
        if hasattr(objective, "official"):
            objective.official = True
    engine = scoring.Engine(
        learner=made, device=torch.device("cpu"), autocast=lambda: torch.autocast("cpu", enabled=False)
    )
    ranks = scoring.rank(engine, source.gallery("test"), fields["scorer"], fields.get("k")).ranks
    for name, rate in recalls(ranks).items():
        assert found.values[name] == [rate.percent]
    assert found.detail["galleries"]["test"]["ranks"]["image"] == ranks.image.tolist()
    assert found.detail["galleries"]["test"]["ranks"]["text"] == ranks.text.tolist()
    protocol = json.loads(json.dumps(found.detail["protocol"]))
    assert (protocol["weights"], protocol["tuned"], protocol["images"]) == (brought.name, "zero_shot", 113)
    assert (protocol["scorer"], protocol["k"], protocol["image"]) == (fields["scorer"], fields.get("k"), [32, 32])
    told_of = found.detail["pretraining"]["weights"]
    assert told_of["tensors"] > 10
    assert found.detail["pretraining"]["steps"] == 0
    assert len(np.unique(ranks.image)) > 3  # a model that ranks, and not a constant


@pytest.mark.shared
def test_the_vocabulary_must_be_that_of_the_weights(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "coco").symlink_to(shared / "data/coco_cc")
    (tmp_path / "tokenizers").symlink_to(shared / "data/bert_vocab")
    torch.save(albef(vocab_size=100)[1], tmp_path / "w.pth")
    brought = weights.resolve("w.pth", folder=tmp_path)
    told(brought)
    cell = Cell(arch="albef", size="tiny", measure="retrieval", data="coco", checkpoint=brought.name)
    with pytest.raises(CheckpointError, match="has a word table of 100 rows, and the data's tokenizer 30522 tokens"):
        Subject.build(cell)


def test_weights_of_a_part_are_a_start_and_no_result(tmp_path: Path, told: Any) -> None:
    made, _ = albef(vocab_size=40, text_len=16)
    inner = made.model.state_dict()
    image = {key.removeprefix("visual_encoder."): t for key, t in inner.items() if key.startswith("visual_encoder.")}
    torch.save(image, tmp_path / "deit.pth")
    brought = weights.resolve("deit.pth", folder=tmp_path)
    told(brought)
    cell = Cell(
        arch="albef",
        size="tiny",
        measure="retrieval",
        data="scenes",
        objectives=("itc",),
        checkpoint=brought.name,
        batch=8,
        threads=1,
    )
    with pytest.raises(CheckpointError, match=r"holds the image encoder alone: .* give the cell a budget"):
        base.load("retrieval").run(Subject.build(cell), cell)
    trained = cell.model_copy(update={"budget": 2})
    found = base.load("retrieval").run(Subject.build(trained), trained)
    assert found.detail["pretraining"]["weights"]["part"] == "the image encoder"
    assert found.detail["pretraining"]["steps"] == 2


def test_a_cell_without_weights_or_training_is_impossible() -> None:
    from vlpbench.benchmarks import env
    from vlpbench.benchmarks.plan import unsupported

    cell = Cell(arch="albef", size="tiny", measure="retrieval", data="scenes", objectives=("itc",))
    assert "give weights (--checkpoint albef=FILE) or a budget" in (unsupported(cell, env.capture()) or "")


@pytest.mark.parametrize("name", ["zeroshot", "finetuned"])
def test_the_suites_of_published_protocols_are_whole(name: str, tmp_path: Path) -> None:
    suite = load_suite(name, device="cpu")
    assert {cell.data for cell in suite.cells} == {"flickr30k", "coco"}
    assert all(cell.protocol for cell in suite.cells)
    assert {(cell.data, cell.k) for cell in suite.cells if cell.arch == "albef"} == {("flickr30k", 128), ("coco", 256)}
    (tmp_path / "w").write_bytes(b"x")
    left = weights.assign(suite, [f"albef={tmp_path / 'w'}"], folder=tmp_path)
    assert {cell.arch for cell in left.cells} == {"albef"}


@pytest.mark.slow
@pytest.mark.shared
def test_the_command_from_file_to_report(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlpbench.benchmarks.cli import main

    monkeypatch.setenv(FOLDER_VARIABLE, "")
    (tmp_path / "coco").symlink_to(shared / "data/coco_cc")
    (tmp_path / "tokenizers").symlink_to(shared / "data/bert_vocab")
    torch.save({"model": albef()[1]}, tmp_path / "ALBEF.pth")
    suite = tmp_path / "tiny.toml"
    suite.write_text(
        '[[matrix]]\narch = "albef"\nsize = "tiny"\nmeasure = "retrieval"\nobjectives = "itc+itm"\n'
        'scorer = "rerank"\nk = 4\ndata = "coco"\nprotocol = "finetuned"\n'
    )
    where = ["--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    code = main(["run", str(suite), "--checkpoint", f"albef={tmp_path / 'ALBEF.pth'}", *where, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0, lines
    assert lines[0]["cell"]["checkpoint"].startswith("ALBEF.pth@")
    assert lines[0]["detail"]["protocol"]["tuned"] == "finetuned"
    page = Path(lines[-1]["report"])
    assert "published" in (page.parent / "report.md").read_text()
