"""Where a record is measured, read without importing torch, and the hash of the code that measures.

A second run that has nothing to do must find that out in a fraction of a second, so whatever tells machines apart comes
from the operating system, ``nvidia-smi`` and package metadata.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil
from vlpbench.results.record import Env

PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "fvcore", "numpy")
"""Those that can change a number."""
CODE = ("vlpbench.archs", "vlpbench.benchmarks", "vlpbench.results")
"""Packages whose sources determine a number."""
_GIB = 1 << 30
_FLAGS = re.compile(r"avx2|avx512\w*|avx_vnni|amx_\w+|fma|asimd|sve2?|bf16|i8mm")


def capture() -> Env:
    """The environment of this process. ``threads`` is what torch will choose unless a worker is told otherwise."""
    model, flags = _processor()
    gpu = _gpu()
    commit, dirty = _checkout()
    return Env(
        cpu=model,
        cores=cores(),
        # Firmware reserves a few pages more or less at every start; that is no other machine.
        memory=round(psutil.virtual_memory().total / _GIB) * _GIB,
        gpu=gpu[0] if gpu else None,
        gpu_memory=gpu[1] if gpu else None,
        driver=gpu[2] if gpu else None,
        cuda=_cuda(),
        os=platform.platform(),
        python=platform.python_version(),
        versions=_versions(),
        threads=_threads(),
        cpu_flags=flags,
        commit=commit,
        dirty=dirty,
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_device() -> str:
    """``cuda`` where a GPU is visible and torch was built for it, else ``cpu``."""
    return "cuda" if _cuda() and _gpu() else "cpu"


@cache
def code_hash() -> str:
    """First 16 hex digits of the SHA-256 over names and contents of the source files of `CODE`."""
    digest = hashlib.sha256()
    for package in CODE:
        folder = package_folder(package)
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def package_folder(package: str) -> Path:
    """Where a package's files lie."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"package {package} is not installed")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _processor() -> tuple[str, tuple[str, ...]]:
    try:
        content = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        content = ""
    fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", content, flags=re.MULTILINE))
    model = fields.get("model name") or platform.processor() or platform.machine()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return model.strip(), tuple(sorted(flag for flag in set(flags) if _FLAGS.fullmatch(flag)))


@cache
def _gpu() -> tuple[str, int, str] | None:
    """Name, bytes and driver of the GPU that ``cuda`` will be; None without one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = None if visible is None else visible.split(",")[0].strip()
    if first in ("", "-1") or not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    lines = _output([*command, *(["-i", first] if first else [])])
    if not lines:
        return None
    name, memory, driver = (part.strip() for part in lines.splitlines()[0].split(","))
    return name, int(memory) << 20 if memory.isdigit() else 0, driver


def _cuda() -> str | None:
    """The CUDA version that torch was built with, read off its version file."""
    spec = find_spec("torch")
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin).with_name("version.py")
    found = re.search(r"^cuda\b[^=\n]*=\s*'([^']+)'", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found.group(1) if found else None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _threads() -> int:
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdigit() and int(chosen) else cores()


@cache
def _checkout() -> tuple[str | None, bool | None]:
    """Commit of the checkout that the code lies in and whether the code was changed since; None outside a checkout."""
    folder = package_folder("vlpbench.benchmarks")
    if not (folder.parent / ".git").exists():
        return None, None
    git = ["git", "-C", str(folder.parent)]
    commit = _output([*git, "rev-parse", "HEAD"])
    if not commit:
        return None, None
    changed = _output([*git, "status", "--porcelain", "--", "archs", "benchmarks", "results/*.py"])
    return commit.strip(), bool(changed)


def _output(command: list[str]) -> str | None:
    """What a command prints; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
