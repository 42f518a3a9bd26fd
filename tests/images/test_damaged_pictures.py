"""Picture files whose damage Pillow does not notice, or reports past Python."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import png, random_images, saved, write
from PIL import Image

from gddim_cli.errors import DataError
from gddim_cli.images.decode import decode, png_is_whole
from gddim_cli.runs.images import open_images


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_rows(content: bytes, rows: bytes) -> bytes:
    """A PNG with other pixel data; all checksums are right."""
    return content[:33] + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def rows_of(content: bytes) -> bytes:
    at = content.index(b"IDAT")
    return zlib.decompress(content[at + 4 : at + 4 + int.from_bytes(content[at - 4 : at])])


def interlaced(image: np.ndarray) -> bytes:
    """A gray picture as an interlaced PNG, which Pillow cannot write."""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [image[y::down, x::right] for x, y, right, down in steps]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 0, 0, 0, 1)
    return with_rows(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header), zlib.compress(rows))


PNGS = {
    "rgb": png(random_images(28, 30, 3)),
    "gray": png(random_images(28, 30, 1)),
    "one bit": saved("1", size=(13, 9)),
    "interlaced": interlaced(random_images(11, 13)),
    "interlaced, narrow": interlaced(random_images(9, 1)),
}


@pytest.mark.parametrize("name", PNGS)
def test_a_png_without_all_rows_is_refused(name: str) -> None:
    content = PNGS[name]
    assert png_is_whole(content)
    assert decode(content, "x.png").size
    for short in (rows_of(content)[:-1], rows_of(content)[:10], b""):
        damaged = with_rows(content, zlib.compress(short))
        assert not png_is_whole(damaged)
        with pytest.raises(DataError, match=r"^x\.png: not a readable image: [^\n]*; replace it or remove it$"):
            decode(damaged, "x.png")
    assert not png_is_whole(with_rows(content, b"no zlib"))


def test_pixel_data_in_many_chunks_are_read() -> None:
    content = png(random_images(100, 100, 3))
    rows = zlib.compress(rows_of(content))
    parts = b"".join(chunk(b"IDAT", rows[at : at + 1000]) for at in range(0, len(rows), 1000))
    assert png_is_whole(content[:33] + parts + chunk(b"IEND", b""))


def test_no_library_writes_past_us(capfd: pytest.CaptureFixture[str]) -> None:
    image, content = Image.fromarray(random_images(40, 40, 3)), io.BytesIO()
    image.save(content, format="TIFF", compression="tiff_deflate")
    damaged = bytearray(content.getvalue())
    damaged[200:260] = bytes(60)
    with pytest.raises(DataError, match=r"x\.tif: not a readable image"):
        decode(bytes(damaged), "x.tif")
    logging.getLogger("PIL.TiffImagePlugin").error("damaged")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_source_with_a_short_png_is_refused(tmp_path: Path, kind: str) -> None:
    files = {f"{i}.png": png(image) for i, image in enumerate(random_images(4, 28, 28, 1))}
    files["2.png"] = with_rows(files["2.png"], zlib.compress(rows_of(files["2.png"])[: 10 * 29]))
    path = write(tmp_path / ("a" if kind == "folder" else f"a.{kind}"), files)
    with pytest.raises(DataError, match=r"2\.png: not a readable image"):
        list(open_images(path).batches(64))
