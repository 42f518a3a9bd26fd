"""The names of NCSN++ tensors in the original programs' files.

In torch files, the modules are numbered in call order. In Flax files, the modules of each kind are numbered separately.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gddim_cli.checkpoints.formats.ncsnpp import FIR_CONV, PLAIN_CONV, Layout
from gddim_cli.checkpoints.native import all_finite
from gddim_cli.errors import CheckpointError
from gddim_cli.models.networks.layers import GroupNorm
from gddim_cli.models.networks.ncsnpp import DownStage, NCSNpp, UpStage
from gddim_cli.models.networks.ncsnpp_layers import AttentionBlock, FourierEmbedding, PyramidStep, ResidualBlock
from gddim_cli.runtime.text import printable

FLAX_KINDS = {
    FourierEmbedding: "GaussianFourierProjection",
    nn.Linear: "Dense",
    nn.Conv2d: "Conv",
    GroupNorm: "GroupNorm",
    ResidualBlock: "ResnetBlockBigGANpp",
    AttentionBlock: "AttnBlockpp",
    PyramidStep: "Downsample",
}
INSIDE = {
    ResidualBlock: {
        "norm_in": "GroupNorm_0",
        "conv_in": "Conv_0",
        "time": "Dense_0",
        "norm_out": "GroupNorm_1",
        "conv_out": "Conv_1",
        "skip": "Conv_2",
    },
    AttentionBlock: {"norm": "GroupNorm_0", "query": "NIN_0", "key": "NIN_1", "value": "NIN_2", "out": "NIN_3"},
}


@dataclass(frozen=True)
class Place:
    """Where in a file a tensor of the network is stored.

    Attributes:
        name: its name in the network.
        original: its name in the file.
        shape: its shape in the network.
        axes: the permutation that brings the file's axes to the network's order; None if the order is the same. If the
            network's tensor has more axes than the file's, the additional ones are last and have length 1.
    """

    name: str
    original: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None

    @property
    def original_shape(self) -> tuple[int, ...]:
        """The shape that the file's tensor must have."""
        if self.axes is None:
            return self.shape
        shape = [0] * len(self.axes)
        for ours, theirs in enumerate(self.axes):
            shape[theirs] = self.shape[ours]
        return tuple(shape)

    def take(self, tensor: Tensor) -> Tensor:
        """The file's tensor in the network's layout: a contiguous copy."""
        turned = tensor if self.axes is None else tensor.permute(self.axes)
        return turned.reshape(self.shape).clone(memory_format=torch.contiguous_format)


def call_order(network: NCSNpp) -> Iterator[tuple[str, nn.Module]]:
    """The modules that the original programs number, in call order, each together with its name in `network`."""
    if isinstance(network.embed, FourierEmbedding):
        yield "embed", network.embed
    for name in ("time_in", "time_out", "conv_in"):
        yield name, network.get_submodule(name)
    for level, stage in enumerate(network.down):
        assert isinstance(stage, DownStage)
        for i, block in enumerate(stage.blocks):
            yield f"down.{level}.blocks.{i}", block
            if stage.attention:
                yield f"down.{level}.attention.{i}", stage.attention[i]
        ends: tuple[tuple[str, nn.Module | None], ...] = (("resample", stage.resample), ("pyramid", stage.pyramid))
        for name, part in ends:
            if part is not None:
                yield f"down.{level}.{name}", part
    for i, block in enumerate(network.middle):
        yield f"middle.{i}", block
    for level, stage in enumerate(network.up):
        assert isinstance(stage, UpStage)
        for i, block in enumerate(stage.blocks):
            yield f"up.{level}.blocks.{i}", block
        ends = (("attention", stage.attention), ("resample", stage.resample))
        for name, part in ends:
            if part is not None:
                yield f"up.{level}.{name}", part
    for name in ("norm_out", "conv_out"):
        yield name, network.get_submodule(name)


def places(network: NCSNpp, layout: Layout) -> Iterator[Place]:
    """The place of every tensor of the network in a file of that layout."""
    counted: Counter[str] = Counter()
    for number, (name, part) in enumerate(call_order(network)):
        if layout == "torch":
            # In Score-SDE a positional embedding is not a module and has no number; a Fourier embedding is number 0.
            original = str(number)
        else:
            kind = FLAX_KINDS[type(part)]
            original = f"{kind}_{counted[kind]}"
            counted[kind] += 1
        for inner, parameter in part.named_parameters():
            yield place(name, part, inner, tuple(parameter.shape), original, layout)


def place(name: str, part: nn.Module, inner: str, shape: tuple[int, ...], original: str, layout: Layout) -> Place:
    """The place of the tensor `inner` of the module `part`.

    Args:
        name: the module's name in the network.
        original: the module's name in the file.
    """
    separator = "/" if layout == "flax" else "."
    child, _, leaf = inner.rpartition(".")
    module = part.get_submodule(child)
    if isinstance(part, PyramidStep):
        between = FIR_CONV if part.fir else PLAIN_CONV
    else:
        between = INSIDE.get(type(part), {}).get(child, "")
    axes: tuple[int, ...] | None = None
    if isinstance(part, FourierEmbedding):
        leaf = "W"
    elif between.startswith("NIN"):
        axes = (1, 0) if leaf == "weight" else None
        leaf = {"weight": "W", "bias": "b"}[leaf]
    elif layout == "flax":
        if leaf == "weight" and not isinstance(module, nn.GroupNorm):
            axes = (3, 2, 0, 1) if isinstance(module, nn.Conv2d) else (1, 0)
        # The original program's own FIR convolution calls its kernel `weight`; Flax's layers call theirs `kernel`.
        if between != FIR_CONV and leaf == "weight":
            leaf = "scale" if isinstance(module, nn.GroupNorm) else "kernel"
    return Place(f"{name}.{inner}", separator.join(filter(None, (original, between, leaf))), shape, axes)


def rename(tensors: dict[str, Tensor], network: NCSNpp, layout: Layout, source: object) -> dict[str, Tensor]:
    """The file's tensors under the network's names and in the network's layout. Empties `tensors`, to save memory.

    Raises:
        CheckpointError: a tensor is missing, unexpected, not finite, or of another shape or dtype; the message names
            the first such tensor.
    """
    ours: dict[str, Tensor] = {}
    for where in places(network, layout):
        name = where.original
        if name not in tensors:
            raise CheckpointError(f"{source}: tensor {name}, needed for {where.name}, is missing")
        tensor = tensors.pop(name)
        needed = where.original_shape
        if tuple(tensor.shape) != needed:
            raise CheckpointError(f"{source}: tensor {name} is {list(tensor.shape)}; {list(needed)} is needed")
        if tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{source}: tensor {name} is {dtype}; float32 is needed")
        if not all_finite(tensor):
            raise CheckpointError(f"{source}: tensor {name} holds NaN or infinity; the file is damaged, fetch it again")
        ours[where.name] = where.take(tensor)
    if tensors:
        raise CheckpointError(f"{source}: unexpected tensor {printable(min(tensors))}; this network has no such tensor")
    return ours
