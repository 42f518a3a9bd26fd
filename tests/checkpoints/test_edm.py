"""EDM's pickles: the original program's outputs from every golden file; nothing inside a file is ever run."""

import io
import lzma
import os
import pickle
import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import arrays_of

from gddim_cli.checkpoints.formats import edm
from gddim_cli.checkpoints.formats.registry import FORMATS
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.hub.load import load

DATA = Path(__file__).parent.parent / "data"
CPU = torch.device("cpu")
CASES = {
    "vp": ("vp_eps", 0, (0.001, 152.17)),
    "ve": ("ve_residual", 0, (0.02, 100)),
    "ddpmpp": ("edm", 0, (0.002, 80)),
    "ncsnpp_cond": ("edm", 10, (0.002, 80)),
    "adm_cond": ("edm", 10, (0.002, 80)),
    "iddpm": ("vp_eps", 10, (0.00642, 20291)),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", CASES)
def test_outputs_of_the_original_program(golden_file, name):
    path = golden_file(f"edm_small_{name}.pkl")
    assert [spec.name for spec in FORMATS.values() if spec.detect(path)] == ["edm"]
    model, (parameterization, classes, ends) = load(str(path), CPU), CASES[name]
    assert (model.card.parameterization, model.classes) == (parameterization, classes)
    assert model.sigma_range == pytest.approx(ends, rel=1e-3)
    arrays = arrays_of(DATA / f"edm_small_{name}_io.npz")
    y, sigma = arrays["x"], arrays["sigma"]
    inside = (sigma >= model.sigma_min) & (sigma <= model.sigma_max)
    with torch.inference_mode():
        made = model.denoiser(y, sigma, arrays.get("labels"))
        without = model.denoiser(y, sigma) if classes else None
    for one, other in zip(made, arrays["D"], strict=True):
        assert (one - other).norm() < 5e-6 * other.norm()
        assert (one - other).abs().max() < 5e-6 * other.abs().max()
    labels = arrays["labels"][inside] if classes else None
    torch.testing.assert_close(model(y[inside], sigma[inside], labels), made[inside], rtol=1e-5, atol=1e-5)
    if classes:
        assert (without - arrays["D_no_label"]).norm() < 5e-6 * without.norm()
        assert (without - made).norm() > 1e-3 * without.norm()


def test_every_tensor_is_placed_once(golden_file):
    """All but the resampling filters, which are the architecture's, and what only training uses."""
    path = golden_file("edm_small_ncsnpp_cond.pkl")
    read, model = edm.read(path).tensors, load(str(path), CPU)
    state = model.network.network.module.state_dict()
    left = {name for name in read if name.removeprefix("model.") not in state}
    assert {name.rpartition(".")[2] for name in left if "map_augment" not in name} == {"resample_filter"}
    assert [name for name in left if "map_augment" in name] == ["model.map_augment.weight"]
    for name, tensor in state.items():
        assert torch.equal(tensor, read[f"model.{name}"])


def test_a_file_with_the_network_alone(golden_file, tmp_path):
    """Released files may hold `ema` and nothing else."""
    path = golden_file("edm_small_vp.pkl")
    content = path.read_bytes()
    end = content.index(b"loss_fn") - 2  # the key's opcode and length
    shorter = content[:end] + b"u."  # SETITEMS, STOP
    (tmp_path / "released.pkl").write_bytes(shorter)
    y = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(load(str(tmp_path / "released.pkl"), CPU)(y, 1.0), load(str(path), CPU)(y, 1.0))


def test_noise_levels_and_labels_are_checked(golden_file):
    model, y = load(str(golden_file("edm_small_ncsnpp_cond.pkl")), CPU), torch.randn(2, 3, 32, 32)
    for sigma, message in [(100.0, "sigma 100 is outside"), (1e-4, "0.002 to 80"), (float("nan"), "sigma nan")]:
        with pytest.raises(UsageError, match=message):
            model(y, sigma)
    for labels, message in [([0, 10], "classes 0 to 9"), ([-1, 0], "classes 0 to 9"), ([1], r"\[2\] are needed")]:
        with pytest.raises(UsageError, match=message):
            model(y, 1.0, torch.tensor(labels))
    with pytest.raises(UsageError, match="whole numbers"):
        model(y, 1.0, torch.tensor([0.0, 1.0]))
    unconditional = load(str(golden_file("edm_small_vp.pkl")), CPU)
    with pytest.raises(UsageError, match="takes no class labels"):
        unconditional(y, 1.0, torch.tensor([0, 1]))


@pytest.mark.parametrize("diffusion", ["cld", "vp", "ve", "psld"])
def test_it_is_sampled_through_any_diffusion(golden_file, gddim, tmp_path, diffusion):
    words = ("--nfe", 3, "--num", 2, "--diffusion", diffusion, "--out", tmp_path / "imgs")
    done = gddim("sample", "--checkpoint", golden_file("edm_small_ddpmpp.pkl"), *words)
    assert done.status == 0, done.err
    assert (tmp_path / "imgs" / "grid.png").exists()


class Runs:
    """A pickle of it would make a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Commands:
    """A pickle of it would run a command of the shell when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def with_payload(golden_file, payload):
    """A golden pickle whose first storage holds other bytes."""
    content = golden_file("edm_small_vp.pkl").read_bytes()
    begin = content.index(b"_load_from_bytes")
    at = content.index(b"B", begin)
    while content[at + 5 : at + 7] != b"\x80\x02":
        at = content.index(b"B", at + 1)
    size = int.from_bytes(content[at + 1 : at + 5], "little")
    return content[: at + 1] + len(payload).to_bytes(4, "little") + payload + content[at + 5 + size :]


def hostile_torch(content):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def test_hostile_pickles_are_refused_in_one_line(golden_file, tmp_path):
    ran = tmp_path / "ran"
    marker = b"torch_utils.persistence ema"
    contents = {
        "system": (pickle.dumps({"ema": Commands(ran), "x": marker}, 4), r"it would run posix\.system"),
        "folder": (pickle.dumps({"ema": Runs(ran), "x": marker}, 4), r"it would run posix\.mkdir"),
        "unknown": (pickle.dumps({"ema": re.compile("x"), "x": marker}, 4), r"it would run re\._compile"),
        "nested": (with_payload(golden_file, hostile_torch(Runs(ran))), r"it would run posix\.mkdir"),
        "nested system": (with_payload(golden_file, hostile_torch(Commands(ran))), r"it would run posix\.system"),
        "nested list": (with_payload(golden_file, hostile_torch([1, 2])), "not a network as EDM's program"),
        "nested text": (with_payload(golden_file, b"hello"), "not a complete pickle"),
    }
    for name, (content, message) in contents.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as caught:
            edm.read(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
    assert not ran.exists()


def persistent(state, name="EDMPrecond"):
    """A persistent object in the originals' layout."""

    class Object:
        def __reduce__(self):
            return reconstruct, (
                {"type": "class", "version": 6, "module_src": "1/0", "class_name": name, "state": state},
            )

    return Object()


def reconstruct(meta):
    raise AssertionError("it ran")


def pickled(content):
    names = ("torch_utils.persistence", "_reconstruct_persistent_obj")
    raw = pickle.dumps(content, 4)
    for old, new in zip((reconstruct.__module__, reconstruct.__qualname__), names, strict=True):
        raw = raw.replace(b"\x8c" + bytes([len(old)]) + old.encode(), b"\x8c" + bytes([len(new)]) + new.encode())
    return b"".join(part for part in (raw[:2], raw[11:]))  # without the frame, whose length no longer holds


MODULE = {"_parameters": {}, "_buffers": {}, "_modules": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ema": persistent({})}, "not a network as EDM's"),
        ({"ema": None, "x": persistent({})}, "not a network as EDM's"),
        ({"ema": persistent(MODULE | {"_modules": {"model": None}})}, "not a network as EDM's"),
        ({"ema": persistent(MODULE | {"_parameters": {"w": 3}})}, "not a network as EDM's"),
        (
            {"ema": persistent(MODULE | {"_modules": {"model": persistent(MODULE | {"_init_kwargs": {}}, "Other")}})},
            "around Other is not supported; supported are EDMPrecond",
        ),
        (
            {
                "ema": persistent(
                    MODULE | {"_modules": {"model": persistent(MODULE | {"_init_kwargs": {}}, "SongUNet")}}
                )
            },
            "missing required field `img_channels`",
        ),
    ],
)
def test_other_objects_are_refused(tmp_path, content, message):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickled(content))
    with pytest.raises(CheckpointError, match=message):
        load(str(path), CPU)


