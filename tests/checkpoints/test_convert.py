"""`gddim convert`: the golden files become checkpoints that give the original programs' outputs and can be sampled."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gddim_cli.checkpoints import native
from gddim_cli.checkpoints.formats.registry import FORMATS
from gddim_cli.cli.main import main
from gddim_cli.hub.load import load
from gddim_cli.hub.store import card_of, names
from gddim_cli.models.networks.ncsnpp import NCSNpp

DATA = Path(__file__).parent.parent / "data"
CPU = torch.device("cpu")
CASES = [("cld-cifar10", "flax.msgpack", 999), ("cldsgm-cifar10", "cldsgm.pth", 1), ("vp-cifar10", "scoresde.pth", 999)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("GDDIM_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def converted(golden_file, tmp_path_factory):
    """The native file of a golden one."""
    folder = tmp_path_factory.mktemp("converted")

    def make(card, ending):
        out = folder / f"{card}.safetensors"
        if not out.exists():
            source = golden_file(f"ncsnpp_small_{ending}")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["gddim", "convert", str(source), str(out), "--card", card])
                with pytest.raises(SystemExit) as ended:
                    main()
            assert ended.value.code == 0
        return out

    return make


@pytest.mark.parametrize(("card", "ending", "scale"), CASES)
def test_a_converted_file_gives_the_original_outputs(converted, card, ending, scale):
    model = load(str(converted(card, ending)), CPU)
    assert model.card.name == card
    assert model.card.time_scale == scale
    with np.load(DATA / f"ncsnpp_small_{ending.split('.')[0]}_io.npz") as file:
        x, t, expected = (torch.from_numpy(file[key]) for key in file.files)
    if "msgpack" in ending:
        x, expected = x.permute(0, 3, 1, 2), expected.permute(0, 3, 1, 2)
    made = model.network(x, scale * t)
    assert (made - expected).norm() < 2e-5 * expected.norm()


@pytest.mark.parametrize(("card", "ending", "scale"), CASES)
def test_a_converted_file_can_be_sampled(converted, gddim, tmp_path, card, ending, scale):
    words = ("--checkpoint", converted(card, ending), "--nfe", 3, "--num", 2, "--out", tmp_path / "imgs")
    status, _, err = gddim("sample", *words)
    assert status == 0, err
    told = json.loads((tmp_path / "imgs" / "run.json").read_text())
    assert told["nfe"] == 3
    assert told["settings"]["k"] == card_of(card).sampling.config(card_of(card).make_diffusion()).k
    assert told["settings"]["diffusion"] == card_of(card).make_diffusion().name
    assert (tmp_path / "imgs" / "grid.png").exists()


def test_bdm_files_can_be_sampled(gddim, tmp_path):
    """A network of BDM's kind and random weights: the paper's published one has this layout."""
    card = card_of("bdm-cifar10")
    arguments = {**card.network, "nf": 8, "num_res_blocks": 1, "ch_mult": [1, 1]}
    network = NCSNpp(**{key: value for key, value in arguments.items() if key != "kind"})
    import msgspec

    native.write(tmp_path / "bdm.safetensors", msgspec.structs.replace(card, network=arguments), network.state_dict())
    words = ("--checkpoint", tmp_path / "bdm.safetensors", "--nfe", 4, "--num", 2)
    for trial in ("a", "b"):
        more = ("--save-raw", tmp_path / f"{trial}.npy", "--trajectory", tmp_path / f"{trial}.gif")
        status, _, err = gddim(
            "sample", *words, "--out", tmp_path / trial, *more, *(("--batch-size", 1) * (trial == "b"))
        )
        assert status == 0, err
    raw = np.load(tmp_path / "a.npy")
    assert raw.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(raw, np.load(tmp_path / "b.npy"), atol=1e-3 * np.abs(raw).max())


def test_a_mixed_score_refuses_k_r(converted, gddim, tmp_path):
    path = converted("cldsgm-cifar10", "cldsgm.pth")
    status, _, err = gddim("sample", "--checkpoint", path, "--k", "R", "--nfe", 3, "--out", tmp_path / "imgs")
    assert status == 2
    assert "score of the velocity only" in err
    assert not (tmp_path / "imgs").exists()


def test_a_noise_prediction_refuses_another_diffusion(converted, gddim, tmp_path):
    path = converted("cld-cifar10", "flax.msgpack")
    status, _, err = gddim("sample", "--checkpoint", path, "--diffusion", "vp", "--nfe", 3, "--out", tmp_path / "imgs")
    assert status == 2
    assert "of no other diffusion" in err


@pytest.mark.parametrize(
    ("format", "ending", "assumed"),
    [
        ("gddim-flax", "flax.msgpack", ["image_size=32", "attn_resolutions=[16]"]),
        ("cldsgm", "cldsgm.pth", ["image_size=32"]),
        ("score-sde", "scoresde.pth", ["sde=vpsde", "image_size=32", "fir=False"]),
    ],
)
def test_by_format_says_what_is_assumed(golden_file, gddim, tmp_path, format, ending, assumed):
    source = golden_file(f"ncsnpp_small_{ending}")
    status, out, err = gddim("convert", source, tmp_path / "small.safetensors", "--format", format)
    assert (status, out) == (0, "")
    assert [f"{text} is assumed" in err for text in assumed] == [True] * len(assumed)
    assert err.count("is assumed") == len(assumed)
    card, _ = native.read(tmp_path / "small.safetensors")
    assert card.name == "small"
    assert card.network["nf"] == 16
    assert card.network["num_res_blocks"] == 1
    assert card.published == {}


@pytest.mark.parametrize(("card", "ending", "scale"), CASES)
def test_the_format_is_recognised_from_the_file(golden_file, converted, gddim, tmp_path, card, ending, scale):
    source = golden_file(f"ncsnpp_small_{ending}")
    assert gddim("convert", source, tmp_path / "small.safetensors")[0] == 0
    made, _ = native.read(tmp_path / "small.safetensors")
    named, _ = native.read(converted(card, ending))
    assert made.network == named.network
    assert made.diffusion == named.diffusion
    assert [spec.name for spec in FORMATS.values() if spec.detect(source)] == [card_of(card).source.format]
    model = load(str(source), CPU)
    assert model.card.name == source.stem
    assert load(str(source), CPU).path == model.path


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x81\xa3abc\x01", b"\x89PNG", b"PK\x03\x04" + bytes(60), b"{}"])
def test_other_files_are_not_recognised(gddim, tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    status, _, err = gddim("convert", tmp_path / "file", tmp_path / "x.safetensors")
    assert status == 1
    assert "not a checkpoint of a known format" in err
    status, _, err = gddim("convert", tmp_path / "none", tmp_path / "x.safetensors")
    assert "no such file or folder" in err
    assert not (tmp_path / "x.safetensors").exists()


def test_a_native_file_needs_no_conversion(gddim, tiny, tmp_path):
    result = gddim("convert", tiny, tmp_path / "out.safetensors")
    assert (result.status, f"{tiny}: is a native (safetensors) file already; use it" in result.err) == (1, True)
    assert not (tmp_path / "out.safetensors").exists()


def test_set_adds_and_contradicts(golden_file, gddim, tmp_path):
    source, out = golden_file("ncsnpp_small_scoresde.pth"), tmp_path / "x.safetensors"
    words = ("convert", source, out, "--card", "vp-cifar10")
    assert gddim(*words, "--set", "image_size=64", "--set", "fir=true", "--set", "nf=16")[0] == 0
    card, _ = native.read(out)
    assert card.images.size == 64
    assert card.network["attn_resolutions"] == [32]
    assert card.network["fir"] is True
    out.unlink()
    for given, message in [
        ("nf=32", "contradicts the tensors, which say 16"),
        ("image_size=30", "image side 30 is not a multiple"),
        ("in_channels=4", "contradicts"),
    ]:
        status, _, err = gddim(*words, "--set", given)
        assert status == 2
        assert message in err
        assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "onnx"), "--format: there is no checkpoint format 'onnx'; known: gddim-flax"),
        (("--format", "score-sde", "--card", "cld-cifar10"), "contradicts --card cld-cifar10"),
        (("--card", "cld-cifer10"), "did you mean 'cld-cifar10'"),
        (("--card", "cldsgm-cifar10"), "not a complete torch checkpoint"),
        (("--card", "bdm-cifar10"), "6 input channels do not match: bdm-cifar10 has states of dimension 1"),
    ],
)
def test_wrong_calls(golden_file, gddim, tmp_path, words, message):
    status, _, err = gddim("convert", golden_file("ncsnpp_small_flax.msgpack"), tmp_path / "x.safetensors", *words)
    assert status in (1, 2)
    assert message in err
    assert err.startswith("gddim: ") or "is assumed" in err
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []


def test_an_unwritable_place(golden_file, gddim, tmp_path):
    (tmp_path / "file").touch()
    words = ("--card", "cldsgm-cifar10")
    status, _, err = gddim(
        "convert", golden_file("ncsnpp_small_cldsgm.pth"), tmp_path / "file" / "x.safetensors", *words
    )
    assert status == 1
    assert "cannot be written" in err
    status, _, err = gddim("convert", golden_file("ncsnpp_small_cldsgm.pth"), tmp_path / "x.pt", *words)
    assert status == 2
    assert ".safetensors" in err


@pytest.mark.parametrize("name", ["cld-cifar10", "bdm-cifar10", "cldsgm-cifar10", "vp-cifar10"])
def test_cards_are_whole(name):
    card = card_of(name)
    assert name in names()
    assert card.name == name
    with torch.device("meta"):
        NCSNpp(**{key: value for key, value in card.network.items() if key != "kind"})
    assert card.make_diffusion()
    assert card.source.size > 1e9
    assert card.source.page.startswith("https://drive.google.com/")
    assert card.cite


def test_a_file_that_exists_is_replaced_only_by_force(gddim, golden_file, tmp_path):
    source, out = golden_file("ncsnpp_small_cldsgm.pth"), tmp_path / "mine.safetensors"
    out.write_bytes(b"a user's weights")
    words = ("convert", source, out, "--card", "cldsgm-cifar10")
    status, _, err = gddim(*words)
    assert (status, out.read_bytes()) == (2, b"a user's weights")
    assert "OUT: " in err
    assert "exists and was not written by this run; choose another name, or --force" in err
    assert gddim(*words, "--force")[0] == 0
    assert load(str(out), torch.device("cpu")).card.name
