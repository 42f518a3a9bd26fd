"""OpenAI's and torchcfm's files: the original programs' outputs, and what has to be said of them."""

import itertools
from pathlib import Path

import pytest
import torch
from support import arrays_of

from gddim_cli.checkpoints.formats import openai, torch_pickle
from gddim_cli.checkpoints.formats.registry import FORMATS
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.hub.load import load
from gddim_cli.models.conventions.schedules import noise_levels
from gddim_cli.models.networks.openai_unet import OpenAIUNet

DATA = Path(__file__).parent.parent / "data"
CPU = torch.device("cpu")
LINEAR = {"image_size": 16, "noise_schedule": "linear", "diffusion_steps": 1000}
COSINE = {"image_size": 16, "noise_schedule": "cosine", "diffusion_steps": 4000, "rescale_timesteps": True}
CASES = {
    "guided_small_cond": LINEAR | {"num_head_channels": 16, "use_new_attention_order": True},
    "guided_small_uncond": LINEAR | {"num_head_channels": 32, "use_new_attention_order": False},
    "improved_small_cosine4000": COSINE | {"num_heads": 4},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", CASES)
def test_outputs_of_the_original_programs(golden_file, name):
    path, arrays = golden_file(f"{name}.pt"), arrays_of(DATA / f"{name}_io.npz")
    assert [spec.name for spec in FORMATS.values() if spec.detect(path)] == ["openai"]
    model = load(str(path), CPU, **CASES[name])
    assert model.classes == (10 if "labels" in arrays else 0)
    time = arrays.get("t", arrays.get("network_time"))
    condition = model.denoiser.condition(time, arrays.get("labels"))
    with torch.inference_mode():
        made = model.network(arrays["x"], condition)
    for one, other in zip(made, arrays["out"], strict=True):
        assert (one - other).norm() < 5e-6 * other.norm()


@pytest.mark.parametrize("name", CASES)
def test_the_denoiser_at_the_steps_of_the_schedule(golden_file, name):
    model, arrays = load(str(golden_file(f"{name}.pt")), CPU, **CASES[name]), arrays_of(DATA / f"{name}_io.npz")
    steps = arrays.get("timestep_index", arrays.get("t")).long()
    sigma = torch.from_numpy(noise_levels(model.denoiser.convention.schedule))[steps]
    if "alphas_cumprod" in arrays:
        torch.testing.assert_close(1 / (1 + sigma**2), arrays["alphas_cumprod"], rtol=1e-6, atol=1e-15)
    y = arrays["x"].double() * (1 + sigma**2).sqrt()[:, None, None, None]
    exact = y - sigma[:, None, None, None] * arrays["out"][:, :3]
    made = model(y.float(), sigma.float(), arrays.get("labels"))
    for one, other, level in zip(made, exact, sigma, strict=True):
        assert (one - other).abs().max() < 1e-4 * max(1.0, float(level))


def test_what_is_missing_is_asked_for_at_once(golden_file, gddim, tmp_path):
    path = golden_file("improved_small_cosine4000.pt")
    done = gddim("convert", path, tmp_path / "x.safetensors")
    assert done.status == 2
    assert (
        "the tensors do not determine image_size, num_heads (or num_head_channels), noise_schedule, diffusion_steps"
        in done.err
    )
    words = [f"--set={key}={value}" for key, value in CASES["improved_small_cosine4000"].items()]
    done = gddim("convert", path, tmp_path / "x.safetensors", *[word for word in words if "rescale" not in word])
    assert "do not determine rescale_timesteps" in done.err
    done = gddim("convert", path, tmp_path / "x.safetensors", *words)
    assert done.status == 0, done.err
    assert "use_new_attention_order=false is assumed" in done.err
    again = load(str(tmp_path / "x.safetensors"), CPU)
    assert again.sigma_range == pytest.approx((0.0031, 81165), rel=0.02)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_heads": 3}, "cannot be divided into 3 heads"),
        ({"num_heads": None, "num_head_channels": 5}, "cannot be divided"),
        ({"image_size": 17}, "not a multiple"),
        ({"noise_schedule": "sigmoid"}, "'sigmoid': expected one of linear, cosine"),
        ({"diffusion_steps": 10**9}, "expected a whole number from 2 to 100000"),
        ({"image_size": 10**9}, "expected a whole number from 1 to 1024"),
        ({"noise_schedule": "linear", "diffusion_steps": 10}, "too few for the linear schedule"),
    ],
)
def test_settings_that_make_no_network(golden_file, changed, message):
    path, given = golden_file("improved_small_cosine4000.pt"), CASES["improved_small_cosine4000"] | changed
    with pytest.raises((CheckpointError, UsageError), match=message):
        load(str(path), CPU, **{key: value for key, value in given.items() if value is not None})


