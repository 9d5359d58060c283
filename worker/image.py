"""Upload bytes -> one item of a model's input batch.

Training and serving both come through here, so a model sees in service exactly what it saw when it learnt. Headers are
read first: size and kind are judged before a pixel is decoded. Colour profiles are ignored, as every trained model's
input pipeline known to us ignores them.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from .errors import BrokenImage, NotAnImage, TooLarge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .card import InputSpec

# Decoders that are self-contained and fuzzed; EPS would start Ghostscript, PSD/FLI/... nobody uploads to a classifier.
FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "DIB",
    "WEBP",
    "TIFF",
    "ICO",
    "PPM",
    *(("AVIF",) if features.check("avif") else ()),
)

# First bytes that promise an image: when decoding fails, they decide between "broken image" and "not an image".
SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"P5", b"P6",
)  # fmt: skip

SPARE = 2  # a picture that is decoded at a reduced size stays at least this many times as large as the target

KERNELS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class ImageLimits:
    """What an upload may cost. Pillow holds 4 bytes a pixel, so 50 megapixels are 200 MB while one is decoded."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 50_000_000


def looks_like_an_image(data: bytes) -> bool:
    """True if `data` begins as an image file does (WebP and AVIF carry their brand at offset 8 and 4)."""
    return data.startswith(SIGNATURES) or data[8:12] == b"WEBP" or data[4:12] in (b"ftypavif", b"ftypavis")


def decode(data: bytes, limits: ImageLimits = ImageLimits(), reduced_for: InputSpec | None = None) -> Image.Image:
    """The first frame of `data`, upright, as an RGB picture (alpha laid on white, 16 bits scaled to 8).

    `reduced_for`: a large JPEG need not come out at its full size, but well above what this input makes of it.
    Raises NotAnImage (415), BrokenImage (400) or TooLarge (413), each saying what was found.
    """
    if len(data) > limits.max_bytes:
        raise TooLarge(f"the image has {len(data)} bytes; at most {limits.max_bytes} are accepted")
    if data[:2] in (b"P1", b"P2", b"P3"):
        raise NotAnImage("a plain-text PNM: its pixels are words, and reading millions of them would take minutes")
    try:
        _judge_icon(data, limits)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > limits.max_pixels:
            raise _too_many_pixels(f"{width} x {height}", limits)
        if reduced_for is not None:
            _reduce(image, reduced_for)
        image.load()
        return _rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("far too many to decode", limits) from error
    except UnidentifiedImageError as error:
        if looks_like_an_image(data):
            raise BrokenImage(f"broken image: {_kind(data)} signature, but its header cannot be read") from error
        shown = f"it begins with {data[:8]!r}" if data else "it is empty"
        raise NotAnImage(f"not an image: {shown}; accepted are {', '.join(FORMATS)}") from error
    except TooLarge:
        raise
    except Exception as error:  # Pillow's plug-ins let nearly anything out for damaged files
        raise BrokenImage(f"broken image: {error or type(error).__name__}") from error


def to_item(data: bytes, spec: InputSpec, limits: ImageLimits = ImageLimits()) -> NDArray[Any]:
    """An upload -> one item of the model's batch: an array of pixels, or a 0-d array of bytes, encoded or raw."""
    if spec.kind == "raw":
        return np.array(data, dtype=object)
    if spec.kind == "encoded":
        return np.array(encode_for_model(data, limits), dtype=object)
    return to_array(decode(data, limits, spec if spec.reduced else None), spec)


