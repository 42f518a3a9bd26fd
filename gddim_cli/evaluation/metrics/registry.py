"""The metrics by name."""

from __future__ import annotations

from pathlib import Path

from gddim_cli import settings
from gddim_cli.errors import UsageError
from gddim_cli.evaluation.metrics.base import Metric, MetricSpec
from gddim_cli.evaluation.metrics.fd_dinov2 import FD_DINOV2
from gddim_cli.evaluation.metrics.fid import FID
from gddim_cli.evaluation.metrics.fid_infinity import FID_INFINITY
from gddim_cli.evaluation.metrics.inception_score import INCEPTION_SCORE
from gddim_cli.evaluation.metrics.kid import KID
from gddim_cli.evaluation.metrics.prdc import PRDC
from gddim_cli.runtime.files import sha256
from gddim_cli.runtime.registry import Registry
from gddim_cli.runtime.user_file import spec_of

METRICS = Registry("metric", MetricSpec, [FID, FID_INFINITY, KID, PRDC, INCEPTION_SCORE, FD_DINOV2])


def find_metric(text: str, where: str = "--metrics") -> Metric:
    """The metric that a text chooses, for example `kid`, `prdc:k=3:value=recall` or `mine.py`.

    The text is a metric's name, or a Python file that defines one `MetricSpec`, followed by any options as `:key=value`.

    Args:
        where: the option or key that has the value `text`, for messages.

    Raises:
        UsageError: the metric or an option is unknown, or a value is outside its range.
        DataError: the file is missing, raises an error, or does not define exactly one metric.
    """
    name, *parts = text.split(":")
    path = Path(name) if name.endswith(".py") else None
    spec = spec_of(path, METRICS) if path else METRICS.find(name, where)
    given = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or key in given:
            raise UsageError(f"{where} {text}: '{part}' is not of the form key=value, or its key is given twice")
        known = settings.declared(spec.options)
        given[key] = known[key].parse(value, f"{where} {name}:{key}") if key in known else value
    chosen = settings.build(spec.options, given, f"the metric {name}", lambda key: f"{where} {name}:{key}")
    return Metric(spec, chosen, name, sha256(path)) if path else Metric(spec, chosen)


def find_metrics(text: str, where: str = "--metrics") -> list[Metric]:
    """The metrics of a comma-separated list, in its order.

    Raises:
        UsageError: as in `find_metric`; or the list is empty, or names a metric twice.
    """
    found = [find_metric(part, where) for part in settings.split(text)]
    if not found:
        raise UsageError(f"{where}: names no metric; known: {', '.join(METRICS)}")
    texts = [metric.text for metric in found]
    for name in texts:
        if texts.count(name) > 1:
            raise UsageError(f"{where} {text}: {name} is listed twice")
    return found
