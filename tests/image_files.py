"""Images as files, folders, archives and arrays, for tests of what reads them."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from gddim_cli.images.sources import ImageSource


def png(image: np.ndarray, **how: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(content, format="PNG", **how)
    return content.getvalue()


def encoded(images: np.ndarray) -> dict[str, bytes]:
    """Names in their order, and contents; some deep."""
    return {
        f"{'b/c/' if 2 * i > len(images) else 'a/'}{i:06d}.{'PNG' if i else 'png'}": png(image)
        for i, image in enumerate(images)
    }


def write(target: Path, files: dict[str, bytes]) -> Path:
    """Files as a folder, a .zip or a .tar, whatever the target's suffix says; in reverse, so that the order is ours."""
    for name, content in reversed(files.items()):
        if target.suffix == ".zip":
            with zipfile.ZipFile(target, "a") as archive:
                archive.writestr(name, content)
        elif target.suffix == ".tar":
            with tarfile.open(target, "a") as archive:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
    return target


def laid_out(images: np.ndarray, where: Path, kind: str) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    path = where / f"x.{kind}"
    if kind == "npz":
        np.savez(path, x=images, labels=np.arange(len(images)))
    elif kind == "packed":
        path = where / "packed.npz"
        np.savez_compressed(path, images)
    elif kind == "npy":
        np.save(path, images[..., 0] if images.shape[-1] == 1 else images)
    else:
        write(path, encoded(images))
    return path


def all_of(source: ImageSource, size: int = 4, **which: int) -> np.ndarray:
    return np.concatenate([np.zeros((0, *source.shape), np.uint8), *source.batches(size, **which)])


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def deep_rgb() -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads as RGB and cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(24)) * 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def saved(mode: str, kind: str = "PNG", size: tuple[int, int] = (4, 4), **how: object) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, format=kind, **how)
    return content.getvalue()
