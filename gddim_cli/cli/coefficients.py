"""`gddim coefficients`: the times and matrices of gDDIM, for porting the method."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from gddim_cli.cli import options
from gddim_cli.cli.progress import data_stream, show_table, stdout
from gddim_cli.cli.shared_settings import ForceFile
from gddim_cli.runs.request import sampling_settings
from gddim_cli.settings import about

if TYPE_CHECKING:
    from gddim_cli.samplers.coefficients import Coefficients
    from gddim_cli.settings import Setting

EPILOG = """[bold]Examples[/bold]

gddim coefficients --diffusion cld --nfe 50 --order 2 --k R --json > cld50.json

gddim coefficients --diffusion vp --nfe 10 --order 0"""

SETTINGS = ("diffusion", "nfe", "order", "lambda", "k", "denoise", "time_grid", "t_end")


NPZ = "Write the times and matrices to this file as float64 arrays."


class CoefficientsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The output options of `gddim coefficients`."""

    npz: Annotated[Path, about(NPZ, panel="Output", metavar="FILE.npz")] | None = None
    force: ForceFile = False


def coefficients(
    given: Mapping[str, Any],
    asked: CoefficientsSettings,
    json: options.Json = False,
) -> None:
    """Print the times and matrices that gDDIM uses.

    Step i computes u\\[i+1] = Psi\\[i] u\\[i] + sum_j C\\[i]\\[j] eps(u\\[i-j], t\\[i-j]), for i = 0 .. N - 1.
    The denoising step, if there is one, then computes u = last\\[0] u\\[N] + last\\[1] eps(u\\[N], t\\[N]).

    The sum runs over j = 0 .. order. N is nfe - 1 with the denoising step and nfe without it. With --lambda, P\\[i] is
    the covariance of the noise that step i adds.
    """
    npz = asked.npz
    options.suffix("--npz", npz, ".npz")
    values = options.parsed({"diffusion": "cld", **given}, sampling_settings())

    from gddim_cli.runs.coefficients import coefficients_of

    name, found, covariance = coefficients_of(values)
    arrays = {"t": found.t, "Psi": found.Psi, "C": found.C}
    if "lambda" in values:
        arrays["P"] = covariance
    if found.last is not None:
        arrays["last"] = found.last
    if npz:
        write(npz, arrays, asked.force)
    if json:
        with stdout() as out:
            out.write(json_module.dumps({name: array.tolist() for name, array in arrays.items()}) + "\n")
    elif not npz or data_stream().isatty():
        show(name, found)


def write(path: Path, arrays: dict[str, Any], force: bool) -> None:
    """Writes the arrays as an .npz.

    Raises:
        UsageError: the file exists, and `force` is not given.
        OutputError: the file cannot be written.
    """
    import numpy as np

    from gddim_cli.runtime.files import refuse_foreign, replacing

    refuse_foreign("--npz", path, None, force)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def show(name: str, found: Coefficients) -> None:
    """Prints the matrices of every step as a table."""
    from rich.table import Table

    title = f"{name}, K = {found.k}, order {found.order}, NFE {found.nfe}"
    if found.Psi.ndim > 3:
        title += "; the four corners of the DCT spectrum (--npz and --json write all of it)"
    table = Table("step", "from t", "to t", "Psi", *(f"C{j}" for j in range(found.order + 1)), title=title)
    for i in range(len(found.Psi)):
        used = (matrix(c) if j <= i else "-" for j, c in enumerate(found.C[i]))
        table.add_row(str(i), f"{found.t[i]:.6g}", f"{found.t[i + 1]:.6g}", matrix(found.Psi[i]), *used)
    if found.last is not None:
        table.add_row("last", f"{found.t[-1]:.6g}", "0", *map(matrix, found.last))
    show_table(table)


def matrix(values: Any) -> str:
    """A matrix as lines of text; for a spectrum with one number per frequency, its four corners."""
    if values.ndim > 2:
        values = values[:: len(values) - 1, :: len(values) - 1, 0, 0]
    return "\n".join("  ".join(f"{value: .6f}" for value in row) for row in values)


def settings() -> list[Setting]:
    """The settings of this command. The command has no checkpoint, so the defaults in its help are those of the diffusion."""
    found = [sampling_settings()[key] for key in SETTINGS]
    defaults = (("the checkpoint's own", "cld"), ("the checkpoint's", "the diffusion's"), (" for gddim, 1 for em", ""))
    for checkpoint, own in defaults:
        found = [replace(setting, help=setting.help.replace(checkpoint, own)) for setting in found]
    return found


app = options.command(options.with_settings(coefficients, settings()), EPILOG)
