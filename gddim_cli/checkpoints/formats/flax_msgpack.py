"""The gDDIM authors' format: a training state as one Flax msgpack map. Only `params_ema` is kept in memory.

An array is a msgpack extension of type 1, whose data is (shape, dtype name, raw little-endian bytes), again as msgpack.
Type 2 is a complex number, type 3 a NumPy scalar.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from torch import Tensor

from gddim_cli.errors import CheckpointError

WEIGHTS = "params_ema"
LARGEST_ARRAY = 1 << 28  # bytes; the largest array in the released files has 4.7 MB
MOST_ENTRIES = 100_000
READ = 1 << 20
DEEPEST = 8
BROKEN = (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError)


def read(path: Path) -> dict[str, Tensor]:
    """The averaged weights by name (such as `Conv_0/kernel`), in the dtype in which they are stored.

    The rest of the file is skipped. Memory holds only the averaged weights, one other array at a time, and a read
    buffer.

    Raises:
        CheckpointError: the file is truncated or not msgpack, exceeds the reader's limits, or has no `params_ema`; or
            `params_ema` holds anything but arrays of floating-point numbers.
    """
    found: Any = None
    try:
        with path.open("rb") as file:
            unpacker = msgpack.Unpacker(file, raw=False, strict_map_key=False, read_size=READ, **limits())
            for _ in range(unpacker.read_map_header()):
                if unpacker.unpack() == WEIGHTS:
                    found = unpacker.unpack()
                else:
                    unpacker.skip()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except msgpack.OutOfData as error:
        raise CheckpointError(f"{path}: truncated; fetch it again") from error
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path}: not a Flax msgpack training state ({reason}); fetch it again, or name its format with --format"
        ) from error
    if not isinstance(found, dict) or not found:
        raise CheckpointError(
            f"{path}: has no '{WEIGHTS}', the averaged weights; it is not a training state of gDDIM's program"
        )
    return flatten(found, path)


def limits() -> dict[str, Any]:
    """The reader's limits, far above the sizes in released files and far below the memory of a computer."""
    return {
        "ext_hook": decode,
        "max_buffer_size": LARGEST_ARRAY + 2 * READ,
        "max_ext_len": LARGEST_ARRAY,
        "max_bin_len": LARGEST_ARRAY,
        "max_str_len": 1 << 16,
        "max_array_len": MOST_ENTRIES,
        "max_map_len": MOST_ENTRIES,
    }


def decode(code: int, data: bytes) -> Any:
    """The value of a msgpack extension of type `code`: a NumPy array (1), a complex number (2) or a NumPy scalar (3).

    Raises:
        ValueError: the extension type or the dtype is unknown, or the number of bytes does not match the shape.
    """
    if code == 2:
        real, imaginary = msgpack.unpackb(data)
        return complex(real, imaginary)
    if code not in (1, 3):
        raise ValueError(f"unknown extension type {code}")
    shape, dtype, raw = msgpack.unpackb(data, raw=False, max_bin_len=LARGEST_ARRAY)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"an array of dtype {str(dtype)[:40]!r}")
    array = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape([int(side) for side in shape])
    return array if code == 1 else array[()]


INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
DTYPES = frozenset(["bool", *INTEGERS, "float16", "float32", "float64", "complex64", "complex128"])


def flatten(tree: dict[Any, Any], path: Path, above: str = "", depth: int = 0) -> dict[str, Tensor]:
    """Nested maps of arrays as one dictionary of tensors, whose names have the form `a/b/c`.

    Raises:
        CheckpointError: an entry is neither a map nor an array of floating-point numbers, or is nested too deeply.
    """
    flat: dict[str, Tensor] = {}
    for key, value in tree.items():
        name = f"{above}/{key}" if above else str(key)
        if isinstance(value, dict) and depth < DEEPEST:
            flat |= flatten(value, path, name, depth + 1)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            flat[name] = as_tensor(value)
        else:
            what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            raise CheckpointError(f"{path}: {WEIGHTS}/{name} is {what}, not an array of float32; fetch it again")
    return flat


def as_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor, without a copy.

    torch warns that NumPy's memory is read-only. The warning is silenced, because the tensor is never written to.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)
