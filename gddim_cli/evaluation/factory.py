"""Opens evaluators from the options that choose them: mode, reference, protocol, the user's own networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gddim_cli.errors import DataError, UsageError
from gddim_cli.evaluation import references
from gddim_cli.evaluation import statistics as statistics_files
from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.evaluation.extractors import own
from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.evaluation.extractors.lenet import SCORES
from gddim_cli.evaluation.extractors.registry import load_extractor
from gddim_cli.evaluation.extractors.weights import FILES, weights_path
from gddim_cli.evaluation.metrics.base import Metric
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.moments import gaussian_of
from gddim_cli.evaluation.protocols import DEFAULT_MODE, Protocol, find_mode, find_protocol
from gddim_cli.evaluation.references import REFERENCES
from gddim_cli.evaluation.statistics import Reference, Shape
from gddim_cli.images.decode import describe
from gddim_cli.images.sources import ImageSource
from gddim_cli.runs.images import open_images

BY_SHAPE: dict[Shape | None, str] = {references.DIGITS: "mnist", references.CIFAR: "cifar10"}
FeaturesOf = Callable[[ImageSource, Extractor], NDArray[np.float32]]


@dataclass
class EvaluatorFactory:
    """Opens evaluators for images of one shape, and loads each network and each reference only once.

    Attributes:
        shape: height, width, channels of the images, if they are known.
        protocol: the name of a protocol, which fixes reference and mode.
        mode: the network, and how images are resized for it. If it is None, `mode_for` chooses it by the reference.
        inception: a file to use in place of the published weights of Inception.
        features: the user's own network, `FILE.py:FUNCTION` or a TorchScript file, for metrics that are not tied to one
            network.
        features_of: computes the features of a reference that is a set of images. If None, such references are refused.
    """

    device: torch.device
    shape: Shape | None
    protocol: str | None = None
    mode: str | None = None
    inception: Path | None = None
    features: str | None = None
    features_of: FeaturesOf | None = None
    _extractors: dict[str, Extractor] = field(default_factory=dict)
    _references: dict[tuple[str | Path, str], Reference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError for options that contradict each other, or an unknown protocol or mode."""
        if self.mode is not None:
            find_mode(self.mode)
        if self.protocol is not None:
            find_protocol(self.protocol)
        others = {"--mode": self.mode, "--inception": self.inception, "--protocol": self.protocol}
        for option, value in others.items():
            if self.features is not None and value is not None:
                raise UsageError(f"--features: {option} chooses another network; leave out one of the two options")

    def open(self, metric: str | Metric = "fid", ref: str | None = None) -> Evaluator:
        """The evaluator of a metric. If the reference is a set of images, this call computes its features.

        Args:
            metric: the metric, or its name with any options, as in `prdc:k=3`.
            ref: a named reference, a path, or None to choose a built-in reference by the images' shape.

        Raises:
            UsageError: options contradict each other, a name is unknown, or there is no reference for this shape.
            DataError: a file is missing (the message names the command that gets it), damaged, or belongs to another
                network.
        """
        chosen = find_metric(metric) if isinstance(metric, str) else metric
        fixed = find_protocol(self.protocol) if self.protocol else None
        ref, mode = fixed_by(fixed, ref, self.mode_of(chosen))
        name = None
        if ref is not None or chosen.spec.needs_reference:
            name = references.find(reference_for(self.shape, mode) if ref is None else ref)
        mode = mode or mode_for(name, self.shape)
        require_files(name if chosen.spec.needs_reference else None, mode, self.inception)
        extractor = self.extractor(SCORES if chosen.spec.needs_scores and mode == "lenet" else mode)
        if fixed and not extractor.defines_fid:
            raise UsageError(
                f"--inception: --protocol {fixed.name} requires the published network; leave out one of the two options"
            )
        reference = None
        if name is not None and chosen.spec.needs_reference:
            if (name, mode) not in self._references:
                self._references[name, mode] = read_reference(name, extractor, self.features_of)
            reference = self._references[name, mode]
        return Evaluator(extractor, reference, chosen, fixed).with_metric(chosen)

    def mode_of(self, metric: Metric) -> str | None:
        """The mode that the options choose for a metric; None leaves the choice to the reference.

        Raises:
            UsageError: the protocol fixes another mode than the metric's.
        """
        if self.protocol and metric.spec.mode not in (None, fixed := find_protocol(self.protocol).mode):
            raise UsageError(
                f"--metrics {metric.text}: is measured in mode {metric.spec.mode}, but --protocol {self.protocol} "
                f"fixes the mode to {fixed}; leave out one of the two options"
            )
        return metric.spec.mode or (own.MODE if self.features is not None else self.mode)

    def fits(self, metric: Metric, ref: str | None) -> bool:
        """Whether a reference can be used with a metric that fixes the mode, judging by the reference's name or file."""
        mode = metric.spec.mode
        if mode is None or ref is None:
            return True
        name = references.find(ref)
        if isinstance(name, str):
            return mode in REFERENCES[name].files
        return not statistics_files.is_statistics(name) or statistics_files.mode_of(name) in (None, mode)

    def extractor(self, mode: str | None = None) -> Extractor:
        """The extractor of a mode.

        If `mode` is None, the mode is the one that the options choose, or else the default for images of this shape.

        Raises:
            UsageError, DataError: as in `load_extractor` and `load_own`; or the network does not take images of this
                shape.
        """
        mode = mode or (own.MODE if self.features is not None else self.mode or mode_for(None, self.shape))
        if mode not in self._extractors:
            if mode == own.MODE and self.features is not None:
                if self.shape is None:
                    raise UsageError("--features: needs images, because the network is tried on their shape")
                self._extractors[mode] = own.load_own(self.features, self.device, self.shape)
            else:
                inception = None if self.mode is None and mode == "dinov2" else self.inception
                self._extractors[mode] = load_extractor(mode, self.device, inception)
            if self.shape:
                self._extractors[mode].check(*self.shape)
        return self._extractors[mode]


