"""A network with a reference: what turns images into a number, and says what kind of number it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gddim_cli.errors import DataError, UsageError, nearest
from gddim_cli.evaluation import references
from gddim_cli.evaluation import statistics as statistics_files
from gddim_cli.evaluation.extractors import FILES, Extractor, load_extractor, load_lenet, weights_path
from gddim_cli.evaluation.metrics.frechet import frechet_distance
from gddim_cli.evaluation.moments import gaussian_of
from gddim_cli.evaluation.protocols import Protocol, find_protocol
from gddim_cli.evaluation.references import REFERENCES
from gddim_cli.evaluation.statistics import Reference, Shape
from gddim_cli.images.sources import ImageSource
from gddim_cli.runs.images import open_images

DEFAULT_MODE = "legacy_tensorflow"
MODES = (*FILES, "lenet")
BY_SHAPE: dict[Shape | None, str] = {references.DIGITS: "mnist", references.CIFAR: "cifar10"}
FeaturesOf = Callable[[ImageSource, Extractor], NDArray[np.float32]]


@dataclass(frozen=True)
class Judge:
    """An extractor with a reference, under a protocol or none.

    Attributes:
        extractor: images to features.
        reference: what they are compared with.
        protocol: the published way of measuring that this is, or None.
    """

    extractor: Extractor
    reference: Reference
    protocol: Protocol | None = None

    def distance(self, features: NDArray[np.floating]) -> float:
        """The Frechet distance of features [N, d] to the reference.

        Raises:
            DataError: fewer than two, or not finite.
            NumericsError: as `frechet_distance`.
        """
        return frechet_distance(gaussian_of(features), self.reference.gaussian)

    def identity(self) -> dict[str, Any]:
        """All that makes two of its numbers comparable, for JSON."""
        return {
            "metric": self.extractor.metric,
            "reference": Path(self.reference.name).name,  # wherever the file is, it is the one of this sha256
            "reference_title": self.reference.title,
            "reference_n": self.reference.n,
            "reference_sha256": self.reference.sha256,
            "mode": self.extractor.mode,
            "network": self.extractor.name,
            "weights_sha256": self.extractor.sha256,
            "protocol": self.protocol.name if self.protocol else None,
        }

    def fits(self, shape: Shape) -> str | None:
        """What is odd about measuring images of this height, width and channels, in words; None where nothing is."""
        own = self.reference.shape
        if own is None or own == shape:
            return None
        return f"the images are {describe(shape)}, those of the reference {self.reference.name} {describe(own)}"


def describe(shape: Shape) -> str:
    return f"{shape[1]}x{shape[0]} {'grey' if shape[2] == 1 else 'RGB'}"


def open_judge(
    ref: str | None,
    protocol: str | None,
    mode: str | None,
    inception: Path | None,
    device: torch.device,
    shape: Shape | None,
    features_of: FeaturesOf | None = None,
) -> Judge:
    """The judge that the options mean; nothing is measured yet but a reference that is images.

    Args:
        ref: a named reference, a path, or None: by the images' shape.
        protocol: fixes `ref` and `mode`.
        mode: of FID; None is what the reference was made with, else legacy_tensorflow.
        inception: a file in place of the published weights.
        shape: height, width, channels of the images.
        features_of: measures a reference that is images; without it such a reference is refused.

    Raises:
        UsageError: options that contradict each other, or no reference to choose.
        DataError: a file that is missing (the message says how to get it), damaged, or of another network.
    """
    if mode is not None and mode not in MODES:
        raise UsageError(f"--mode: there is no '{mode}'; {nearest(mode, MODES)}")
    fixed = find_protocol(protocol) if protocol else None
    ref, mode = under(fixed, ref, mode)
    name = references.find(ref or by_shape(shape))
    given, mode = mode is not None, mode or own_mode(name, shape)
    require_files(name, mode, inception)
    extractor = extractor_for(mode, inception, device)
    if fixed and extractor.metric != "FID":
        raise UsageError(f"--inception: --protocol {fixed.name} is of the published network; leave one of them out")
    if shape:
        extractor.check(*shape)
    reference = read_reference(name, extractor, features_of)
    return Judge(extractor, replace(reference, stated=reference.stated or given), fixed)


def require_files(name: str | Path, mode: str, inception: Path | None) -> None:
    """Raises DataError for all that is missing, the reference's file and the network's, before either is read."""
    missing = []
    try:
        if isinstance(name, str):
            references.named_file(name, mode)
    except DataError as error:
        missing.append(str(error))
    try:
        if mode in FILES:
            weights_path(FILES[mode], inception)
    except DataError as error:
        missing.append(str(error))
    if missing:
        raise DataError("; ".join(missing))


def open_maker(mode: str | None, inception: Path | None, device: torch.device, shape: Shape) -> Extractor:
    """The extractor for the statistics of images of this shape: LeNet for digits, else legacy_tensorflow's Inception.

    Raises:
        UsageError, DataError: as `extractor_for`; images that it does not take.
    """
    extractor = extractor_for(mode or ("lenet" if shape == references.DIGITS else DEFAULT_MODE), inception, device)
    extractor.check(*shape)
    return extractor


def to_measure(source: ImageSource, judge: Judge) -> ImageSource:
    """The images, the protocol's first so many where they are more.

    Raises:
        UsageError: images that were quantised otherwise than the protocol says.
        DataError: fewer than two.
    """
    protocol = judge.protocol
    if source.count < 2:
        raise DataError(f"{source.name}: holds {source.count} image; a covariance needs at least two")
    if protocol is None:
        return source
    if source.quantize not in (None, protocol.quantize):
        raise UsageError(
            f"--protocol {protocol.name}: is of images quantised by {protocol.quantize}, those in {source.name} were by "
            f"{source.quantize}; sample them with --quantize {protocol.quantize}, or leave the protocol out"
        )
    return replace(source, count=min(source.count, protocol.num))


def under(protocol: Protocol | None, ref: str | None, mode: str | None) -> tuple[str | None, str | None]:
    """Reference and mode, as the protocol fixes them.

    Raises:
        UsageError: another one was asked for beside it.
    """
    if protocol is None:
        return ref, mode
    for option, given, own in (("--ref", ref, protocol.ref), ("--mode", mode, protocol.mode)):
        if given is not None and references.canonical(given) != own:
            raise UsageError(f"{option} {given}: --protocol {protocol.name} fixes it to {own}; leave one of them out")
    return protocol.ref, protocol.mode


def by_shape(shape: Shape | None) -> str:
    """The reference of images of this shape when none is named.

    Raises:
        UsageError: there is none.
    """
    if shape in BY_SHAPE:
        return BY_SHAPE[shape]
    images = f" for images of {describe(shape)}" if shape else ""
    raise UsageError(
        f"--ref: needed{images}: {', '.join(REFERENCES)}, a folder of images, or an .npz of gddim fid stats"
    )


def own_mode(name: str | Path, shape: Shape | None) -> str:
    """The mode that a reference was made with where only one is possible or it says so, else legacy_tensorflow."""
    if isinstance(name, str):
        modes = REFERENCES[name].files
        return DEFAULT_MODE if DEFAULT_MODE in modes else next(iter(modes))
    if statistics_files.is_statistics(name):
        return statistics_files.mode_of(name) or DEFAULT_MODE
    return "lenet" if shape == references.DIGITS else DEFAULT_MODE


def extractor_for(mode: str, inception: Path | None, device: torch.device) -> Extractor:
    """Raises as `load_extractor`; UsageError for --inception where LeNet measures."""
    if mode != "lenet":
        return load_extractor(mode, device, inception)
    if inception is not None:
        raise UsageError("--inception: this reference is measured with lenet-mnist, not with Inception; add --mode")
    return load_lenet(device)


def read_reference(name: str | Path, extractor: Extractor, features_of: FeaturesOf | None) -> Reference:
    """A named reference, a statistics file, or images, which are measured."""
    if isinstance(name, str):
        return references.read_named(name, extractor)
    if statistics_files.is_statistics(name):
        return statistics_files.read_statistics(name, extractor, str(name))
    if features_of is None:
        raise UsageError(f"--ref {name}: holds no statistics; make them first: gddim fid stats {name} OUT.npz")
    source = open_images(name)
    try:
        extractor.check(*source.shape)
    except DataError as error:
        raise DataError(f"--ref {name}: {error}") from error
    features = features_of(source, extractor)
    if len(features) < 2:
        raise DataError(f"--ref {name}: holds {len(features)} image; a covariance needs at least two")
    title = f"{source.count} images"
    return Reference(str(name), title, gaussian_of(features), features, source.fingerprint(), source.shape)
