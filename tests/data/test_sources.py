"""Sources by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from vlpbench.archs.registry import UnknownName
from vlpbench.archs.types import Unsupported
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.sources import names, open_source


def test_names_cost_no_torch():
    code = (
        "import sys; from vlpbench.benchmarks.data import sources; sources.names(); "
        "print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
    assert "scenes" in names()


def test_few_is_the_multi_epoch_regime():
    source = open_source("scenes-few", noise=0.5)
    assert source.name == "scenes-few"
    assert len(source.pairs("train")) == 6_000
    full = open_source("scenes")
    assert (source.gallery().ids == full.gallery().ids).all()
    assert source.hash != full.hash


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UnknownName, match="unknown data source 'scene': did you mean 'scenes'"):
        open_source("scene")
    with pytest.raises(UnknownName, match="unknown size of scenes 'smal': did you mean 'small'"):
        open_source("scenes", size="smal")


def test_files_must_be_given(monkeypatch, tmp_path):
    monkeypatch.delenv("VLPBENCH_DATA", raising=False)
    with pytest.raises(DataError, match=r"flickr30k needs its files: give .* --data-root or VLPBENCH_DATA; get"):
        open_source("flickr30k")
    monkeypatch.setenv("VLPBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"flickr30k, which is no folder; get it from .*licence: "):
        open_source("flickr30k")
    with pytest.raises(DataError, match=r"noise must be 0, not 0\.2"):
        open_source("coco", noise=0.2, root=tmp_path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="is not a BERT vocabulary"):
        _ = open_source("coco", root=tmp_path).geometry
    with pytest.raises(DataError, match=r"has no dataset_coco\.json; get it from"):
        open_source("coco", root=tmp_path).pairs("train")
    with pytest.raises(Unsupported, match="scenes is generated and has no files, so data_options have no meaning"):
        open_source("scenes", options={"faulty": "skip"})
