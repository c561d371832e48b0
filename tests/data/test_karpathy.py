"""Karpathy-split files: a small one by hand, everything that can be wrong with one, and the real photos."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from vlpbench.benchmarks.data.base import DataError, Gallery, Pairs, Source
from vlpbench.benchmarks.data.images import preset
from vlpbench.benchmarks.data.karpathy import Karpathy, KarpathyConfig
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.data.tokens import BertTokenizer, WordTokenizer

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij")


def entry(name: str, split: str, captions: list[str], **more):
    return {"filename": name, "split": split, "sentences": [{"raw": raw, "tokens": []} for raw in captions], **more}


GOOD = [
    entry("0.png", "train", ["a", "b", "c", "d", "e"]),
    entry("1.png", "restval", ["a b", "b\n", " c ", "d", "e", "f"], filepath="sub"),
    entry("2.png", "test", ["f", "g", "h", "i", "j", "a"]),
    entry("3.png", "test", ["a a", "b b", "c c", "d d", "e e"]),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for number in range(4):
        where = tmp_path / ("sub" if number == 1 else ".") / f"{number}.png"
        Image.new("RGB", (20, 12), (number * 50, 0, 0)).save(where)
    return tmp_path


def opened(folder, images=GOOD, **changes) -> Karpathy:
    path = folder / "dataset_x.json"
    path.write_text(json.dumps({"dataset": "x", "images": images}))
    config = KarpathyConfig(annotations=path, images=folder, preset=preset("half", 8), text_len=6, **changes)
    return Karpathy(config, WordTokenizer(WORDS))


def test_it_is_a_source(folder):
    source = opened(folder)
    assert isinstance(source, Source)
    assert isinstance(source.pairs("train"), Pairs)
    assert isinstance(source.gallery(), Gallery)
    assert (source.geometry.image, source.geometry.text_len, source.geometry.vocab_size) == ((8, 8), 6, 14)
    with pytest.raises(DataError, match="no questions"):
        source.questions("test")


def test_restval_is_training_and_five_captions_are_read(folder):
    source = opened(folder)
    train, test = source.pairs("train"), source.gallery("test")
    assert (train.images, len(train)) == (2, 10)
    assert (test.images, test.texts) == (2, 10)
    assert test.owner.tolist() == [0] * 5 + [1] * 5
    assert set(source.galleries()) == {"train", "test"}
    every = opened(folder, captions="all")
    assert len(every.pairs("train")) == 11
    assert every.gallery().owner.tolist() == [0] * 6 + [1] * 5
    assert every.hash != source.hash


def test_batches_hold_the_right_pictures_and_words(folder):
    train = opened(folder).pairs("train")
    batch = train.batch(np.array([9, 0, 5]))
    assert batch.sample_id.tolist() == [1, 0, 1]
    assert batch.image.shape == (3, 3, 8, 8)
    torch.testing.assert_close(batch.image[:, 0, 4, 4], torch.tensor([50 / 127.5 - 1, -1.0, 50 / 127.5 - 1]))
    assert batch.text.ids.tolist() == [[1, 8, 2, 0, 0, 0], [1, 4, 2, 0, 0, 0], [1, 4, 5, 2, 0, 0]]
    assert batch.text.mask.sum(1).tolist() == [3, 3, 4]
    assert sorted(train.order(np.random.default_rng(0))) == list(range(10))


def broken(change) -> list:
    images = copy.deepcopy(GOOD)
    change(images)
    return images


FAULTS = {
    "no filename": lambda images: images[1].pop("filename"),
    "no split": lambda images: images[1].pop("split"),
    "no sentences": lambda images: images[1].update(sentences="a b"),
    "malformed": lambda images: images.insert(1, 7),
    "unknown split": lambda images: images[1].update(split="dev"),
    "no caption": lambda images: images[1]["sentences"][0].update(raw=" \n"),
    "few captions": lambda images: images[1]["sentences"].__delitem__(slice(2, None)),
    "repeated": lambda images: images.insert(1, images[0]),
    "outside": lambda images: images[1].update(filepath="../.."),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_faulty_entry_is_named_or_skipped_and_counted(folder, reason):
    images = broken(FAULTS[reason])
    with pytest.raises(DataError, match=r"dataset_x\.json: images\[1\].*(mend|keep|read 'all').*faulty='skip'"):
        opened(folder, images)
    source = opened(folder, images, faulty="skip")
    assert source.faults.counts == {reason: 1}
    assert source.pairs("train").images == (2 if reason in ("malformed", "repeated") else 1)


@pytest.mark.parametrize("picture", ["../2.png", "/etc/x", "a/../../b.png", "..\\2.png", "C:\\2.png", "\\\\host\\x"])
def test_no_path_leads_out_of_the_folder(folder, picture):
    images = broken(lambda images: images[2].update(filename=picture))
    with pytest.raises(DataError, match="leads out of the image folder"):
        opened(folder, images)


def test_missing_and_corrupt_pictures(folder):
    (folder / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures .*e\.g\. 2\.png: fetch them .*faulty='skip'"):
        opened(folder).gallery()
    skipping = opened(folder, faulty="skip")
    assert skipping.gallery().images == 1
    (folder / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        opened(folder).gallery().image_batch(np.arange(2))
    skipping = opened(folder, faulty="skip")
    assert skipping.gallery().owner.tolist() == [0] * 5
    assert skipping.faults.counts == {"unreadable picture": 1}
    (folder / "3.png").unlink()
    with pytest.raises(DataError, match=r"split 'test' is empty.*left out: .*unreadable picture"):
        opened(folder, faulty="skip").gallery()


def test_empty_split_lists_what_there_is(folder):
    with pytest.raises(DataError, match=r"split 'val' is empty; splits with pictures: test \(2\), train \(2\)"):
        opened(folder).gallery("val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "not a Karpathy split: it holds list"),
        ('{"annotations": [], "info": {}}', "it holds annotations, info and no list of 'images'"),
    ],
)
def test_files_that_are_no_split(folder, content, message):
    path = folder / "other.json"
    path.write_text(content)
    config = KarpathyConfig(annotations=path, images=folder, preset=preset("half", 8))
    with pytest.raises(DataError, match=message):
        Karpathy(config, WordTokenizer(WORDS))


def test_hash_follows_captions_and_pictures(folder):
    first = opened(folder).hash
    assert opened(folder).hash == first
    assert opened(folder, broken(lambda images: images[0]["sentences"][0].update(raw="j"))).hash != first
    Image.new("RGB", (20, 12), (1, 2, 3)).save(folder / "3.png")
    assert opened(folder).hash != first


def test_captions_are_cleaned_where_that_is_asked_for(folder):
    written, meant = (broken(lambda i, t=t: i[0]["sentences"][0].update(raw=t)) for t in ("A  c, c-b/b!", "a c c b b"))
    found = opened(folder, written, clean=4).pairs("train").encoded.ids[0]
    assert found.tolist() == [1, *(WORDS.index(word) for word in "accb"), 2]  # [CLS], four words, [SEP]
    assert opened(folder, meant, clean=4).hash != opened(folder, meant).hash


@pytest.mark.shared
def test_real_photos_with_the_bert_vocabulary(shared):
    data = shared / "data"
    config = KarpathyConfig(
        annotations=data / "coco_cc/annotations/dataset_coco.json",
        images=data / "coco_cc/images",
        preset=preset("squash", 64),
    )
    source = Karpathy(config, BertTokenizer(data / "bert_vocab/vocab.txt"), name="coco")
    train, test = source.pairs("train"), source.gallery("test")
    assert (train.images, len(train), test.images, test.texts) == (26, 130, 113, 565)
    pictures = test.image_batch(np.arange(113))
    assert pictures.shape == (113, 3, 64, 64)
    assert pictures.mean().abs() < 0.5
    assert 0.7 < pictures.std() < 1.3
    text = test.text_batch(np.arange(565))
    assert (text.ids[:, 0] == 101).all()
    assert (text.ids == 102).sum() == 565
    assert (text.ids == 100).sum() < 3  # hardly a word is unknown
    assert text.mask.sum(1).float().mean() == pytest.approx(13, abs=2)
    assert train.batch(train.order(np.random.default_rng(0))[:8]).image.shape == (8, 3, 64, 64)


@pytest.mark.shared
def test_sources_opens_the_real_photos_by_name(shared, tmp_path, monkeypatch):
    (tmp_path / "coco").symlink_to(shared / "data/coco_cc")
    monkeypatch.setenv("VLPBENCH_DATA", str(tmp_path))
    source = open_source("coco", size="tiny")
    assert source.geometry.image == (32, 32)
    assert (source.geometry.vocab_size, source.geometry.mask) == (49_408, -1)
    assert source.gallery().images == 113
