"""Class labels: drawn or in turn, part of a run's identity, refused where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gddim_cli
from gddim_cli.runs.labels import labels_of, rows_by_class
from gddim_cli.runs.storage.registry import open_storage


def test_labels_depend_on_seed_and_index_only() -> None:
    whole = labels_of("uniform", 10, 3, range(1000))
    np.testing.assert_array_equal(labels_of("uniform", 10, 3, [7, 500]), whole[[7, 500]])
    assert (labels_of("uniform", 10, 4, range(1000)) != whole).mean() > 0.8
    assert (np.bincount(whole, minlength=10) > 70).all()
    assert labels_of("0,2,1", 3, 0, range(5)).tolist() == [0, 2, 1, 0, 2]
    assert labels_of("all", 3, 0, range(5)).tolist() == [0, 1, 2, 0, 1]
    assert rows_by_class(7, 3) == [0, 3, 6, 1, 4, 2, 5]


@pytest.fixture
def conditional(golden_file) -> Path:
    return golden_file("edm_small_ncsnpp_cond.pkl")


def test_a_conditional_model_samples_its_classes(gddim, conditional: Path, tmp_path: Path) -> None:
    model = gddim_cli.load_model(str(conditional), device="cpu")
    assert model.classes > 1
    both = gddim_cli.sample(model, nfe=4, num=4, classes=[0, 1])
    one = gddim_cli.sample(model, nfe=4, num=4, classes=1)
    np.testing.assert_array_equal(both[1::2], one[1::2])
    assert (both[0::2] != one[0::2]).any()
    result = gddim(
        "sample",
        "--checkpoint",
        conditional,
        "--nfe",
        4,
        "--num",
        4,
        "--class",
        "0,1",
        "--out",
        tmp_path / "i",
        "--json",
    )
    assert result.status == 0, result.err
    assert json.loads(result.out)["settings"]["class"] == "0,1"
    np.testing.assert_array_equal(open_storage(tmp_path / "i", "png").read(range(4)), both)
    again = gddim(
        "sample", "--checkpoint", conditional, "--nfe", 4, "--num", 4, "--class", "1", "--out", tmp_path / "i"
    )
    assert "class: 0,1 -> 1" in again.err
    uniform = gddim_cli.Sampler(model, nfe=4, num=2)
    assert uniform.request.classes == "uniform"
    assert len(list(uniform)) == 4


def test_all_classes_are_rows_of_the_grid(gddim, conditional: Path, tmp_path: Path) -> None:
    classes = gddim_cli.load_model(str(conditional), device="cpu").classes
    words = ("--checkpoint", conditional, "--nfe", 3, "--num", 2 * classes, "--class", "all", "--out", tmp_path / "i")
    assert gddim("sample", *words).status == 0
    with Image.open(tmp_path / "i" / "000000.png") as one, Image.open(tmp_path / "i" / "grid.png") as grid:
        side = one.size[0]
        assert grid.size == (2 * (side + 2) + 2, classes * (side + 2) + 2)


@pytest.mark.parametrize("text", ["-1", "1,x", "99999", "some", "1;2"])
def test_labels_that_are_none(conditional: Path, text: str) -> None:
    with pytest.raises(gddim_cli.GddimError, match="class"):
        gddim_cli.sample(str(conditional), nfe=3, num=1, classes=text)


def test_an_unconditional_model_refuses_labels(gddim, tiny: Path, tmp_path: Path) -> None:
    result = gddim("sample", "--checkpoint", tiny, "--class", 3, "--nfe", 4, "--out", tmp_path / "i")
    assert (result.status, "--class: tiny is an unconditional model" in result.err) == (2, True)
    model = gddim_cli.load_model(str(tiny), device="cpu")
    with pytest.raises(gddim_cli.GddimError):
        model(torch.zeros(1, 1, 8, 8), 1.0, torch.tensor([0]))
