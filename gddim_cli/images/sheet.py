"""Sheets of pictures: a table whose entries are a few images each, with captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import ABOUT, as_picture, grid

SHOWN = 8
"""Number of images per entry of a sheet."""
SMALLEST, LARGEST = 56, 112
"""Limits on an image's larger side, in pixels. Smaller images are enlarged by a whole factor, larger ones shrunk."""
GAP, APART, MARGIN, LABEL, LINE = 2, 16, 16, 168, 20
"""In pixels: the gaps between images and between entries, the margin, the width of row names, the height of a line."""
INK, PALE, PAPER = (24, 24, 27), (110, 110, 118), (255, 255, 255)


@dataclass(frozen=True)
class Entry:
    """Images [N, H, W, C] with a caption below them. If `images` is None, their place stays empty."""

    images: Pixels | None
    caption: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table of images.

    Attributes:
        columns: the headings of the columns.
        rows: maps the name of each row to its entries, one for each column.
        caption: a line below the table.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[Entry]]
    caption: str = ""

    def draw(self) -> Image.Image:
        """The sheet as a picture, with the names of the rows on the left and the headings of the columns at the top."""
        blocks = {
            name: [None if entry.images is None else block(entry.images) for entry in row]
            for name, row in self.rows.items()
        }
        made = [picture for row in blocks.values() for picture in row if picture]
        width = max([4 * SMALLEST, *(picture.width for picture in made)])
        names = {name: wrapped(name, LABEL - APART) for name in self.rows}
        height = {
            name: max(
                [len(names[name]) * LINE, *(picture.height + LINE for picture in row if picture)], default=2 * LINE
            )
            for name, row in blocks.items()
        }
        across = 2 * MARGIN + LABEL + len(self.columns) * (width + APART) - APART
        caption = wrapped(self.caption, across - 2 * MARGIN)
        down = 2 * MARGIN + LINE + sum(height.values()) + APART * len(height) + LINE * len(caption)
        sheet = Image.new("RGB", (across, down), PAPER)
        draw = ImageDraw.Draw(sheet)
        left = [MARGIN + LABEL + number * (width + APART) for number in range(len(self.columns))]
        for x, text in zip(left, self.columns, strict=True):
            draw.text((x, MARGIN), text, INK, font())
        top = MARGIN + LINE
        for name, row in blocks.items():
            for number, line in enumerate(names[name]):
                draw.text((MARGIN, top + number * LINE), line, INK, font())
            for x, picture, entry in zip(left, row, self.rows[name], strict=True):
                if picture:
                    sheet.paste(picture, (x, top))
                draw.text((x, top + (picture.height if picture else 0)), entry.caption, PALE, font())
            top += height[name] + APART
        for number, line in enumerate(caption):
            draw.text((MARGIN, top + number * LINE), line, PALE, font())
        return sheet

    def png(self, about: str = "") -> bytes:
        """The sheet as a PNG file. `about` says how the sheet was made; it is stored in the text chunk `ABOUT`."""
        file, info = BytesIO(), PngInfo()
        info.add_itxt(ABOUT, about)
        self.draw().save(file, "PNG", optimize=True, pnginfo=info)
        return file.getvalue()


def block(images: Pixels) -> Image.Image:
    """The images of an entry as one picture, four a row. Of images larger than `LARGEST`, four are shown, two a row."""
    side = max(images.shape[1:3])
    if side > LARGEST:
        size = (images.shape[2] * LARGEST // side, images.shape[1] * LARGEST // side)
        resized = [as_picture(image).resize(size, Image.Resampling.LANCZOS) for image in images[:4]]
        images = np.stack([np.asarray(image).reshape(*size[::-1], -1) for image in resized])
    images = enlarged(images)
    picture = as_picture(grid(images, min(len(images), 4 if side <= LARGEST else 2), GAP)).convert("RGB")
    return picture.crop((GAP, GAP, picture.width - GAP, picture.height - GAP))


def enlarged(images: Pixels) -> Pixels:
    """Images [N, H, W, C] with each pixel repeated until the larger side has at least `SMALLEST` pixels."""
    times = -(-SMALLEST // max(images.shape[1:3]))
    return images.repeat(times, axis=1).repeat(times, axis=2)


@cache
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib and has Greek letters; Pillow's own font if Pillow cannot read it."""
    try:
        return ImageFont.truetype(str(files("matplotlib") / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), 14)
    except (OSError, ImportError):
        return ImageFont.load_default()


def wrapped(text: str, width: int) -> list[str]:
    """The text broken between words into lines of at most `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and font().getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
