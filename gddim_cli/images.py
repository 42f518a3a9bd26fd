"""Images as uint8: quantisation, PNG, grids, animations, and reading a person's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gddim_cli.decoding import decode, find_images, refuse_mixed
from gddim_cli.errors import DataError, NumericsError, nearest
from gddim_cli.files import read_archive, read_member, replacing

Pixels = NDArray[np.uint8]
Quantize = Literal["floor", "round"]


def quantize(x: NDArray[np.floating], how: Quantize) -> Pixels:
    """Images in [-1, 1], [N, C, H, W], as uint8 [N, H, W, C].

    `floor`: `floor(clip(255 (x + 1) / 2, 0, 255))`, as both CLD programs write; `round`: `127.5 x + 128`, clipped and
    truncated, as NVlabs/edm does. Which one was used changes FID a little and belongs beside every number.

    Raises:
        NumericsError: a value is not finite.
    """
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2, 3)))
        raise NumericsError(
            f"{len(bad)} of {len(x)} images of a batch are not finite numbers; try more --nfe, a lower --order or --dtype float32"
        )
    scaled = 127.5 * (x + 1) if how == "floor" else 127.5 * x + 128
    return np.clip(scaled, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def as_picture(pixels: Pixels) -> Image.Image:
    """[H, W, C] with one or three channels as a Pillow image; of any other count the first is shown."""
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])


def write_png(path: Path, pixels: Pixels, make_folder: bool = True) -> None:
    """Writes [H, W, C] as a PNG, whole or not at all; `make_folder` as in `files.replacing`.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path, make_folder) as temporary:
        as_picture(pixels).save(temporary, format="PNG")


def grid(images: Pixels, columns: int | None = None, gap: int = 2) -> Pixels:
    """[N, H, W, C] as one picture, row by row, nearly square unless `columns` says otherwise."""
    n, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.zeros((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = (gap + (height + gap) * (i // columns), gap + (width + gap) * (i % columns))
        canvas[top : top + height, left : left + width] = image
    return canvas


def write_gif(path: Path, frames: Sequence[Pixels], milliseconds: int = 80, hold: int = 2000) -> None:
    """Writes pictures [H, W, C] as a looping GIF that holds its last frame, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    first, *rest = [as_picture(frame) for frame in frames]
    durations = [milliseconds] * len(rest) + [hold]
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)


def half_blocks(picture: Pixels, width: int) -> str:
    """A picture [H, W, C] as lines of 24-bit coloured half blocks, two pixels a character, at most `width` wide."""
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


def read_images(path: Path, key: str | None = None) -> Pixels:
    """A person's images as uint8 [N, C, H, W]: a folder (searched through) or an .npz.

    Args:
        path: a folder of images of one size, or an .npz with uint8 [N, H, W] or [N, H, W, C].
        key: the array in the .npz; by default the only one that is images, or `train_images`.

    Raises:
        DataError: nothing there, images of several sizes, or an array that is not uint8 images.
    """
    if path.is_dir():
        if key is not None:
            raise DataError(f"--key: {path} is a folder; only an .npz has arrays")
        return _read_folder(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a folder of images or an .npz")
    images = read_member(path, images_key(path, key))
    return np.ascontiguousarray(images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2))


def images_key(path: Path, key: str | None) -> str:
    """The array of an .npz that holds images: `key`, else `train_images`, else the only one that can.

    Raises:
        DataError: none, or several.
    """
    arrays = read_archive(path)
    if key is not None and key not in arrays:
        raise DataError(f"{path}: there is no array '{key}'; {nearest(key, arrays)}")
    found = [name for name in ([key] if key else arrays) if are_images(*arrays[name])]
    if "train_images" in found:
        return "train_images"
    if len(found) != 1:
        hint = "name the array with --key" if found else way_out([arrays[key]] if key else list(arrays.values()))
        shapes = ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in arrays.items()) or "no arrays"
        raise DataError(
            f"{path}: needs one array of uint8 images [N, H, W] or [N, H, W, C] (1 or 3 channels), found {shapes}; {hint}"
        )
    return found[0]


def are_images(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    """Whether an array is [N, H, W] or [N, H, W, C] of uint8; [H, W, 3] is one image, not H of them 3 wide."""
    if dtype != np.uint8 or len(shape) not in (3, 4) or min(shape) == 0:
        return False
    return (shape[3] in (1, 3)) if len(shape) == 4 else shape[2] not in (1, 3)


def way_out(arrays: Sequence[tuple[np.dtype[Any], tuple[int, ...]]]) -> str:
    """What to do with arrays, of these types and shapes, none of which `are_images`."""
    for dtype, shape in arrays:
        if len(shape) not in (3, 4) or min(shape) == 0:
            continue
        if dtype.kind == "f":
            return (
                "floats: [0, 1] or [-1, 1]? convert them to uint8 first: np.round(255 * x) or "
                "np.round(127.5 * (x + 1)), clipped to 0..255, .astype(np.uint8)"
            )
        if dtype != np.uint8:
            return f"{dtype}: bring them to 0..255 and convert them to uint8 first, .astype(np.uint8)"
        if len(shape) == 3:
            return "one image? give at least two, as [N, H, W, C]"
        if shape[1] in (1, 3):
            return "the channels come first: save x.transpose(0, 2, 3, 1) instead"
    return "save the images as one array, np.savez(path, images=x)"


def _read_folder(folder: Path) -> Pixels:
    names, _ = find_images(folder)
    arrays: list[Pixels] = []
    for name in names:
        arrays.append(decode(_content(folder / name), folder / name))
        refuse_mixed(arrays[-1].shape, folder / name, arrays[0].shape, names[0])
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
