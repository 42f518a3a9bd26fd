"""An evaluator computes a metric from features of images and records what the value depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gddim_cli import settings
from gddim_cli.errors import DataError, UsageError
from gddim_cli.evaluation import references
from gddim_cli.evaluation import statistics as statistics_files
from gddim_cli.evaluation.extractors import FILES, Extractor, load_extractor, load_lenet, weights_path
from gddim_cli.evaluation.metrics.base import Metric, OnStep
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.moments import gaussian_of
from gddim_cli.evaluation.protocols import FULL, Mode, Protocol, find_mode, find_protocol
from gddim_cli.evaluation.references import REFERENCES
from gddim_cli.evaluation.statistics import Reference, Shape
from gddim_cli.images.decode import describe
from gddim_cli.images.sources import ImageSource
from gddim_cli.runs.images import open_images
from gddim_cli.runtime.text import printable

DEFAULT_MODE: Mode = "legacy_tensorflow"
BY_SHAPE: dict[Shape | None, str] = {references.DIGITS: "mnist", references.CIFAR: "cifar10"}
FeaturesOf = Callable[[ImageSource, Extractor], NDArray[np.float32]]


@dataclass(frozen=True)
class Evaluator:
    """A feature extractor, a reference and a metric, with or without a published protocol.

    Attributes:
        extractor: images to features.
        reference: what the features are compared with.
        metric: how they are compared, with its options.
        protocol: the published way of measuring that fixes these, or None.
    """

    extractor: Extractor
    reference: Reference
    metric: Metric
    protocol: Protocol | None = None

    def evaluate(self, features: NDArray[np.floating], on_step: OnStep = lambda _: None) -> dict[str, float]:
        """The metric's numbers for features [N, d]; `value` is the one that tables show.

        Args:
            on_step: called with the share of the work that has been done since the last call.

        Raises:
            UsageError: as `check_count`.
            DataError: features that are not finite.
            NumericsError: the computation failed.
        """
        self.check_count(len(features))
        return dict(self.metric.spec.compute(features, self.reference, self.metric.options, on_step))

    def check_count(self, n: int) -> None:
        """Raises UsageError if the metric cannot be computed from `n` images."""
        least = self.metric.spec.least_images(self.extractor.dimension, self.metric.options)
        if n < least:
            raise UsageError(f"--metrics {self.metric.text}: needs at least {least} images; there are {n}")

    def with_metric(self, metric: str | Metric) -> Evaluator:
        """A copy with another metric.

        Raises:
            UsageError: an unknown metric, or one that needs features that the reference does not have.
        """
        chosen = find_metric(metric) if isinstance(metric, str) else metric
        if chosen.spec.needs_features and self.reference.features is None:
            raise UsageError(
                f"--metrics {chosen.text}: needs the reference's features, and {self.reference.name} has only their mean "
                "and covariance; give images as --ref, or a file of gddim fid stats"
            )
        return replace(self, metric=chosen)

    def label(self, n: int | None = None) -> str:
        """The metric's name in tables, `FID` or `FD(lenet-mnist)`; with `n` below 50 000, `FID@n` if the number matters."""
        label = self.metric.label(self.extractor)
        return f"{label}@{n}" if n is not None and n < FULL and self.metric.spec.depends_on_count else label

    def identity(self) -> dict[str, Any]:
        """Everything but the number of images that two values must share to be comparable, for JSON."""
        return {
            "metric": self.label(),
            "metric_name": self.metric.spec.name,
            "metric_options": settings.values(self.metric.options),
            "reference": printable(Path(self.reference.name).name),  # the sha256 identifies the file, not its folder
            "reference_title": self.reference.title,
            "reference_n": self.reference.n,
            "reference_sha256": self.reference.sha256,
            "mode": self.extractor.mode,
            "network": printable(self.extractor.name),
            "weights_sha256": self.extractor.sha256,
            "protocol": self.protocol.name if self.protocol else None,
        }

    def mismatch(self, shape: Shape) -> str | None:
        """A sentence on how images of this height, width and channels differ from the reference's; None if they do not."""
        own = self.reference.shape
        if own is None or own == shape:
            return None
        return f"the images are {describe(shape)}, those of the reference {self.reference.name} {describe(own)}"


