"""Options that several commands share, and what turns their words into values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gddim_cli.errors import UsageError
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    import torch

NAMED_DTYPES = ("float32", "float64", "bfloat16", "float16")
BATCH_SIZE = 64
SHORT_DTYPES = {"fp32": "float32", "fp64": "float64", "bf16": "bfloat16", "fp16": "float16"}

Device = Annotated[
    str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where the network runs; auto takes a GPU where there is one.")
]
Nfe = Annotated[int, typer.Option(help="Evaluations of the network for each image, the denoising step included.")]
Order = Annotated[
    int | None,
    typer.Option(help="Past evaluations used beside the current one (default: 2, or 0 with --lambda).", metavar="0..3"),
]
Lambda = Annotated[float | None, typer.Option("--lambda", help="Noise of the reverse process: 0 none, 1 its own.")]
K = Annotated[
    str | None, typer.Option("--k", metavar="R|L", help="The K of the noise prediction (default: the card's).")
]
Denoise = Annotated[
    bool | None,
    typer.Option("--denoise/--no-denoise", help="A last denoising step, one evaluation (default: the card's)."),
]
TimeGrid = Annotated[
    str | None,
    typer.Option(metavar="linear|quadratic|P", help="Steps evenly spaced in t^(1/P) (default: the card's, quadratic)."),
]
TEnd = Annotated[float | None, typer.Option(help="Where the steps end (default: the card's).")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def positive(option: str, value: int) -> int:
    """The value, refused unless it is at least 1.

    Raises:
        UsageError: naming the option.
    """
    if value < 1:
        raise UsageError(f"{option}: {value} is not a positive count")
    return value


def batch_size(text: str) -> int | None:
    """The images at once; None where they are to be measured.

    Raises:
        UsageError: neither a positive count nor `auto`.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size: {text} is not a positive count; auto measures one")
    return int(text)


def one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    """The value, refused unless it is known.

    Raises:
        UsageError: naming the option and what there is.
    """
    if value not in known:
        raise UsageError(f"{option}: '{value}' is not one of {', '.join(known)}")
    return value


def seed(value: int) -> int:
    """The seed, refused unless 64 bits hold it.

    Raises:
        UsageError: naming the option.
    """
    if not 0 <= value < 2**64:
        raise UsageError(f"--seed: {value} is not in 0..2^64-1")
    return value


def folder(option: str, path: Path) -> Path:
    """The folder, refused where its name is empty: that would be the current one, full of images.

    Raises:
        UsageError: naming the option.
    """
    if path == Path():
        raise UsageError(f"{option}: a folder of its own is needed, not the current one")
    return path


def suffix(option: str, path: Path | None, ending: str) -> None:
    """Refuses a file whose name does not say what it will be.

    Raises:
        UsageError: naming the option.
    """
    if path is not None and path.suffix.lower() != ending:
        raise UsageError(f"{option}: {path} does not end in {ending}")


def sampling_choices(
    k: str | None, denoise: bool | None, time_grid: str | None, t_end: float | None, quantize: str | None = None
) -> dict[str, Any]:
    """Those of the sampling options that were given, as fields of `SamplingConfig`.

    Raises:
        UsageError: a value that is none of the known ones.
    """
    if k is not None:
        one_of("--k", k, ("R", "L"))
    if quantize is not None:
        one_of("--quantize", quantize, ("floor", "round"))
    power = None if time_grid is None else grid_power(time_grid)
    choices = {"k": k, "denoise": denoise, "grid_power": power, "t_end": t_end, "quantize": quantize}
    return {name: value for name, value in choices.items() if value is not None}


def grid_power(text: str) -> float:
    """The power p of `--time-grid`: `linear`, `quadratic` or a positive number.

    Raises:
        UsageError: neither.
    """
    named = {"linear": 1.0, "quadratic": 2.0}
    try:
        power = named[text] if text in named else float(text)
    except ValueError:
        power = math.nan
    if not 0 < power < math.inf:
        raise UsageError(f"--time-grid: '{text}' is neither linear, quadratic nor a positive number (the power P)")
    return power


def torch_device(name: str) -> torch.device:
    """The device that `--device` means; several processes on a machine take a GPU each, unless one is named by number.

    Raises:
        UsageError: no such device on this machine.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    one_of("--device", kind, ("auto", "cpu", "cuda", "mps"))
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: there is no CUDA GPU here that torch can use; --device cpu works")
    if kind == "cuda" and not index and world().size > 1:
        index = str(world().local_rank)
        name = f"cuda:{index}"
        if world().local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"--device: more processes than the {torch.cuda.device_count()} CUDA GPUs here; "
                "give torchrun a smaller --nproc-per-node, or name one GPU for all, --device cuda:0"
            )
    if kind == "cuda" and index and not (index.isdigit() and int(index) < torch.cuda.device_count()):
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} CUDA GPUs, counted from 0")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: there is no Apple GPU here that torch can use; --device cpu works")
    if kind in ("cpu", "mps") and index:
        raise UsageError(f"--device {name}: only cuda takes a number")
    if kind == "cuda" and world().size > 1:
        torch.cuda.set_device(int(index))  # or each would hold memory of the first GPU too
    return torch.device(name)


def dtype_name(word: str) -> str:
    """The name that torch has for a dtype, from that or from the short one.

    Raises:
        UsageError: unknown.
    """
    return one_of("--dtype", SHORT_DTYPES.get(word, word), NAMED_DTYPES)


def torch_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `--dtype` means.

    Raises:
        UsageError: unknown, or impossible on the device.
    """
    import torch

    name = dtype_name(name)
    if name == "float64" and device.type == "mps":
        raise UsageError("--dtype float64: Apple GPUs have none; --device cpu has")
    return getattr(torch, name)
