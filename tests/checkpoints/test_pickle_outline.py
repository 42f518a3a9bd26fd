"""Pickles described without being run: what data needs is understood, all else refused."""

import io
import pickle
import struct
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gddim_cli.checkpoints.formats.torch_outline import outline_of, tensor_shapes
from gddim_cli.checkpoints.pickle_outline import TORCH_MAGIC, Call, Interpreter, Name, OutlineError, read_outline

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=300),
    st.binary(max_size=300),
)  # fmt: skip
DATA = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(0, 9)), inner, max_size=5),
    ),
    max_leaves=20,
)


def plain(value):
    """With views of the file as bytes."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(inner) for inner in value)
    return value


@settings(max_examples=200, deadline=None)
@given(value=DATA, protocol=st.sampled_from([3, 4, 5]))
def test_data_is_read_as_pickle_reads_it(value, protocol):
    found = Interpreter(pickle.dumps(value, protocol)).run()
    assert plain(found) == value


class Runs:
    def __reduce__(self):
        return print, ("it ran",)


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_a_call_is_put_down_and_not_made(protocol, capsys):
    content = {"a": Runs(), "b": [1, 2.5, ("x",)]} if protocol > 1 else Runs()
    found = Interpreter(pickle.dumps(content, protocol)).run()
    call = found["a"] if protocol > 1 else found
    assert isinstance(call, Call)
    assert call.name in ("builtins.print", "__builtin__.print")
    assert call.args == ("it ran",)
    assert capsys.readouterr().out == ""


def test_objects_keep_their_state_and_items():
    found = Interpreter(pickle.dumps({"d": OrderedDict(a=1), "n": np.float64(3), "t": io.StringIO}, 4)).run()
    assert found["d"] == {"a": 1}
    assert found["n"].name.endswith("multiarray.scalar")
    assert found["t"] == Name("_io.StringIO")


def test_names_can_be_refused():
    def refuse(name):
        raise OutlineError(name)

    with pytest.raises(OutlineError, match=r"builtins\.print"):
        Interpreter(pickle.dumps(Runs(), 4), 0, refuse).run()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x80", b".", b"N", b"0.", b"s.", b"u.", b"(", b"R.", b"b.", b")R.", b"cos\nsystem\n)R", b"h\x05.",
        b"\x82\x01.", b"\x8e" + struct.pack("<Q", 1 << 60) + b".", b"\x8b" + struct.pack("<I", 1 << 31) + b".",
        b"((tN}(tNs.", b"X\xff\xff\xff\xff", b"I" + b"9" * 5000 + b"\n.", b"N}s.", b"]N(e.", b"NNa.", b"X\x01\0\0\0a(Ne.",
    ],
)  # fmt: skip
def test_damage_is_named(content):
    with pytest.raises(OutlineError):
        Interpreter(content).run()


def test_a_memo_index_is_not_a_size():
    content = b"]r\xff\xff\xff\xff0j\xff\xff\xff\xff."
    assert Interpreter(content).run() == []


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_pickles(data):
    content = bytearray(pickle.dumps({"a": Runs(), "b": OrderedDict(x=[1, "y", b"z" * 300, 2.5])}, 4))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(OutlineError):
        Interpreter(bytes(content)).run()


@pytest.mark.parametrize("zipped", [True, False])
def test_shapes_in_a_torch_file(tmp_path, zipped):
    module = torch.nn.Linear(3, 2)
    content = {"plain": torch.ones(4, 5), "parameter": module.weight, "other": 3}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert tensor_shapes(outline_of(tmp_path / "x.pt")) == {"plain": (4, 5), "parameter": (2, 3)}
    assert outline_of(tmp_path / "none") is None
    (tmp_path / "y.pt").write_bytes(b"hello")
    assert outline_of(tmp_path / "y.pt") is None
    (tmp_path / "empty").touch()
    with pytest.raises(OutlineError):
        read_outline(tmp_path / "empty")


def test_any_number_of_nested_parameters(gddim, tmp_path):
    """A parameter of a parameter and so on, thousands deep: no recursion."""
    value = None
    for _ in range(6000):
        value = Call("torch._utils._rebuild_parameter", (value,))
    assert tensor_shapes({"x": value}) == {}
    head = b"".join(pickle.dumps(part, 2) for part in (TORCH_MAGIC, 1001, {"little_endian": True}))
    key = b"module.all_modules.0.weight"
    nested = b"ctorch._utils\n_rebuild_parameter\nq\x000N" + b"\x85q\x010h\x00h\x01R" * 6000
    model = b"\x80\x02}X" + struct.pack("<I", len(key)) + key + nested + b"s."
    (tmp_path / "x.pth").write_bytes(head + model + pickle.dumps([], 2))
    result = gddim("convert", tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert (result.status, len(result.err.splitlines())) == (1, 1)
    assert "x.pth: " in result.err
