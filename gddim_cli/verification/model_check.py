"""`gddim check --checkpoint`: tests whether a model denoises well, and at which noise levels.

The network's output is interpreted by the model's declared conventions, and also by common alternatives to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from gddim_cli.errors import UsageError
from gddim_cli.models.model import Model
from gddim_cli.verification.check_images import DrawnImages, GivenImages, Images, fills_range
from gddim_cli.verification.denoising import (
    Level,
    LevelError,
    OwnDiffusionReading,
    Reading,
    levels_in,
    levels_of,
    mean_ratio,
    measure,
)
from gddim_cli.verification.mistakes import corrections

LEVELS = 12
COMPARED = slice(1, None, 2)
"""The levels at which corrections are compared."""
TRUSTED = 1.25
"""The largest error, relative to the linear denoiser's, with which a model is trusted at a noise level."""
BETTER = 0.85
"""A correction is reported only if it reduces the error to at most this fraction."""
EXPLAINED = 1.15
"""A correction is reported only if the corrected model's mean ratio is below this."""
HOPELESS = 20.0
"""A correction is ruled out if the corrected model's ratio exceeds this at any level."""
TIE = 1.02
"""Corrections whose mean ratios are within this factor of the best count as equally good; the first one is reported."""


@dataclass(frozen=True)
class Finding:
    """A problem that the check found.

    Attributes:
        kind: `sign`, `data range`, `scale`, `time`, `parameterization` or `unexplained`.
        message: a sentence that describes the problem.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class ModelReport:
    """The outcome of a check.

    Attributes:
        model: the model's name.
        images: a description of the images that the model was tested on.
        levels: the errors at each noise level.
        mean_ratio: the ratio of the model's error to the linear denoiser's, as a geometric mean over the levels.
        trusted: the lowest and highest noise level of the range in which the ratio is small enough. None if there is no
            such range, or if the check failed.
        findings: the problems found; empty if the check passed.
    """

    model: str
    images: str
    levels: list[LevelError]
    mean_ratio: float
    trusted: tuple[float, float] | None
    findings: list[Finding] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no problem was found."""
        return not self.findings


def reading_of(model: Model) -> tuple[Reading, list[Level]]:
    """How the model's own conventions interpret the network's output, and the noise levels to test this `Reading` at.

    Raises:
        UsageError: the model's diffusion is in frequency space.
    """
    denoiser = getattr(model, "denoiser", None)
    if denoiser is not None:
        return denoiser, levels_of(denoiser, LEVELS)
    diffusion = model.diffusion
    if diffusion.spectral:
        raise UsageError(
            f"{model.name}: cannot be checked, because in {diffusion.name} the noise level differs by frequency"
        )
    config = model.config(diffusion)
    levels = levels_in(diffusion, config.t_start, config.t_end, LEVELS)
    return OwnDiffusionReading(model, config.k), levels


class ModelCheck:
    """The check of a model: its errors, and whether another convention makes them much smaller.

    Args:
        images: the images to test the model on.

    Raises:
        UsageError: the model cannot be checked; or `images` are drawn from the model, but it can be checked only on
            given images.
    """

    def __init__(self, model: Model, images: Images) -> None:
        self.name, self.images = model.name, images
        self.reading, self.levels = reading_of(model)
        self.corrections = list(corrections(self.reading))
        if isinstance(images, DrawnImages) and isinstance(self.reading, OwnDiffusionReading):
            raise UsageError(
                f"{model.name} predicts the noise of its own diffusion and is checked on given images only; add --data"
            )

    @property
    def total(self) -> int:
        """The largest possible number of interpretations to try: the model's own and one per correction."""
        return 1 + len(self.corrections)

    def run(self, advance: Callable[[int], object] = lambda _: None) -> ModelReport:
        """Checks the model and returns the report.

        Args:
            advance: called with 1 after each reading.
        """
        images, labels, linear = self.images.of(self.reading, self.images.count)
        errors = [measure(self.reading, images, labels, level, linear) for level in self.levels]
        ratio, plausible = mean_ratio(errors), self._plausible(images)
        advance(1)
        finding = None
        if not plausible or ratio >= self.images.convincing:
            finding = self._explanation(plausible, advance) or self._verdict(ratio, plausible)
        trusted = None if finding else trusted_range(errors)
        return ModelReport(self.name, self.images.title, errors, ratio, trusted, [finding] if finding else [])

    def _plausible(self, images: Tensor) -> bool:
        """Whether images look like images. Drawn images must fill the range [-1, 1]; the user's images always pass."""
        return isinstance(self.images, GivenImages) or fills_range(images)

    def _score(self, reading: Reading, most: float = math.inf) -> float:
        """The mean ratio of a reading; infinite if its images are implausible, or a level's ratio exceeds `most`."""
        images, labels, linear = self.images.of(reading, self.images.compared)
        if not self._plausible(images):
            return math.inf
        errors: list[LevelError] = []
        for level in self.levels[COMPARED][::-1]:
            errors.append(measure(reading, images, labels, level, linear))
            if errors[-1].ratio > most:
                return math.inf
        return mean_ratio(errors)

    def _explanation(self, plausible: bool, advance: Callable[[int], object]) -> Finding | None:
        """The finding that a correction makes errors much smaller or images plausible; None if no correction does."""
        before = self._score(self.reading)
        scores = []
        for correction in self.corrections:
            scores.append(self._score(correction.reading, HOPELESS))
            advance(1)
        best = min(scores)
        if not (best < EXPLAINED and best < BETTER * before):
            return None
        likeliest = self.corrections[next(i for i, found in enumerate(scores) if found <= TIE * best)]
        if plausible and before < math.inf:
            change = f"the error falls from {before:.3g} to {best:.2g}, in units of a linear filter's error"
        else:
            change = (
                f"the model draws plausible images and denoises them with {best:.2g} times the error of a linear filter"
            )
        return Finding(likeliest.kind, f"{likeliest.message}. With this corrected, {change}")

    def _verdict(self, ratio: float, plausible: bool) -> Finding | None:
        """The finding that errors are large or images implausible for no known reason; None if the model passes."""
        if plausible and ratio <= self.images.passes:
            return None
        large = f"the error is {ratio:.3g} times that of a linear filter"
        problem = large if plausible else f"the images that the model draws do not fill the range [-1, 1], and {large}"
        return Finding(
            "unexplained",
            f"{problem}, and none of the conventions tried explains it: check the weights, the network's architecture "
            "and the kind of images",
        )


def trusted_range(errors: Sequence[LevelError]) -> tuple[float, float] | None:
    """The ends of the longest run of adjacent noise levels at which the model is trusted; None if there is none."""
    runs: list[list[float]] = [[]]
    for error in errors:
        if error.ratio <= TRUSTED:
            runs[-1].append(error.sigma)
        else:
            runs.append([])
    longest = max(runs, key=len)
    return (longest[0], longest[-1]) if longest else None
