"""Karpathy-split files: a small one by hand, everything that can be wrong with one, and the real photos."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from vlpbench.archs.inputs import PUBLISHED
from vlpbench.benchmarks.data import files
from vlpbench.benchmarks.data.base import DataError, Gallery, Pairs, Source
from vlpbench.benchmarks.data.catalogue import catalogue, locate
from vlpbench.benchmarks.data.faults import Sifted
from vlpbench.benchmarks.data.files import CaptionFiles, cleaned
from vlpbench.benchmarks.data.images import preset
from vlpbench.benchmarks.data.options import options_of
from vlpbench.benchmarks.data.preparation import Preparation
from vlpbench.benchmarks.data.sources import open_source
from vlpbench.benchmarks.data.tokens import WordTokenizer

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


def opened(folder, images=GOOD, **options) -> CaptionFiles:
    (folder / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    preparation = Preparation(preset=preset("half", 8), tokenizer=WordTokenizer(WORDS), text_len=6)
    given = options_of(options)
    return CaptionFiles(locate(catalogue()["coco"], folder), given, lambda _: cleaned(preparation, given.clean))


def test_it_is_a_source(folder):
    source = opened(folder)
    assert isinstance(source, Source)
    assert isinstance(source, Sifted)
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
    assert source.galleries() == {"test": "2 pictures with the first five captions of each"}
    every = opened(folder, captions="all")
    assert len(every.pairs("train")) == 11
    assert every.gallery().owner.tolist() == [0] * 6 + [1] * 5
    assert every.galleries() == {"test": "2 pictures with all captions of each"}
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
    "long caption": lambda images: images[1]["sentences"][0].update(raw="a " * 5000),
    "not UTF-8": lambda images: images[1]["sentences"][0].update(raw="a \udc80"),
    "few captions": lambda images: images[1]["sentences"].__delitem__(slice(2, None)),
    "repeated": lambda images: images.insert(1, images[0]),
    "outside": lambda images: images[1].update(filepath="../.."),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_faulty_entry_is_named_or_skipped_and_counted(folder, reason):
    images = broken(FAULTS[reason])
    with pytest.raises(DataError, match=r"dataset_coco\.json: images\[1\].*(mend|keep|read 'all').*faulty = 'skip'"):
        opened(folder, images).pairs("train")
    source = opened(folder, images, faulty="skip")
    assert source.pairs("train").images == (2 if reason in ("malformed", "repeated") else 1)
    (found,) = source.left_out().items()
    assert found[0] == reason
    assert found[1]["count"] == 1
    assert "images[1]" in found[1]["first"][0]


@pytest.mark.parametrize(
    "picture", ["../2.png", "/etc/x", "a/../../b.png", "..\\2.png", "C:\\2.png", "\\\\host\\x", "a\0b"]
)
def test_no_path_leads_out_of_the_folder(folder, picture):
    images = broken(lambda images: images[2].update(filename=picture))
    with pytest.raises(DataError, match="leads out of the image folder"):
        opened(folder, images).gallery()


def test_no_link_leads_out_of_the_folder(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "2.png").rename(elsewhere / "2.png")
    (folder / "2.png").symlink_to(elsewhere / "2.png")
    with pytest.raises(DataError, match=r"'2\.png', a link out of"):
        opened(folder).gallery()
    skipping = opened(folder, faulty="skip")
    assert skipping.gallery().images == 1
    assert skipping.left_out() == {"outside": {"count": 1, "first": ["2.png"]}}
    whole = elsewhere / "whole"
    os.symlink(folder, whole)  # the folder itself may be a link of the user's
    (folder / "2.png").unlink()
    Image.new("RGB", (20, 12)).save(folder / "2.png")
    assert opened(whole).gallery().images == 2


def test_missing_and_corrupt_pictures(folder):
    (folder / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures .*e\.g\. 2\.png: fetch them .*faulty = 'skip'"):
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
        opened(folder, faulty="skip").pairs("test")


def test_empty_split_lists_what_there_is(folder):
    with pytest.raises(DataError, match=r"split 'val' is empty; splits with samples: train \(2\), test \(2\)"):
        opened(folder).pairs("val")
    with pytest.raises(DataError, match="no gallery 'val'; it has test"):
        opened(folder).gallery("val")


def test_five_parts_of_the_test_set(folder, monkeypatch):
    monkeypatch.setattr(files, "FOLDS", 2)
    monkeypatch.setattr(files, "FOLD", 1)
    source = opened(folder)
    assert list(source.galleries()) == ["test", "fold1", "fold2"]
    part = source.gallery("fold2")
    assert isinstance(part, Gallery)
    assert (part.images, part.texts, part.owner.tolist()) == (1, 5, [0] * 5)
    whole = source.gallery("test")
    assert part.image_batch(np.array([0])).equal(whole.image_batch(np.array([1])))
    assert part.text_batch(np.arange(5)).ids.equal(whole.text_batch(np.arange(5, 10)).ids)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is not a Karpathy split: it holds a list"),
        ('{"annotations": [], "info": {}}', "it holds 'annotations', 'info' and no list of 'images'"),
        ("", "is not JSON"),
    ],
)
def test_files_that_are_no_split(folder, content, message):
    source = opened(folder)
    (folder / "dataset_coco.json").write_text(content)
    with pytest.raises(DataError, match=message):
        source.pairs("train")


def test_hash_follows_captions_and_pictures_and_not_the_preprocessing(folder):
    first = opened(folder).hash
    assert opened(folder, clean="albef").hash == opened(folder).hash == first
    assert opened(folder, broken(lambda images: images[0]["sentences"][0].update(raw="j"))).hash != first
    Image.new("RGB", (20, 12), (1, 2, 3)).save(folder / "3.png")
    assert opened(folder).hash != first


def test_captions_are_cleaned_where_that_is_asked_for(folder):
    written = broken(lambda i: i[0]["sentences"][0].update(raw="A  c, c-b/b!"))
    found = opened(folder, written, clean="albef").pairs("train").encoded.ids[0]
    assert found.tolist() == [1, *(WORDS.index(word) for word in "accb"), 2]  # [CLS], four words, [SEP]
    with pytest.raises(DataError, match="unknown cleaning 'albeff': did you mean 'albef'"):
        opened(folder, clean="albeff")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fauly": "skip"}, "unknown data option 'fauly': did you mean 'faulty'"),
        ({"faulty": "ignore"}, "faulty = 'ignore': Input should be 'skip' or 'fail'"),
        ({"least": 0}, "least = 0"),
    ],
)
def test_options_are_refused_by_name(given, message):
    with pytest.raises(DataError, match=message):
        options_of(given)


@pytest.mark.shared
def test_real_photos_by_name(shared, tmp_path, monkeypatch):
    (tmp_path / "coco").symlink_to(shared / "data/coco_cc")
    (tmp_path / "tokenizers").symlink_to(shared / "data/bert_vocab")
    monkeypatch.setenv("VLPBENCH_DATA", str(tmp_path))
    source = open_source("coco", size="small", inputs=PUBLISHED["albef"])
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
    assert train.batch(train.order(np.random.default_rng(0))[:8]).image.shape == (8, 3, 64, 64)
    published = open_source("coco-captions", size="tiny", inputs=PUBLISHED["clip"])
    assert (published.geometry.image, published.geometry.vocab_size, published.geometry.mask) == ((32, 32), 49_408, -1)
    assert (len(published.pairs("train")), published.gallery().images) == (130, 113)
    every = open_source("coco-captions", size="tiny", inputs=PUBLISHED["clip"], options={"captions": "all"})
    assert (every.gallery().texts, published.gallery().texts) == (565, 565)
