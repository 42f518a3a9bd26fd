"""EDM's pickles (Karras et al., arXiv 2206.00364): released networks and training snapshots.

EDM's own program executes Python source that the pickle contains. This module executes nothing: `pickle_outline` reads
what the pickle describes, and the weights are copied out of the file. A file that imports a name outside `ALLOWED` and
`DTYPES` is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddim_cli.checkpoints.formats.base import Contents, Conversion, FormatSpec, Native
from gddim_cli.checkpoints.pickle_outline import Call, Interpreter, Name, OutlineError, Persistent, read_outline
from gddim_cli.errors import CheckpointError
from gddim_cli.runtime.text import printable

if TYPE_CHECKING:
    from torch import Tensor

OBJECT = "torch_utils.persistence._reconstruct_persistent_obj"
STORAGE = "torch.storage._load_from_bytes"
PARAMETER = "torch._utils._rebuild_parameter"
TENSOR = "torch._utils._rebuild_tensor_v2"
DICTIONARY = "torch.nn.modules.container.ModuleDict"
ALLOWED = {
    "collections.OrderedDict", "dnnlib.util.EasyDict", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.dtype", PARAMETER, TENSOR, DICTIONARY, OBJECT, STORAGE,
}  # fmt: skip
"""The names that the pickles of EDM's program import. Here they are only recorded."""
DTYPES = {"torch.FloatStorage": "<f4", "torch.HalfStorage": "<f2", "torch.DoubleStorage": "<f8"}
MOST_MODULES, DEEPEST = 20_000, 16

NETWORKS = {"SongUNet": "songunet", "DhariwalUNet": "dhariwal-unet"}
TRAINING_ONLY = ("augment_dim", "label_dropout")


def detect(path: Path) -> bool:
    """Whether the file is a pickle whose first bytes mention `ema` and a persistent object of EDM's program."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(4096)
    return start[:1] == b"\x80" and b"torch_utils.persistence" in start and b"ema" in start


def read(path: Path) -> Contents:
    """The averaged network's tensors by name (such as `model.enc.32x32_conv.weight`), and facts about the network.

    The facts are the class and attributes of its preconditioning, and the class and arguments of its architecture.

    Raises:
        CheckpointError: the file is damaged, imports a name outside `ALLOWED` and `DTYPES`, or does not hold a network
            as EDM's program saves it.
    """

    def refuse(name: str) -> None:
        if name not in ALLOWED and name not in DTYPES:
            raise CheckpointError(
                f"{path}: refused: it would run {printable(name, 60)} when loaded; no checkpoint needs to run anything"
            )

    try:
        content = read_outline(path, refuse)
        average = content["ema"]
        tensors = {
            name: tensor_of(value, refuse)
            for prefix, module in walk(average)
            for kind in ("_parameters", "_buffers")
            for name, value in named(prefix, state_of(module).get(kind))
        }
        network = state_of(average)["_modules"]["model"]
        facts = {
            "class": class_of(average),
            "attributes": plain_values(state_of(average)),
            "network": class_of(network),
            "arguments": plain_values(state_of(network)["_init_kwargs"]),
        }
    except OutlineError as error:
        raise CheckpointError(f"{path}: not a complete pickle of EDM's program ({error}); fetch it again") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: its 'ema' is not a network as EDM's program saves it ({type(error).__name__}); fetch it again"
        ) from error
    return Contents(tensors, facts)


def state_of(module: Any) -> dict[str, Any]:
    """The attributes of a module that the pickle describes.

    Raises:
        TypeError: the value is not a module.
    """
    state = module.args[0]["state"] if isinstance(module, Call) and module.name == OBJECT else None
    if isinstance(module, Call) and module.name == DICTIONARY:
        state = module.state
    if not isinstance(state, dict):
        raise TypeError("not a module")
    return state


def class_of(module: Any) -> str:
    """The name of a persistent object's class."""
    return str(module.args[0]["class_name"])


