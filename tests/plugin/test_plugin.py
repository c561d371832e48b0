"""An architecture of another package: listed, held to the contract, planned, run and reported like our own.

The package is made visible as an installer does, by the folder of its metadata on the path; nothing is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent
SUITE = """
title = "A toy beside ours"
description = "One matrix over two packages."
rounds = 1

[defaults]
size = "tiny"
batch = 4

[[matrix]]
arch = ["toy", "clip"]
measure = ["params", "flops", "latency"]

[[matrix]]
arch = "toy"
measure = ["retrieval", "vqa"]
data = "scenes"
budget = 6
finetune = 3
batch = 16

[[matrix]]
arch = "toy"
measure = "captioning"
data = "scenes"
budget = 6
batch = 16
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the package."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    path = os.pathsep.join(filter(None, (str(site), str(PACKAGE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def python(installed: dict[str, str], *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=installed, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def vlpbench(installed: dict[str, str], *arguments: str, cwd: Path) -> str:
    return python(installed, "-m", "vlpbench.benchmarks.cli", *arguments, cwd=cwd)


def test_it_is_listed_without_torch(installed: dict[str, str], tmp_path: Path) -> None:
    listed = {line["name"]: line for line in json.loads(vlpbench(installed, "archs", "--json", cwd=tmp_path))}
    assert listed["toy"]["can"] == ["EMBED", "FUSE"]
    assert "clip" in listed
    code = "import sys; from vlpbench.archs import registry; registry.get('toy'); print('torch' in sys.modules)"
    assert python(installed, "-c", code, cwd=tmp_path).strip() == "False"


def test_it_keeps_the_contract(installed: dict[str, str], tmp_path: Path) -> None:
    python(installed, "-c", "from vlpbench.archs.contract import check; check('toy')", cwd=tmp_path)


@pytest.mark.slow
def test_it_runs_in_a_matrix(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "toys.toml").write_text(SUITE)
    planned = vlpbench(installed, "plan", "toys.toml", cwd=tmp_path)
    assert "captioning needs DECODE, which toy lacks" in planned
    assert planned.count("toy tiny") == 6
    vlpbench(installed, "run", "toys.toml", "--out", "found", cwd=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "found" / "records.jsonl").read_text().splitlines()]
    ended = {(r["cell"]["arch"], r["cell"]["measure"]): r["status"] for r in records}
    assert ended.pop(("toy", "captioning")) == "unsupported"
    assert set(ended.values()) == {"ok"}
    assert len(ended) == 8
    page = next((tmp_path / "found").rglob("index.html")).read_text()
    assert "(toy and CLIP)" in page
