"""Tokenizers against the official ones, and vocabularies that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.scene_text import WORDS
from vlpbench.benchmarks.data.scenes import CONFIGS, Scenes
from vlpbench.benchmarks.data.tokens import BertTokenizer, ClipTokenizer, WordTokenizer

TINY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##s", "##ning", "!", "cafe"]


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(TINY) + "\n")
    return path


def test_words_and_scenes_agree():
    tokenizer = WordTokenizer(WORDS)
    ids = Scenes(CONFIGS["tiny"]).pairs("train").ids
    texts = [tokenizer.decode(row) for row in ids.tolist()]
    encoded = tokenizer.encode(texts, ids.shape[1])
    assert np.array_equal(encoded.ids, ids)
    assert np.array_equal(encoded.mask, ids != 0)
    assert tokenizer.encode(["is there red ring"], 8).ids.tolist() == [[1, 23, 24, 6, 14, 2, 0, 0]]


def test_unknown_word_offers_the_nearest():
    with pytest.raises(DataError, match="unknown word 'gren': did you mean 'green'"):
        WordTokenizer(WORDS).encode(["gren ring"], 9)


def test_word_pieces_by_hand(tiny):
    tokenizer = BertTokenizer(tiny, size=None)
    assert (tokenizer.pad, tokenizer.cls, tokenizer.sep, tokenizer.mask, tokenizer.vocab_size) == (0, 2, 3, 4, 12)
    assert tokenizer.inside == {8, 9}  # ##s and ##ning go on with a word
    assert WordTokenizer(WORDS).inside == set()
    encoded = tokenizer.encode(["A dog runs!", "Café running", "zebra [SEP]"], 8)
    assert encoded.ids.tolist() == [
        [2, 5, 6, 7, 8, 10, 3, 0],
        [2, 11, 7, 9, 3, 0, 0, 0],
        [2, 1, 1, 1, 1, 3, 0, 0],  # a special token that is written out is ordinary text
    ]
    assert encoded.mask.sum(1).tolist() == [7, 5, 6]


def test_truncation_keeps_the_end_token(tiny):
    encoded = BertTokenizer(tiny, size=None).encode(["a dog runs !", "a"], 4)
    assert encoded.ids.tolist() == [[2, 5, 6, 3], [2, 5, 3, 0]]
    assert encoded.mask.tolist() == [[True] * 4, [True, True, True, False]]
    with pytest.raises(ValueError, match="not 1"):
        BertTokenizer(tiny, size=None).encode(["a"], 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n".join(t.encode() for t in TINY), "has 12 tokens and 30522 are expected"),
        (b"a\nb\nc\n", r"no \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"),
        (b"[PAD]\na\na\n", "line 3 repeats 'a'"),
        (b"[PAD]\n\nb\n", "line 2 is empty"),
        (b"\x89PNG\xff\xfe", "not UTF-8 text at byte 0"),
        (b"", "line 1 is empty"),
    ],
)
def test_files_that_are_no_vocabulary(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        BertTokenizer(path)
    assert str(path) in str(caught.value)


def test_absent_vocabulary(tmp_path):
    with pytest.raises(DataError, match=r"absent.txt cannot be read \(No such file.*give the vocab.txt"):
        BertTokenizer(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="Is a directory"):
        BertTokenizer(tmp_path)


def captions(shared) -> list[str]:
    found = json.loads((shared / "data/coco_cc/annotations/captions_val2017.json").read_text())["annotations"]
    return [one["caption"] for one in found] + ["naïve CAFÉ, don't!  3.5m (résumé)\n", "", "日本 🙂 x" * 30]


@pytest.mark.shared
def test_bert_equals_transformers_on_real_captions(shared):
    from transformers import BertTokenizer as Official

    path = shared / "data/bert_vocab/vocab.txt"
    texts = captions(shared)
    ours = BertTokenizer(path).encode(texts, 25)
    official = Official(str(path))(texts, padding="max_length", truncation=True, max_length=25)
    assert ours.ids.tolist() == official["input_ids"]
    assert ours.mask.astype(int).tolist() == official["attention_mask"]


@pytest.mark.shared
def test_clip_equals_open_clip_on_real_captions(shared):
    from open_clip.tokenizer import SimpleTokenizer

    texts = [*captions(shared), "oh ! !"]
    tokenizer = ClipTokenizer()
    ours = tokenizer.encode(texts, 20)
    assert ours.ids.tolist() == SimpleTokenizer()(texts, context_length=20).tolist()
    assert tokenizer.vocab_size == 49_408
    assert (ours.ids[np.arange(len(texts)), ours.mask.sum(1) - 1] == tokenizer.sep).all()
    assert ours.mask[-1].sum() == 5  # "!" is token 256 and its byte 0 is padding: both stay apart
    assert tokenizer.mask is None
