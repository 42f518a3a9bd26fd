"""The Python interface makes what the command line makes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gddim_cli as gddim
from gddim_cli.runs.storage.registry import open_storage
from gddim_cli.verification.exact import example_mixture

REQUESTS = [
    (["--nfe", "5"], {"nfe": 5}),
    (["--nfe", "6", "--order", "1", "--seed", "3", "--diffusion", "vp"], {"nfe": 6, "order": 1, "seed": 3, "diffusion": "vp"}),
    (["--nfe", "5", "--lambda", "0.5"], {"nfe": 5, "lam": 0.5}),
    (["--nfe", "7", "--sampler", "heun", "--quantize", "round"], {"nfe": 7, "sampler": "heun", "quantize": "round"}),
    (["--nfe", "5", "--sampler", "ddim", "--eta", "1", "--diffusion", "ve", "--time-grid", "linear"],
     {"nfe": 5, "sampler": "ddim", "eta": 1.0, "diffusion": "ve", "time_grid": "linear"}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "settings"), REQUESTS)
def test_images_equal_the_command_lines(gddim_command, tiny: Path, tmp_path: Path, words: list, settings: dict) -> None:
    out = tmp_path / "imgs"
    assert gddim_command("sample", "--checkpoint", tiny, "--num", 5, "--out", out, *words).status == 0
    model = gddim.load_model(str(tiny), device="cpu")
    np.testing.assert_array_equal(gddim.sample(model, num=5, **settings), open_storage(out, "png").read(range(5)))


def test_states_on_request_and_the_batch_size_changes_nothing(tiny: Path) -> None:
    model = gddim.load_model(str(tiny), device="cpu")
    images, states = gddim.sample(model, nfe=5, num=5, return_states=True)
    assert (images.shape, images.dtype, states.shape) == ((5, 8, 8, 1), np.uint8, (5, 2, 1, 8, 8))
    assert np.abs(gddim.sample(model, nfe=5, num=5, batch_size=2).astype(int) - images).max() <= 1


def test_a_sampler_yields_times_states_and_denoised_images() -> None:
    """On an exact denoiser of two pixels: the last state's image is the sample, the estimates are E[x_0 | u_t]."""
    mixture = example_mixture()
    model = gddim.Denoiser(lambda y, sigma: mixture.denoiser(y.double(), sigma.double()).to(y), (1, 1, 2))
    sampler = gddim.Sampler(model, nfe=12, num=3, seed=1, dtype="float64")
    steps = list(sampler)
    assert [t for t, _, _ in steps] == [*sampler.coefficients.t[1:], 0.0]
    assert len(steps) == sampler.request.nfe == 12
    _, states = gddim.sample(model, nfe=12, num=3, seed=1, dtype="float64", return_states=True)
    np.testing.assert_array_equal(steps[-1][1].numpy(), states)
    # The denoised image of a step belongs to the state before it.
    from gddim_cli.models.denoiser import isotropic_view

    for (t, u, _), (_, _, estimate) in itertools.pairwise(steps[:-1]):
        weights, sigma, _ = isotropic_view(sampler._prepared.diffusion, t)
        y = torch.einsum("d,nd...->n...", torch.from_numpy(weights), u)
        torch.testing.assert_close(
            estimate, mixture.denoiser(y, torch.full((3,), sigma, dtype=y.dtype)), atol=1e-9, rtol=1e-9
        )
    assert next(iter(sampler))[1].equal(steps[0][1])  # every iteration starts anew


def test_a_users_module_through_several_diffusions() -> None:
    class Shrink(torch.nn.Module):
        """The best denoiser of N(0, 0.25)."""

        def forward(self, y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return y * (0.25 / (0.25 + sigma**2)).view(-1, 1, 1, 1)

    model = gddim.Denoiser(Shrink(), image_shape=(3, 4, 5), sigma_min=0.0, sigma_max=1000.0)
    for diffusion in ("cld", gddim.VP(), gddim.PSLD()):
        _, states = gddim.sample(model, nfe=100, num=64, diffusion=diffusion, return_states=True)
        assert states[:, 0].std() == pytest.approx(0.5, rel=0.03)
    y = torch.ones(2, 3, 4, 5)
    torch.testing.assert_close(model(y, 0.5), 0.5 * y)
    torch.testing.assert_close(model(y, torch.tensor([0.5, 0.0])), torch.stack([0.5 * y[0], y[1]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 7}, "order: 7: expected a whole number from 0 to 3"),
        ({"ordre": 1}, "ordre: gddim has no setting 'ordre'; did you mean 'order'?"),
        ({"sampler": "heum"}, "there is no sampler 'heum'; did you mean 'heun'?"),
        ({"eta": 0.5}, "eta: unsupported by gddim; an option of ddim"),
        ({"diffusion": "cdl"}, "there is no diffusion 'cdl'; did you mean 'cld'?"),
        ({"num": 0}, "num 0"),
        ({"nfe": 5.5}, "nfe: 5.5: expected a whole number"),
        ({"diffusion": gddim.BDM(image_size=8)}, "noise level"),
    ],
)
def test_mistakes_are_named(tiny: Path, settings: dict, message: str) -> None:
    model = gddim.load_model(str(tiny), device="cpu")
    with pytest.raises(gddim.GddimError) as refused:
        gddim.sample(model, **{"nfe": 5, "num": 2, **settings})
    assert message in str(refused.value)


def test_wrong_shapes_are_named() -> None:
    model = gddim.Denoiser(lambda y, _: y, (1, 8, 8))
    with pytest.raises(gddim.GddimError, match=r"y has shape \[2, 3, 8, 8\]; \[N, 1, 8, 8\] is needed"):
        model(torch.zeros(2, 3, 8, 8), 1.0)
    with pytest.raises(gddim.GddimError, match=r"sigma has shape \[3\]"):
        model(torch.zeros(2, 1, 8, 8), torch.ones(3))
    with pytest.raises(gddim.GddimError, match="expected 0 <= sigma_min < sigma_max"):
        gddim.Denoiser(lambda y, _: y, (1, 8, 8), sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(gddim.GddimError, match="is not \\(channels, height, width\\)"):
        gddim.Denoiser(lambda y, _: y, (8, 8))


def test_the_package_imports_nothing_heavy_and_knows_its_names() -> None:
    code = "import sys, gddim_cli; assert not {'torch', 'numpy', 'msgspec'} & set(sys.modules)\n"
    code += "[getattr(gddim_cli, name) for name in dir(gddim_cli)]"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'sampel'"):
        gddim.sampel  # noqa: B018
