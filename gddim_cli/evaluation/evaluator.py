"""An evaluator computes a metric from features of images and records what the value depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gddim_cli import settings
from gddim_cli.errors import DataError, UsageError
from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.evaluation.metrics.base import Metric, OnStep
from gddim_cli.evaluation.metrics.registry import find_metric
from gddim_cli.evaluation.protocols import DEFAULT_MODE, FULL, Protocol
from gddim_cli.evaluation.statistics import Reference, Shape, read_only
from gddim_cli.images.decode import describe
from gddim_cli.images.sources import ImageSource
from gddim_cli.runtime.memory import is_out_of_memory
from gddim_cli.runtime.registry import origin
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.user_file import guarded

T = TypeVar("T")
LONGEST_NOTE = 1000
"""Maximum length of a note of a metric, in characters."""
MOST_IMAGES = 1 << 53
"""A metric may not require more images than this."""


@dataclass(frozen=True)
class Evaluator:
    """A feature extractor, a reference and a metric, with or without a published protocol.

    Attributes:
        extractor: the network that maps images to features.
        reference: the reference to compare with; None for a metric that needs no reference.
        metric: the metric, with its options.
        protocol: the published protocol that fixes the extractor and the reference, or None.
    """

    extractor: Extractor
    reference: Reference | None
    metric: Metric
    protocol: Protocol | None = None

    def evaluate(self, features: NDArray[np.floating], on_step: OnStep = lambda _: None) -> dict[str, float]:
        """The metric's numbers for features [N, d]; `value` is the number that tables show.

        Args:
            on_step: called with the share of the work that has been done since the last call.

        Raises:
            UsageError: the metric needs more images.
            DataError: the features are not finite, or a user's metric returns anything but numbers.
            NumericsError: the computation failed.
        """
        self.check_count(len(features))
        spec = self.metric.spec
        given = self.extractor.class_scores(features) if spec.needs_scores else features
        reference = read_only(self.reference) if spec.needs_reference else None
        return self.checked(
            self.called("compute", lambda: spec.compute(given, reference, self.metric.options, on_step))
        )

    def called(self, member: str, call: Callable[[], T]) -> T:
        """Calls a function of the metric and returns its result. `member` is the function's name, for error messages.

        Raises:
            DataError: the function is in a user's file or in a plugin and raised an error; the message names this origin.
        """
        source = self.metric.file or origin(self.metric.spec)
        return guarded(source, member, call, is_out_of_memory) if source else call()

    def checked(self, numbers: object) -> dict[str, float]:
        """The numbers that a metric has returned, checked, as int or float.

        Raises:
            DataError: the metric did not return a mapping from names to finite numbers with the key `value`, or its
                interval or standard error is invalid.
        """
        said = f"--metrics {self.metric.text}: compute returned"
        if not isinstance(numbers, Mapping) or "value" not in numbers:
            raise DataError(f"{said} {numbers!r:.80}; expected a dict of numbers by name, one of them named 'value'")
        found: dict[str, float] = {}
        for name, value in numbers.items():
            if not isinstance(name, str) or not isinstance(value, Real):
                raise DataError(
                    f"{said} {value!r:.80} under the name {name!r:.80}; expected a number, and a text as its name"
                )
            if not name.strip() or not name.isprintable():
                raise DataError(f"{said} a number under the name {name!r:.80}; expected a name that can be printed")
            found[name] = plain(value)
            if not math.isfinite(found[name]):
                raise DataError(f"{said} {found[name]} under the name {name!r:.80}; expected a finite number")
        if ("low" in found) != ("high" in found) or found.get("low", 0) > found.get("high", 0):
            raise DataError(
                f"{said} low = {found.get('low')} and high = {found.get('high')}; expected both ends of an interval, low <= "
                "high, or neither"
            )
        if found.get("standard_error", 0) < 0:
            raise DataError(f"{said} standard_error = {found['standard_error']}; expected 0 or more")
        return found

    def check_count(self, n: int) -> None:
        """Checks that `n` images are enough for the metric.

        Raises:
            UsageError: the metric needs more images.
            DataError: the metric's `least_images` returned no whole number, or one that is too large.
        """
        spec = self.metric.spec
        least = self.called("least_images", lambda: spec.least_images(self.extractor.dimension, self.metric.options))
        if not isinstance(least, Integral) or least > MOST_IMAGES:
            raise DataError(
                f"--metrics {self.metric.text}: least_images returned {type(least).__name__}; expected a whole number, at "
                f"most {MOST_IMAGES}"
            )
        if n < least:
            raise UsageError(f"--metrics {self.metric.text}: needs at least {least} images; there are {n}")

    def with_metric(self, metric: str | Metric) -> Evaluator:
        """A copy with another metric.

        Raises:
            UsageError: the metric is unknown, or needs something that is lacking: another network, a reference, class
                scores of the network, or features of the reference.
        """
        chosen = find_metric(metric) if isinstance(metric, str) else metric
        spec, option = chosen.spec, f"--metrics {chosen.text}"
        if spec.mode not in (None, self.extractor.mode):
            raise UsageError(f"{option}: is measured in mode {spec.mode}, not in mode {self.extractor.mode}")
        if spec.needs_scores and self.extractor.head is None:
            raise UsageError(
                f"{option}: needs class scores, which {self.extractor.name} does not give; choose a mode of Inception, "
                f"for example --mode {DEFAULT_MODE}"
            )
        if spec.needs_reference and self.reference is None:
            raise UsageError(f"{option}: needs a reference; add --ref")
        if spec.needs_features and self.reference is not None and self.reference.features is None:
            raise UsageError(
                f"{option}: needs the reference's features, and {self.reference.name} has only their mean "
                "and covariance; give images as --ref, or a file made by gddim fid stats"
            )
        return replace(self, metric=chosen)

    def label(self, n: int | None = None) -> str:
        """The metric's name in tables: `FID` or `FD(lenet-mnist)`.

        If `n` is given and below 50 000, and the metric depends on the number of images, the name ends in `@n`:
        `FID@2000`.
        """
        label = self.metric.label(self.extractor)
        return f"{label}@{n}" if n is not None and n < FULL and self.metric.spec.depends_on_count else label

    def identity(self) -> dict[str, Any]:
        """Everything that two values must share to be comparable, except the number of images; for JSON."""
        reference = self.reference
        return {
            "metric": self.label(),
            "metric_name": self.metric.spec.name,
            "metric_options": settings.values(self.metric.options),
            "metric_sha256": self.metric.sha256,
            # Only the file's name is recorded, not its folder: the sha256 identifies the content.
            "reference": printable(Path(reference.name).name) if reference else None,
            "reference_title": reference.title if reference else None,
            "reference_n": reference.n if reference else None,
            "reference_sha256": reference.sha256 if reference else None,
            "mode": self.extractor.mode,
            "network": printable(self.extractor.name),
            "weights_sha256": self.extractor.sha256,
            "protocol": self.protocol.name if self.protocol else None,
        }

    def network_notes(self) -> list[str]:
        """A note that the value cannot be compared with published values; empty if the network is the published one."""
        if self.metric.official(self.extractor):
            return []
        official = self.metric.spec.title.format(**settings.values(self.metric.options))
        return [f"{self.label()} is not {official} and cannot be compared with published {official} values"]

    def notes(self, features: NDArray[np.floating], shape: Shape) -> list[str]:
        """Notes for the reader of the value. `shape` is the images' height, width and channels."""
        reference, extractor = self.reference, self.extractor
        given = self.called("notes", lambda: list(self.metric.spec.notes(features, read_only(reference))))
        if not all(isinstance(note, str) for note in given):
            raise DataError(f"--metrics {self.metric.text}: notes returned {given!r:.80}; expected texts")
        found = [printable(note, LONGEST_NOTE) for note in given]
        if reference and not reference.stated:
            found.append(
                f"{reference.name} does not state which network and mode made it; {extractor.name}, mode {extractor.mode}, is "
                "assumed"
            )
        if reference and reference.shape not in (None, shape):
            of_reference = f"those of the reference {reference.name} are {describe(reference.shape)}"
            found.append(f"the images are {describe(shape)}, but {of_reference}")
        return found


def plain(value: Real) -> float:
    """A real number of any type as an int, if it is a whole number that JSON can hold exactly, or else as a float."""
    if isinstance(value, Integral) and abs(int(value)) <= MOST_IMAGES:
        return int(value)
    try:
        return float(value)
    except OverflowError:
        return math.inf


def under_protocol(source: ImageSource, evaluator: Evaluator) -> ImageSource:
    """The images to measure: all images of the source, or at most as many as the protocol requires.

    Raises:
        UsageError: the images' quantization is not the protocol's.
        DataError: fewer than two images.
    """
    protocol = evaluator.protocol
    if source.count < 2:
        raise DataError(f"{source.name}: holds {source.count} image; a covariance needs at least two")
    if protocol is None:
        return source
    if source.quantize not in (None, protocol.quantize):
        raise UsageError(
            f"--protocol {protocol.name}: requires images quantized by {protocol.quantize}, but those in {source.name} were "
            f"quantized by {source.quantize}; sample them with --quantize {protocol.quantize}, or leave out the protocol"
        )
    return source.at_most(protocol.num)
