"""`gddim tune`: fit a solver to a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, say, show_json
from gddim_cli.cli.shared_settings import Force, Machine, ModelSettings
from gddim_cli.errors import UsageError
from gddim_cli.runs.request import SamplingRequest, sampling_settings
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.runs.tune import Tuning
    from gddim_cli.samplers.fitted.solver_file import SolverFile
    from gddim_cli.settings import Setting

EPILOG = """[bold]Examples[/bold]

gddim tune --nfe 10 && gddim sample --nfe 10 --solver auto --out imgs/

gddim tune --nfe 5 --diffusion vp --num 256 --out vp5.json && gddim sample --nfe 5 --diffusion vp --solver vp5.json"""

SETTINGS = ("nfe", "checkpoint", "diffusion", "class", "seed", "k", "denoise", "t_end")
MOST = 1000
"""The largest NFE for which a solver can be fitted."""
DEFAULT_SEED = 2**32
"""Far from the seeds that users choose, so that their images do not start from the noises of the fit."""

NUM = (
    "Number of noise samples that the solver is fitted to. The error is measured on the same number of held-out samples. "
    "With fewer than 128 samples, the solver overfits."
)
OUT = "Solver file to write. Default: a file in the cache, where --solver auto finds it."
BATCH_SIZE = (
    "Number of noise samples per batch. Each step of Adam uses one batch, so the batch size also affects the fitted "
    "solver."
)


class TuneSettings(Machine, frozen=True, kw_only=True):
    """The options of `gddim tune` that are not sampling settings."""

    num: Annotated[int, about(NUM, short="-n", ge=2, le=100_000)] = 128
    set: ModelSettings | None = None
    out: Annotated[Path, about(OUT, panel="Output", metavar="FILE.json")] | None = None
    force: Force = False
    batch_size: Annotated[int, about(BATCH_SIZE, panel="Speed", ge=1, le=100_000)] = 8


def tune(
    given: Mapping[str, Any],
    asked: TuneSettings,
    json: options.Json = False,
) -> None:
    """Fit a solver to a network, so that a few evaluations come close to the result of many.

    The command searches for the best times and matrices. This takes minutes for a small network. You can interrupt the
    command at any time; rerun it to resume. To sample with the solver, pass the solver file to gddim sample --solver.
    """
    values = {"seed": DEFAULT_SEED, **options.parsed(given, sampling_settings())}
    if values.get("nfe") is None:
        raise UsageError("--nfe: is required; a solver is fitted for one number of network evaluations, as in --nfe 10")
    if values["nfe"] > MOST:
        raise UsageError(f"--nfe: {values['nfe']} is above {MOST}, the largest NFE for which a solver can be fitted")
    request = msgspec.structs.replace(SamplingRequest.of(values), model_settings=options.assignments(asked.set))
    options.suffix("--out", asked.out, ".json")

    from gddim_cli.runs.prepare import prepare
    from gddim_cli.runs.solvers import folders
    from gddim_cli.runs.tune import Tuning
    from gddim_cli.runtime.files import probe, refuse_foreign
    from gddim_cli.samplers.fitted.solver_file import write_solver

    where = asked.use()
    prepared = prepare(request, where, batch_size=asked.batch_size, say=say)
    for note in prepared.notes:
        say(f"note: {note}")
    tuning = Tuning(prepared, asked.num, asked.batch_size)
    path = asked.out or folders()[0] / tuning.name
    if asked.out is not None:
        refuse_foreign("--out", asked.out, None, asked.force)
    probe(path)
    solver = fitted(tuning)
    write_solver(path, solver)
    tuning.forget()
    report(path, solver)
    if json:
        show_json({"path": str(path), **msgspec.to_builtins(solver.fit)})


def fitted(tuning: Tuning) -> SolverFile:
    """Fits the solver, with a progress bar."""
    with Progress(tuning.evaluations, "evaluations") as progress:
        return replace(tuning, on_evaluation=progress.advance).solver(say)


def report(path: Path, solver: SolverFile) -> None:
    """Prints the path of the solver file, and how much the fit reduced the error."""
    fit = solver.fit
    if fit.improved:
        gain = f"{fit.rmse_before:.4g} -> {fit.rmse_after:.4g}, {fit.rmse_after / fit.rmse_before:.2f} times that of {fit.start}"
    else:
        gain = f"no search improved on {fit.start}, so the file holds that solver ({fit.rmse_before:.4g})"
    say(f"{path}: error on held-out noises: {gain}")


def settings() -> list[Setting]:
    """The settings of this command.

    The default seed differs from that of gddim sample, so that sampling starts from noises that are new to the solver.
    """
    found = sampling_settings()
    text = "Seed of the noise samples that the solver is fitted to. Default: 4294967296, far from the usual sampling seeds."
    found["seed"] = replace(found["seed"], help=text)
    found["nfe"] = replace(found["nfe"], help=f"{found['nfe'].help} Required; at most {MOST}.", default=None)
    return [found[key] for key in SETTINGS]


app = options.command(options.with_settings(tune, settings()), EPILOG)
