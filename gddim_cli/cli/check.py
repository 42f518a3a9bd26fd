"""`gddim check`: tests a diffusion, or a model's conventions, such as its sign and scale."""

from __future__ import annotations

import json as json_module
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, grid_table, say, show_json, show_table, stdout
from gddim_cli.cli.shared_settings import ImagesKey, Machine, ModelSettings
from gddim_cli.errors import NumericsError, UsageError
from gddim_cli.runs.request import checkpoint_names
from gddim_cli.settings import about

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gddim_cli.verification.checks import Result
    from gddim_cli.verification.model_check import ModelReport

EPILOG = """[bold]Examples[/bold]

gddim check cld

gddim check mine.py

gddim check --checkpoint network.pkl --data photos/

gddim check --checkpoint mine.py:build --json"""


DIFFUSION = "Diffusion to test: a name, a Python file with one subclass of Diffusion, or a YAML file with a name and parameters."
CHECKPOINT = "Model to test instead of a diffusion, given as for gddim sample --checkpoint."
DATA = (
    "Images like the model's training images: a folder, .zip, .tar, .npz or .npy. Default: samples of the model, which "
    "reveal fewer mistakes."
)
NUM = (
    "Number of images from --data on which the model's error is measured. The linear filter is fitted to other images "
    "from --data. Without --data, 32 images are drawn and this option is ignored."
)


class CheckSettings(Machine, frozen=True, kw_only=True):
    """The model that `gddim check` tests, and the images it is tested on."""

    checkpoint: (
        Annotated[str, about(CHECKPOINT, panel="Model", metavar="NAME|PATH", complete=checkpoint_names)] | None
    ) = None
    set: ModelSettings | None = None
    data: Annotated[Path, about(DATA, panel="Data")] | None = None
    key: ImagesKey | None = None
    num: Annotated[int, about(NUM, panel="Data", short="-n", ge=8, le=10_000)] = 64


def check(
    asked: CheckSettings,
    diffusion: Annotated[str | None, typer.Argument(metavar="DIFFUSION", help=DIFFUSION)] = None,
    json: options.Json = False,
) -> None:
    """Test a diffusion or a model. If a test fails, the exit status is 1.

    For a diffusion, the command tests the equations, the prior, the exactness of one step, and the orders of convergence
    of gDDIM. The tests are numerical and do not prove that the diffusion is correct.

    For a model, the command compares the model's denoising error with the error of a linear filter at twelve noise levels.
    It reports whether the sign, scale, time, data range or parameterization looks wrong, and at which noise levels the
    model can be trusted.
    """
    if (diffusion is None) == (asked.checkpoint is None):
        raise UsageError("gddim check: expected either a DIFFUSION or --checkpoint")
    if asked.checkpoint is not None:
        check_checkpoint(asked.checkpoint, asked, json)
    elif asked.data or asked.key or asked.set:
        raise UsageError("--data, --key and --set require --checkpoint")
    else:
        check_diffusion(str(diffusion), json)


def check_diffusion(name: str, json: bool) -> None:
    """Tests a diffusion; exits with status 1 if a check fails."""
    from gddim_cli.diffusions.parameters import described
    from gddim_cli.diffusions.registry import find_diffusion
    from gddim_cli.verification.checks import checks_of, examine

    found = find_diffusion(name)
    say(described(found) + (" (tested on 4x4 pixels, at three frequencies)" if found.spectral else ""))
    results = []
    with Progress(len(checks_of(found)), "checks") as progress:
        for result in examine(found):
            results.append(result)
            progress.advance(1, result.check)
    show(results, json)
    failed = sum(not result.passed for result in results)
    if failed:
        raise NumericsError(f"{failed} of {len(results)} checks failed")


def check_checkpoint(reference: str, asked: CheckSettings, json: bool) -> None:
    """Tests a model; exits with status 1 if something looks wrong."""
    from gddim_cli.hub.load import load
    from gddim_cli.runs.images import open_images
    from gddim_cli.verification.check_images import FITTED, DrawnImages, GivenImages
    from gddim_cli.verification.model_check import ModelCheck

    where = asked.use()
    settings: dict[str, Any] = options.assignments(asked.set)
    source = open_images(asked.data, asked.key) if asked.data else None
    model = load(reference, where, say=say, **settings)
    images: DrawnImages | GivenImages
    if source:
        pixels = source.at_most(asked.num + FITTED).read_all()
        images = GivenImages(pixels, asked.num, model, where, source.name)
    else:
        images = DrawnImages(model, where)
    test = ModelCheck(model, images)
    say(f"{model.name}: tested on {images.title}")
    with Progress(test.total, "tests") as progress:
        report = test.run(progress.advance)
    show_report(report, json)
    if not report.passed:
        raise typer.Exit(1)


def show_report(report: ModelReport, json: bool) -> None:
    """Prints the report on stdout, as a JSON object or as a table followed by sentences."""
    if json:
        show_json(report_object(report))
        return
    rows = [["sigma", "error (RMS)", "linear filter", "ratio of squares"]]
    for level in report.levels:
        errors = [level.sigma, math.sqrt(level.model), math.sqrt(level.linear), level.ratio]
        rows.append([f"{value:.3g}" for value in errors])
    show_table(grid_table(rows, report.model))
    with stdout() as out:
        out.writelines(f"{sentence}\n" for sentence in sentences(report))


def sentences(report: ModelReport) -> list[str]:
    """The outcome in words."""
    if report.findings:
        return [f"FAILED ({finding.kind}): {finding.message}." for finding in report.findings]
    mean = f"ok: the squared error is {report.mean_ratio:.2g} times that of a linear filter (mean over the levels)."
    if report.trusted is None:
        return [mean, "At no noise level is the model's error close to that of a linear filter."]
    low, high = report.trusted
    return [mean, f"The model can be trusted from sigma {low:.3g} to {high:.3g}."]


def report_object(report: ModelReport) -> dict[str, Any]:
    """The report as plain data; numbers that are not finite become null."""
    import dataclasses

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    levels = [
        {"sigma": e.sigma, "error": finite(e.model), "linear": e.linear, "ratio": finite(e.ratio)}
        for e in report.levels
    ]
    return {
        "model": report.model,
        "images": report.images,
        "passed": report.passed,
        "mean_ratio": finite(report.mean_ratio),
        "trusted": report.trusted,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "levels": levels,
    }


def show(results: Sequence[Result], json: bool) -> None:
    """Prints the results on stdout: as a JSON list, or as a table and a sentence for each failed check."""
    if json:
        rows = [
            {
                "check": result.check,
                "value": result.value if math.isfinite(result.value) else None,
                "bound": result.bound,
                "expected": result.expected,
                "passed": result.passed,
                "message": result.message,
            }
            for result in results
        ]
        with stdout() as out:
            out.write(json_module.dumps(rows, indent=2) + "\n")
        return
    from rich.table import Table

    table = Table("check", "found", "expected", "")
    for result in results:
        verdict = "[green]ok[/green]" if result.passed else "[red]FAILED[/red]"
        table.add_row(result.check, f"{result.value:.3g}", result.expected, verdict)
    show_table(table)
    with stdout() as out:
        out.writelines(f"{result.check}: {result.message}\n" for result in results if not result.passed)


app = options.command(options.with_settings(check), EPILOG)
