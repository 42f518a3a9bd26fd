"""A measurement with everything that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.images.sources import ImageSource
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.versions import versions

UNCERTAINTY = ("standard_error", "low", "high")


class Measurement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `gddim fid --json` prints: the first metric at the top level, all of them under `metrics`.

    Attributes:
        metric: its label: `FID`, or `FD(network)`, which is not comparable with FID.
        metric_name, metric_options: what `--metrics` calls it.
        value: of the first metric; `standard_error`, `low` and `high` are its standard error and 95 % interval if known.
        n: the number of images.
        chosen_from: if they are a fixed random subset, the number of images that they were chosen from.
        metrics: all numbers of each metric, under the text that chooses it; `label` is `metric` with the number of images.
        protocol_followed: whether count and quantisation are the protocol's too; None without a protocol.
        files_left_aside: files in the images' folder or archive that are not images by their names.
        quantize: how the images became uint8, as their run.json says; None if unknown.
    """

    metric: str
    metric_name: str
    metric_options: dict[str, Any]
    value: float
    n: int
    metrics: dict[str, dict[str, Any]]
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
    chosen_from: int | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None

    def json(self) -> str:
        """The measurement as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()


def report(
    source: ImageSource,
    evaluators: Sequence[Evaluator],
    features: NDArray[np.floating],
    on_step: Callable[[float], object],
) -> Measurement:
    """The metrics of images, from their features.

    Args:
        evaluators: one for each metric, alike in all else.
        on_step: called with the share of a metric that has been computed since the last call.

    Raises:
        UsageError, DataError, NumericsError: as `Evaluator.evaluate`.
    """
    first, found = evaluators[0], {}
    for evaluator in evaluators:
        names = {"metric": evaluator.label(), "label": evaluator.label(len(features))}
        found[evaluator.metric.text] = {**names, **evaluator.evaluate(features, on_step)}
    values: dict[str, Any] = found[first.metric.text]
    return Measurement(
        **first.identity(),
        value=values["value"],
        n=len(features),
        chosen_from=source.chosen_from,
        metrics=found,
        images=printable(source.name),
        quantize=source.quantize,
        protocol_followed=followed(source, first, len(features)),
        device=str(first.extractor.device),
        files_left_aside=source.ignored,
        warnings=list(warnings(source, evaluators, features)),
        versions=versions(),
        standard_error=values.get("standard_error"),
        low=values.get("low"),
        high=values.get("high"),
    )


def followed(source: ImageSource, evaluator: Evaluator, n: int) -> bool | None:
    """Whether count and quantisation are the protocol's; the evaluator has made sure of reference, mode and network."""
    protocol = evaluator.protocol
    return None if protocol is None else (n, source.quantize) == (protocol.num, protocol.quantize)


def warnings(source: ImageSource, evaluators: Sequence[Evaluator], features: NDArray[np.floating]) -> Iterator[str]:
    """What a reader of the values has to know, a sentence each."""
    first, n = evaluators[0], len(features)
    protocol, reference = first.protocol, first.reference
    for evaluator in evaluators:
        yield from evaluator.metric.spec.notes(features, reference)
    if protocol and n != protocol.num:
        yield f"protocol {protocol.name} requires {protocol.num} images; there are {n}"
    if not first.extractor.defines_fid:
        label = first.label()
        official = first.metric.spec.title.format(**msgspec.to_builtins(first.metric.options))
        yield f"{label} is not {official} and cannot be compared with published {official} values"
    if not reference.stated:
        network = f"{first.extractor.name}, mode {first.extractor.mode}"
        yield f"{reference.name} does not state which network and mode made it; {network}, is assumed"
    odd = first.mismatch(source.shape)
    if odd:
        yield odd
    if source.quantize is None and protocol:
        yield (
            f"how the images were quantised is unknown (no run.json); protocol {protocol.name} requires {protocol.quantize}"
        )


def lines(found: Measurement) -> list[str]:
    """The measurement as text: a line for each metric, then what the values depend on."""
    of = found.reference_n
    count = f"a fixed random subset of {found.n} of {found.chosen_from}" if found.chosen_from else f"{found.n}"
    quantised = f"quantised by {found.quantize}" if found.quantize else "quantisation unknown"
    rows = {
        "images": f"{found.images}, {count}, {quantised}",
        "reference": f"{found.reference} ({found.reference_title}{f', {of} images' if of else ''})",
        "network": f"{found.network}, sha256 {found.weights_sha256[:12]}, mode {found.mode}",
    }
    if found.protocol:
        rows["protocol"] = (
            found.protocol if found.protocol_followed else f"{found.protocol}, not in full: see the notes"
        )
    width = max(map(len, rows))
    metrics = [f"{numbers['label']} = {described(numbers)}" for numbers in found.metrics.values()]
    return [*metrics, *(f"  {name:<{width}}  {text}" for name, text in rows.items())]


def described(numbers: Mapping[str, Any]) -> str:
    """A metric's value, its interval and its other numbers in words."""
    interval = f" (95 % interval {numbers['low']:.4g} to {numbers['high']:.4g})" if "low" in numbers else ""
    others = [
        f"{name.replace('_', ' ')} {value:.5g}"
        for name, value in numbers.items()
        if name not in ("metric", "label", "value", *UNCERTAINTY)
    ]
    return "; ".join([f"{numbers['value']:.6g}{interval}", *([", ".join(others)] if others else [])])
