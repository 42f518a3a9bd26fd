"""A measurement with everything that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.errors import UsageError
from gddim_cli.evaluation import resampling as spread
from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.evaluation.metrics.kid import kid
from gddim_cli.evaluation.metrics.prdc import PrdcOptions, prdc
from gddim_cli.evaluation.protocols import FULL
from gddim_cli.evaluation.statistics import Reference
from gddim_cli.images.sources import ImageSource
from gddim_cli.runtime.versions import versions


@dataclass(frozen=True)
class Extras:
    """What is measured beside the distance."""

    kid: bool = False
    prdc: bool = False
    infinity: bool = False
    bootstrap: bool = False

    @property
    def steps(self) -> int:
        """How often `on_step` is called."""
        return 1 + self.kid + self.prdc + spread.POINTS * self.infinity + spread.DRAWS * self.bootstrap


class Measurement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `gddim fid --json` prints.

    Attributes:
        metric: `FID`, or `FD(network)`, which no FID compares with.
        value: the Frechet distance.
        n: images.
        protocol_followed: whether count and quantisation are the protocol's too; None without one.
        files_left_aside: in the images' folder or archive, no images by their names.
        quantize: how they became uint8, as their run.json says; None where nobody says.
        infinity, bootstrap, kid, prdc: where they were asked for.
    """

    metric: str
    metric_name: str
    metric_options: dict[str, Any]
    value: float
    n: int
    images: str
    quantize: str | None
    reference: str
    reference_title: str
    reference_n: int | None
    reference_sha256: str
    mode: str
    network: str
    weights_sha256: str
    protocol: str | None
    protocol_followed: bool | None
    device: str
    files_left_aside: int
    warnings: list[str]
    versions: dict[str, str]
    kid: dict[str, float] | None = None
    prdc: dict[str, float] | None = None
    infinity: float | None = None
    bootstrap: float | None = None

    def json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    @property
    def label(self) -> str:
        """`FID`, or `FID@N` where it is of fewer images than the 50 000 that it is quoted of."""
        return self.metric if self.n >= FULL else f"{self.metric}@{self.n}"


def report(
    source: ImageSource, judge: Evaluator, features: NDArray[np.floating], extras: Extras, on_step: Callable[[], None]
) -> Measurement:
    """The distance of features to the judge's reference, with what else was asked for.

    Args:
        on_step: called after each of `extras.steps` computations.

    Raises:
        UsageError: an extra that needs the reference's own features, which its file has not.
        DataError, NumericsError: as the computations.
    """
    others = features_for(judge.reference, extras)
    value = judge.evaluate(features)["value"]
    on_step()
    found: dict[str, Any] = {}
    if extras.kid and others is not None:
        found["kid"] = kid(features, others)
        on_step()
    if extras.prdc and others is not None:
        found["prdc"] = prdc(others, features, PrdcOptions().k)
        on_step()
    gaussian = judge.reference.gaussian
    if extras.infinity:
        found["infinity"] = spread.infinity(features, gaussian, on_point=on_step)
    if extras.bootstrap:
        found["bootstrap"] = spread.bootstrap(features, gaussian, on_point=on_step)
    return Measurement(
        **judge.identity(),
        value=value,
        n=len(features),
        images=source.name,
        quantize=source.quantize,
        protocol_followed=followed(source, judge, len(features)),
        device=str(judge.extractor.device),
        files_left_aside=source.ignored,
        warnings=list(warnings(source, judge, features)),
        versions=versions(),
        **found,
    )


def followed(source: ImageSource, judge: Evaluator, n: int) -> bool | None:
    """Whether all that the protocol fixes is as it says; the judge has made sure of reference, mode and network."""
    protocol = judge.protocol
    return None if protocol is None else (n, source.quantize) == (protocol.num, protocol.quantize)


def features_for(reference: Reference, extras: Extras) -> NDArray[np.floating] | None:
    """The reference's own features, where something needs them.

    Raises:
        UsageError: it has none.
    """
    wanted = [option for option, on in (("--kid", extras.kid), ("--prdc", extras.prdc)) if on]
    if wanted and reference.features is None:
        raise UsageError(
            f"{', '.join(wanted)}: {reference.name} is a mean and a covariance, and these need features; give images as --ref, "
            "or a file of gddim fid stats"
        )
    return reference.features


def warnings(source: ImageSource, judge: Evaluator, features: NDArray[np.floating]) -> Iterator[str]:
    """What a reader of the number has to know, in words."""
    protocol, n = judge.protocol, len(features)
    yield from judge.metric.spec.notes(features, judge.reference)
    if protocol and n != protocol.num:
        yield f"protocol {protocol.name} is of {protocol.num} images; this is of {n}"
    if not judge.extractor.defines_fid:
        yield f"{judge.label()} is not FID and cannot be compared with published FID values"
    reference = judge.reference
    if not reference.stated:
        mode = judge.extractor.mode
        yield f"{reference.name} does not say by which mode it was made; {mode} was taken, --mode takes another"
    odd = judge.mismatch(source.shape)
    if odd:
        yield odd
    if source.quantize is None and protocol:
        yield f"how the images became 8 bits is unknown (no run.json); protocol {protocol.name} is by {protocol.quantize}"


def lines(found: Measurement) -> list[str]:
    """The measurement for a person: the number, then what it depends on."""
    of = found.reference_n
    rows = {
        "images": f"{found.images}, {found.n}, {f'quantised by {found.quantize}' if found.quantize else 'quantisation unknown'}",
        "reference": f"{found.reference} ({found.reference_title}{f', {of} images' if of else ''})",
        "network": f"{found.network}, sha256 {found.weights_sha256[:12]}, mode {found.mode}",
    }
    if found.protocol:
        rows["protocol"] = (
            found.protocol if found.protocol_followed else f"{found.protocol}, not in full: see the notes"
        )
    if found.infinity is not None:
        rows["N to infinity"] = f"{found.infinity:.5g}"
    if found.bootstrap is not None:
        rows["spread"] = f"{found.bootstrap:.2g} (standard deviation, bootstrap)"
    if found.kid:
        rows["KID"] = f"{found.kid['value']:.5g} (+- {found.kid['std']:.2g} among subsets)"
    if found.prdc:
        sizes = f"k {found.prdc['k']:g}, {found.prdc['n']:g} images, {found.prdc['reference_n']:g} of the reference"
        shown = ("precision", "recall", "density", "coverage")
        rows |= {name: f"{found.prdc[name]:.4f}" for name in shown} | {"": sizes}
    width = max(map(len, rows))
    return [f"{found.label} = {found.value:.6g}", *(f"  {name:<{width}}  {text}" for name, text in rows.items())]
