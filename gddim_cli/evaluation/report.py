"""Measured values with everything that they depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.evaluation.extractors.base import Extractor
from gddim_cli.images.sources import ImageSource
from gddim_cli.runtime.text import printable
from gddim_cli.runtime.versions import versions

UNCERTAINTY = ("standard_error", "low", "high")


class Measurement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `gddim fid --json` prints.

    The top level describes the first metric, `metrics` holds every metric against its first reference, and `results`
    holds every metric against every reference.

    Attributes:
        metric: the first metric's label: `FID`, or `FD(network)`, which is not comparable with FID.
        metric_name, metric_options: the first metric's name and options, as in `--metrics`.
        value: the value of the first metric; `standard_error`, `low` and `high` are its standard error and 95 % interval if
            known.
        n: the number of images.
        chosen_from: if the images are a fixed random subset, the number of images that they were chosen from.
        metrics: maps the text of each metric in `--metrics` to its label (`metric`), its label with the number of images
            (`label`), and all its numbers.
        results: one entry for each metric and reference: the values of `Evaluator.identity`, the reference as the user
            gave it (`ref`), `label`, `n`, and all `numbers`.
        protocol_followed: whether the number of images and their quantization are the protocol's; None without a
            protocol.
        files_left_aside: the number of files in the images' folder or archive whose names are not those of images.
        quantize: how the images were quantized to uint8, as their run.json says; None if unknown.
    """

    metric: str
    metric_name: str
    metric_options: dict[str, Any]
    value: float
    n: int
    metrics: dict[str, dict[str, Any]]
    results: list[dict[str, Any]]
    images: str
    quantize: str | None
    reference: str | None
    reference_title: str | None
    reference_n: int | None
    reference_sha256: str | None
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
    metric_sha256: str | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None

    def json(self) -> str:
        """The measurement as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()


def report(
    source: ImageSource,
    evaluators: Sequence[Evaluator],
    features: Callable[[Extractor], NDArray[np.floating]],
    on_step: Callable[[float], object],
) -> Measurement:
    """Computes the metrics of images from their features.

    Args:
        evaluators: one for each metric and reference, all with the same protocol or all without one.
        features: returns the images' features from an extractor.
        on_step: called with the share of a metric that has been computed since the last call.

    Raises:
        UsageError, DataError, NumericsError: as in `Evaluator.evaluate`.
    """
    first, n, notes = evaluators[0], source.count, list[str]()
    metrics: dict[str, dict[str, Any]] = {}
    results: list[dict[str, Any]] = []
    for evaluator in evaluators:
        own = features(evaluator.extractor)
        numbers = evaluator.evaluate(own, on_step)
        names = {"metric": evaluator.label(), "label": evaluator.label(n)}
        metrics.setdefault(evaluator.metric.text, {**names, **numbers})
        ref = printable(evaluator.reference.name) if evaluator.reference else None
        results.append({**evaluator.identity(), "ref": ref, "label": evaluator.label(n), "n": n, "numbers": numbers})
        notes += evaluator.notes(own, source.shape)
    networks = {evaluator.extractor.name: evaluator for evaluator in reversed(evaluators)}
    notes += [note for evaluator in networks.values() for note in evaluator.network_notes()]
    values: dict[str, Any] = metrics[first.metric.text]
    return Measurement(
        **first.identity(),
        value=values["value"],
        n=n,
        chosen_from=source.chosen_from,
        metrics=metrics,
        results=results,
        images=printable(source.name),
        quantize=source.quantize,
        protocol_followed=followed(source, first),
        device=str(first.extractor.device),
        files_left_aside=source.ignored,
        warnings=list(dict.fromkeys([*notes, *protocol_notes(source, first)])),
        versions=versions(),
        standard_error=values.get("standard_error"),
        low=values.get("low"),
        high=values.get("high"),
    )


def followed(source: ImageSource, evaluator: Evaluator) -> bool | None:
    """Whether the number of images and their quantization are the protocol's; None without a protocol.

    The reference, mode and network were checked when the evaluator was opened.
    """
    protocol = evaluator.protocol
    return None if protocol is None else (source.count, source.quantize) == (protocol.num, protocol.quantize)


def protocol_notes(source: ImageSource, evaluator: Evaluator) -> Iterator[str]:
    """The ways in which the images deviate from the protocol, one sentence each."""
    protocol = evaluator.protocol
    if protocol and source.count != protocol.num:
        yield f"protocol {protocol.name} requires {protocol.num} images; there are {source.count}"
    if protocol and source.quantize is None:
        yield (
            f"how the images were quantized is unknown (no run.json); protocol {protocol.name} requires {protocol.quantize}"
        )


def lines(found: Measurement) -> list[str]:
    """The measurement as text: the values, then what they depend on."""
    count = f"a fixed random subset of {found.n} of {found.chosen_from}" if found.chosen_from else f"{found.n}"
    quantized = f"quantized by {found.quantize}" if found.quantize else "quantization unknown"
    rows = [("images", f"{found.images}, {count}, {quantized}")]
    rows += [("reference", text) for text in dict.fromkeys(filter(None, map(reference, found.results)))]
    rows += [("network", text) for text in dict.fromkeys(map(network, found.results))]
    if found.protocol:
        followed = "" if found.protocol_followed else ", not in full: see the notes"
        rows.append(("protocol", f"{found.protocol}{followed}"))
    width = max(len(name) for name, _ in rows)
    depends = [f"  {name:<{width}}  {text}" for name, text in rows]
    return [*values(found.results), *depends]


def values(results: Sequence[dict[str, Any]]) -> list[str]:
    """The results, one line each; with several references, a table with a row per metric and a column per reference."""
    columns = list(dict.fromkeys(result["ref"] for result in results if result["ref"]))
    in_table = [result for result in results if result["ref"] and len(columns) > 1]
    found = [f"{result['label']} = {described(result['numbers'])}" for result in results if result not in in_table]
    labels = list(dict.fromkeys(result["label"] for result in in_table))
    cells = {(result["label"], result["ref"]): result["numbers"] for result in in_table}
    grid = [["", *columns]] if in_table else []
    grid += [[label, *(brief(cells.get((label, column))) for column in columns)] for label in labels]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return found + ["  ".join(map(str.ljust, row, widths)).rstrip() for row in grid]


def brief(numbers: Mapping[str, Any] | None) -> str:
    """A metric's value and interval for a cell of a table; a dash if the metric was not computed."""
    if numbers is None:
        return "-"
    interval = f" ({numbers['low']:.4g} to {numbers['high']:.4g})" if "low" in numbers else ""
    return f"{numbers['value']:.6g}{interval}"


def reference(result: Mapping[str, Any]) -> str:
    """A description of a result's reference; empty if it has none."""
    if not result["ref"]:
        return ""
    title, of = result["reference_title"], result["reference_n"]
    count = f", {of} images" if of and title != f"{of} images" else ""
    return f"{result['ref']} ({title}{count})"


def network(result: Mapping[str, Any]) -> str:
    """A description of a result's network."""
    return f"{result['network']}, sha256 {result['weights_sha256'][:12]}, mode {result['mode']}"


def described(numbers: Mapping[str, Any]) -> str:
    """A metric's value, its interval and its other numbers as text."""
    interval = f" (95 % interval {numbers['low']:.4g} to {numbers['high']:.4g})" if "low" in numbers else ""
    others = [
        f"{name.replace('_', ' ')} {number:.5g}"
        for name, number in numbers.items()
        if name not in ("value", *UNCERTAINTY)
    ]
    return "; ".join([f"{numbers['value']:.6g}{interval}", *([", ".join(others)] if others else [])])