def to_array(image: Image.Image, spec: InputSpec) -> NDArray[Any]:
    """`image` (RGB) -> array of shape (height, width, 3 or 1), channels first if the layout says so, or (n,) if
    `spec.flatten`; dtype `spec.dtype`.
    """
    pixels = resize(image, spec)
    if spec.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    if spec.mean != (0.0,) or spec.std != (1.0,):
        pixels = (pixels.astype(np.float32) - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    if spec.dtype == "uint8" and pixels.dtype != np.uint8:
        pixels = np.clip(np.rint(pixels), 0, 255)
    if spec.layout == "chw":
        pixels = pixels.transpose(2, 0, 1)
    if spec.flatten:
        pixels = pixels.reshape(-1)
    return np.ascontiguousarray(pixels, dtype=spec.dtype)


def encode_for_model(data: bytes, limits: ImageLimits = ImageLimits()) -> bytes:
    """For models that decode by themselves: `data` if it is a plain upright RGB JPEG, else the picture as PNG."""
    image = decode(data, limits)
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        if header.format == "JPEG" and header.mode == "RGB" and header.getexif().get(0x0112, 1) == 1:
            return data
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def resize(image: Image.Image, spec: InputSpec) -> NDArray[Any]:
    """`image` (RGB) -> (height, width, 3 or 1): uint8 for Pillow's kernels, float32 0..255 for `tf-bilinear`."""
    if spec.channels == "L":
        image = image.convert("L")
    if spec.resize == "none":
        return _array(image)
    target = (spec.width, spec.height)
    left, top, right, bottom = 0.0, 0.0, float(image.width), float(image.height)
    if spec.resize == "crop":
        # One resampling of the wanted window: the same pixels as scaling the whole and cutting, at less cost.
        scale = _crop_scale(image.size, spec)
        wide, high = min(target[0] / scale, right), min(target[1] / scale, bottom)
        left, top = (right - wide) / 2, (bottom - high) / 2
        right, bottom = left + wide, top + high
    if spec.resize == "pad":
        return _padded(image, spec)
    if spec.filter == "tf-bilinear":
        return _tf_bilinear(_array(image), (left, top, right, bottom), target)
    return _array(image.resize(target, KERNELS[spec.filter], box=(left, top, right, bottom)))


def _crop_scale(size: tuple[int, int], spec: InputSpec) -> float:
    """The target is always filled: a window wider or higher than the picture would bend it."""
    return max(spec.resize_to / min(size), spec.width / size[0], spec.height / size[1])


def _reduce(image: Image.Image, spec: InputSpec) -> None:
    """Before it is decoded. Only JPEG can do it; the last halving or more is left to the resampling, which is better."""
    width, height = spec.width, spec.height
    try:
        lies = image.getexif().get(0x0112, 1) >= 5  # on its side
    except Exception:  # as of a picture that is not reduced
        lies = False
    size = image.size[::-1] if lies else image.size
    if spec.resize == "crop":
        scale = _crop_scale(size, spec)
        width, height = round(size[0] * scale), round(size[1] * scale)
    elif spec.resize == "pad":
        scale = min(width / size[0], height / size[1])
        width, height = round(size[0] * scale), round(size[1] * scale)
    wanted = (SPARE * max(1, width), SPARE * max(1, height))
    image.draft("", wanted[::-1] if lies else wanted)


def _padded(image: Image.Image, spec: InputSpec) -> NDArray[Any]:
    scale = min(spec.width / image.width, spec.height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    left, top = (spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2
    pixels: NDArray[Any]
    if spec.filter == "tf-bilinear":
        pixels = _tf_bilinear(_array(image), (0.0, 0.0, float(image.width), float(image.height)), inner)
    else:
        pixels = _array(image.resize(inner, KERNELS[spec.filter]))
    out = np.zeros((spec.height, spec.width, pixels.shape[2]), pixels.dtype)
    out[top : top + inner[1], left : left + inner[0]] = pixels
    return out


def _tf_bilinear(
    pixels: NDArray[np.uint8], box: tuple[float, float, float, float], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Bilinear without antialiasing, half-pixel centres: tf.image.resize's default, to float32 rounding."""
    left, top, right, bottom = box
    columns, column_weight = _taps(size[0], left, right, pixels.shape[1])
    rows, row_weight = _taps(size[1], top, bottom, pixels.shape[0])
    wx, wy = column_weight[None, :, None], row_weight[:, None, None]
    upper, lower = pixels[rows[0]], pixels[rows[1]]
    above = upper[:, columns[0]] * (1 - wx) + upper[:, columns[1]] * wx
    below = lower[:, columns[0]] * (1 - wx) + lower[:, columns[1]] * wx
    blended: NDArray[np.float32] = (above * (1 - wy) + below * wy).astype(np.float32)
    return blended


def _taps(count: int, start: float, end: float, limit: int) -> tuple[tuple[Any, Any], NDArray[np.float32]]:
    centre = start + (np.arange(count, dtype=np.float32) + np.float32(0.5)) * np.float32((end - start) / count) - 0.5
    floor = np.floor(centre)
    low = np.clip(floor, 0, limit - 1).astype(np.intp)
    high = np.clip(floor + 1, 0, limit - 1).astype(np.intp)
    return (low, high), (centre - floor).astype(np.float32)


def _array(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _judge_icon(data: bytes, limits: ImageLimits) -> None:
    """Pillow decodes an icon as soon as it opens it, and believes the pictures inside, not the icon's own header."""
    if not data.startswith(b"\0\0\1\0"):
        return
    entries = int.from_bytes(data[4:6], "little")
    for entry in range(6, min(6 + 16 * entries, len(data) - 15), 16):
        at = int.from_bytes(data[entry + 12 : entry + 16], "little")
        header = data[at : at + 24].ljust(24, b"\0")
        if header.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">2I", header, 16)
        else:  # a bitmap without its file header, the mask below the picture
            width, height = struct.unpack_from("<2H" if header[0] == 12 else "<2i", header, 4)
            height //= 2
        if abs(width * height) > limits.max_pixels:
            raise _too_many_pixels(f"{abs(width)} x {abs(height)} inside an icon", limits)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a picture is worth more than its broken EXIF block
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # What is hidden under transparent pixels is arbitrary; people look at such pictures on white.
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit gray -> 8-bit gray, by the range the numbers use: Pillow would clip them all to white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = float(values.max(initial=0.0))
    full = 65535.0
    if image.mode == "F" and top <= 1.0:
        full = 1.0
    elif image.mode in ("F", "I") and top <= 255.0:
        full = 255.0
    return Image.fromarray(np.clip(values / max(full, top) * 255.0, 0, 255).astype(np.uint8))


def _kind(data: bytes) -> str:
    for start, name in ((b"\x89PNG", "PNG"), (b"GIF", "GIF"), (b"\xff\xd8", "JPEG"), (b"BM", "BMP")):
        if data.startswith(start):
            return name
    return "TIFF" if data[:2] in (b"II", b"MM") else "image"


def _too_many_pixels(found: str, limits: ImageLimits) -> TooLarge:
    return TooLarge(f"the image declares too many pixels ({found}); at most {limits.max_pixels} are accepted")
