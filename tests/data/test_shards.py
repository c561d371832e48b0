"""Tar shards: what is in them, what may be wrong with them, and that a training goes on where it stopped."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vlpbench.archs.inputs import PUBLISHED
from vlpbench.archs.registry import UnknownName
from vlpbench.benchmarks.data.base import DataError, Pairs, Source
from vlpbench.benchmarks.data.catalogue import catalogue
from vlpbench.benchmarks.data.faults import Faults
from vlpbench.benchmarks.data.readers import shards as reader
from vlpbench.benchmarks.data.readers.shards import index, shards
from vlpbench.benchmarks.data.samples import write
from vlpbench.benchmarks.data.shard_pairs import ShardSource
from vlpbench.benchmarks.data.sources import open_source


def jpeg(value: int) -> bytes:
    found = io.BytesIO()
    Image.new("RGB", (20, 12), (value, value, value)).save(found, "JPEG")
    return found.getvalue()


def pack(path: Path, members: list[tuple[str, bytes | tarfile.TarInfo]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def sample(key: str, value: int) -> list[tuple[str, bytes | tarfile.TarInfo]]:
    return [(f"{key}.jpg", jpeg(value)), (f"{key}.json", b"{}"), (f"{key}.txt", f"value {value}\n".encode())]


@pytest.fixture
def folder(tmp_path) -> Path:
    where = tmp_path / "web"
    where.mkdir()
    for shard in range(3):
        pack(where / f"{shard:05d}.tar", [m for n in range(4) for m in sample(f"{shard}{n}", 10 * (4 * shard + n))])
    return where


def opened(folder: Path, **options: str) -> ShardSource:
    source = open_source("web", size="tiny", root=folder, inputs=PUBLISHED["clip"], options=options)
    assert isinstance(source, ShardSource)
    return source


def test_it_is_a_source_of_pairs(folder):
    source = opened(folder)
    assert isinstance(source, Source)
    pairs = source.pairs("train")
    assert isinstance(pairs, Pairs)
    assert len(pairs) == 12
    batch = pairs.batch(np.array([7, 0, 11, 4]))
    preset = pairs.preparation.preset
    shown = batch.image[:, 0, 16, 16].numpy() * preset.std[0] + preset.mean[0]
    assert (255 * shown).round().tolist() == [70, 0, 110, 40]
    assert batch.sample_id.tolist() == [7, 0, 11, 4]
    whole = pairs.preparation.captions([f"value {10 * n}" for n in (7, 0, 11, 4)])
    assert batch.text.ids.tolist() == whole.ids.tolist()
    assert source.galleries() == {}
    for call in (source.gallery, source.questions):
        with pytest.raises(DataError, match="shards are there to train on"):
            call("test")


def test_it_is_tested_on_another_data_set(folder):
    write(catalogue()["coco"], folder.parent)
    source = opened(folder, tested_on="coco")
    gallery = source.gallery("test")
    assert (gallery.images, gallery.texts) == (8, 40)
    assert gallery.image_batch(np.array([0])).shape == (1, 3, 32, 32)
    assert list(source.galleries()) == ["val", "test"]
    assert source.hash != opened(folder).hash
    with pytest.raises(UnknownName, match="unknown data set with captions 'vqav2'"):
        opened(folder, tested_on="vqav2")


def test_an_epoch_goes_shard_by_shard_and_is_the_same_for_the_same_seed(folder):
    order = opened(folder).pairs("train").order(np.random.default_rng([3, 0]))
    assert order.tolist() == opened(folder).pairs("train").order(np.random.default_rng([3, 0])).tolist()
    assert sorted(order) == list(range(12))
    assert [len(set(order[start : start + 4] // 4)) for start in (0, 4, 8)] == [1, 1, 1]
    assert order.tolist() != opened(folder).pairs("train").order(np.random.default_rng([3, 1])).tolist()


def test_a_training_that_goes_on_opens_no_shard_that_it_is_done_with(folder, monkeypatch):
    pairs = opened(folder).pairs("train")
    order = pairs.order(np.random.default_rng(0))
    seen = []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: seen.append(self.name) or original(self, *a, **k))
    pairs.batch(order[6:8])
    assert set(seen) == {f"{order[6] // 4:05d}.tar"}


def test_an_index_is_kept_and_made_anew_for_another_file(folder, monkeypatch):
    first = opened(folder).hash
    assert sorted(p.name for p in (folder / reader.FOLDER).iterdir()) == [f"{n:05d}.tar.json" for n in range(3)]
    calls: list[str] = []
    monkeypatch.setattr(reader, "index", lambda path, faults: calls.append(path.name) or index(path, faults))
    assert opened(folder).hash == first
    assert calls == []
    pack(folder / "00001.tar", sample("x", 5))
    assert opened(folder).hash != first
    assert calls == ["00001.tar"]
    (folder / reader.FOLDER / "00002.tar.json").write_text('{"stamp": 1')  # what a full disk leaves
    opened(folder).pairs("train")
    assert calls == ["00001.tar", "00002.tar"]


def test_a_folder_that_cannot_be_written_is_read_all_the_same(folder, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "denied")))
    assert len(opened(folder).pairs("train")) == 12


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


FAULTS = {
    "outside": [("../evil.jpg", jpeg(1)), ("../evil.txt", b"x")],
    "no file": [("x.jpg", link(tarfile.SYMTYPE)), ("y.txt", link(tarfile.LNKTYPE))],
    "no caption": [("x.jpg", jpeg(1)), ("x.json", b"{}")],
    "no picture": [("x.gif", jpeg(1)), ("x.txt", b"x")],
    "long caption": [("x.jpg", jpeg(1)), ("x.txt", b"x" * 10_000)],
    "not UTF-8": [("x.jpg", jpeg(1)), ("x.txt", b"caf\xe9")],
    "odd picture": [("x.jpg", b""), ("x.txt", b"x")],
    "repeated": sample("00", 9),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_faulty_sample_is_named_or_left_out_and_counted(folder, reason):
    pack(
        folder / "00003.tar", [*sample("30", 1), *sample("00", 2), *sample("31", 3), *FAULTS[reason], *sample("32", 4)]
    )
    with pytest.raises(DataError, match=r"00003\.tar: .*faulty = 'skip'"):
        opened(folder).pairs("train")
    source = opened(folder, faulty="skip")
    assert len(source.pairs("train")) == 12 + 4
    out = source.left_out()
    assert out[reason]["count"] >= 1
    assert "00003.tar" in out[reason]["first"][0]
    assert opened(folder, faulty="skip").hash == source.hash
    again = opened(folder, faulty="skip")
    again.pairs("train")
    assert again.left_out() == out  # a kept index does not hide it
    assert not (folder.parent / "evil.jpg").exists()


def test_a_shard_that_breaks_off_gives_what_is_whole(folder):
    path = folder / "00002.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"00002\.tar is cut short|00002\.tar cannot be read"):
        opened(folder).pairs("train")
    source = opened(folder, faulty="skip")
    assert 8 < len(source.pairs("train")) < 12
    assert source.left_out()["broken shard"]["count"] == 1
    path.write_bytes(b"this is no tar file" * 100)
    source = opened(folder, faulty="skip")
    assert len(source.pairs("train")) == 8


def test_a_broken_picture_gives_way_to_the_next(folder):
    pack(folder / "00001.tar", [*sample("a", 5), ("b.jpg", jpeg(1)[:200]), ("b.txt", b"b"), *sample("c", 7)])
    with pytest.raises(DataError, match=r"00001\.tar/b cannot be read|00001\.tar/b has no picture"):
        opened(folder).pairs("train").batch(np.array([5]))
    source = opened(folder, faulty="skip")
    pairs = source.pairs("train")
    assert pairs.batch(np.array([5])).image.equal(pairs.batch(np.array([6])).image)
    assert source.left_out()["unreadable picture"]["count"] == 1


def test_folders_without_shards(tmp_path):
    with pytest.raises(DataError, match=r"holds no shard \(\*\.tar\): write some with img2dataset"):
        shards(tmp_path, Faults(policy="skip"))
    (tmp_path / "0.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"0\.tar\.gz must be uncompressed first"):
        shards(tmp_path, Faults(policy="skip"))


def test_a_link_to_a_shard_and_json_in_place_of_one(folder):
    os.symlink(folder / "00000.tar", folder / "00009.tar")
    (folder / "00010.tar").write_text(json.dumps({"not": "a shard"}))
    source = opened(folder, faulty="skip")
    assert len(source.pairs("train")) == 16
    assert source.left_out()["broken shard"]["count"] == 1
