"""`gddim coefficients`: what the sampler multiplies with, for people who port the method."""

from __future__ import annotations

import dataclasses
import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import show_table, stdout

if TYPE_CHECKING:
    from gddim_cli.samplers.coefficients import Coefficients

EPILOG = """[bold]Examples[/bold]

gddim coefficients --diffusion cld --nfe 50 --order 2 --k R --json > cld50.json

gddim coefficients --diffusion vp --nfe 10 --order 0"""


def coefficients(
    diffusion: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="A name, or a .yaml or .py as gddim check takes.")
    ] = "cld",
    nfe: options.Nfe = 50,
    order: options.Order = None,
    lam: options.Lambda = None,
    k: options.K = None,
    denoise: options.Denoise = None,
    time_grid: options.TimeGrid = None,
    t_end: options.TEnd = None,
    npz: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Write t, Psi, C (and last) there as float64 arrays.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Print the times and matrices that gDDIM uses.

    u\\[i+1] = Psi\\[i] u\\[i] + sum_j C\\[i]\\[j] eps(u\\[i-j], t\\[i-j]); steps = nfe - 1 with the denoising step, nfe without.
    With --lambda, P\\[i] is the covariance of the noise that step i adds.
    The denoising step is u = last\\[0] u\\[N] + last\\[1] eps(u\\[N], t\\[N]).
    """
    options.positive("--nfe", nfe)
    options.suffix("--npz", npz, ".npz")
    given = options.sampling_choices(k, denoise, time_grid, t_end)

    from gddim_cli.diffusions.registry import find_diffusion
    from gddim_cli.samplers.gddim import step_covariance
    from gddim_cli.samplers.registry import Choices, plan

    medium = find_diffusion(diffusion)
    chosen = dataclasses.replace(medium.sampling, **given)
    found = plan("gddim", medium, chosen, nfe, Choices(order=order, lam=lam)).coefficients
    assert found is not None  # without a corrector gDDIM is a linear method
    arrays = {"t": found.t, "Psi": found.Psi, "C": found.C}
    if lam is not None:
        arrays["P"] = step_covariance(medium, found.t, lam)
    if found.last is not None:
        arrays["last"] = found.last
    if npz:
        write(npz, arrays)
    if json:
        with stdout() as out:
            out.write(json_module.dumps({name: array.tolist() for name, array in arrays.items()}) + "\n")
    elif not npz or sys.stdout.isatty():
        show(medium.name, found)


def write(path: Path, arrays: dict[str, Any]) -> None:
    import numpy as np

    from gddim_cli.runtime.files import replacing

    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def show(name: str, found: Coefficients) -> None:
    from rich.table import Table

    title = f"{name}, K = {found.k}, order {found.order}, NFE {found.nfe}"
    if found.Psi.ndim > 3:
        title += "; the four corners of the DCT spectrum (--npz and --json have it all)"
    table = Table("step", "from t", "to t", "Psi", *(f"C{j}" for j in range(found.order + 1)), title=title)
    for i in range(len(found.Psi)):
        used = (matrix(c) if j <= i else "-" for j, c in enumerate(found.C[i]))
        table.add_row(str(i), f"{found.t[i]:.6g}", f"{found.t[i + 1]:.6g}", matrix(found.Psi[i]), *used)
    if found.last is not None:
        table.add_row("last", f"{found.t[-1]:.6g}", "0", *map(matrix, found.last))
    show_table(table)


def matrix(values: Any) -> str:
    if values.ndim > 2:  # one number a frequency: too many to print
        values = values[:: len(values) - 1, :: len(values) - 1, 0, 0]
    return "\n".join("  ".join(f"{value: .6f}" for value in row) for row in values)
