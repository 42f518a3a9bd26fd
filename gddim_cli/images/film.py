"""Trajectories as files: an animation (GIF, WebP, MP4), or a filmstrip (PNG) with the steps from left to right."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import features

from gddim_cli.errors import OutputError, UsageError
from gddim_cli.images.quantize import Pixels
from gddim_cli.images.render import as_picture, grid, write_png
from gddim_cli.images.sheet import enlarged
from gddim_cli.runtime.files import replacing

ENDINGS = (".gif", ".webp", ".mp4", ".png")
MILLISECONDS, HOLD = 80, 2000
"""How long a step is shown, and how long the last step is shown, in milliseconds."""
IN_STRIP, STEPS = 6, 10
"""The maximum numbers of images and of steps in a filmstrip."""


def check_film(option: str, path: Path) -> None:
    """Raises UsageError if the file's name does not end in a known format, or the encoder of that format is missing."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"{option}: {path} does not end in {', '.join(ENDINGS)}")
    if ending == ".mp4" and shutil.which("ffmpeg") is None:
        raise UsageError(f"{option}: {path} needs the program ffmpeg, which is not installed; use .webp or .gif")
    if ending == ".webp" and not features.check("webp"):
        raise UsageError(f"{option}: {path} needs WebP support, which the installed Pillow lacks; use .gif")


def write_film(path: Path, steps: Sequence[Pixels], arranged: Callable[[Pixels], Pixels]) -> None:
    """Writes a trajectory atomically, in the format that the file's suffix names.

    Args:
        steps: the images [N, H, W, C] after each step, the noise first.
        arranged: puts the images of one step into a picture [H, W, C], for animations.

    Raises:
        OutputError: the file cannot be written.
    """
    if path.suffix.lower() == ".png":
        write_png(path, strip(steps))
        return
    frames = [arranged(images) for images in steps]
    if path.suffix.lower() == ".mp4":
        write_mp4(path, frames)
        return
    first, *rest = [as_picture(frame) for frame in frames]
    durations = [MILLISECONDS] * len(rest) + [HOLD]
    kind: dict[str, object] = {"format": "GIF"}
    if path.suffix.lower() == ".webp":
        kind = {"format": "WEBP", "lossless": True}
        first, rest = first.convert("RGB"), [frame.convert("RGB") for frame in rest]
    with replacing(path) as temporary:
        first.save(temporary, **kind, save_all=True, append_images=rest, duration=durations, loop=0)  # type: ignore[arg-type]


def strip(steps: Sequence[Pixels]) -> Pixels:
    """A filmstrip: one row per image, from the noise on the left to the finished image on the right.

    It shows the first `IN_STRIP` images. If there are more than `STEPS` steps, it shows `STEPS` of them, evenly spaced.
    """
    chosen = np.linspace(0, len(steps) - 1, min(len(steps), STEPS)).round().astype(int)
    columns = [enlarged(steps[number][:IN_STRIP]) for number in chosen]
    rows = np.stack(columns, axis=1)  # [images, steps, H, W, C]
    return grid(rows.reshape(-1, *rows.shape[2:]), columns=len(chosen))


def write_mp4(path: Path, frames: Sequence[Pixels]) -> None:
    """Writes pictures as an MP4 video through ffmpeg. The last picture is shown longer.

    Raises:
        OutputError: ffmpeg fails, or the file cannot be written.
    """
    height, width = frames[0].shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))  # yuv420p needs even sides
    pictures = [np.pad(np.broadcast_to(frame, (height, width, 3)), even) for frame in frames]
    pictures += [pictures[-1]] * (HOLD // MILLISECONDS)
    size = f"{width + width % 2}x{height + height % 2}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{1000 / MILLISECONDS}", "-i", "-"]
    target = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-pix_fmt", "yuv420p", "-f", "mp4", "-y"]
    with replacing(path) as temporary:
        command = ["ffmpeg", "-loglevel", "error", *source, *target, str(temporary)]
        done = subprocess.run(command, input=b"".join(map(bytes, pictures)), capture_output=True, check=False)  # noqa: S603
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise OutputError(f"{path}: ffmpeg failed: {reason[-1][:200]}; use .webp or .gif")
