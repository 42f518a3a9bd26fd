"""Decodes picture files to uint8. Pictures that 8-bit gray or RGB cannot represent are refused."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, _imaging

from gddim_cli.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
LARGEST = 1 << 25
"""The largest accepted number of pixels, about that of an 8K screen. Larger pictures are refused before decoding."""
PIECE = 1 << 14
"""The number of compressed bytes of pixel data that are unpacked at once. One byte may unpack to 1032 bytes."""
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""For each pass of an interlaced PNG: first column, first row, step between columns, step between rows."""
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""The errors that Pillow may raise for a damaged file."""
# Silences Pillow's warnings about damaged TIFF tags and about large pictures; `LARGEST` is below Pillow's limit.
for category in (Image.DecompressionBombWarning, UserWarning):
    warnings.filterwarnings("ignore", category=category, module=r"PIL\.")
# Pillow also writes about damaged files to its logger. Its TIFF library writes to standard error, bypassing Python.
logging.getLogger("PIL").addHandler(logging.NullHandler())
logging.getLogger("PIL").propagate = False
with contextlib.suppress(AttributeError, OSError):  # a Pillow that hides the library, or was built without it
    libtiff = ctypes.CDLL(_imaging.__file__)
    libtiff.TIFFSetErrorHandler(None)
    libtiff.TIFFSetWarningHandler(None)


def decode(content: bytes, name: object) -> NDArray[np.uint8]:
    """A picture file's content as uint8 [H, W, C]: one channel for gray (modes L and 1), else RGB. Palettes become RGB.

    Args:
        content: the file's bytes.
        name: the file's name, for messages.

    Raises:
        DataError: the picture is truncated, damaged, too large or of another format; or it has alpha, several frames,
            or more than 8 bits per channel.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse_unfit(image, name)
            if image.format == "PNG" and not png_is_whole(content):
                raise DataError(f"{name}: not a readable image: truncated or damaged; replace it or remove it")
            mode = "L" if image.mode in ("1", "L") else "RGB"
            raw = (image if image.mode == mode else image.convert(mode)).tobytes()
            return np.frombuffer(raw, np.uint8).reshape(image.height, image.width, -1)  # faster than np.asarray(image)
    except DAMAGE as error:
        reason = str(error).split("<")[0].strip()  # what follows is the repr of an object, with its address
        raise DataError(f"{name}: not a readable image: {reason}; replace it or remove it") from error


def _refuse_unfit(image: Image.Image, name: object) -> None:
    """Raises DataError for a picture that is too large, or that 8-bit gray or RGB cannot represent."""
    if image.width * image.height > LARGEST:
        raise DataError(
            f"{name}: {image.width}x{image.height} pixels, but at most {LARGEST} are accepted; shrink it or remove it"
        )
    mode, tiles = image.mode, getattr(image, "tile", [])
    # The mode of a 16-bit color picture is RGB too; only the decoder's arguments tell that it has 16 bits.
    deep = bool(tiles) and ";16" in str(tiles[0][3])
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        mode, way = f"{mode} with transparency", "put it on a background, or drop the alpha channel, and save it as RGB"
    elif deep or mode.startswith(("I", "F")):
        mode = f"{mode} of 16 bits" if mode == "RGB" else mode
        way = "scale it to 0..255 (divide 16-bit values by 257) and save it with 8 bits"
    elif mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr"):
        way = "save it as RGB"
    elif getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a camera's JPEG with a preview
        raise DataError(f"{name}: holds several frames; save each as a separate image")
    else:
        return
    raise DataError(f"{name}: its mode is {mode}, but 8-bit images without alpha are needed; {way}")


def png_is_whole(content: bytes) -> bool:
    """Whether all checksums are right and no row is missing. Pillow does not check this for pixel data."""
    at, packed = 8, bytearray()
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4])
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
            return False
        kind = content[at + 4 : at + 8]
        if kind == b"IEND":
            return _unpacks_to(packed, _size_of_rows(content))
        if kind == b"IDAT":
            packed += content[at + 8 : end]
        at = end + 4
    return False


def _size_of_rows(content: bytes) -> int:
    """The size in bytes that the unpacked rows of a PNG must have; -1 if the PNG is too large or has no header."""
    if content[12:16] != b"IHDR" or len(content) < 29:
        return -1
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    if width * height > LARGEST:
        return -1
    bits = depth * {2: 3, 4: 2, 6: 4}.get(color, 1)
    total = 0
    for x, y, right, down in PASSES if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // right), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)  # one more byte for the row's filter
    return total


def _unpacks_to(packed: bytearray, size: int) -> bool:
    """Whether the bytes unpack to at least `size` bytes; unpacks them piece by piece, so that a bomb takes no memory."""
    inflate, length = zlib.decompressobj(), 0
    try:
        for at in range(0, len(packed), PIECE):
            if length >= size:
                break
            length += len(inflate.decompress(packed[at : at + PIECE]))
    except zlib.error:
        return False
    return length >= size > 0


def refuse_mixed(shape: tuple[int, ...], name: object, first_shape: tuple[int, ...], first: object) -> None:
    """Raises DataError if a picture [H, W, C] differs in size or channels from the first picture."""
    if shape != first_shape:
        raise DataError(
            f"{name}: {describe(shape)}, but {first} is {describe(first_shape)}; "
            "all images must have one size and be all gray or all RGB; convert it or move it away"
        )


def describe(shape: tuple[int, ...]) -> str:
    """A shape (H, W, C) as text: `32x32 RGB`."""
    height, width, channels = shape
    return f"{width}x{height} {'gray' if channels == 1 else 'RGB'}"
