"""Class labels: drawn or in turn, part of a run's identity, refused where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gddim_cli
from gddim_cli.runs.converged import shared_settings
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


def test_guidance_is_the_combination_of_two_predictions(conditional: Path) -> None:
    """`D_0 + w (D_c - D_0)`, two counted evaluations for each, and as many steps as half the evaluations give."""
    model = gddim_cli.load_model(str(conditional), device="cpu")
    weight, seen = 2.5, []

    def reference(y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(len(y))
        labels = torch.ones(len(y), dtype=torch.long)
        without = model.denoiser(y, sigma)
        return without + weight * (model.denoiser(y, sigma, labels) - without)

    by_hand = gddim_cli.Denoiser(reference, model.image_shape, *model.sigma_range)
    same = {"num": 2, "diffusion": "cld", "return_states": True, "dtype": "float64"}
    model.network.nfe = 0
    _, guided = gddim_cli.sample(model, nfe=12, guidance=weight, classes=1, **same)
    assert model.network.nfe == 12
    _, expected = gddim_cli.sample(by_hand, nfe=6, **same)
    assert len(seen) == 6
    np.testing.assert_allclose(guided, expected, rtol=0, atol=1e-9)
    plain = gddim_cli.sample(model, nfe=6, num=2, classes=1)
    np.testing.assert_array_equal(gddim_cli.sample(model, nfe=6, num=2, classes=1, guidance=1), plain)
    assert (gddim_cli.sample(model, nfe=12, num=2, classes=1, guidance=3) != plain).any()


def test_guidance_has_an_exact_solution_of_its_own(conditional: Path) -> None:
    """Solver errors of different weights are measured against different solutions."""
    model = gddim_cli.load_model(str(conditional), device="cpu")
    plain, one, two = (gddim_cli.Sampler(model, nfe=8, guidance=weight).request for weight in (None, 1, 2))
    assert shared_settings(plain) == shared_settings(one) != shared_settings(two)


def test_guidance_on_the_command_line(gddim, tiny: Path, conditional: Path, tmp_path: Path) -> None:
    words = ("sample", "--checkpoint", conditional, "--num", 2, "--class", "1", "--out", tmp_path / "i", "--json")
    done = gddim(*words, "--nfe", 9, "--guidance", 2)
    assert done.status == 0, done.err
    assert "gddim cannot spend 9 evaluations exactly: using 8" in done.err
    run = json.loads(done.out)
    assert (run["nfe"], run["settings"]["guidance"]) == (8, 2)
    assert "guidance: 2.0 -> 3.0" in gddim(*words, "--nfe", 9, "--guidance", 3).err
    assert "guidance: 2.0 -> None" in gddim(*words, "--nfe", 9, "--guidance", 1).err
    for more, message in {
        ("--nfe", 3, "--guidance", 2): "--guidance: each prediction takes 2 evaluations, so --nfe 3 allows no step",
        ("--guidance", -1): "--guidance",
        ("--guidance", "x"): "--guidance",
        ("--checkpoint", tiny, "--guidance", 2): "--guidance: tiny is an unconditional model; leave --guidance out",
        ("--sampler", "tuned", "--solver", "auto", "--guidance", 2): "--guidance: unsupported by tuned",
    }.items():
        refused = gddim("sample", "--checkpoint", conditional, "--out", tmp_path / "j", *more)
        assert refused.status == 2
        assert message in refused.err
        assert refused.err.rstrip().count("\n") <= 1


@pytest.mark.parametrize("sampler", ["heun", "em", "rk45", "edm"])
def test_guidance_of_every_kind_of_sampler(conditional: Path, sampler: str) -> None:
    """The evaluations stay within the budget, which an adaptive sampler meets only about."""
    model = gddim_cli.load_model(str(conditional), device="cpu")
    prepared = gddim_cli.Sampler(model, nfe=21, num=1, sampler=sampler, guidance=1.5)
    model.network.nfe = 0
    assert len(list(prepared)) >= 2
    if sampler != "rk45":
        assert 16 < model.network.nfe <= 21
    assert model.network.nfe % 2 == 0
