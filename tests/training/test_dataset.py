"""Training images and class labels, from every kind of source."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import pictures

import gddim_cli.training.dataset
from gddim_cli.errors import DataError
from gddim_cli.training.dataset import Dataset, read_dataset


def write(folder: Path, images: np.ndarray, names: list[str]) -> Path:
    """The images [N, H, W, C] as PNGs of these names."""
    for image, name in zip(images, names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(path)
    return folder


def test_images_of_every_source_are_the_same(tmp_path: Path) -> None:
    pixels = pictures(3, 8)
    folder = write(tmp_path / "photos", pixels, ["0.png", "deep/1.png", "deep/2.png"])
    np.savez(tmp_path / "a.npz", x=pixels, labels=np.arange(3))
    np.save(tmp_path / "a.npy", pixels)
    shutil.make_archive(str(tmp_path / "a"), "zip", folder)
    shutil.make_archive(str(tmp_path / "a"), "tar", folder)
    for source in ("photos", "a.npz", "a.npy", "a.zip", "a.tar"):
        found = read_dataset(tmp_path / source)
        assert found.image_shape == (3, 8, 8)
        np.testing.assert_array_equal(found.images, pixels.transpose(0, 3, 1, 2), source)


def test_images_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    def refuse(message: str, path: Path, key: str | None = None) -> None:
        with pytest.raises(DataError, match=message):
            read_dataset(path, key)

    refuse("none: no such file or folder", tmp_path / "none")
    refuse("holds no images", tmp_path)
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 4, 4), np.uint8), b=np.zeros((2, 4, 4), np.uint8))
    refuse("no array 'aa'; did you mean 'a'", tmp_path / "two.npz", "aa")
    assert read_dataset(tmp_path / "two.npz", "b").images.shape == (2, 1, 4, 4)
    np.save(tmp_path / "wide.npy", np.zeros((2, 8, 12), np.uint8))
    refuse("the images are 12x8; square images are needed: crop or pad them", tmp_path / "wide.npy")
    np.save(tmp_path / "large.npy", np.zeros((1, 1025, 1025), np.uint8))
    refuse("the images are 1025x1025; at most 1024x1024 is supported", tmp_path / "large.npy")


def test_images_that_do_not_fit_in_memory_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.zeros((100, 8, 8), np.uint8))
    monkeypatch.setattr(gddim_cli.training.dataset, "physical_memory", lambda: 6000)
    with pytest.raises(DataError, match=r"100 images of 8x8x1 take 6.4e-06 GB, more than the 6e-06 GB of memory"):
        read_dataset(tmp_path / "x.npy")


@pytest.mark.parametrize("kind", ["png", "npz", "tar"])
def test_a_run_of_gddim_sample_is_read_without_its_grid(gddim, tiny: Path, tmp_path: Path, kind: str) -> None:
    run, raw = tmp_path / "run", tmp_path / "states.npy"
    words = ("--checkpoint", tiny, "--nfe", 4, "--num", 5, "--format", kind, "--out", run, "--save-raw", raw)
    assert gddim("sample", *words).status == 0
    assert (run / "grid.png").exists()
    found = read_dataset(run)
    expected = np.clip(127.5 * (np.load(raw)[:, 0] + 1), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(found.images, expected)
    with pytest.raises(DataError, match=r"--conditional: .* is a run of gddim sample, which has no class labels"):
        read_dataset(run, conditional=True)


def test_classes_are_sub_folders(tmp_path: Path) -> None:
    pixels = pictures(4, 8)
    folder = write(tmp_path / "photos", pixels, ["cat/1.png", "dog/2.png", "cat/kittens/3.png", "bird/4.png"])
    shutil.make_archive(str(tmp_path / "a"), "zip", folder)
    for path in (folder, tmp_path / "a.zip"):
        found = read_dataset(path, conditional=True)
        assert found.classes is not None
        assert (found.classes.count, list(found.classes.names)) == (3, ["bird", "cat", "dog"])
        by_pixels = {
            image.tobytes(): int(label) for image, label in zip(found.images, found.classes.labels, strict=True)
        }
        planes = pixels.transpose(0, 3, 1, 2)
        assert [by_pixels[np.ascontiguousarray(image).tobytes()] for image in planes] == [1, 2, 1, 0]
    assert read_dataset(folder).classes is None


def test_folder_names_that_are_not_utf_8(gddim, tmp_path: Path, config: Path, squares: np.ndarray) -> None:
    for name, image in ((b"caf\xe9", squares[0]), (b"\x1b[31mred", squares[1])):
        folder = tmp_path / "photos" / os.fsdecode(name)
        folder.mkdir(parents=True)
        with (folder / "1.png").open("wb") as file:
            Image.fromarray(image).save(file, format="PNG")
    found = read_dataset(tmp_path / "photos", conditional=True).classes
    assert found is not None
    assert sorted(found.names) == ["[31mred", r"caf\xe9"]
    words = ("--data", tmp_path / "photos", "--conditional", "--out", tmp_path / "run", "--steps", 1, "--device", "cpu")
    assert gddim("train", config, *words).status == 0


def test_classes_are_an_array(tmp_path: Path) -> None:
    pixels, path = pictures(4, 8), tmp_path / "x.npz"
    np.savez(path, images=pixels, train_labels=np.array([2, 0, 1, 2], np.uint8), other=np.array([0, 1, 0, 1]))
    found = read_dataset(path, conditional=True).classes
    assert found is not None
    assert (found.labels.tolist(), found.count, list(found.names)) == ([2, 0, 1, 2], 3, [])
    other = read_dataset(path, label_key="other").classes
    assert other is not None
    assert other.labels.tolist() == [0, 1, 0, 1]
    assert found.fingerprint() != other.fingerprint()
    assert read_dataset(path).classes is None


def test_some_of_the_images_keep_their_own_labels(tmp_path: Path) -> None:
    pixels = pictures(30, 8)
    labels = np.arange(30) % 3
    np.savez(tmp_path / "x.npz", images=pixels, train_labels=labels)
    folder = write(tmp_path / "photos", pixels, [f"{label}/{i}.png" for i, label in enumerate(labels)])
    known = {image.tobytes(): label for image, label in zip(pixels.transpose(0, 3, 1, 2), labels, strict=True)}
    for path in (tmp_path / "x.npz", folder):
        some = read_dataset(path, num=11, conditional=True)
        assert some.classes is not None
        assert (len(some.images), some.classes.count) == (11, 3)
        assert [known[np.ascontiguousarray(image).tobytes()] for image in some.images] == some.classes.labels.tolist()
    with pytest.raises(DataError, match=r"--num 31: .*x.npz holds 30 images"):
        read_dataset(tmp_path / "x.npz", num=31)


def test_labels_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    pixels = pictures(4, 8)

    def refuse(message: str, path: Path, label_key: str | None = None) -> None:
        with pytest.raises(DataError, match=message):
            read_dataset(path, conditional=True, label_key=label_key)

    def labelled(labels: object) -> Path:
        np.savez(tmp_path / "x.npz", images=pixels, train_labels=labels)
        return tmp_path / "x.npz"

    refuse(
        r"'train_labels' is float64\[4\]; class labels are whole numbers, one per image: \[4\]", labelled(np.zeros(4))
    )
    refuse(r"'train_labels' is int64\[3\]", labelled(np.arange(3)))
    refuse(r"'train_labels' is int64\[4, 2\]", labelled(np.zeros((4, 2), np.int64)))
    refuse("'train_labels' has values from -1 to 2", labelled(np.array([0, -1, 2, 1])))
    refuse("'train_labels' has values from 0 to 0", labelled(np.zeros(4, np.int64)))
    refuse("'train_labels' has values from 0 to 100000", labelled(np.array([0, 1, 2, 100_000])))
    refuse(
        "no array 'train_lables' of class labels; did you mean 'train_labels'", labelled(np.arange(4)), "train_lables"
    )
    np.savez(tmp_path / "plain.npz", images=pixels)
    refuse("no array 'train_labels' of class labels; name one with --label-key; known: images", tmp_path / "plain.npz")
    np.save(tmp_path / "plain.npy", pixels)
    refuse("plain.npy has no class labels; give a folder per class", tmp_path / "plain.npy")
    refuse("--label-key: .*plain.npy is not an .npz", tmp_path / "plain.npy", "labels")
    photos = write(tmp_path / "photos", pixels[:2], ["cat/1.png", "cat/2.png"])
    refuse("has one sub-folder with images, cat; two or more are needed", photos)
    write(photos, pixels[2:3], ["3.png"])
    refuse("photos: 3.png is in no sub-folder; give each class a folder of its own", photos)


def test_the_root_mean_square_is_over_all_pixels() -> None:
    pixels = pictures(700, 4).transpose(0, 3, 1, 2)
    exact = np.sqrt(np.mean((pixels / 127.5 - 1) ** 2))
    assert Dataset(pixels).root_mean_square() == round(float(exact), 4)


def test_the_fingerprint_is_that_of_the_pixels(tmp_path: Path) -> None:
    pixels = pictures(3, 8)
    folder = write(tmp_path / "photos", pixels, ["0.png", "1.png", "2.png"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"elsewhere/{path.name}")
    assert read_dataset(folder).fingerprint() == read_dataset(tmp_path / "a.zip").fingerprint()
    assert read_dataset(folder).fingerprint() != Dataset(255 - pixels.transpose(0, 3, 1, 2)).fingerprint()
