"""`gddim sample`: from a checkpoint to a folder of images."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, duration, say, stdout
from gddim_cli.errors import DataError, UsageError
from gddim_cli.runs.request import SamplingRequest, sampling_settings, with_preset
from gddim_cli.runtime.device import find_device
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    from gddim_cli.runs.folder import Run
    from gddim_cli.runs.generate import Generation

NUM = 100

EPILOG = """[bold]Examples[/bold]

gddim sample --nfe 50 --out imgs/

gddim sample --nfe 20 --order 3 --num 500 --seed 7 --out more/

gddim sample --nfe 50 --out imgs/ --trajectory forming.gif --save-raw states.npy

gddim sample --compare gddim:2,em,dpm++2m --nfe 5,10,20,50 --out sheet.png"""

FIRST = ("nfe", "checkpoint", "sampler", "seed")
"""The settings that come first in `--help`."""


def sample(
    given: Mapping[str, Any],
    set: options.Set = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="paper",
            help="The scheme of the gDDIM paper, whatever the defaults are: order 2, eps under K = R, a quadratic time grid.",
            rich_help_panel="Sampler",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; rerunning the same command makes only the images that are missing. With --compare the "
            "sheet's file. Default: imgs, or sheet.png.",
            rich_help_panel="Output",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:ORDER],...",
            help="Write one sheet of pictures instead of a folder: a row for each sampler, a column for each NFE of a list, the "
            "same noises throughout. Other settings follow a name as :key=value.",
            rich_help_panel="Output",
        ),
    ] = None,
    num: Annotated[
        int | None,
        typer.Option("--num", "-n", help="Number of images in the folder. Default: 100.", rich_help_panel="Output"),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="png|npz|tar",
            help="Storage: one PNG per image, or shards of 10 000 images as .npz or as .tar of PNGs.",
            rich_help_panel="Output",
        ),
    ] = "png",
    trajectory: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.gif|webp|mp4|png",
            help="Also write an animation of the grid from noise to images; as .png a filmstrip of a few images.",
            rich_help_panel="Output",
        ),
    ] = None,
    save_raw: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="Also write the final states as float32, before quantisation.",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Remove the run in the folder and start again.", rich_help_panel="Output"),
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Batch size; auto chooses one by timing. Affects speed, not images, except that rounding may change a "
            "pixel by one grey level, and that rk45 chooses its steps per batch.",
            rich_help_panel="Speed",
        ),
    ] = "64",
    device: options.Device = "auto",
    threads: options.Threads = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network: takes minutes the first time, then is cached.",
            rich_help_panel="Speed",
        ),
    ] = False,
    cuda_graph: Annotated[
        bool,
        typer.Option(
            "--cuda-graph",
            help="Replay each evaluation as one CUDA graph (NVIDIA); speeds up small batches.",
            rich_help_panel="Speed",
        ),
    ] = False,
) -> None:
    """Draw images from a checkpoint.

    The default sampler is gDDIM; `gddim samplers` lists the others.
    """
    if compare is not None:
        unused = {
            "--format": format != "png",
            "--trajectory": trajectory,
            "--save-raw": save_raw,
            "--overwrite": overwrite,
        }
        unused |= {"--compile": compile, "--cuda-graph": cuda_graph, "--batch-size auto": batch_size == "auto"}
        if preset:
            raise UsageError("--preset: --compare takes it after a sampler's name, as in gddim:preset=paper")
        for option in [name for name, used in unused.items() if used]:
            raise UsageError(f"{option}: unsupported by --compare; leave it out")
        sheet(given, compare, set, out or Path("sheet.png"), num, batch_size, device, threads, force, json)
        return
    if "nfe" in given and {"rtol", "atol"} & given.keys():
        raise UsageError("--nfe: with --rtol or --atol, rk45 chooses its own evaluations; leave out one of the options")
    out = out or Path("imgs")
    request = SamplingRequest.of(with_preset(options.parsed(given, sampling_settings()), preset))
    request = msgspec.structs.replace(request, model_settings=options.assignments(set))
    size = options.batch_size(batch_size)
    options.folder("--out", out)
    if trajectory:
        from gddim_cli.images.film import check_film

        check_film("--trajectory", trajectory)
    options.suffix("--save-raw", save_raw, ".npy")
    if num is not None:
        options.count("--num", num)
    if request.init_noise and save_raw and Path(request.init_noise).resolve() == save_raw.resolve():
        raise UsageError(f"--save-raw: {save_raw} is the --init-noise file; choose another")

    from gddim_cli.runs.storage.registry import FORMATS

    FORMATS.find(format, "--format")

    from gddim_cli.hub.store import default_name
    from gddim_cli.models.acceleration import Speed
    from gddim_cli.runs.default_checkpoint import choose_default
    from gddim_cli.runs.folder import RunFolder
    from gddim_cli.runs.generate import Generation
    from gddim_cli.runs.prepare import prepare

    processes = world().join()
    where = find_device(device)
    options.use_threads(threads, where)
    folder = RunFolder(out, format)
    if request.checkpoint is None:
        found = default_name()
        if processes.main and not overwrite:
            found = choose_default(request, folder, num or NUM, where, lambda: waiting(out))
        name, reason = processes.broadcast(found)
        request = msgspec.structs.replace(request, checkpoint=name)
        say(f"checkpoint: {name} ({reason})")
    if compile:
        say("--compile: compiling the network on its first evaluation; the result is cached for later runs")
    prepared = prepare(
        request, where, compile=compile, cuda_graph=cuda_graph, batch_size=size or options.BATCH_SIZE, say=say
    )
    for note in prepared.notes:
        say(f"note: {note}")
    if size is None and prepared.sampler.batch_dependent:
        raise UsageError(f"--batch-size auto: the images of {request.sampler} depend on their batch; give a number")
    if prepared.initial is not None and num is not None and num > len(prepared.initial):
        raise DataError(
            f"--init-noise: {request.init_noise} holds {len(prepared.initial)} states, fewer than --num {num}; lower --num"
        )
    speed = Speed(prepared.dtype, prepared.request.tf32, None, compile, cuda_graph)
    generation = Generation(
        folder=folder,
        prepared=prepared,
        num=num or (len(prepared.initial) if prepared.initial is not None else NUM),
        batch_size=size or options.BATCH_SIZE,
        automatic=size is None,
        speed=speed.enabled(),
        raw=save_raw,
        trajectory=trajectory,
        overwrite=overwrite,
        force=force,
    )
    with generation.folder.locked(lambda: waiting(out)) if processes.main else nullcontext():
        execute(generation)
    if json and processes.main:
        with stdout() as output:
            output.write((out / "run.json").read_text(encoding="utf-8"))


def sheet(
    given: Mapping[str, Any],
    compare: str,
    set: list[str] | None,
    out: Path,
    num: int | None,
    batch_size: str,
    device: str,
    threads: int | None,
    force: bool,
    json: bool,
) -> None:
    """`--compare`: a sheet of pictures."""
    from gddim_cli.cli import sample_sheet

    if world().size > 1:
        raise UsageError("--compare: runs as one process; start it without torchrun")
    rows = sample_sheet.requests_of(given, compare, options.assignments(set))
    options.suffix("--out", out, ".png")
    if num is not None:
        options.count("--num", num)
    from gddim_cli.images.sheet import is_sheet
    from gddim_cli.runtime.files import probe, refuse_foreign

    probe(out)
    refuse_foreign("--out", out, None, force or is_sheet(out))
    where = find_device(device)
    options.use_threads(threads, where)
    sample_sheet.make_sheet(rows, out, num, options.batch_size(batch_size) or options.BATCH_SIZE, where, json)


def waiting(out: Path) -> None:
    """Prints a note that another run is using the folder."""
    from gddim_cli.runs.folder import GRACE

    say(f"{out}: another gddim sample is running there; waiting up to {GRACE:.0f} s for it to finish")


def execute(generation: Generation) -> Run:
    """Makes the missing images with a progress bar, and prints a summary.

    Raises:
        GddimError: as `Generation`.
    """
    todo = generation.prepare()
    for note in generation.notes:
        say(f"note: {note}")
    sampler, request = generation.prepared.sampler, generation.prepared.request
    if sampler.nfe not in (None, request.nfe):
        say(f"{request.sampler} cannot spend {request.nfe} evaluations exactly: using {sampler.nfe}")
    num, out = generation.num, generation.folder.path
    if 0 < len(todo) < num:
        say(f"{out}: {num - len(todo)} of {num} images exist, {len(todo)} to make")
    batches, processes = len(generation.batches(todo)), generation.world
    if todo and batches < processes.size:
        say(f"only {batches} of {processes.size} processes have a batch to make; a smaller --batch-size uses them all")
    if todo and generation.automatic:
        say(f"batch size: {generation.batch_size}")
    with Progress(num, "images", start=num - len(todo)) as progress:
        run = generation.run(todo, lambda images: progress.advance(images / sampler.steps))
    where = f"{out} (see {out / 'grid.png'})"
    if todo:
        seconds = run.sessions[-1].seconds
        say(f"{num} images in {where}: NFE {run.nfe:g}, {duration(seconds)}, {len(todo) / seconds:.3g} images/s")
    else:
        say(f"all {num} images are already in {where}")
    return run


def ordered() -> list[Any]:
    """The settings of sampling, the most used first."""
    settings = sampling_settings()
    return [settings[key] for key in (*FIRST, *(key for key in settings if key not in FIRST))]


def make_app() -> typer.Typer:
    """The command with the options of every sampler that is registered now."""
    return options.command(options.with_settings(sample, ordered()), EPILOG)
