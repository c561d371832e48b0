"""Decoding of every kind of picture file, with pixels known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from vlpbench.benchmarks.data.base import DataError
from vlpbench.benchmarks.data.images import ImagePreset, decode, fit, normalise, preset

LEFT, RIGHT = (200, 30, 60), (20, 160, 90)


def halves() -> Image.Image:
    """40 x 20: left half LEFT, right half RIGHT."""
    pixels = np.empty((20, 40, 3), np.uint8)
    pixels[:, :20], pixels[:, 20:] = LEFT, RIGHT
    return Image.fromarray(pixels)


def colours(path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    image = decode(path)
    assert image.mode == "RGB"
    return image.getpixel((5, 10)), image.getpixel((35, 10))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_png_modes_keep_their_colours(tmp_path, mode):
    path = tmp_path / "a.png"
    (halves().quantize(4) if mode == "P" else halves().convert(mode)).save(path)
    assert np.abs(np.subtract(colours(path), (LEFT, RIGHT))).max() <= 4


def test_palette_with_transparency_bytes(tmp_path):
    image = halves().quantize(4)
    path = tmp_path / "a.png"
    image.save(path, transparency=bytes([255, 128, 255, 255]))
    assert np.abs(np.subtract(colours(path), (LEFT, RIGHT))).max() <= 4


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    halves().convert("CMYK").save(path, quality=95)
    assert np.abs(np.subtract(colours(path), (LEFT, RIGHT))).max() <= 12


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    path = tmp_path / "a.png"
    values = np.full((20, 40), 0x1234, np.uint16)
    values[:, 20:] = 0xC0FF
    Image.fromarray(values).save(path)
    assert colours(path) == ((0x12,) * 3, (0xC0,) * 3)


def test_grey_and_one_bit(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (40, 20), 77).save(path)
    assert colours(path) == ((77,) * 3, (77,) * 3)
    Image.new("1", (40, 20), 1).save(path)
    assert colours(path) == ((255,) * 3, (255,) * 3)


def test_exif_rotation_is_applied(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 90 degrees clockwise to stand upright
    halves().save(path, exif=exif, quality=95)
    image = decode(path)
    assert image.size == (20, 40)
    assert np.abs(np.subtract(image.getpixel((10, 5)), LEFT)).max() <= 12


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_cut_short(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.\w+ cannot be read .*fetch it again or leave it out"):
        decode(path)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n\0\0\0\0", b"\xff\xd8\xff\xe0"])
def test_no_picture(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
        decode(path)


def test_absent_and_too_large(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        decode(tmp_path / "absent.jpg")
    path = tmp_path / "a.png"
    halves().save(path)
    with pytest.raises(DataError, match="40 x 20 pixels, more than 799"):
        decode(path, limit=799)
    assert decode(path, limit=800).size == (40, 20)


def test_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(DataError, match="more than"):
        decode(path)


def test_crop_keeps_the_middle_and_squash_keeps_all():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20, 0], wide[:, 20:40, 1], wide[:, 40:, 2] = 200, 200, 200
    image = Image.fromarray(wide)
    crop = fit(image, preset("crop", 20))
    assert crop.shape == (3, 20, 20)
    assert crop.dtype == np.uint8
    assert crop[1].min() > 190
    assert crop[[0, 2]].max() < 10
    squash = fit(image, preset("squash", 21))
    assert [int(squash[c, 10, x]) for c, x in ((0, 2), (1, 10), (2, 18))] == pytest.approx([200] * 3, abs=3)


@pytest.mark.parametrize(("width", "height"), [(7, 100), (100, 7), (3, 3), (33, 32)])
def test_any_aspect_ratio_fills_the_size(width, height):
    image = Image.new("RGB", (width, height), (9, 9, 9))
    flat = ImagePreset(size=(16, 40), fit="crop", mean=(0, 0, 0), std=(1, 1, 1))
    for how in (preset("crop", 32), preset("half", 32), flat):
        pixels = fit(image, how)
        assert pixels.shape == (3, *how.size)
        assert (pixels == 9).all()


def test_normalisation_by_hand():
    pictures = np.array([0, 128, 255], np.uint8).reshape(1, 3, 1, 1)
    how = preset("crop", 1)
    wanted = [(v / 255 - m) / s for v, m, s in zip((0, 128, 255), how.mean, how.std, strict=True)]
    torch.testing.assert_close(normalise(pictures, how).flatten(), torch.tensor(wanted))
    half = normalise(pictures, preset("half", 1)).flatten()
    torch.testing.assert_close(half, torch.tensor([-1, 128 / 127.5 - 1, 1]))


def test_crop_equals_open_clip():
    from open_clip.transform import image_transform

    rng = np.random.default_rng(0)
    how = preset("crop", 32)
    for shape in ((61, 97, 3), (97, 61, 3), (32, 33, 3), (20, 20, 3)):
        image = Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8))
        official = image_transform(32, is_train=False, mean=how.mean, std=how.std)(image)
        ours = normalise(fit(image, how)[None], how)[0]
        torch.testing.assert_close(ours, official)


def test_unknown_preset():
    with pytest.raises(ValueError, match="'vgg'; use crop, squash or half"):
        preset("vgg", 32)
