"""Writes a network with random weights as a pickle in the layout of EDM's program: 55.7 M parameters, 223 MB.

python benchmarks/edm_pickle.py OUT.pkl [NAME]

NAME is a model that `gddim checkpoints` lists and whose file has this layout (default: edm-cifar10-uncond-vp). Every
module is stored as an object of `torch_utils.persistence` with the module's state, and the name and source code of the
module's class. The source code here is `raise SystemExit`, which would end any program that executed it.
"""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gddim_cli.checkpoints.load import empty_network
from gddim_cli.hub.store import card_of
from gddim_cli.models.networks.edm_layers import Convolution, UNetBlock
from gddim_cli.models.networks.layers import GroupNorm
from gddim_cli.models.networks.resampling import Resampling

MODULE, FUNCTION = "torch_utils.persistence", "_reconstruct_persistent_obj"
CLASSES = {
    Convolution: "Conv2d",
    Resampling: "Conv2d",
    nn.Linear: "Linear",
    GroupNorm: "GroupNorm",
    UNetBlock: "UNetBlock",
}
AUGMENT_DIM = 9


class Persistent:
    """An object that is pickled as EDM's program pickles its modules."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit\n", "class_name": self.class_name}
        return getattr(sys.modules[MODULE], FUNCTION), ({**meta, "state": self.state},)


def register_names() -> None:
    """Creates the modules and the function that the pickle refers to by name; the function is never called."""

    def reconstruct(meta: Any) -> Any:
        raise NotImplementedError(meta)

    reconstruct.__module__, reconstruct.__qualname__ = MODULE, FUNCTION
    package, module = types.ModuleType("torch_utils"), types.ModuleType(MODULE)
    setattr(module, FUNCTION, reconstruct)
    sys.modules.update({"torch_utils": package, MODULE: module})


def persistent(module: nn.Module, **attributes: Any) -> Any:
    """A module and all its submodules, in the layout of EDM's program."""
    inside = {name: persistent(child) for name, child in module.named_children() if not isinstance(child, Resampling)}
    if isinstance(module, nn.ModuleDict):
        made = nn.ModuleDict()
        made.__dict__["_modules"] = {name: persistent(child) for name, child in module.named_children()}
        return made
    buffers: dict[str, Any] = dict(module.named_buffers(recurse=False))
    if isinstance(module, (Convolution, Resampling)):
        taps = module if isinstance(module, Resampling) else module.resampling
        buffers = {"resample_filter": None if taps is None else taps.taps}
    state = {
        "training": False,
        "_parameters": dict(module.named_parameters(recurse=False)),
        "_buffers": buffers,
        "_non_persistent_buffers_set": set(),
        "_modules": inside,
        **attributes,
    }
    return Persistent(CLASSES.get(type(module), type(module).__name__), state)


def write(path: Path, name: str = "edm-cifar10-uncond-vp") -> None:
    """Writes a training snapshot with the architecture of the model `name` and random weights."""
    card = card_of(name)
    torch.manual_seed(0)
    network = empty_network(card, path)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    arguments = {key: value for key, value in card.network.items() if key != "kind"}
    arguments |= {"augment_dim": AUGMENT_DIM, "dropout": 0.13}
    model = persistent(network, _init_args=(), _init_kwargs=arguments)
    augment = nn.Linear(
        AUGMENT_DIM, int(arguments["model_channels"]) * int(arguments["channel_mult_noise"]), bias=False
    )
    model.state["_modules"]["map_augment"] = persistent(augment)
    images = {"img_resolution": card.images.size, "img_channels": card.images.channels, "label_dim": card.labels}
    outer = {"_parameters": {}, "_buffers": {}, "_modules": {"model": model}, "use_fp16": False, "sigma_data": 0.5}
    average = Persistent("EDMPrecond", {**outer, **images, "_init_args": (), "_init_kwargs": {**images, **arguments}})
    register_names()
    snapshot: dict[str, Any] = {
        "ema": average,
        "loss_fn": Persistent("EDMLoss", {}),
        "augment_pipe": None,
        "dataset_kwargs": {},
    }
    with path.open("wb") as file:
        pickle.dump(snapshot, file, protocol=4)


if __name__ == "__main__":
    write(Path(sys.argv[1]), *sys.argv[2:3])
