"""Finds the solver file that a request names, and checks that it was fitted to the same model and settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.diffusions.parameters import parameters_of
from gddim_cli.errors import DataError, UsageError
from gddim_cli.hub.store import bundled_folder, cache_folder
from gddim_cli.models.model import Model
from gddim_cli.runtime.files import sha256
from gddim_cli.runtime.text import printable
from gddim_cli.samplers.base import PreparedSampler, multistep_sampler
from gddim_cli.samplers.fitted.solver_file import SolverFile, read_solver
from gddim_cli.samplers.tuned import AUTO, TunedOptions

SOLVERS = "solvers"
SHA256 = re.compile(r"[0-9a-f]{64}")


def solver_name(model: Model, diffusion: Diffusion, diffusion_sha256: str | None, nfe: int) -> str:
    """The file name of the solver fitted to a model, a diffusion and an NFE: `mnist-cld-nfe10-0123456789ab.json`."""
    identity = [model.sha256 or model.name, diffusion.name, parameters_of(diffusion), diffusion_sha256, nfe]
    digest = hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:12]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{model.name}-{diffusion.name}")[:60]
    return f"{plain}-nfe{nfe}-{digest}.json"


def folders() -> tuple[Path, Path]:
    """The two folders of solver files: one in the cache, where `gddim tune` writes them, and one in the package."""
    return cache_folder() / SOLVERS, bundled_folder() / SOLVERS


def kept_files() -> Iterator[Path]:
    """All solver files of the cache and the package."""
    for folder in folders():
        yield from sorted(folder.glob("*.json"))


def find_solver(
    reference: str, model: Model, checkpoint: str, diffusion: Diffusion, diffusion_sha256: str | None, nfe: int
) -> Path:
    """The path of the solver file that a request names.

    Args:
        reference: a path, the sha256 of a file in `folders`, or `auto` for the file that `solver_name` names.

    Raises:
        UsageError: there is no solver for `auto`; the message names the command that makes one.
        DataError: no file has this sha256.
    """
    if reference == AUTO:
        name = solver_name(model, diffusion, diffusion_sha256, nfe)
        for folder in folders():
            if (folder / name).is_file():
                return folder / name
        through = "" if diffusion == model.diffusion else f" --diffusion {diffusion.name}"
        raise UsageError(
            f"--solver auto: no solver has been fitted to {printable(model.name)} through {diffusion.name} at NFE {nfe}; "
            f"make one with: gddim tune --checkpoint {printable(checkpoint)}{through} --nfe {nfe}"
        )
    if SHA256.fullmatch(reference):
        found = next((path for path in kept_files() if sha256(path) == reference), None)
        if found is None:
            raise DataError(
                f"--solver: no solver file in the cache or the package has the sha256 {reference[:16]}...; "
                "give the path of the file"
            )
        return found
    return Path(reference)


def fitted_sampler(
    options: TunedOptions,
    model: Model,
    checkpoint: str | None,
    diffusion: Diffusion,
    diffusion_sha256: str | None,
    config: SamplingConfig,
    nfe: int,
) -> PreparedSampler:
    """The sampler that a solver file defines. The sampler's options hold the sha256 of the file.

    Args:
        checkpoint: the model's name in the request.

    Raises:
        UsageError: there is no such solver, or it was fitted to another checkpoint, diffusion, NFE or configuration.
        DataError: the file is not a solver file.
    """
    path = find_solver(options.solver, model, checkpoint or model.name, diffusion, diffusion_sha256, nfe)
    solver = read_solver(path)
    refuse_other(path, solver, model, diffusion, diffusion_sha256, config, nfe)
    return multistep_sampler(solver.coefficients, TunedOptions(solver=sha256(path)))


def refuse_other(
    path: Path,
    solver: SolverFile,
    model: Model,
    diffusion: Diffusion,
    diffusion_sha256: str | None,
    config: SamplingConfig,
    nfe: int,
) -> None:
    """Raises UsageError for a solver that was fitted to another checkpoint, diffusion, NFE or configuration."""

    def refuse(what: str, fitted: Any, here: Any, way: str) -> None:
        raise UsageError(f"--solver: {path} was fitted to {what} {fitted}, not {here}; {way}")

    tune = f"make one with: gddim tune --checkpoint {printable(model.name)} --diffusion {diffusion.name} --nfe {nfe}"
    same_name = bool(model.sha256) or solver.checkpoint == model.name
    if solver.checkpoint_sha256 != model.sha256 or not same_name:
        theirs, ours = labelled(solver.checkpoint, solver.checkpoint_sha256), labelled(model.name, model.sha256)
        refuse("the checkpoint", theirs, ours, tune)
    own = (diffusion.name, msgspec.to_builtins(parameters_of(diffusion)), diffusion_sha256)
    if (solver.diffusion, solver.parameters, solver.diffusion_sha256) != own:
        refuse("the diffusion", f"{printable(solver.diffusion)} {solver.parameters}", f"{own[0]} {own[1]}", tune)
    if solver.nfe != nfe:
        refuse("NFE", solver.nfe, nfe, f"give --nfe {solver.nfe}")
    settings = (
        ("K =", solver.k, config.k, f"give --k {solver.k}"),
        ("denoise =", solver.denoise, config.denoise, f"give {'--denoise' if solver.denoise else '--no-denoise'}"),
        ("t_start =", solver.t[0] if solver.t_start is None else solver.t_start, config.t_start, tune),
        ("t_end =", solver.t[-1], config.t_end, f"give --t-end {solver.t[-1]:g}"),
    )
    for what, fitted, here, way in settings:
        if fitted != here:
            refuse(what, fitted, here, way)
    if solver.coefficients.Psi.shape[1:] != diffusion.Psi(config.t_end, config.t_end).shape:
        refuse("matrices of shape", list(solver.coefficients.Psi.shape[1:]), "of the shape of the diffusion's", tune)


def labelled(name: str, digest: str) -> str:
    """The text for a checkpoint in messages: its name, and the start of its sha256."""
    return f"{printable(name)} (sha256 {printable(digest[:16]) or 'none'})"