def walk(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A module and all modules inside it, each with the prefix of its tensors' names.

    Raises:
        ValueError: there are too many modules or too many levels of nesting, as when a module contains itself.
    """
    waiting = [(prefix, module)]
    for _ in range(MOST_MODULES):
        if not waiting:
            return
        prefix, found = waiting.pop()
        if prefix.count(".") > DEEPEST:
            break
        yield prefix, found
        inside = state_of(found).get("_modules") or {}
        waiting += [(f"{prefix}{name}.", child) for name, child in inside.items() if child is not None]
    raise ValueError("too many modules")


def named(prefix: str, values: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of a module, each with its full name."""
    for name, value in (values or {}).items():
        if value is not None:
            yield f"{prefix}{name}", value


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The public attributes that are numbers, strings or lists."""
    kept = (bool, int, float, str, list)
    return {name: value for name, value in values.items() if isinstance(value, kept) and not name.startswith("_")}


def tensor_of(value: Any, refuse: Any) -> Tensor:
    """A tensor as float32, copied out of the file.

    Raises:
        ValueError, TypeError: the value is not a tensor, or the tensor claims more numbers than its storage holds.
    """
    import numpy as np
    import torch

    if isinstance(value, Call) and value.name == PARAMETER:
        value = value.args[0]
    if not isinstance(value, Call) or value.name != TENSOR:
        raise TypeError("not a tensor")
    storage, offset, size, stride = value.args[:4]
    numbers = numbers_of(storage, refuse)
    steps = [step * numbers.itemsize for step in stride]
    extent = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) + 1
    whole = all(isinstance(side, int) and side > 0 for side in size) and all(step >= 0 for step in steps)
    if not whole or offset < 0 or extent > len(numbers) or int(np.prod(size, dtype=object)) > len(numbers):
        raise ValueError("a tensor outside its storage")
    view = np.lib.stride_tricks.as_strided(numbers[offset:], size, steps, writeable=False)
    return torch.from_numpy(np.array(view, dtype=np.float32))


def numbers_of(storage: Any, refuse: Any) -> Any:
    """The numbers of a storage that torch saved inside the pickle, as a view of the file.

    Such a storage consists of five pickles, the number of elements, and the elements. The pickles hold a magic number,
    a version, the system, a description of the storage, and its keys.

    Raises:
        ValueError, TypeError, OutlineError: the bytes are not such a storage.
    """
    import numpy as np

    if not isinstance(storage, Call) or storage.name != STORAGE:
        raise TypeError("not a storage")
    inner = Interpreter(storage.args[0], 0, refuse)
    *_, description, _ = (inner.run() for _ in range(5))
    if not isinstance(description, Persistent):
        raise TypeError("not a storage")
    kind = description.identity[1]
    if not isinstance(kind, Name) or kind.name not in DTYPES:
        raise TypeError("not numbers")
    dtype = np.dtype(DTYPES[kind.name])
    count = inner.number("<q")
    return np.frombuffer(inner.take(count * dtype.itemsize), dtype)


def convert(contents: Contents, conversion: Conversion) -> Native:
    """The card and the tensors of the preconditioned network. The prefix `model.` is removed from the tensors' names.

    Raises:
        CheckpointError: a class is not supported, or an attribute is missing or outside its range.
    """
    from gddim_cli.checkpoints.card import Card, Images, Sampling
    from gddim_cli.checkpoints.formats.edm_preconditioning import PRECONDITIONINGS, preconditioning_of

    facts, path = contents.facts, conversion.path
    kind, made_by = facts["network"], facts["class"]
    if kind not in NETWORKS or made_by not in PRECONDITIONINGS:
        raise CheckpointError(
            f"{path}: {printable(made_by, 60)} around {printable(kind, 60)} is not supported; supported are "
            f"{', '.join(PRECONDITIONINGS)} around {' or '.join(NETWORKS)}"
        )
    preconditioning = preconditioning_of(made_by, facts["attributes"], path)
    arguments = {name: value for name, value in facts["arguments"].items() if name not in TRAINING_ONLY}
    card = Card(
        name=conversion.name,
        title=f"{path.name}: {made_by} of EDM around a {kind}",
        images=Images(preconditioning.img_channels, preconditioning.img_resolution),
        network={"kind": NETWORKS[kind], **arguments},
        labels=preconditioning.label_dim,
        sampling=Sampling(quantize="round"),
        **preconditioning.card_fields(),
    )
    return card, {
        name.removeprefix("model."): tensor
        for name, tensor in contents.tensors.items()
        if name.startswith("model.") and not name.endswith(".resample_filter") and ".map_augment." not in name
    }


SPEC = FormatSpec("edm", "pickle of EDM's program", detect, read, convert)
