"""Decoding: every kind of picture comes out as the RGB a person sees. Limits: none is decoded that is too large."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fairway.worker.card import InputSpec
from fairway.worker.errors import BrokenImage, NotAnImage, TooLarge
from fairway.worker.image import ImageLimits, decode, encode_for_model, to_item

from ..conftest import picture
from .colours import plain

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(width: int = 48, height: int = 32) -> Image.Image:
    """Red, green / blue, white."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def assert_near(image: Image.Image, at: tuple[int, int], colour: tuple[int, int, int], tolerance: int = 8) -> None:
    got = image.getpixel(at)
    assert isinstance(got, tuple)
    assert max(abs(a - b) for a, b in zip(got, colour, strict=True)) <= tolerance, (at, got, colour)


# What a camera stored, for each orientation in which it was held.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_come_out_upright(orientation: int, format: str) -> None:
    turn = STORED[orientation]
    stored = corners() if turn is None else corners().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored, format, exif=exif)
    # A model that decodes by itself knows nothing of EXIF: its bytes must be upright without.
    for upright in (decode(data), Image.open(io.BytesIO(encode_for_model(data))).convert("RGB")):
        assert upright.size == (48, 32)
        for at, colour in (((8, 6), RED), ((40, 6), GREEN), ((8, 26), BLUE), ((40, 26), WHITE)):
            assert_near(upright, at, colour)


def gray16() -> Image.Image:
    """A ramp over all 16 bits; Pillow alone would show nearly all of it white."""
    return Image.fromarray(np.tile(np.linspace(0, 65535, 64, dtype=np.uint16), (8, 1)))


def animated() -> list[Image.Image]:
    return [Image.new("RGB", (20, 10), colour) for colour in (GREEN, RED, BLUE)]


def half_clear() -> Image.Image:
    """Left opaque green; right wholly transparent, with red hidden under it."""
    image = Image.new("RGBA", (20, 10), (0, 255, 0, 255))
    image.paste((255, 0, 0, 0), (10, 0, 20, 10))
    return image


def clear_palette() -> Image.Image:
    image = Image.new("P", (20, 10), 0)
    image.putpalette([0, 255, 0, 255, 0, 0])
    image.paste(1, (10, 0, 20, 10))
    return image


MODES: list[tuple[str, bytes, tuple[int, int, int], tuple[int, int, int]]] = [
    # name, file, colour at the left, colour at the right
    ("CMYK jpeg", saved(corners().convert("CMYK"), "JPEG"), RED, GREEN),
    ("CMYK tiff", saved(corners().convert("CMYK"), "TIFF"), RED, GREEN),
    ("gray jpeg", saved(Image.linear_gradient("L").rotate(90), "JPEG"), (4, 4, 4), (251, 251, 251)),
    ("16-bit gray png", saved(gray16(), "PNG"), (0, 0, 0), WHITE),
    ("16-bit gray tiff", saved(gray16(), "TIFF"), (0, 0, 0), WHITE),
    ("32-bit gray tiff", saved(gray16().convert("I"), "TIFF"), (0, 0, 0), WHITE),
    ("float tiff 0..1", saved(Image.fromarray(np.asarray(gray16(), np.float32) / 65535), "TIFF"), (0, 0, 0), WHITE),
    ("1-bit png", saved(Image.linear_gradient("L").rotate(90).point(lambda v: 255 * (v > 99), "1"), "PNG"),
     (0, 0, 0), WHITE),
    ("palette png", saved(corners().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), RED, GREEN),
    ("palette gif", saved(corners().convert("P", palette=Image.Palette.ADAPTIVE), "GIF"), RED, GREEN),
    ("alpha png", saved(half_clear(), "PNG"), GREEN, WHITE),
    ("alpha webp", saved(half_clear(), "WEBP", lossless=True, exact=True), GREEN, WHITE),
    ("gray with alpha", saved(half_clear().convert("LA"), "PNG"), (149, 149, 149), WHITE),
    ("transparent palette png", saved(clear_palette(), "PNG", transparency=1), GREEN, WHITE),
    ("transparent gif", saved(clear_palette(), "GIF", transparency=1), GREEN, WHITE),
    ("transparent colour png", saved(corners(), "PNG", transparency=GREEN), RED, WHITE),
    ("animated gif", saved(animated()[0], "GIF", save_all=True, append_images=animated()[1:]), GREEN, GREEN),
    ("animated webp", saved(animated()[0], "WEBP", save_all=True, append_images=animated()[1:]), GREEN, GREEN),
    ("animated png", saved(animated()[0], "PNG", save_all=True, append_images=animated()[1:]), GREEN, GREEN),
    ("icon", saved(corners(), "ICO", sizes=[(32, 32)]), RED, GREEN),
    ("bitmap", saved(corners(), "BMP"), RED, GREEN),
    ("ppm", saved(corners(), "PPM"), RED, GREEN),
]  # fmt: skip


