"""Folders of diffusers: equal to the library's own forward pass, in every convention that its schedulers have."""

import json
import os
import shutil
import sys

import pytest
import torch

from gddim_cli.checkpoints.formats.registry import FORMATS
from gddim_cli.errors import CheckpointError
from gddim_cli.hub.load import load
from gddim_cli.models.conventions.schedules import noise_levels

diffusers = pytest.importorskip("diffusers")
CPU = torch.device("cpu")
STEPS = torch.tensor([0, 17, 500, 999])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """`pipelines(num_class_embeds=4, prediction_type="sample")`: a pipeline's folder, and its network."""

    def make(scheduler=None, safe=True, **changes):
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(
            sample_size=16,
            layers_per_block=1,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            **changes,
        ).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        folder = tmp_path_factory.mktemp("pipeline")
        pipeline = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(**(scheduler or {})))
        pipeline.save_pretrained(folder, safe_serialization=safe)
        return folder, network

    return make


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("classes", [None, 4])
def test_the_network_is_the_librarys(pipelines, safe, classes):
    folder, network = pipelines(safe=safe, num_class_embeds=classes)
    assert [spec.name for spec in FORMATS.values() if spec.detect(folder)] == ["diffusers"]
    model, x = load(str(folder), CPU), torch.randn(4, 3, 16, 16)
    labels = torch.tensor([0, 1, 2, 3]) if classes else None
    condition = model.denoiser.condition(STEPS.float(), labels)
    with torch.inference_mode():
        made, theirs = model.network(x, condition), network(x, STEPS, class_labels=labels).sample
    torch.testing.assert_close(made, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "schedule",
    [{}, {"beta_schedule": "scaled_linear"}, {"beta_schedule": "squaredcos_cap_v2"}, {"trained_betas": [0.1, 0.2]}],
)
def test_the_clean_image_of_the_librarys_scheduler(pipelines, prediction, schedule):
    """The scheduler's own estimate of x_0, from its own noise levels."""
    folder, network = pipelines({"prediction_type": prediction, "clip_sample": False, **schedule})
    model, x = load(str(folder), CPU), torch.randn(1, 3, 16, 16)
    scheduler = diffusers.DDPMScheduler.from_pretrained(folder / "scheduler")
    for step in (1, 17, 700)[: 1 if "trained_betas" in schedule else 3]:
        with torch.inference_mode():
            output = network(x, step).sample
        expected = scheduler.step(output, step, x).pred_original_sample
        bar = scheduler.alphas_cumprod[step].double()
        sigma = ((1 - bar) / bar).sqrt()
        assert noise_levels(model.denoiser.convention.schedule)[step] == pytest.approx(float(sigma), rel=1e-4)
        made = model(x / bar.sqrt().float(), float(noise_levels(model.denoiser.convention.schedule)[step]))
        assert (made - expected).abs().max() < 1e-4 * max(1.0, float(sigma))


def test_old_folders_are_flat(pipelines, tmp_path):
    folder, network = pipelines()
    flat = tmp_path / "flat"
    shutil.copytree(folder / "unet", flat)
    shutil.copy(folder / "scheduler" / "scheduler_config.json", flat)
    x = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(load(str(flat), CPU).network(x, torch.ones(1)), network(x, 1).sample)


def test_without_a_scheduler_its_values_are_assumed_or_given(pipelines, tmp_path, gddim):
    folder, _ = pipelines()
    alone = tmp_path / "alone"
    shutil.copytree(folder / "unet", alone)
    done = gddim("convert", alone, tmp_path / "x.safetensors", "--set", "beta_schedule=squaredcos_cap_v2")
    assert done.status == 0, done.err
    assert "prediction_type=epsilon is assumed" in done.err
    assert "beta_schedule" not in done.err.replace("--set beta_schedule", "")
    assert load(str(tmp_path / "x.safetensors"), CPU).sigma_max == pytest.approx(20291, rel=1e-3)


def test_it_can_be_sampled(pipelines, gddim, tmp_path):
    folder, _ = pipelines()
    words = ("--nfe", 3, "--num", 2, "--diffusion", "cld", "--out", tmp_path / "imgs")
    done = gddim("sample", "--checkpoint", folder, *words)
    assert done.status == 0, done.err


def test_without_the_library_one_line_says_so(pipelines, monkeypatch):
    folder, _ = pipelines()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError, match=r"pip install 'gddim\[diffusers\]'") as caught:
        load(str(folder), CPU)
    assert "\n" not in str(caught.value)


