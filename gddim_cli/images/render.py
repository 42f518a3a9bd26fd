"""Images as PNG files, as grids, and as colored characters on a terminal."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gddim_cli.images.quantize import Pixels
from gddim_cli.runtime.files import replacing

ABOUT = "gddim"
"""Keyword of the text chunk by which this program recognizes its own grids and sheets later."""
LONGEST_TEXT = 1 << 24
"""The maximum number of bytes that are read to find that chunk's text."""


def as_picture(pixels: Pixels) -> Image.Image:
    """[H, W, C] as a Pillow image: RGB if there are three channels, else the first channel in gray."""
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])


def write_png(path: Path, pixels: Pixels, make_folder: bool = True, about: str | None = None) -> None:
    """Writes [H, W, C] as a PNG, atomically.

    Args:
        make_folder: has the same meaning as in `files.replacing`.
        about: a text for the chunk `ABOUT`; None for no chunk.

    Raises:
        OutputError: the file cannot be written.
    """
    info = PngInfo()
    if about is not None:
        info.add_itxt(ABOUT, about)
    with replacing(path, make_folder) as temporary:
        as_picture(pixels).save(temporary, format="PNG", pnginfo=info)


def text_of(path: Path) -> str | None:
    """The text of the chunk `ABOUT` at the beginning of a PNG; None if the file does not have the chunk.

    The rest of the file may be damaged.
    """
    if not path.is_file():
        return None
    with suppress(OSError), path.open("rb") as file:
        return text_in(file.read(LONGEST_TEXT))
    return None


def text_in(content: bytes) -> str | None:
    """The same for the content of a PNG."""
    mark = f"iTXt{ABOUT}".encode() + bytes(5)  # no compression, no language and no translated keyword
    position = content.find(mark, 4, 1000)
    if position < 0:
        return None
    end = position + 4 + int.from_bytes(content[position - 4 : position], "big")
    return content[position + len(mark) : end].decode(errors="replace")


def grid(images: Pixels, columns: int | None = None, gap: int = 2) -> Pixels:
    """Images [N, H, W, C] arranged row by row in one picture. The grid is nearly square unless `columns` is given."""
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.zeros((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = (gap + (height + gap) * (i // columns), gap + (width + gap) * (i % columns))
        canvas[top : top + height, left : left + width] = image
    return canvas


def half_blocks(picture: Pixels, width: int) -> str:
    """A picture [H, W, C] as text of half blocks in 24-bit color.

    A character shows two pixels, one above the other. A wider picture is shrunk to `width` characters.
    """
    image = as_picture(picture).convert("RGB")
    if image.width > width:
        image = image.resize((width, max(2, image.height * width // image.width)), Image.Resampling.BOX)
    rgb = np.asarray(image)
    lines = []
    for top, bottom in zip(rgb[0::2], rgb[1::2], strict=False):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀" for a, b in zip(top, bottom, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