@pytest.mark.parametrize(("data", "left", "right"), [row[1:] for row in MODES], ids=[row[0] for row in MODES])
def test_every_kind_of_picture_looks_right(
    data: bytes, left: tuple[int, int, int], right: tuple[int, int, int]
) -> None:
    image = decode(data)
    assert image.mode == "RGB"
    row = image.height // 2 - 3
    assert_near(image, (1, row), left)
    assert_near(image, (image.width - 2, row), right)
    again = decode(encode_for_model(data))  # the way of models that decode by themselves
    assert_near(again, (1, row), left)


@pytest.mark.parametrize("brightest", [65535, 6553])
def test_sixteen_bits_are_scaled_neither_clipped_nor_stretched(brightest: int) -> None:
    ramp = np.linspace(0, brightest, 64, dtype=np.uint16)
    shown = np.asarray(decode(saved(Image.fromarray(np.tile(ramp, (8, 1))), "PNG")))[0, :, 0].astype(float)
    assert shown == pytest.approx(ramp / 65535 * 255, abs=1.0)


def test_a_plain_jpeg_reaches_a_decoding_model_untouched() -> None:
    data = picture(3)
    assert encode_for_model(data) is data
    assert encode_for_model(saved(corners().convert("L"), "JPEG")).startswith(b"\x89PNG")


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12", b"Exif\0\0"])
def test_a_picture_is_worth_more_than_its_broken_exif(exif: bytes) -> None:
    data = saved(corners(), "JPEG", exif=exif)
    assert_near(decode(data), (8, 6), RED)
    assert_near(decode(encode_for_model(data)), (8, 6), RED)


def test_a_model_that_reads_uploads_itself_gets_them_as_they_are() -> None:
    item = to_item(b"no picture at all", InputSpec(kind="raw", resize="none"))
    assert item[None].tolist() == [b"no picture at all"]


def stripes(width: int, height: int) -> Image.Image:
    """Fine stripes, one pixel wide, on a smooth ground: what only a full decode sees."""
    across, down = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    pixels = np.stack([across, down, 200 - across], axis=2)
    pixels[:, ::2] += 50
    return Image.fromarray(pixels.astype(np.uint8))


