"""Every native prediction, made from a denoiser that is known exactly, is turned back into that denoiser."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import gddim_cli as gddim
from gddim_cli.checkpoints.formats import edm as edm_format
from gddim_cli.diffusions.registry import make_diffusion
from gddim_cli.errors import UsageError
from gddim_cli.models.conventions.direct import Direct
from gddim_cli.models.conventions.edm import EDM
from gddim_cli.models.conventions.flow import Flow
from gddim_cli.models.conventions.registry import CONVENTIONS
from gddim_cli.models.conventions.schedules import DiscreteSchedule, LinearSchedule, noise_levels
from gddim_cli.models.conventions.subvp import SubVP
from gddim_cli.models.conventions.ve import Residual, Score
from gddim_cli.models.conventions.vp import CleanImage, Noise, Velocity
from gddim_cli.models.denoiser import DenoiserEps
from gddim_cli.models.isotropic import IsotropicDenoiser, from_prediction
from gddim_cli.models.mixture import Mixture
from gddim_cli.models.parameterization import NoiseEps

DATA = Path(__file__).parent.parent / "data"
RANDOM = torch.Generator().manual_seed(0)
MIXTURE = Mixture(
    torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=RANDOM), 0.3, torch.tensor([0.5, 0.2, 0.3]).double()
)
LINEAR, COSINE = LinearSchedule(), DiscreteSchedule("cosine", steps=4000, time_scale=0.25)


def column(values):
    return values[:, None, None, None]


def linear_sigma(t):
    return torch.expm1(LINEAR.beta_0 * t + 0.5 * LINEAR.beta_1 * t**2).sqrt()


def cosine_sigma(time):
    """Of a network time that is a multiple of 1/4, by the definition of the schedule."""
    steps = (time / 0.25).round().long()
    bar = torch.cos((torch.arange(4001).double() / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    found = torch.cumprod(1 - betas, 0)[steps]
    return ((1 - found) / found).sqrt()


def vp_network(prediction, sigma_of):
    """A network of a variance preserving diffusion: sees `x = alpha y` and a time."""

    def network(x, time):
        sigma = sigma_of(time)
        alpha = (1 + sigma**2) ** -0.5
        y = x / column(alpha)
        clean = MIXTURE.denoiser(y, sigma)
        noise = (y - clean) / column(sigma)
        return {
            "eps": noise,
            "v": column(alpha) * noise - column(sigma * alpha) * clean,
            "x0": clean,
        }[prediction]

    return network


def edm_network(x, c_noise):
    sigma = (4 * c_noise).exp()
    total = sigma**2 + 0.25
    y = x * column(total.sqrt())
    return (MIXTURE.denoiser(y, sigma) - column(0.25 / total) * y) / column(0.5 * sigma / total.sqrt())


def score_network(y, sigma):
    return (MIXTURE.denoiser(y, sigma) - y) / column(sigma**2)


def residual_network(y, level):
    sigma = 2 * level.exp()
    return (MIXTURE.denoiser(y, sigma) - y) / column(sigma)


def subvp_network(x, time):
    t = time / 999
    a = torch.exp(-0.5 * (LINEAR.beta_0 * t + 0.5 * LINEAR.beta_1 * t**2))
    std = 1 - a**2
    y, sigma = x / column(a), std / a
    score = (MIXTURE.denoiser(y, sigma) - y) / column(sigma**2) / column(a)
    return -score * column(std)


def flow_network(x, time):
    t = time / 1000
    clean = MIXTURE.denoiser(x / column(t), (1 - t) / t)
    return clean - (x - column(t) * clean) / column(1 - t)


SIGMAS = torch.tensor([0.01, 0.3, 1.0, 7.0, 60.0], dtype=torch.float64)
STEPS = torch.tensor([3, 40, 2000, 3500, 3990])
CASES = {
    "denoiser": (Direct(), MIXTURE.denoiser),
    "edm": (EDM(sigma_data=0.5), edm_network),
    "vp_eps": (Noise(LINEAR), vp_network("eps", lambda time: linear_sigma(time / 999))),
    "v": (Velocity(LINEAR), vp_network("v", lambda time: linear_sigma(time / 999))),
    "x0": (CleanImage(LINEAR), vp_network("x0", lambda time: linear_sigma(time / 999))),
    "ve_score": (Score(), score_network),
    "ve_residual": (Residual(), residual_network),
    "subvp_eps": (SubVP(LINEAR), subvp_network),
    "flow": (Flow(time_scale=1000), flow_network),
    "discrete eps": (Noise(COSINE), vp_network("eps", cosine_sigma)),
    "discrete v": (Velocity(COSINE), vp_network("v", cosine_sigma)),
}


def test_every_convention_is_tested():
    assert set(CONVENTIONS) <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_native_prediction_becomes_the_denoiser(name):
    convention, network = CASES[name]
    sigma = torch.from_numpy(noise_levels(COSINE))[STEPS] if "discrete" in name else SIGMAS
    y = MIXTURE.means[torch.tensor([0, 1, 2, 0, 1])] + column(sigma) * torch.randn(5, 2, 4, 4, generator=RANDOM)
    denoiser = IsotropicDenoiser(network, convention, *convention.sigma_range)
    torch.testing.assert_close(denoiser(y, sigma), MIXTURE.denoiser(y, sigma), rtol=1e-7, atol=1e-8)
    if CONVENTIONS.get(name):
        assert CONVENTIONS[name].parameters is type(convention)


@pytest.mark.parametrize("name", ["edm", "vp_eps", "ve_score", "ve_residual", "flow"])
def test_one_network_in_every_convention_in_single_precision(name):
    """A random-weight denoiser, asked through each convention in float32."""
    from gddim_cli.models.networks.unet import DenoisingUNet

    torch.manual_seed(0)
    module = DenoisingUNet(2, 4, 0.5, patch=1, channels=[16], blocks=1, embedding=16).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    convention, _ = CASES[name]
    sigma = torch.tensor([0.05, 0.5, 5.0, 50.0])
    y = column(sigma + 0.5) * torch.randn(4, 2, 4, 4, generator=RANDOM)
    with torch.no_grad():
        exact = module(y.double(), sigma.double())

        def native(x, level):
            """What a network of that convention that is this denoiser would predict."""
            skip, out, inside, expected = convention.scaling(sigma.double())
            torch.testing.assert_close(level, expected.float())
            seen = x.double() / column(inside)
            return ((module(seen, sigma.double()) - column(skip) * seen) / column(out)).float()

        made = IsotropicDenoiser(native, convention, 0.01, 100)(y, sigma)
    for one, other in zip(made, exact, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_images_in_another_range():
    """A network on [0, 1]: half the noise, half the image, shifted."""

    def network(y, sigma):
        return (MIXTURE.denoiser(2 * y - 1, 2 * sigma) + 1) / 2

    denoiser = IsotropicDenoiser(network, Direct(), 0, 100, data_range=(0.0, 1.0))
    y = torch.randn(5, 2, 4, 4, dtype=torch.float64, generator=RANDOM)
    torch.testing.assert_close(denoiser(y, SIGMAS), MIXTURE.denoiser(y, SIGMAS))


def test_a_variance_beside_the_noise_is_left_out():
    def network(x, time):
        noise = vp_network("eps", lambda at: linear_sigma(at / 999))(x, time)
        return torch.cat([noise, torch.full_like(noise, 9)], dim=1)

    y = torch.randn(5, 2, 4, 4, dtype=torch.float64, generator=RANDOM)
    made = IsotropicDenoiser(network, Noise(LINEAR), 0, 100)(y, SIGMAS)
    torch.testing.assert_close(made, MIXTURE.denoiser(y, SIGMAS), rtol=1e-7, atol=1e-8)


def test_labels_are_one_hot_columns_beside_the_level():
    seen = []

    def network(y, condition):
        seen.append(condition)
        return y

    denoiser = IsotropicDenoiser(network, Direct(), 0, 100, classes=3)
    y, sigma = torch.zeros(2, 1, 4, 4), torch.tensor([0.5, 2.0])
    denoiser(y, sigma, torch.tensor([2, 0]))
    denoiser(y, sigma)
    assert seen[0].tolist() == [[0.5, 0, 0, 1], [2, 1, 0, 0]]
    assert seen[1].tolist() == [[0.5, 0, 0, 0], [2, 0, 0, 0]]


@pytest.mark.parametrize(
    ("schedule", "high"),
    [
        (DiscreteSchedule("linear"), 157.4),
        (DiscreteSchedule("cosine"), 20291.2),
        (DiscreteSchedule("cosine", steps=4000), 81165),
        (LinearSchedule(), 152.167),
    ],
)
def test_ends_of_the_published_schedules(schedule, high):
    assert schedule.sigma_range[1] == pytest.approx(high, rel=1e-4)


def test_steps_of_the_original_programs(golden_file):
    with np.load(DATA / "improved_small_cosine4000_io.npz") as file:
        index, bar, time = file["timestep_index"], file["alphas_cumprod"], file["network_time"]
    np.testing.assert_allclose(1 / (1 + noise_levels(COSINE)[index] ** 2), bar, rtol=1e-9)
    np.testing.assert_allclose(COSINE.time(torch.from_numpy(noise_levels(COSINE)[index])), time)
    table = edm_format.read(golden_file("edm_small_iddpm.pkl")).tensors["u"].numpy()
    np.testing.assert_allclose(noise_levels(DiscreteSchedule("cosine"))[::-1], table[:-1], rtol=1e-3)


def test_between_two_steps():
    levels = torch.from_numpy(noise_levels(DiscreteSchedule("linear")))
    middle = (levels[10] * levels[11]).sqrt()[None]
    assert DiscreteSchedule("linear").time(middle).tolist() == pytest.approx([10.5])
    assert DiscreteSchedule("linear", nearest=True).time(levels[10:12] * 1.001).tolist() == [10, 11]
    ends = torch.stack([levels[0] / 2, levels[0], levels[-1], levels[-1] * 2])
    for schedule in (DiscreteSchedule("linear"), DiscreteSchedule("linear", nearest=True)):
        assert schedule.time(ends).tolist() == pytest.approx([0, 0, 999, 999])


def test_a_vp_model_in_its_own_diffusion_and_as_a_denoiser():
    """The noise predicted in VP, and the one that the denoiser of the same network gives there."""
    vp = make_diffusion("vp")
    network = vp_network("eps", lambda time: linear_sigma(time / 999))
    denoiser = IsotropicDenoiser(network, Noise(LINEAR), *LINEAR.sigma_range)
    u = torch.randn(5, 1, 2, 4, 4, dtype=torch.float64, generator=RANDOM)
    for t in (1e-3, 0.2, 1.0):
        own = NoiseEps(network, vp, "R", 999)(u, t)
        torch.testing.assert_close(DenoiserEps(denoiser, vp, "R")(u, t), own, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(own, MIXTURE.eps(vp, "R")(u, t), rtol=1e-7, atol=1e-8)


def test_a_network_of_ones_own_by_the_name_of_its_prediction():
    network = vp_network("eps", lambda time: linear_sigma(time / 999))
    denoiser = from_prediction(network, "vp_eps", schedule={"kind": "linear", "time_scale": 999})
    assert (denoiser.sigma_min, denoiser.sigma_max) == LINEAR.sigma_range
    y = torch.randn(5, 2, 4, 4, dtype=torch.float64, generator=RANDOM)
    torch.testing.assert_close(denoiser(y, SIGMAS), MIXTURE.denoiser(y, SIGMAS), rtol=1e-7, atol=1e-8)
    for arguments, message in [
        (("vp_epz",), "there is no parameterization 'vp_epz'; did you mean 'vp_eps'"),
        (("edm",), "parameterization edm: .*sigma_datum"),
    ]:
        with pytest.raises(UsageError, match=message):
            from_prediction(network, *arguments, sigma_datum=0.5)


COSINE_DICT = {"kind": "discrete", "betas": "cosine", "steps": 4000, "time_scale": 0.25}
PREDICTIONS = {
    "denoiser": {},
    "edm": {"sigma_data": 0.5},
    "vp_eps": {"schedule": {"kind": "linear", "time_scale": 999}},
    "v": {},
    "x0": {},
    "ve_score": {},
    "ve_residual": {},
    "subvp_eps": {},
    "flow": {"time_scale": 1000},
    "discrete eps": {"prediction": "vp_eps", "schedule": COSINE_DICT},
    "discrete v": {"prediction": "v", "schedule": COSINE_DICT},
}


@pytest.mark.parametrize("name", CASES)
def test_a_denoiser_from_any_prediction(name):
    """The public `Denoiser` gives the exact denoiser from each native prediction, within the levels of its convention."""
    convention, network = CASES[name]
    model = gddim.Denoiser(network, (2, 4, 4), **{"prediction": name, **PREDICTIONS[name]})
    assert model.sigma_range == convention.sigma_range
    sigma = torch.from_numpy(noise_levels(COSINE))[STEPS] if "discrete" in name else SIGMAS
    y = MIXTURE.means[torch.tensor([0, 1, 2, 0, 1])] + column(sigma) * torch.randn(5, 2, 4, 4, generator=RANDOM)
    torch.testing.assert_close(model(y, sigma), MIXTURE.denoiser(y, sigma), rtol=1e-7, atol=1e-8)
    assert model.network.nfe == 1
    if model.sigma_range[1] < math.inf:
        with pytest.raises(UsageError, match="is outside the noise levels that"):
            model(y, 1e6)


def test_a_conditional_denoiser_sees_one_hot_classes():
    seen = []

    def network(y, level, classes):
        seen.append(classes)
        return torch.cat([0 * y, y], dim=1) + level[:, None, None, None]

    model = gddim.Denoiser(network, (2, 4, 4), prediction="x0", classes=3, sigma_max=2.0)
    y = torch.zeros(2, 2, 4, 4)
    assert model(y, 1.0, torch.tensor([2, 0])).shape == y.shape
    model(y, 1.0)
    assert seen[0].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert seen[1].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert model.sigma_range == (LINEAR.sigma_range[0], 2.0)
    assert gddim.sample(model, nfe=4, num=3, classes=1, diffusion="vp").shape == (3, 4, 4, 2)
    with pytest.raises(UsageError, match="has classes 0 to 2"):
        model(y, 1.0, torch.tensor([3, 0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": "epsilon"}, "there is no parameterization 'epsilon'"),
        ({"prediction": "vp_eps", "sigma_data": 0.5}, "parameterization vp_eps: .*sigma_data"),
        ({"prediction": "vp_eps", "sigma_min": 200.0}, "expected 0 <= sigma_min < sigma_max"),
        ({"prediction": "denoiser", "sigma_min": 0.1, "sigma_max": 1e300}, "sigma_max <= 1e.18"),
        ({"data_range": (1.0, 0.0)}, "low < high"),
    ],
)
def test_conventions_that_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        gddim.Denoiser(lambda y, _: y, (1, 4, 4), **arguments)


@pytest.mark.parametrize("shape", [(1, 4), (True, 4, 4), (1, 4, 0), (1.0, 4, 4)])
def test_shapes_that_are_refused(shape):
    with pytest.raises(UsageError, match=r"is not \(channels, height, width\)"):
        gddim.Denoiser(lambda y, _: y, shape, 0.1, 10.0)


@pytest.mark.parametrize("diffusion", ["cld", "vp", "ve", "psld"])
def test_the_bundled_network_in_edms_convention(diffusion):
    """The example of the documentation gives the digits of the bundled checkpoint."""
    reference = Path(__file__).parent.parent.parent / "docs" / "examples" / "edm_denoiser.py"
    made = gddim.sample(gddim.load_model(f"{reference}:build", device="cpu"), nfe=8, num=2, diffusion=diffusion)
    bundled = gddim.sample(gddim.load_model("mnist", device="cpu"), nfe=8, num=2, diffusion=diffusion)
    assert np.abs(made.astype(int) - bundled.astype(int)).max() <= 1


def test_the_table_of_the_documentation():
    """The program that prints it: the difference stays below 1e-5, and the table has its rows."""
    root = Path(__file__).parent.parent.parent
    program = runpy.run_path(str(root / "benchmarks" / "denoisers.py"))
    exact = program["random_denoiser"]()
    text = (root / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    for name, arguments in program["PREDICTIONS"].items():
        assert f"| {name} |" in text
        assert all(program["difference"](exact, arguments, sigma) < 1e-5 for sigma in program["SIGMAS"])