def open_evaluator(
    ref: str | None,
    protocol: str | None,
    mode: str | None,
    inception: Path | None,
    device: torch.device,
    shape: Shape | None,
    features_of: FeaturesOf | None = None,
    metric: str | Metric = "fid",
) -> Evaluator:
    """The evaluator that these options choose. Computes features only if the reference is a set of images.

    Args:
        ref: a named reference, a path, or None, which chooses by the images' shape.
        protocol: fixes `ref` and `mode`.
        mode: the network and its resizing; None chooses the mode that the reference was made with, else legacy_tensorflow.
        inception: a file in place of the published weights.
        shape: height, width, channels of the images.
        features_of: computes the features of a reference that is a set of images; without it such a reference is refused.
        metric: its name, with options as in `prdc:k=3`.

    Raises:
        UsageError: options that contradict each other, an unknown name, or no reference for this shape.
        DataError: a file that is missing (the message names the command that gets it), damaged, or of another network.
    """
    chosen = find_metric(metric) if isinstance(metric, str) else metric
    if mode is not None:
        find_mode(mode)
    fixed = find_protocol(protocol) if protocol else None
    ref, mode = fixed_by(fixed, ref, mode)
    name = references.find(reference_for(shape) if ref is None else ref)
    mode = mode or mode_for(name, shape)
    require_files(name, mode, inception)
    extractor = extractor_for(mode, inception, device)
    if fixed and not extractor.defines_fid:
        raise UsageError(
            f"--inception: --protocol {fixed.name} requires the published network; leave out one of the two options"
        )
    if shape:
        extractor.check(*shape)
    reference = read_reference(name, extractor, features_of)
    return Evaluator(extractor, reference, chosen, fixed).with_metric(chosen)


def require_files(name: str | Path, mode: str, inception: Path | None) -> None:
    """Raises DataError for all missing files, the reference's and the network's, before either is read."""
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


def open_extractor(mode: str | None, inception: Path | None, device: torch.device, shape: Shape) -> Extractor:
    """The extractor for statistics of images of this shape: LeNet for digits, else legacy_tensorflow's Inception.

    Raises:
        UsageError, DataError: as `extractor_for`; images that the network does not take.
    """
    extractor = extractor_for(mode or ("lenet" if shape == references.DIGITS else DEFAULT_MODE), inception, device)
    extractor.check(*shape)
    return extractor


def under_protocol(source: ImageSource, evaluator: Evaluator) -> ImageSource:
    """The images to measure: all of them, or as many as the protocol requires, as `ImageSource.at_most` takes them.

    Raises:
        UsageError: images of another quantisation than the protocol's.
        DataError: fewer than two images.
    """
    protocol = evaluator.protocol
    if source.count < 2:
        raise DataError(f"{source.name}: holds {source.count} image; a covariance needs at least two")
    if protocol is None:
        return source
    if source.quantize not in (None, protocol.quantize):
        raise UsageError(
            f"--protocol {protocol.name}: requires images quantised by {protocol.quantize}, those in {source.name} were "
            f"quantised by {source.quantize}; sample them with --quantize {protocol.quantize}, or leave out the protocol"
        )
    return source.at_most(protocol.num)


def fixed_by(protocol: Protocol | None, ref: str | None, mode: str | None) -> tuple[str | None, str | None]:
    """Reference and mode: those of the protocol if there is one, else the given ones.

    Raises:
        UsageError: the options ask for another one.
    """
    if protocol is None:
        return ref, mode
    for option, given, own in (("--ref", ref, protocol.ref), ("--mode", mode, protocol.mode)):
        if given is not None and references.canonical(given) != own:
            raise UsageError(
                f"{option} {given}: --protocol {protocol.name} fixes it to {own}; leave out one of the two options"
            )
    return protocol.ref, protocol.mode


def reference_for(shape: Shape | None) -> str:
    """The name of the reference for images of this shape.

    Raises:
        UsageError: there is no built-in reference for this shape.
    """
    if shape in BY_SHAPE:
        return BY_SHAPE[shape]
    images = f" for images of {describe(shape)}" if shape else ""
    raise UsageError(
        f"--ref: needed{images}: {', '.join(REFERENCES)}, a folder of images, or an .npz of gddim fid stats"
    )


def mode_for(name: str | Path, shape: Shape | None) -> str:
    """The mode that a reference was made with if that is known, else legacy_tensorflow, or lenet for digits."""
    if isinstance(name, str):
        modes = REFERENCES[name].files
        return DEFAULT_MODE if DEFAULT_MODE in modes else next(iter(modes))
    if statistics_files.is_statistics(name):
        return statistics_files.mode_of(name) or DEFAULT_MODE
    return "lenet" if shape == references.DIGITS else DEFAULT_MODE


def extractor_for(mode: str, inception: Path | None, device: torch.device) -> Extractor:
    """The extractor of a mode.

    Raises:
        UsageError, DataError: as `load_extractor`; UsageError for `inception` with LeNet.
    """
    if mode != "lenet":
        return load_extractor(mode, device, inception)
    if inception is not None:
        raise UsageError("--inception: this reference is measured with lenet-mnist, not with Inception; add --mode")
    return load_lenet(device)


def read_reference(name: str | Path, extractor: Extractor, features_of: FeaturesOf | None) -> Reference:
    """A named reference, a statistics file, or images, whose features are then computed."""
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
