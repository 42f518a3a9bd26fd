"""The spec of a metric. The metric's module defines the spec, and a registry lists it. Plugins can add specs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from gddim_cli import settings
from gddim_cli.errors import UsageError
from gddim_cli.evaluation.protocols import Mode
from gddim_cli.runtime.registry import Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gddim_cli.evaluation.extractors.base import Extractor
    from gddim_cli.evaluation.statistics import Reference

    Features = NDArray[np.floating[Any]]

OnStep = Callable[[float], object]
"""Called with the share of the work, between 0 and 1, that has been done since the last call."""


class NoOptions(msgspec.Struct, frozen=True):
    """The (empty) options of a metric that has none."""


def no_notes(_features: Features, _reference: Reference | None) -> Iterable[str]:
    """The notes of a metric whose values need no warning."""
    return ()


def two(_dimension: int, _options: object) -> int:
    """The minimum number of images for most metrics."""
    return 2


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A metric, which compares features of images with features of a reference, or scores images alone.

    Attributes:
        name: what users call it, in `--metrics` and in plans.
        title: its name in tables if the features come from the published network. The name of an option in braces, as
            in `"{value}"`, is replaced by the option's value.
        compute: `compute(features, reference, options, on_step)` returns named numbers for features [N, d]. `value` is printed
            in tables; `standard_error`, `low` and `high`, if returned, are its standard error and 95 % interval.
        generic_title: its name in tables if the features do not come from the published network. The name of the
            network used is appended: `FD` becomes `FD(lenet-mnist)`. Default: `title`. The published network is that of
            `mode`, or Inception if `mode` is None.
        lower_is_better: whether images nearer to the reference have lower values.
        needs_reference: whether the metric compares with a reference; if not, `compute` is given None.
        needs_features: whether the reference's features are needed, not only their mean and covariance.
        needs_scores: whether `compute` takes the network's class scores [N, c] (logarithms of probabilities up to a constant)
            in place of features.
        mode: the mode in which the metric is always measured; None for the mode that the command chooses.
        depends_on_count: whether the expected value depends on the number of images. If so, labels state this number,
            as in `FID@2000`.
        options: a struct of its settings, each with a default.
        least_images: `least_images(dimension, options)` returns the minimum number of images.
        notes: `notes(features, reference)` returns notes for the reader of the value, one sentence each.
    """

    title: str = field(kw_only=False)
    compute: Callable[[Features, Any, Any, OnStep], Mapping[str, float]] = field(kw_only=False)
    generic_title: str | None = None
    lower_is_better: bool
    needs_reference: bool = True
    needs_features: bool = False
    needs_scores: bool = False
    mode: Mode | None = None
    depends_on_count: bool = True
    options: type[msgspec.Struct] = NoOptions
    least_images: Callable[[int, Any], int] = two
    notes: Callable[[Features, Any], Iterable[str]] = no_notes

    def __post_init__(self) -> None:
        """Raises UsageError if a title is not text, or has braces around anything but the name of an option."""
        super().__post_init__()
        for title in (self.title, self.generic_title or ""):
            try:
                title.format(**{key: option.default for key, option in settings.declared(self.options).items()})
            except (ValueError, LookupError, AttributeError) as error:
                raise UsageError(
                    f"metric {self.name}: title {title!r}: braces may hold only an option's name"
                ) from error


def plain(value: Any) -> str:
    """A value as a user would write it: 2 for 2.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass(frozen=True)
class Metric:
    """A metric with its options, as `--metrics prdc:k=3` chooses it.

    Attributes:
        file: the Python file that defines the metric; None for a metric in the registry.
        sha256: SHA-256 of that file.
    """

    spec: MetricSpec
    options: msgspec.Struct
    file: str | None = None
    sha256: str | None = None

    @property
    def text(self) -> str:
        """The text that chooses the metric on the command line: its name or file, then any changed options."""
        return ":".join(
            [self.file or self.spec.name, *(f"{key}={plain(value)}" for key, value in self.changed().items())]
        )

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults, by key."""
        known, given = settings.declared(self.spec.options), settings.values(self.options)
        return {key: value for key, value in given.items() if value != known[key].default}

    def official(self, extractor: Extractor) -> bool:
        """Whether the extractor is the published network that gives the metric its usual name."""
        return extractor.published and extractor.mode == self.spec.mode if self.spec.mode else extractor.defines_fid

    def label(self, extractor: Extractor) -> str:
        """The metric's name in tables: `FID`, `FD(lenet-mnist)`, `KID (size 500)`.

        The name states any network other than the published one, and the options that differ from their defaults.
        """
        known, given = settings.declared(self.spec.options), settings.values(self.options)
        official = self.official(extractor)
        own = self.spec.title if official else self.spec.generic_title or self.spec.title
        name = own.format(**given) + ("" if official else f"({extractor.name})")
        shown = [known[key].labelled(value) for key, value in self.changed().items() if f"{{{key}}}" not in own]
        return f"{name} ({', '.join(shown)})" if shown else name
