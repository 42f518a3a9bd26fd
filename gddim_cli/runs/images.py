"""Opens the images in the folder of a run, or in any other folder or file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gddim_cli.errors import DataError
from gddim_cli.images.archives import Tar, TarShards, Zip
from gddim_cli.images.arrays import ArchiveSource, ArraySource, images_key
from gddim_cli.images.decode import SUFFIXES
from gddim_cli.images.folders import Folder
from gddim_cli.images.pictures import PictureSource
from gddim_cli.images.sources import ImageSource
from gddim_cli.runs.record import RUN
from gddim_cli.runs.run_files import RunFiles, run_files

KINDS = "give a folder, .zip or .tar of images, or an .npz or .npy of uint8 images"


def of_run(name: str, run: RunFiles) -> ImageSource:
    """The images of a run.

    Raises:
        DataError: a file is damaged.
    """
    if run.format == "npz":
        source: ImageSource = ArchiveSource.of(name, [run.folder / file for file in run.names], "images")
    elif run.format == "tar":
        source = PictureSource.of(name, TarShards.of(run.folder, run.names))
    else:
        source = PictureSource.of(name, Folder(run.folder, run.names, run.ignored))
    if source.count < run.count:
        raise DataError(f"{name}: its files hold {source.count} images, not {run.count}; run gddim sample --overwrite")
    return replace(source, quantize=run.quantize, ignored=run.ignored, count=run.count, is_run=True)


def open_images(path: Path, key: str | None = None, num: int | None = None) -> ImageSource:
    """A user's images, to be read batch by batch.

    Args:
        path: a folder, a .zip or .tar of images, or an .npz or .npy of uint8 [N, H, W] or [N, H, W, C]. A folder is
            searched recursively, but in a folder of `gddim sample`, only the run's own images are read.
        key: the name of the array in the .npz; None for the array that `images_key` chooses.
        num: read only this many images: the first images of a run, or a fixed random subset of any other images.

    Raises:
        DataError: there are no images, or fewer than `num`; an array does not hold uint8 images; without
            `num`, a run is incomplete; with `num`, a run lacks one of its first `num` images. Images of different sizes
            or kinds raise DataError later, when they are read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; {KINDS}")
    if not (path.is_dir() or path.is_file()):
        raise DataError(f"{path}: not a plain file; {KINDS}")
    suffix = "" if path.is_dir() else path.suffix.lower()
    if key is not None and suffix != ".npz":
        raise DataError(f"--key: {path} is not an .npz; only an .npz has named arrays")
    name = str(path)
    if path.is_dir():
        source = (
            of_run(name, run_files(path, num)) if (path / RUN).exists() else PictureSource.of(name, Folder.of(path))
        )
    elif suffix == ".zip":
        source = PictureSource.of(name, Zip.of(path))
    elif suffix == ".tar":
        source = PictureSource.of(name, Tar.of(path))
    elif suffix == ".npz":
        source = ArchiveSource.of(name, [path], images_key(path, key))
    elif suffix == ".npy":
        source = ArraySource.of(name, path)
    else:
        what = "a single image" if suffix in SUFFIXES else "not a supported kind of file"
        raise DataError(f"{path}: {what}; {KINDS}")
    if num is not None and num > source.count:
        raise DataError(f"--num {num}: {path} holds {source.count} images; lower --num or give more images")
    return source if num is None else source.at_most(num)