@functools.cache
def large(orientation: int) -> bytes:
    """2000 x 1336, once it is upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, method = stripes(2000, 1336), STORED[orientation]
    return saved(image if method is None else image.transpose(method), "JPEG", quality=95, exif=exif.tobytes())


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (InputSpec(64, 64), (250, 167)),  # of 2000 x 1336: an eighth, and still twice as large
        (InputSpec(300, 300), (1000, 668)),
        (InputSpec(400, 400), (2000, 1336)),
        (InputSpec(64, 64, resize="crop", resize_to=83), (250, 167)),
        (InputSpec(64, 64, resize="crop", resize_to=85), (500, 334)),
        (InputSpec(120, 80, resize="pad"), (250, 167)),
        (InputSpec(126, 126, resize="pad"), (500, 334)),
        (InputSpec(80, 30), (250, 167)),
        (InputSpec(800, 800), (2000, 1336)),
    ],
    ids=str,
)
def test_a_large_jpeg_is_decoded_at_a_reduced_size_where_the_card_lets_it(
    spec: InputSpec, size: tuple[int, int], orientation: int
) -> None:
    data = large(orientation)
    reduced = dataclasses.replace(spec, reduced=True)
    assert decode(data).size == (2000, 1336)
    assert decode(data, reduced_for=reduced).size == size
    full, less = to_item(data, spec).astype(int), to_item(data, reduced).astype(int)
    assert full.shape == less.shape
    assert abs(full - less).mean() < 3  # the same picture
    assert (full != less).any() == (size != (2000, 1336))  # though not the same numbers
    png = saved(stripes(200, 130), "PNG")
    assert decode(png, reduced_for=reduced).size == (200, 130)


def test_a_reduced_size_lets_nothing_pass_the_limits() -> None:
    data = saved(stripes(2000, 1336), "JPEG")
    with pytest.raises(TooLarge, match="2000 x 1336"):
        decode(data, ImageLimits(max_pixels=1_000_000), InputSpec(64, 64, reduced=True))
    broken = InputSpec(8, 8, reduced=True)
    with pytest.raises(BrokenImage):
        decode(data[: len(data) // 2], reduced_for=broken)
    assert decode(saved(corners(), "JPEG", exif=b"Exif\0\0nonsense"), reduced_for=broken).size == (24, 16)


def test_items_of_a_decoding_model_are_bytes() -> None:
    item: NDArray[Any] = to_item(picture(3), InputSpec(kind="encoded", resize="none"))
    assert item.shape == ()
    assert item[None].tolist() == [picture(3)]


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def icon(inside: bytes) -> bytes:
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


HUGE = [
    ("png", png(100_000, 100_000)),
    ("gif", b"GIF89a" + b"\xff" * 4 + plain("red", format="GIF")[10:]),
    ("bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<I2i2H6I", 40, 60_000, 60_000, 1, 24, *[0] * 6)),
    ("ppm", b"P6 60000 60000 255\n" + bytes(16)),
    ("a little over the limit", png(7072, 7072)),
    ("icon of a png", icon(png(8000, 8000, bytes(8000 * 24001)))),  # truly that large: a few KB when compressed
    ("icon of a bitmap", icon(struct.pack("<I2i2H6I", 40, 30_000, 60_000, 1, 24, *[0] * 6))),
]


@pytest.mark.parametrize("data", [row[1] for row in HUGE], ids=[row[0] for row in HUGE])
def test_a_small_file_that_declares_a_huge_picture_is_refused_from_its_header(data: bytes) -> None:
    assert len(data) < 400_000
    started = time.process_time()
    with pytest.raises(TooLarge, match=r"too many pixels .* at most 50000000") as caught:
        decode(data)
    assert caught.value.status == 413
    assert time.process_time() - started < 0.1


def test_the_limits_are_what_was_asked_for() -> None:
    data = plain("red", (40, 30))
    assert decode(data, ImageLimits(len(data), 1200)).size == (40, 30)
    with pytest.raises(TooLarge, match=f"has {len(data)} bytes; at most {len(data) - 1}"):
        decode(data, ImageLimits(max_bytes=len(data) - 1))
    with pytest.raises(TooLarge, match=r"40 x 30.*at most 1199"):
        decode(data, ImageLimits(max_pixels=1199))


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", "it is empty"), (b"hello world", "it begins with b'hello wo'"), (b"\0" * 100, "not an image"),
     (b"%PDF-1.7 ...", "not an image"), (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
     (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image")],
)  # fmt: skip
def test_what_is_no_image(data: bytes, text: str) -> None:
    with pytest.raises(NotAnImage, match=text) as caught:
        decode(data)
    assert caught.value.status == 415


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_half_an_image_is_a_broken_one(format: str) -> None:
    data = picture(1, format=format)
    for upload in (data[: len(data) // 2], data[:20]):
        with pytest.raises(BrokenImage, match="broken image: ") as caught:
            decode(upload)
        assert caught.value.status == 400


ORIGINALS = {f: picture(2, (24, 16), f) for f in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM")}
ORIGINALS["ICO"] = MODES[-3][1]


@given(st.sampled_from(sorted(ORIGINALS)), st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=4)), max_size=8))
def test_damage_never_comes_out_as_anything_but_our_errors(format: str, damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(ORIGINALS[format])
    for at, bytes_ in damage:
        data[at % len(data) : at % len(data) + len(bytes_)] = bytes_
    for use in (decode, encode_for_model):
        with contextlib.suppress(BrokenImage, NotAnImage, TooLarge):
            use(bytes(data), ImageLimits(max_pixels=1_000_000))


def test_plain_text_pictures_are_refused_unread() -> None:
    with pytest.raises(NotAnImage, match="plain-text"):
        decode(b"P3 2 1 255 255 0 0 0 0 255")
