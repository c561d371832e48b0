"""Annotation files of any content: rows, named faults or a message, and never a traceback or an endless wait."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.catalogue import SourceSpec, catalogue, locate
from vlpbench.benchmarks.data.faults import Faults
from vlpbench.benchmarks.data.options import DataOptions
from vlpbench.benchmarks.data.rows import count, pictures_of
from vlpbench.benchmarks.data.samples import write
from vlpbench.benchmarks.data.sifting import absent

SPECS = {spec.reader: spec for spec in catalogue().values() if spec.kind != "shards"}
"""One data set of each format."""
BRIEF = settings(
    max_examples=12, deadline=5_000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
STRANGE: list[Any] = [
    None, True, -1, 10**30, 1.5, "", " ", "x" * 10_000, "\udcff", "../../etc/passwd", "/etc/passwd", "a\0b", "C:\\x",
    [], {}, [[]], {"a": []}, "-", "True", "1-2-3-4", float("nan"),
]  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(STRANGE) | st.text(max_size=20) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {reader: write(spec, tmp_path_factory.mktemp("fuzz")) for reader, spec in SPECS.items()}


def survive(spec: SourceSpec, folder: Path) -> None:
    """Reads every split; whatever is there, it ends in rows that can be used, and in words."""
    located, messages = locate(spec, folder), list[str]()
    for split in spec.splits:
        for policy in ("skip", "fail"):
            faults = Faults(policy=policy)
            try:
                found = located.read(split, DataOptions(faulty=policy), faults)
            except DataError as error:
                messages.append(str(error))
                continue
            for rows in found.values():
                count(rows)
                absent(pictures_of(rows), located.images, Faults(policy="skip"))
                for row in rows:
                    assert all(text.strip() and text.encode() for text in row.texts)
                    assert all(".." not in Path(name).parts and not name.startswith("/") for name in row.pictures)
            assert all(len(names) <= 10 and all(names) for names in faults.first.values())
            assert policy == "skip" or not faults.counts
    assert all(len(message) > 20 for message in messages)


def annotations(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.json*"))


def mutated(text: str, rng: random.Random, values: list[Any]) -> str:
    """JSON, or JSON lines, with some values replaced."""

    def change(item: Any, depth: int = 0) -> Any:
        if rng.random() < 0.02 * depth:
            return rng.choice(values)
        if isinstance(item, dict):
            return {key: change(value, depth + 1) for key, value in item.items() if rng.random() > 0.01}
        if isinstance(item, list):
            return [change(value, depth + 1) for value in item] + item[: rng.random() < 0.1]
        return item

    try:
        return json.dumps(change(json.loads(text)))
    except ValueError:
        return "\n".join(json.dumps(change(json.loads(line), 1)) for line in text.splitlines())


@pytest.mark.parametrize("reader", SPECS)
def test_values_of_any_kind(reader, folders):
    folder = folders[reader]
    files = {path: path.read_bytes() for path in annotations(folder)}

    @BRIEF
    @given(seed=st.integers(0, 2**32), values=st.lists(VALUES, min_size=1, max_size=4))
    def attack(seed: int, values: list[Any]) -> None:
        rng = random.Random(seed)
        for path, content in files.items():
            path.write_text(mutated(content.decode(), rng, values + STRANGE), encoding="utf-8")
        survive(SPECS[reader], folder)

    try:
        attack()
    finally:
        for path, content in files.items():
            path.write_bytes(content)


@pytest.mark.parametrize("reader", SPECS)
def test_bytes_of_any_kind(reader, folders):
    folder = folders[reader]
    files = {path: path.read_bytes() for path in annotations(folder)}

    @BRIEF
    @given(cut=st.floats(0, 1), noise=st.binary(min_size=1, max_size=6), swap=st.booleans())
    def attack(cut: float, noise: bytes, swap: bool) -> None:
        for path, content in files.items():
            place = int(cut * len(content))
            path.write_bytes(content[:place] + noise + (content[place + len(noise) :] if swap else b""))
        survive(SPECS[reader], folder)

    try:
        attack()
    finally:
        for path, content in files.items():
            path.write_bytes(content)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[" * 50_000, b"9" * 10_000, b"{}", b"[]", b"null", b'"x"', b"\n\n"]
)
def test_whole_files_of_another_kind(content, folders):
    for reader, folder in folders.items():
        files = {path: path.read_bytes() for path in annotations(folder)}
        try:
            for path in files:
                path.write_bytes(content)
            survive(SPECS[reader], folder)
        finally:
            for path, before in files.items():
                path.write_bytes(before)