def huge(name, **arguments):
    model = persistent(MODULE | {"_init_kwargs": {"in_channels": 3, "out_channels": 3, **arguments}}, name)
    attributes = {"img_channels": 3, "img_resolution": 32, "label_dim": 0}
    return {"ema": persistent(MODULE | {"_modules": {"model": model}} | attributes)}


@pytest.mark.parametrize(
    "arguments",
    [
        {"img_resolution": 10**9},
        {"img_resolution": 32, "num_blocks": 10**6},
        {"img_resolution": 32, "model_channels": -1},
        {"img_resolution": 32, "model_channels": 4096, "channel_mult": [32] * 3, "num_blocks": 64},
        {"img_resolution": 32, "channel_mult": []},
        {"img_resolution": 32, "channel_mult": [1] * 40},
        {"img_resolution": 32, "resample_filter": [0, 0]},
        {"img_resolution": 32, "attn_resolutions": ["a"]},
        {"img_resolution": 32, "unknown": 3},
        {"img_resolution": 30},
    ],
)
@pytest.mark.parametrize("name", ["SongUNet", "DhariwalUNet"])
def test_arguments_out_of_range_are_refused_before_anything_is_allocated(tmp_path, name, arguments):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickled(huge(name, **arguments)))
    with pytest.raises(CheckpointError) as caught:
        load(str(path), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("EDMPrecond", {"sigma_data": "x"}, "sigma_data"),
        ("EDMPrecond", {"sigma_data": [0.5]}, "sigma_data"),
        ("EDMPrecond", {"sigma_data": float("nan")}, "sigma_data"),
        ("EDMPrecond", {"img_resolution": "x"}, "img_resolution"),
        ("EDMPrecond", {"img_channels": -1}, "img_channels"),
        ("EDMPrecond", {"label_dim": "many"}, "label_dim"),
        ("EDMPrecond", {"label_dim": float("nan")}, "label_dim"),
        ("VPPrecond", {"beta_d": "x"}, "beta_d"),
        ("VPPrecond", {"beta_d": float("nan")}, "beta_d"),
        ("VPPrecond", {"beta_d": -5.0}, "beta_d"),
        ("VPPrecond", {"beta_d": 1e5}, "too large"),
        ("VPPrecond", {"epsilon_t": 0.0}, "epsilon_t"),
        ("iDDPMPrecond", {"M": 10**12}, "M"),
        ("iDDPMPrecond", {"M": 0}, "M"),
        ("iDDPMPrecond", {"M": float("inf")}, "M"),
        ("VEPrecond", {"sigma_min": 5.0, "sigma_max": 1.0}, "sigma_min 5 is not below sigma_max 1"),
        ("VEPrecond", {"sigma_max": float("inf")}, "sigma_max"),
    ],
)
def test_attributes_out_of_range_are_refused_in_one_line(tmp_path, gddim, name, attributes, message):
    model = persistent(
        MODULE | {"_init_kwargs": {"in_channels": 3, "out_channels": 3, "img_resolution": 16}}, "SongUNet"
    )
    own = {"img_channels": 3, "img_resolution": 16, "label_dim": 0, **attributes}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickled({"ema": persistent(MODULE | {"_modules": {"model": model}} | own, name)}))
    done = gddim("sample", "--checkpoint", path, "--out", tmp_path / "out")
    assert done.status == 1
    _, last = done.err.splitlines()  # the first says that it is converted
    assert last.startswith(f"gddim: {path}: its {name}: ")
    assert message in last


def test_modules_inside_themselves(tmp_path):
    module = dict(MODULE)
    module["_modules"] = {"a": persistent(MODULE), "model": None}
    inner = persistent(module)
    module["_modules"]["model"] = inner
    (tmp_path / "x.pkl").write_bytes(pickled({"ema": inner}))
    with pytest.raises(CheckpointError, match="not a network"):
        edm.read(tmp_path / "x.pkl")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path, data):
    content = bytearray(lzma.decompress((DATA / "edm_small_vp.pkl.xz").read_bytes())[:60_000])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    (tmp_path / "x.pkl").write_bytes(content)
    with suppress(CheckpointError):
        edm.read(tmp_path / "x.pkl")
