"""Picture files as uint8: finding them, decoding them, and refusing what would lose something on the way."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gddim_cli.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
# What Pillow may raise for a file that is not whole.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def find_images(folder: Path) -> tuple[list[str], int]:
    """Paths below `folder` of the images there, in a fixed order, and how many other files there are.

    What is hidden (a name with a dot in front) is not an image, whatever its suffix. Links are followed.

    Raises:
        DataError: a folder cannot be read, or is reached twice; no images.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    names: list[str] = []
    others, seen = 0, set()
    for here, _, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = Path(here).resolve()
        if real in seen:
            raise DataError(f"{here}: a link to a folder that is searched already; remove the link")
        seen.add(real)
        below = Path(here).relative_to(folder).as_posix()
        found = [name if below == "." else f"{below}/{name}" for name in files]
        images = [name for name in found if is_image(name)]
        names += images
        others += len(found) - len(images)
    if not names:
        raise DataError(f"{folder}: {no_images(others)}")
    return sorted(names, key=in_order), others


def is_image(name: str) -> bool:
    """Whether a file of this name, with / or \\ between folders, should be an image."""
    parts = name.replace("\\", "/").split("/")
    hidden = any(part.startswith(".") and part.strip(".") for part in parts)
    return name.lower().endswith(SUFFIXES) and not hidden


def in_order(name: str) -> list[str]:
    """Sorts names folder by folder, as paths are sorted."""
    return name.split("/")


def no_images(others: int) -> str:
    files = "1 other file" if others == 1 else f"{others} other files"
    return f"no images there ({', '.join(SUFFIXES)}), {files}; give a folder or an archive of images"


def decode(content: bytes, name: object) -> NDArray[np.uint8]:
    """A picture file's content as [H, W, C]: grey (modes L and 1) has one channel; all else, palettes too, RGB.

    Args:
        content: the file's bytes.
        name: of the file, for messages.

    Raises:
        DataError: truncated, damaged or of another format; alpha, more than 8 bits a channel, several frames.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse_unfit(image, name)
            if image.format == "PNG" and not png_is_whole(content):
                raise DataError(f"{name}: not a readable image: truncated or damaged; replace it or remove it")
            mode = "L" if image.mode in ("1", "L") else "RGB"
            raw = (image if image.mode == mode else image.convert(mode)).tobytes()
            return np.frombuffer(raw, np.uint8).reshape(image.height, image.width, -1)  # quicker than np.asarray(image)
    except DAMAGE as error:
        reason = str(error).split("<")[0].strip()  # Pillow tells of an object in memory
        raise DataError(f"{name}: not a readable image: {reason}; replace it or remove it") from error


def _refuse_unfit(image: Image.Image, name: object) -> None:
    """Refuses what would lose something on the way to 8 bits of grey or RGB."""
    mode, tiles = image.mode, getattr(image, "tile", [])
    deep = bool(tiles) and ";16" in str(tiles[0][3])  # only here does Pillow say that its RGB was of 16 bits
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        mode, way = f"{mode} with transparency", "lay it on a background, or drop the alpha, and save it as RGB"
    elif deep or mode.startswith(("I", "F")):
        mode = f"{mode} of 16 bits" if mode == "RGB" else mode
        way = "bring it to 0..255 (16 bits: divide by 257) and save it as 8-bit"
    elif mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr"):
        way = "save it as RGB"
    elif getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's JPEG with its preview
        raise DataError(f"{name}: it holds several frames; save each as an image of its own")
    else:
        return
    raise DataError(f"{name}: its mode is {mode}; 8-bit images without alpha are needed: {way}")


def png_is_whole(content: bytes) -> bool:
    """Whether the checksums of all chunks up to the last are right; Pillow does not look at the pixels'."""
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4])
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
            return False
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False


def refuse_mixed(shape: tuple[int, ...], name: object, first_shape: tuple[int, ...], first: object) -> None:
    """Raises a DataError where a picture [H, W, C] is not like the first one."""
    if shape != first_shape:
        raise DataError(
            f"{name}: {describe(shape)}, but {first} is {describe(first_shape)}; "
            "images of one size and kind are needed: convert it or move it away"
        )


def describe(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"