CONFIGURATIONS = list(
    itertools.product(
        ([1, 2], [1, 1, 2], [0.5, 1, 2]), (1, 3), ([], [16], [8, 16]), (0, 4), (False, True), (False, True)
    )
)


@pytest.mark.parametrize("configuration", CONFIGURATIONS[::5], ids=str)
def test_the_architecture_is_read_off_the_tensors(configuration):
    multiples, blocks, attention, classes, scale_shift, updown = configuration
    arguments = {
        "image_size": 16,
        "in_channels": 3,
        "out_channels": 6,
        "num_channels": 64,
        "num_res_blocks": blocks,
        "channel_mult": multiples,
        "attention_resolutions": sorted(attention, reverse=True),
        "num_classes": classes,
        "use_scale_shift_norm": scale_shift,
        "resblock_updown": updown,
    }
    with torch.device("meta"):
        network = OpenAIUNet(**arguments, num_heads=1)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert openai.infer(shapes, Path("it"), 16) == arguments


def test_other_dictionaries_are_refused(golden_file, tmp_path):
    weights = torch_pickle.unpickle(golden_file("improved_small_cosine4000.pt"))
    given = CASES["improved_small_cosine4000"]
    changes = {
        "one missing": ({"output_blocks.1.0.in_layers.2.weight": None}, "not those of a U-Net|is missing"),
        "one more": ({"more.weight": torch.zeros(3)}, "unexpected tensor more.weight"),
        "another shape": ({"out.0.weight": torch.zeros(3)}, r"tensor out.0.weight is \[3\]; .* needs \[32\]"),
        "whole numbers": ({"out.0.weight": torch.zeros(32).long()}, "int64"),
        "NaN": ({"out.0.bias": torch.full((32,), float("nan"))}, "holds NaN"),
        "a number": ({"out.0.bias": 3}, "tensors only"),
        "expanded": ({"out.0.bias": torch.zeros(1).expand(10**9)}, "claim"),
    }
    for name, (change, message) in changes.items():
        content = {key: value for key, value in {**weights, **change}.items() if value is not None}
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(CheckpointError, match=message):
            load(str(tmp_path / f"{name}.pt"), CPU, **given)


def test_torchcfm(golden_file, tmp_path):
    """The same network as a velocity along straight paths, in torchcfm's training state."""
    torch.manual_seed(0)
    arguments = {"image_size": 16, "in_channels": 3, "out_channels": 3, "num_channels": 32, "num_res_blocks": 1}
    network = OpenAIUNet(
        **arguments, channel_mult=[1, 2], attention_resolutions=[8], num_head_channels=64, use_scale_shift_norm=False
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path / "cfm.pt"
    weights = network.state_dict()
    torch.save({"net_model": weights, "ema_model": weights, "sched": {}, "optim": {}, "step": 3}, path)
    assert [spec.name for spec in FORMATS.values() if spec.detect(path)] == ["torchcfm"]
    with pytest.raises(UsageError, match="do not determine model"):
        load(str(path), CPU)
    with pytest.raises(UsageError, match="matches each image with noise close to it"):
        load(str(path), CPU, model="otcfm")
    model, y, sigma = (
        load(str(path), CPU, model="icfm", image_size=16),
        torch.randn(2, 3, 16, 16),
        torch.tensor([0.1, 3]),
    )
    t = 1 / (1 + sigma)
    x = y * t[:, None, None, None]
    with torch.inference_mode():
        exact = x + (1 - t)[:, None, None, None] * network.eval()(x, t)
    torch.testing.assert_close(model(y, sigma), exact, rtol=1e-4, atol=1e-5)
