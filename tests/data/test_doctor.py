"""What `vlpbench data` says of a data set, and what it writes."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from vlpbench.benchmarks import cli
from vlpbench.benchmarks.data.catalogue import catalogue
from vlpbench.benchmarks.data.doctor import check
from vlpbench.benchmarks.data.samples import write
from vlpbench.benchmarks.data.sources import names


def vlpbench(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["data", *arguments])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_the_list_has_every_source_and_says_where_it_is(tmp_path, capsys):
    write(catalogue()["nlvr2"], tmp_path)
    code, out, _ = vlpbench(capsys, "--root", str(tmp_path), "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert list(rows) == names()
    assert rows["nlvr2"]["folder"] == str(tmp_path / "nlvr2")
    assert rows["coco"]["folder"] is None
    assert rows["scenes"]["kind"] == "generated"
    assert "not here" in vlpbench(capsys, "--root", str(tmp_path))[1]


def test_every_data_set_says_where_it_comes_from_and_what_it_allows():
    for spec in catalogue().values():
        assert len(spec.licence) > 2
        assert "http" in spec.get or "img2dataset" in spec.get
        assert spec.kind == "shards" or spec.files
        assert spec.beside in ("", *catalogue())


@pytest.mark.parametrize("name", list(catalogue()))
def test_a_miniature_is_sound(name, tmp_path, capsys):
    assert vlpbench(capsys, "sample", name, "--out", str(tmp_path))[0] == 0
    code, out, _ = vlpbench(capsys, "check", name, "--root", str(tmp_path))
    assert code == 0, out
    assert "all that is there can be used" in out
    assert ("this is another number" in out) == bool([f for f in catalogue()[name].files if f.rows])
    code, _, err = vlpbench(capsys, "sample", name, "--out", str(tmp_path))
    assert code == 2
    assert "overwrites nothing" in err


def test_what_is_missing_broken_or_faulty_is_named(tmp_path, capsys):
    folder = write(catalogue()["flickr30k"], tmp_path)
    pictures = sorted((folder / "images").iterdir())
    for path in pictures[:12]:
        path.unlink()
    pictures[12].write_bytes(pictures[12].read_bytes()[:300])
    path = folder / "dataset_flickr30k.json"
    content = json.loads(path.read_text())
    content["images"][20]["sentences"][0]["raw"] = ""
    path.write_text(json.dumps(content))
    code, out, _ = vlpbench(capsys, "check", "flickr30k", "--root", str(tmp_path))
    assert code == 1
    assert "train: 31 pictures, 155 texts; published: 29000 pictures, 145000 texts (this is another number)" in out
    assert f"12 pictures are missing, e.g. {', '.join(p.name for p in pictures[:10])}" in out
    assert f"1 pictures cannot be read:\n    the picture {pictures[12]} cannot be read" in out
    assert "1 samples left out, no caption: " in out
    assert "images[20] (1020.jpg)" in out
    assert "licence: photographs under their Flickr terms" in out
    fast = vlpbench(capsys, "check", "flickr30k", "--root", str(tmp_path), "--fast")[1]
    assert "pictures were not decoded" in fast
    found = json.loads(vlpbench(capsys, "check", "flickr30k", "--root", str(tmp_path), "--json")[1])
    train = found["splits"][0]
    assert (found["sound"], train["missing"], train["unreadable"], len(train["first_missing"])) == (False, 12, 1, 10)


def test_published_content_is_told_from_other_content(tmp_path):
    spec = catalogue()["easy-vqa"]
    folder = write(spec, tmp_path)
    assert {file.content for file in check(spec, folder).files} == {"differs"}
    pytest.importorskip("easy_vqa", reason="the package easy-vqa is not installed")
    from vlpbench.benchmarks.data.catalogue import folder_of

    report = check(spec, folder_of(spec, None), decode=False)
    assert report.sound
    assert {file.content for file in report.files} == {"as published"}
    assert not any(split.partial for split in report.splits)


@pytest.mark.shared
def test_the_real_photos(shared):
    report = check(catalogue()["coco-captions"], shared / "data/coco_cc")
    assert report.sound
    assert [(s.pictures, s.rows, s.missing, s.unreadable) for s in report.splits] == [(26, 130, 0, 0), (113, 565, 0, 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "name a data set: flickr8k"),
        (["check", "coca"], "unknown data set 'coca': did you mean 'coco'"),
        (["check", "scenes"], "scenes is generated and has no files"),
        (["check", "coco", "--root", "nowhere"], "--root nowhere is no folder; get it from https"),
        (["sample", "coco"], "say where the miniature goes with --out DIR"),
    ],
)
def test_bad_usage(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = vlpbench(capsys, *arguments)
    assert code == 2
    assert message in err


def test_an_empty_folder_is_not_sound(tmp_path, capsys):
    code, out, _ = vlpbench(capsys, "check", "snli-ve", "--root", str(tmp_path))
    assert code == 1
    assert out.count("missing ") == 3
    assert "get it from https://github.com/necla-ml/SNLI-VE" in out


# --- pictures of all kinds go through the doctor unharmed


def test_odd_pictures_are_read_and_bombs_are_not(tmp_path):
    spec = catalogue()["snli-ve"]
    folder = write(spec, tmp_path)
    pictures = sorted((folder / "images").iterdir())
    Image.new("CMYK", (8, 8)).save(pictures[0], "JPEG")
    Image.new("I;16", (8, 8)).save(pictures[1], "PNG")  # a PNG named .jpg, of 16 bits
    Image.new("P", (8, 8)).save(pictures[2], "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(pictures[3], "JPEG", exif=exif)
    Image.new("1", (20_000, 20_000)).save(pictures[4], "PNG")
    report = check(spec, folder)
    assert [split.unreadable for split in report.splits] == [1, 0, 0]
    assert "20000" in report.splits[0].first_unreadable[0] or "pixels" in report.splits[0].first_unreadable[0]
