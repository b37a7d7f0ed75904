"""Image files are what a browser shows on a white page, whatever their depth, channels, palette or EXIF; no bombs."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")
from PIL import Image

from quark_onnx.core.errors import DataError
from quark_onnx.engine.images import ImageOptions, image_loader

RAMP = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6
"""Color types of PNG."""


def pixels(file: Path, color: str = "RGB", size: tuple[int, int] = (6, 8)) -> np.ndarray:
    """(height, width, channels) as bytes, at the size of the file: nothing is resized."""
    channels = 1 if color == "L" else 3
    load = image_loader("x", (1, *size, channels), np.dtype("uint8"), ImageOptions(color=color, layout="NHWC"))
    return load(file)[0]


def png(file: Path, values: np.ndarray, kind: int, *, transparent: bytes = b"") -> Path:
    """A PNG of 16 bits per channel, as cameras and scanners write them; PIL writes grey ones only."""
    height, width = values.shape[:2]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    middle = chunk(b"tRNS", transparent) if transparent else b""
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return file


# 16 bits


@pytest.mark.parametrize("color", ["L", "RGB", "BGR"])
def test_grey_of_16_bits_is_scaled(color: str, tmp_path: Path) -> None:
    found = pixels(png(tmp_path / "a.png", RAMP, GREY), color)
    np.testing.assert_array_equal(found[..., 0], np.rint(RAMP / 257))
    assert (found == found[..., :1]).all()


def test_color_and_alpha_of_16_bits(tmp_path: Path) -> None:
    """To the rounding of the last bit, as PIL takes the upper byte of these."""
    full = np.full_like(RAMP, 65535)
    ramps = [RAMP, RAMP[::-1], RAMP[:, ::-1]]
    expected = np.stack(ramps, -1) / 257
    for kind, channels in ((RGB, ramps), (RGBA, [*ramps, full]), (GREY_ALPHA, [RAMP, full])):
        found = pixels(png(tmp_path / "a.png", np.stack(channels, -1), kind))
        wanted = expected if kind != GREY_ALPHA else np.repeat(RAMP[..., None] / 257, 3, -1)
        assert np.abs(found - wanted).max() <= 1


def test_a_grey_that_is_transparent(tmp_path: Path) -> None:
    file = png(tmp_path / "a.png", RAMP, GREY, transparent=struct.pack(">H", RAMP[1, 3]))
    found = pixels(file, "L")[..., 0]
    assert found[1, 3] == 255
    assert found[1, 2] == round(RAMP[1, 2] / 257)


def test_other_grey_is_as_it_was(tmp_path: Path) -> None:
    eight = (RAMP // 257).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png", "L")[..., 0], eight)
    Image.fromarray(eight > 100).save(tmp_path / "b.png")
    np.testing.assert_array_equal(pixels(tmp_path / "b.png", "L")[..., 0], np.where(eight > 100, 255, 0))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((6, 8), 0.5, np.float32), "holds floats"),
        (np.full((6, 8), 70_000, np.int32), "holds 70000 … 70000, not 0 … 65535"),
        (np.full((6, 8), -1, np.int32), "holds -1 … -1"),
    ],
)
def test_measurements_are_no_images(values: np.ndarray, said: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "a.tiff")
    file = (tmp_path / "a.tiff").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"{said}.*save it as \.npy"):
        pixels(file)
    Image.fromarray(np.full((6, 8), 65535, np.int32)).save(tmp_path / "b.tiff")
    assert (pixels((tmp_path / "b.tiff").rename(tmp_path / "b.png")) == 255).all()


# transparency


def layered(mode: str, tmp_path: Path) -> Path:
    """Red on the left, half red in the middle, nothing on the right: 2 columns each, and what lies below is black."""
    alpha = np.repeat([[255, 255, 128, 128, 0, 0]], 4, 0).astype(np.uint8)
    red = np.where(alpha > 0, 255, 0).astype(np.uint8)
    if mode == "LA":
        image = Image.merge("LA", [Image.fromarray(np.zeros_like(red)), Image.fromarray(alpha)])
    else:
        none = Image.fromarray(np.zeros_like(red))
        image = Image.merge("RGBA", [Image.fromarray(red), none, none, Image.fromarray(alpha)])
    file = tmp_path / "a.png"
    if mode == "palette":
        image = image.quantize(4)
    image.save(file)
    return file


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        ("RGBA", [(255, 0, 0), (255, 127, 127), (255, 255, 255)]),
        ("palette", [(255, 0, 0), (255, 127, 127), (255, 255, 255)]),
        ("LA", [(0, 0, 0), (127, 127, 127), (255, 255, 255)]),
    ],
)
def test_transparency_is_laid_on_white(mode: str, shown: list[tuple[int, int, int]], tmp_path: Path) -> None:
    found = pixels(layered(mode, tmp_path), size=(4, 6))[0, ::2]
    np.testing.assert_allclose(found, shown, atol=1)


def test_one_color_that_is_transparent(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), (0, 0, 0))
    image.paste((10, 20, 30), (0, 0, 3, 4))
    image.save(tmp_path / "a.png", transparency=(0, 0, 0))
    found = pixels(tmp_path / "a.png", size=(4, 6))
    assert (found[:, :3] == (10, 20, 30)).all() and (found[:, 3:] == 255).all()
    image.save(tmp_path / "b.png")  # nothing is transparent
    assert (pixels(tmp_path / "b.png", size=(4, 6))[:, 3:] == 0).all()
    image.convert("P").save(tmp_path / "c.png")
    assert (pixels(tmp_path / "c.png", size=(4, 6))[:, 3:] == 0).all()


# EXIF


TURNS: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_every_orientation(suffix: str, tmp_path: Path) -> None:
    """As the tag says: what stands at the top left in each of the eight."""
    flat = np.zeros((16, 32, 3), np.uint8)
    flat[:8, :16], flat[:8, 16:], flat[8:, :16] = (255, 255, 255), (90, 90, 90), (160, 160, 160)
    for tag, turned in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        Image.fromarray(flat).save(tmp_path / f"a{suffix}", exif=exif, quality=95)
        expected = turned(flat)
        found = pixels(tmp_path / f"a{suffix}", size=expected.shape[:2])
        assert np.abs(found.astype(int) - expected).max() <= 8, tag


def test_exif_that_cannot_be_read_turns_nothing(tmp_path: Path) -> None:
    flat = np.tile(np.arange(6, dtype=np.uint8)[:, None, None] * 40, (1, 8, 3))
    Image.fromarray(flat).save(tmp_path / "plain.png")
    for index, exif in enumerate((b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0" * 40)):
        Image.fromarray(flat).save(tmp_path / f"{index}.png", exif=exif)
        np.testing.assert_array_equal(pixels(tmp_path / f"{index}.png"), flat)


# colors


@pytest.mark.parametrize("color", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255), (40, 80, 120, 30)])
def test_cmyk_is_no_negative(color: tuple[int, int, int, int], tmp_path: Path) -> None:
    """As printers' programs write it, inverted and marked as such."""
    Image.new("CMYK", (16, 16), color).save(tmp_path / "a.jpg", quality=95)
    c, m, y, k = (1 - value / 255 for value in color)
    assert np.abs(pixels(tmp_path / "a.jpg", size=(16, 16))[8, 8] - 255 * np.array([c * k, m * k, y * k])).max() <= 6


# bombs and files that are none


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    def decoded(self: Any) -> None:
        raise AssertionError("it was decoded")

    for size in ((101, 1), (15, 15), (1000, 1000)):  # PIL warns of the first two, and raises for the third
        Image.new("L", size).save(tmp_path / "a.png")
        with monkeypatch.context() as patched, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patched.setattr("PIL.ImageFile.ImageFile.load", decoded)
            with pytest.raises(DataError, match=r"a\.png has more than 100 pixels, and is not decoded"):
                pixels(tmp_path / "a.png")
    Image.new("L", (10, 10), 7).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png", size=(10, 10)) == 7).all()


def test_content_that_is_no_image_is_told(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), 9).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\n"
    for content in (b"", b"\x89PNG\r\n\x1a\n", whole[:60], whole[:40] + b"\xff" * 20 + whole[60:], postscript):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read the image .*a\.png"):
            pixels(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(whole)  # what counts is what is in it
    assert (pixels(tmp_path / "b.jpg", size=(64, 64))[0, 0] == (9, 0, 0)).all()
