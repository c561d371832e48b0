"""The environment: what tells machines apart, without torch, and the hash of the code."""

from __future__ import annotations

import subprocess
import sys

import pytest
from vlpbench.benchmarks import env


@pytest.fixture(autouse=True)
def fresh():
    env._gpu.cache_clear()
    yield
    env._gpu.cache_clear()


def test_it_agrees_with_what_torch_and_the_system_say():
    import numpy
    import torch

    found = env.capture()
    assert found.versions["torch"] == torch.__version__.partition("+")[0]
    assert found.versions["numpy"] == numpy.__version__
    assert found.cuda == torch.version.cuda
    assert found.cpu
    assert found.cores >= 1
    assert (found.gpu is not None) == torch.cuda.is_available()
    assert ("avx2" in found.cpu_flags) == (torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"))


FRESH = """
import sys
from vlpbench.benchmarks import env
print(env.capture().id, env.code_hash(), "torch" in sys.modules)
"""


def test_it_is_equal_each_time_and_imports_no_torch():
    run = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    assert run.stdout == f"{env.capture().id} {env.code_hash()} False\n"


SMI = """#!/bin/sh
echo "$@" >> "$0.log"
echo "NVIDIA H100 80GB HBM3, 81559, 570.124.06"
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(env, "_cuda", lambda: "13.0")
    return tmp_path / "nvidia-smi.log"


def test_a_gpu_is_read_from_its_driver_tool(smi, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = env.capture()
    assert (found.gpu, found.gpu_memory, found.driver) == ("NVIDIA H100 80GB HBM3", 81559 * 2**20, "570.124.06")
    assert env.default_device() == "cuda"


def test_the_first_visible_gpu_is_asked_for(smi, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert env.capture().gpu
    assert smi.read_text().rstrip().endswith("-i 2")


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_gpus_are_none(smi, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert env.capture().gpu is None
    assert env.default_device() == "cpu"


def test_a_build_without_cuda_measures_on_the_processor(smi, monkeypatch):
    monkeypatch.setattr(env, "_cuda", lambda: None)
    assert env.default_device() == "cpu"


def test_the_code_hash_follows_a_source_file(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text("a = 1\n")
    monkeypatch.setattr(env, "package_folder", lambda package: tmp_path)
    before = env.code_hash.__wrapped__()
    (tmp_path / "notes.txt").write_text("not code")
    assert env.code_hash.__wrapped__() == before
    (tmp_path / "one.py").write_text("a = 2\n")
    assert env.code_hash.__wrapped__() != before