def open_evaluator(
    ref: str | None,
    protocol: str | None,
    mode: str | None,
    inception: Path | None,
    device: torch.device,
    shape: Shape | None,
    features_of: FeaturesOf | None = None,
    metric: str | Metric = "fid",
    features: str | None = None,
) -> Evaluator:
    """The evaluator that these options choose; see `EvaluatorFactory.open`."""
    return EvaluatorFactory(device, shape, protocol, mode, inception, features, features_of).open(metric, ref)


def require_files(name: str | Path | None, mode: str, inception: Path | None) -> None:
    """Raises one DataError for all missing files of the reference and of the network, before either is read."""
    missing = []
    try:
        if isinstance(name, str):
            references.named_file(name, mode)
    except DataError as error:
        missing.append(str(error))
    try:
        if mode in FILES:
            weights_path(FILES[mode], inception if mode != "dinov2" else None)
    except DataError as error:
        missing.append(str(error))
    if missing:
        raise DataError("; ".join(missing))


def fixed_by(protocol: Protocol | None, ref: str | None, mode: str | None) -> tuple[str | None, str | None]:
    """The reference and the mode that a protocol fixes; without a protocol, the given ones.

    Raises:
        UsageError: the given reference or mode is not the protocol's.
    """
    if protocol is None:
        return ref, mode
    for option, given, fixed in (("--ref", ref, protocol.ref), ("--mode", mode, protocol.mode)):
        if given is not None and references.canonical(given) != fixed:
            raise UsageError(
                f"{option} {given}: --protocol {protocol.name} fixes it to {fixed}; leave out one of the two options"
            )
    return protocol.ref, protocol.mode


def reference_for(shape: Shape | None, mode: str | None = None) -> str:
    """The name of the built-in reference for images of this shape.

    Raises:
        UsageError: there is no built-in reference for this shape and mode.
    """
    found = BY_SHAPE.get(shape)
    if found and mode in (None, *REFERENCES[found].files):
        return found
    if mode in ("dinov2", own.MODE):
        option = "--mode dinov2" if mode == "dinov2" else "--features"
        raise UsageError(
            f"--ref: needed with {option}, for which there is no built-in reference; give a folder of images, or an "
            f".npz made by gddim fid stats with {option}"
        )
    if found:
        return found
    images = f" for images of {describe(shape)}" if shape else ""
    raise UsageError(
        f"--ref: needed{images}; give {', '.join(REFERENCES)}, a folder of images, or an .npz made by gddim fid stats"
    )


def mode_for(name: str | Path | None, shape: Shape | None) -> str:
    """The mode in which images are compared with a reference.

    - named reference: legacy_tensorflow if it has statistics in that mode, else its first mode
    - statistics file: the mode that it states, else legacy_tensorflow
    - any other reference, or none: lenet if `shape` is that of digits, else legacy_tensorflow
    """
    if isinstance(name, str):
        modes = REFERENCES[name].files
        return DEFAULT_MODE if DEFAULT_MODE in modes else next(iter(modes))
    if name is not None and statistics_files.is_statistics(name):
        return statistics_files.mode_of(name) or DEFAULT_MODE
    return "lenet" if shape == references.DIGITS else DEFAULT_MODE


def read_reference(name: str | Path, extractor: Extractor, features_of: FeaturesOf | None) -> Reference:
    """Reads a named reference or a statistics file, or computes the features of a set of images."""
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
