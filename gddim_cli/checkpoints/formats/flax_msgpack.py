"""The gDDIM authors' format: a training state as one Flax msgpack map, of which only `params_ema` is ever held.

Arrays are msgpack extension type 1, which holds msgpack of (shape, dtype name, raw little-endian bytes); type 2 is a
complex number, type 3 a NumPy scalar.
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
LARGEST_ARRAY = 1 << 28  # bytes; the largest of the released ones is 4.7 MB
MOST_ENTRIES = 100_000
READ = 1 << 20
DEEPEST = 8
BROKEN = (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError)


def read(path: Path) -> dict[str, Tensor]:
    """The averaged weights by their names, `Conv_0/kernel` and so on, float32 as stored. The rest is skipped.

    Memory: the averaged weights, one array and a read buffer, whatever the size of the file.

    Raises:
        CheckpointError: the file is truncated or not msgpack, has absurd lengths or no `params_ema`, or that holds anything but
            arrays.
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
            f"{path}: not a Flax msgpack training state ({reason}); fetch it again, or give its format with --format"
        ) from error
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{path}: has no '{WEIGHTS}', the averaged weights; not a training state of gDDIM's")
    return flatten(found, path)


def limits() -> dict[str, Any]:
    """The reader's limits: far above the sizes in released files, far below the memory."""
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
    """An extension: an array [its shape] as a NumPy array, a complex number, a NumPy scalar.

    Raises:
        ValueError: another extension type, an unknown dtype, or a shape that the bytes do not fill.
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
    """Nested maps of arrays as `a/b/c` to tensors.

    Raises:
        CheckpointError: an entry that is neither a map nor an array.
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
    """The array without a copy; it is never written to, though torch cannot know that of NumPy's read-only memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)
