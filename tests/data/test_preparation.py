"""Pictures and texts by each architecture's own rules: sizes by hand, vocabularies from files, errors that help."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from vlpbench.archs import registry
from vlpbench.archs.inputs import DEFAULT, PUBLISHED, VOCABULARIES
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.cleaning import blip_caption, blip_question, clean_caption
from vlpbench.benchmarks.data.images import fit, normalise, preset_of
from vlpbench.benchmarks.data.preparation import OPENERS, open_vocabulary, prepare
from vlpbench.benchmarks.data.tokens import ListTokenizer, PieceTokenizer

SENTENCES = ["a dog runs on the sand", "two cats sleep", "a man and a dog", "the dog and the cat run"] * 20


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small SentencePiece vocabularies as T5's and XLM-R's are made."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("pieces")

    def make(form: str) -> Path:
        path = folder / f"{form}.model"
        ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} if form == "t5" else {"unk_id": 0}
        if not path.exists():
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(SENTENCES),
                model_prefix=str(path.with_suffix("")),
                vocab_size=40,
                minloglevel=9,
                hard_vocab_limit=False,
                **ids,
            )
        return path

    return make


def test_every_architecture_says_how_it_is_read() -> None:
    assert set(OPENERS) == set(VOCABULARIES)
    assert set(PUBLISHED) == set(registry.specs()) - {
        name for name, spec in registry.specs().items() if spec.inputs is DEFAULT
    }
    assert registry.get("clip+late").inputs == registry.get("clip").inputs
    said = {name: rule.image.described() for name, rule in PUBLISHED.items()}
    assert said["vilt"].startswith("shorter side to 384, longer at most 639, in shape, cut to multiples of 32; bicubic")
    assert said["vsepp"].startswith("shorter side to 256, middle 224 x 224; bilinear; mean 0.485")
    assert "out of shape" in said["albef"]
    assert PUBLISHED["blip"].text.described().startswith("BERT's WordPiece, lower case, at most 35 tokens; lower case")


@pytest.mark.parametrize(
    ("picture", "wanted"),  # width x height -> rows x columns, by the released rule with 384 and 1333 / 800 * 384
    [
        ((640, 480), (384, 512)),
        ((480, 640), (512, 384)),
        ((500, 375), (384, 512)),
        ((1000, 500), (320, 608)),
        ((384, 384), (384, 384)),
    ],
)
def test_vilt_keeps_the_shape_within_bounds(picture: tuple[int, int], wanted: tuple[int, int]) -> None:
    how = preset_of(PUBLISHED["vilt"].image, (384, 640))
    assert (how.size, how.shorter, how.longest) == ((608, 608), 384, 639)
    assert fit(Image.new("RGB", picture), how).shape == (3, *wanted)


def test_what_a_picture_leaves_of_the_canvas_is_exactly_zero() -> None:
    how = preset_of(PUBLISHED["vilt"].image, (32, 32))
    assert how.size == (32, 32)  # 53 pixels have one multiple of 32
    how = replace(how, size=(64, 96))
    canvas = np.full((1, 3, 64, 96), 128, np.uint8)
    image = normalise(canvas, how, np.array([[32, 64]]))[0]
    assert (image[:, :32, :64] != 0).all()
    assert image[:, 32:].abs().max() == image[:, :, 64:].abs().max() == 0


def test_the_other_rules_equal_the_libraries_that_the_releases_use() -> None:
    from torchvision import transforms as T

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (61, 97, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    bicubic = T.InterpolationMode.BICUBIC
    official = {
        "vsepp": T.Compose([T.Resize(256), T.CenterCrop(224)]),
        "albef": T.Resize((224, 224), bicubic),
        "beit3": T.Resize((224, 224), bicubic),
        "pali": T.Resize((224, 224), T.InterpolationMode.BILINEAR),
    }
    for name, resize in official.items():
        rule = PUBLISHED[name].image
        wanted = T.Normalize(*rule.statistics)(T.ToTensor()(resize(image)))
        how = preset_of(rule, (224, 224))
        torch.testing.assert_close(normalise(fit(image, how)[None], how)[0], wanted)


def test_captions_are_cleaned_as_each_release_does() -> None:
    raw = "A man's \"dog\" - at 3:30, isn't it?"
    assert clean_caption(raw, 30) == "a mans dog at 330 isnt it"
    assert blip_caption(raw, 30) == "a man's dog - at 3 30, isn't it?"
    assert blip_question("What (is)  it?  ", 4) == "what is  it?"


def test_the_architecture_picks_vocabulary_length_and_size(tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    folder.mkdir()
    clip = prepare(PUBLISHED["clip"], size="small", folder=folder)
    assert (clip.geometry().image, clip.text_len, clip.geometry().vocab_size) == ((64, 64), 30, 49_408)
    assert prepare(PUBLISHED["clip"], size="base", folder=folder).text_len == 77
    asked = prepare(PUBLISHED["clip"], size="base", folder=folder, image=(336, 336), text_len=20)
    assert (asked.geometry().image, asked.text_len) == ((336, 336), 20)
    with pytest.raises(
        DataError, match=r"BERT's WordPiece, lower case, and its file vocab\.txt is not there.*bert-base-uncased"
    ):
        prepare(PUBLISHED["albef"], size="base", folder=folder)
    with pytest.raises(
        DataError, match=r"beit3\.spm is not there: put it into .*tokenizers or .*coco; it comes with .*BEiT-3"
    ):
        prepare(PUBLISHED["beit3"], size="base", folder=folder)


@pytest.mark.shared
def test_bert_is_found_beside_the_data_sets(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "coco").mkdir()
    (tmp_path / "tokenizers/vocab.txt").symlink_to(shared / "data/bert_vocab/vocab.txt")
    albef = prepare(PUBLISHED["albef"], size="base", folder=tmp_path / "coco")
    encoded = albef.captions(["A dog, isn't it?"])
    assert encoded.ids[0, :6].tolist() == [101, 1037, 3899, 3475, 2102, 2009]  # a dog isn ##t it
    assert albef.geometry().vocabulary == albef.tokenizer.hash != ""


def test_sentencepiece_in_both_numberings(pieces: Callable[[str], Path]) -> None:
    from sentencepiece import SentencePieceProcessor

    plain = SentencePieceProcessor(model_file=str(pieces("xlm-r")))
    ids, unknown = plain.EncodeAsIds("a dog 漢"), plain.unk_id()
    assert unknown in ids
    ours = PieceTokenizer(pieces("xlm-r"), form="xlm-r")
    assert (ours.cls, ours.pad, ours.sep) == (0, 1, 2)  # fairseq's
    assert (ours.mask, ours.vocab_size) == (plain.GetPieceSize() + 1, plain.GetPieceSize() + 2)
    wanted = [0, *(3 if piece == unknown else piece + 1 for piece in ids), 2]
    found = ours.encode(["a dog 漢"], 16)
    assert found.ids[0, : len(wanted)].tolist() == wanted
    assert found.ids[0, len(wanted) :].tolist() == [1] * (16 - len(wanted))
    begins = [piece for piece in range(3, plain.GetPieceSize()) if plain.IdToPiece(piece).startswith("\u2581")]
    assert {*ours.inside, *(piece + 1 for piece in begins)} == set(range(4, plain.GetPieceSize() + 1))
    assert not ours.inside & {piece + 1 for piece in begins}
    plain = SentencePieceProcessor(model_file=str(pieces("t5")))
    t5 = PieceTokenizer(pieces("t5"), form="t5")
    wanted = [0, *plain.EncodeAsIds("two cats"), 1]
    assert t5.encode(["two cats"], len(wanted)).ids[0].tolist() == wanted
    assert (t5.vocab_size, t5.mask) == (plain.GetPieceSize(), None)


def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path) -> None:
    for name, file in VOCABULARIES.items():
        (tmp_path / file.name).write_bytes(b"\x00\xff nothing")
        with pytest.raises(DataError, match=file.name.replace(".", r"\.")):
            open_vocabulary(name, tmp_path)


def test_words_of_a_list(tmp_path: Path) -> None:
    words = ["<pad>", "<start>", "<end>", "<unk>", "a", "man", "'s", "dog", "is", "n't", "red-brown", ","]
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"word2idx": {word: n for n, word in enumerate(words)}, "idx": len(words)}))
    tokens = ListTokenizer(path)
    found = tokens.encode(["A man's dog, isn't red-brown!"], 12)
    said = [words[n] for n in found.ids[0][found.mask[0]]]
    assert said == ["<start>", "a", "man", "'s", "dog", ",", "is", "n't", "red-brown", "<unk>", "<end>"]
    path.write_text(json.dumps({"word2idx": {"a": 0}}))
    with pytest.raises(DataError, match="has no <pad>, <start>, <end>, <unk>"):
        ListTokenizer(path)