class Runs:
    """A pickle of it would make a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder, _: (folder / "unet" / "diffusion_pytorch_model.bin").unlink(), "cannot load its UNet2DModel"),
        (lambda folder, _: (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"hello"), "cannot load"),
        (
            lambda folder, ran: torch.save(Runs(ran), folder / "unet" / "diffusion_pytorch_model.bin"),
            "cannot load its UNet2DModel",
        ),
        (lambda folder, _: edit(folder / "unet" / "config.json", sample_size=10**9), "sample_size"),
        (lambda folder, _: edit(folder / "unet" / "config.json", time_embedding_type="x"), "time_embedding_type"),
        (lambda folder, _: edit(folder / "unet" / "config.json", layers_per_block=10**6), "layers_per_block"),
        (lambda folder, _: edit(folder / "unet" / "config.json", block_out_channels=[32, 10**9]), "block_out_channels"),
        (lambda folder, _: edit(folder / "unet" / "config.json", down_block_types=["x"]), "different lengths"),
        (lambda folder, _: edit(folder / "unet" / "config.json", block_out_channels=[32, 128]), "cannot load"),
        (lambda folder, _: edit(folder / "scheduler" / "scheduler_config.json", beta_end=2.0), "beta_end"),
        (
            lambda folder, _: edit(folder / "scheduler" / "scheduler_config.json", prediction_type="x"),
            "prediction_type",
        ),
        (
            lambda folder, _: edit(folder / "scheduler" / "scheduler_config.json", _class_name="ScoreSdeVeScheduler"),
            "not supp",
        ),
        (lambda folder, _: edit(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=10**9), "steps"),
        (lambda folder, _: (folder / "scheduler" / "scheduler_config.json").write_text("{"), "not JSON"),
        (lambda folder, _: edit(folder / "unet" / "config.json", attn_norm_num_groups=0), "modulo by zero"),
        (lambda folder, _: edit(folder / "unet" / "config.json", norm_eps="x"), "cannot load its UNet2DModel: "),
        (lambda folder, _: edit(folder / "unet" / "config.json", sample_size=7), "cannot load its UNet2DModel: "),
        (lambda folder, _: edit(folder / "unet" / "config.json", class_embed_type="identity"), "cannot load"),
        (lambda folder, _: edit(folder / "unet" / "config.json", freq_shift="x"), "cannot load its UNet2DModel: "),
        (lambda folder, _: edit(folder / "unet" / "config.json", downsample_padding=None), "cannot load"),
        (lambda folder, _: edit(folder / "unet" / "config.json", mid_block_scale_factor=[]), "cannot load"),
        (lambda folder, _: edit(folder / "scheduler" / "scheduler_config.json", beta_start=0.9999999), "noise levels"),
        (
            lambda folder, _: edit(folder / "scheduler" / "scheduler_config.json", trained_betas=[0.9] * 2000),
            "noise levels run from 3 to inf; the betas cannot be right",
        ),
        (lambda folder, _: pipe(folder / "unet" / "diffusion_pytorch_model.bin"), "not a plain file"),
        (lambda folder, _: pipe(folder / "scheduler" / "scheduler_config.json"), "not a plain file"),
        (
            lambda folder, _: (folder / "unet" / "config.json").write_text("[" * 10**5),
            "a folder without a checkpoint of a known format",
        ),
        (
            lambda folder, _: edit(folder / "unet" / "config.json", _class_name="UNet2DConditionModel"),
            "a folder without a checkpoint",
        ),
    ],
)
def test_damaged_and_hostile_folders_are_refused_in_one_line(pipelines, tmp_path, change, message):
    folder, _ = pipelines(safe=False)
    change(folder, tmp_path / "ran")
    with pytest.raises(CheckpointError, match=message) as caught:
        load(str(folder), CPU)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_pipe_among_the_shards_is_refused(pipelines, capfd):
    folder, network = pipelines()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    network.save_pretrained(folder / "unet", max_shard_size="200KB")
    assert load(str(folder), CPU).network
    (shard,) = (folder / "unet").glob("*-00002-of-*.safetensors")
    content = shard.read_bytes()
    pipe(shard)
    with pytest.raises(CheckpointError, match="not a plain file"):
        load(str(folder), CPU)
    shard.unlink()
    shard.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="not a plain file"):
        load(str(folder), CPU)
    shard.unlink()
    shard.write_bytes(content)
    assert load(str(folder), CPU).network
    assert "Loading" not in capfd.readouterr().err
