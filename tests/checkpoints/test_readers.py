"""The readers against the golden files and against hostile ones."""

import os
import struct
import tracemalloc
import zipfile

import msgpack
import numpy as np
import pytest
import torch

from gddim_cli.checkpoints.formats import flax_msgpack, torch_pickle
from gddim_cli.errors import CheckpointError


def packed(array, code=1):
    array = np.asarray(array)
    return msgpack.ExtType(code, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True))


def state(weights, **more):
    return {"step": packed(3), "optimizer": {"target": weights}, **more, "params_ema": weights, "rng": packed([1, 2])}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else msgpack.packb(content, use_bin_type=True))
    return path


def test_flax_reads_only_the_averages(golden_file):
    raw = msgpack.unpackb(golden_file("ncsnpp_small_flax.msgpack").read_bytes(), raw=False)
    read = flax_msgpack.read(golden_file("ncsnpp_small_flax.msgpack"))
    assert len(read) == 277
    shape, dtype, data = msgpack.unpackb(raw["params_ema"]["Conv_0"]["kernel"].data)
    np.testing.assert_array_equal(read["Conv_0/kernel"].numpy().ravel(), np.frombuffer(data, dtype))
    assert list(read["Conv_0/kernel"].shape) == shape


def test_flax_memory_does_not_grow_with_what_is_skipped(tmp_path):
    bulk = {f"p{i}": packed(np.zeros(1 << 18, np.float32)) for i in range(64)}
    path = write(tmp_path / "big", {"optimizer": bulk, "params_ema": {"a": packed(np.ones(3, np.float32))}})
    tracemalloc.start()
    read = flax_msgpack.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read["a"].tolist() == [1, 1, 1]
    assert path.stat().st_size > 60 << 20
    assert peak < 12 << 20


def test_flax_scalars_of_every_kind_and_keys_in_any_order(tmp_path):
    weights = {"a": {"b": packed(np.arange(6, dtype=np.float32).reshape(2, 3))}}
    scalars = {"lr": 2e-4, "step": packed(np.int32(7), 3), "ema_rate": packed(np.float32(0.9)), "z": None}
    complexes = {"c": msgpack.ExtType(2, msgpack.packb((1.0, -2.0)))}
    for order in ([weights, {}], [{}, weights]):
        content = {**scalars, **complexes, "params_ema": weights}
        if order[0]:
            content = {"params_ema": weights, **scalars, **complexes}
        assert flax_msgpack.read(write(tmp_path / "x", content))["a/b"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_flax_extension_types():
    assert flax_msgpack.decode(2, msgpack.packb((1.0, -2.0))) == 1 - 2j
    scalar = flax_msgpack.decode(3, packed(np.float32(0.5)).data)
    assert isinstance(scalar, np.float32)
    assert scalar == 0.5


ONE = {"a": packed(np.ones(2, np.float32))}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"\xdf\xff\xff\xff\xff", "truncated|not a Flax"),
        (b"\x81\xaaparams_ema\xc9\xff\xff\xff\xff\x01", "not a Flax"),
        (b"\x81\xaaparams_ema\xdd\xff\xff\xff\xff", "not a Flax"),
        (b"\x81\xaaparams_ema\xdf\xff\xff\xff\xff", "not a Flax"),
        (b"\x81\xaaoptimizer\xc9\xff\xff\xff\xff\x01", "truncated|not a Flax"),
        (b"\x81\xa4step" + b"\x91" * 5000, "truncated|not a Flax"),
        (b"\x81\xaaparams_ema" + b"\x81\xa1a" * 2000, "not a Flax|truncated"),
        (b"<!DOCTYPE html><html>", "not a Flax"),
        (b"\xc1\xc1", "not a Flax"),
        ({"params": ONE}, "no 'params_ema'"),
        ({"params_ema": {}}, "no 'params_ema'"),
        ({"params_ema": 3}, "no 'params_ema'"),
        (state({"a": packed(np.ones(2, np.int32))}), "params_ema/a is an array of int32"),
        (state({"a": {"b": 1.0}}), "params_ema/a/b is a float"),
        (state({"a": "x"}), "params_ema/a is a str"),
        (state({"a": msgpack.ExtType(9, b"x")}), "unknown extension type 9"),
        (state({"a": msgpack.ExtType(1, msgpack.packb(((2,), "O", b"x" * 16)))}), "dtype 'O'"),
        (state({"a": msgpack.ExtType(1, msgpack.packb(((3,), "float32", b"x" * 8)))}), "not a Flax"),
        (state({"a": msgpack.ExtType(1, msgpack.packb(((-1, 1 << 60), "float32", b"x" * 8)))}), "not a Flax"),
        (state({"a": msgpack.ExtType(1, b"\x93")}), "not a Flax"),
    ],
)
def test_flax_hostile_files(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        flax_msgpack.read(write(tmp_path / "hostile.msgpack", content))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "hostile.msgpack"))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_flax_truncated(golden_file, tmp_path, share):
    whole = golden_file("ncsnpp_small_flax.msgpack").read_bytes()
    path = write(tmp_path / "cut", whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"truncated|no 'params_ema'"):
        flax_msgpack.read(path)


def test_missing_file(tmp_path):
    for read in (flax_msgpack.read, torch_pickle.read_training_state):
        with pytest.raises(CheckpointError, match="cannot be read: No such file"):
            read(tmp_path / "none")


@pytest.mark.parametrize(("name", "count"), [("cldsgm", 277), ("scoresde", 270)])
def test_torch_reads_averages_in_order(golden_file, name, count):
    read = torch_pickle.read_training_state(golden_file(f"ncsnpp_small_{name}.pth"))
    raw = torch_pickle.unpickle(golden_file(f"ncsnpp_small_{name}.pth"))
    assert len(read) == count
    assert torch.equal(read["3.weight" if name == "cldsgm" else "2.weight"], raw["ema"]["shadow_params"][4])
    if name == "cldsgm":
        assert torch.equal(read["0.W"], raw["model"]["module.all_modules.0.W"])
    assert isinstance(raw["optimizer"]["param_groups"][0]["lr"], np.float64)


def test_torch_reads_the_old_layout_too(golden_file, tmp_path):
    content = torch_pickle.unpickle(golden_file("ncsnpp_small_scoresde.pth"))
    content["optimizer"] = {}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    new, old = (
        torch_pickle.read_training_state(golden_file("ncsnpp_small_scoresde.pth")),
        torch_pickle.read_training_state(tmp_path / "old.pth"),
    )
    assert all(torch.equal(new[key], old[key]) for key in new)


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("layout", [True, False])
def test_a_pickle_that_would_run_code_does_not(tmp_path, layout):
    path = tmp_path / "hostile.pth"
    content = {"model": {}, "ema": {"shadow_params": []}, "optimizer": Runs(tmp_path / "ran")}
    torch.save(content, path, _use_new_zipfile_serialization=layout)
    with pytest.raises(CheckpointError, match=r"refused: it would run \w+\.mkdir") as caught:
        torch_pickle.read_training_state(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_only_numpy_scalars_of_numbers_are_let_through(tmp_path):
    torch.save({"model": {}, "ema": {"shadow_params": np.ones(3)}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="refused: it would run numpy"):
        torch_pickle.read_training_state(tmp_path / "x.pth")


W = "module.all_modules.0.weight"
SIGMAS = torch.linspace(5, 1, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a training state"),
        ({"model": {}}, "not a training state"),
        ({"model": {W: 3}, "ema": {"shadow_params": [torch.ones(1)]}}, "must hold tensors only"),
        ({"model": {}, "ema": {"shadow_params": 5}}, "must hold tensors only"),
        ({"model": {"other": torch.ones(1)}, "ema": {"shadow_params": [torch.ones(1)]}}, "'other'"),
        ({"model": {3: torch.ones(1)}, "ema": {"shadow_params": [torch.ones(1)]}}, "'3'"),
        ({"model": {W: torch.ones(1)}, "ema": {"shadow_params": []}}, "0 averaged tensors for 1 trained"),
        (
            {"model": {W: torch.ones(1)}, "ema": {"shadow_params": [torch.ones(2)]}},
            r"0.weight is \[2\], the model's is",
        ),
        ({"model": {"module.sigmas": -SIGMAS}, "ema": {"shadow_params": []}}, "module.sigmas is not a table"),
        ({"model": {"module.sigmas": SIGMAS[:, None]}, "ema": {"shadow_params": []}}, "module.sigmas is not a table"),
    ],
)
def test_torch_files_that_do_not_fit(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        torch_pickle.read_training_state(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"<html>", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100), struct.pack("<Q", 1 << 60)]
)
def test_torch_garbage(tmp_path, content):
    path = write(tmp_path / "x.pth", content)
    with pytest.raises(CheckpointError, match=r"not a complete torch checkpoint|not a training state") as caught:
        torch_pickle.read_training_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_torch_truncated(golden_file, tmp_path, share):
    whole = golden_file("ncsnpp_small_cldsgm.pth").read_bytes()
    path = write(tmp_path / "cut.pth", whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="not a complete torch checkpoint"):
        torch_pickle.read_training_state(path)


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning", "ignore:.*quantize:UserWarning")
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("sparse", lambda: torch.ones(3).to_sparse()),
        ("meta", lambda: torch.ones(3, device="meta")),
        ("nested", lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
        ("quantized", lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
    ],
)
def test_tensors_that_are_no_arrays_are_refused(tmp_path, kind, make):
    dictionary, training = tmp_path / "x.pt", tmp_path / "x.pth"
    torch.save({"a": torch.ones(3), "b": make()}, dictionary)
    torch.save({"model": {"module.all_modules.0.W": make()}, "ema": {"shadow_params": []}}, training)
    with pytest.raises(CheckpointError, match=f"holds a .*{kind}"):
        torch_pickle.read_state_dict(dictionary)
    with pytest.raises(CheckpointError, match=f"holds a .*{kind}"):
        torch_pickle.training_state(training)


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(CheckpointError, match="not a complete torch checkpoint"):
        torch_pickle.read_training_state(tmp_path / "x.zip")
