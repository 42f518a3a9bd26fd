"""`gddim sample`: draws images from a checkpoint into a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, duration, say, stdout
from gddim_cli.cli.sample_settings import SampleSettings
from gddim_cli.errors import DataError, UsageError
from gddim_cli.runs.request import SamplingRequest, sampling_settings, with_preset
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    import torch
    import typer

    from gddim_cli.runs.folder import RunFolder
    from gddim_cli.runs.generate import Generation
    from gddim_cli.runs.record import Run

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
    asked: SampleSettings,
    json: options.Json = False,
) -> None:
    """Draw images from a checkpoint.

    The default sampler is gDDIM; `gddim samplers` lists the others.
    """
    if asked.compare is not None:
        if asked.preset:
            raise UsageError(
                "--preset: with --compare, write the preset after a sampler's name, as in gddim:preset=paper"
            )
        for option in asked.beside_sheet():
            raise UsageError(f"{option}: unsupported by --compare; leave it out")
        sheet(given, asked, json)
        return
    if "nfe" in given and {"rtol", "atol"} & given.keys():
        raise UsageError(
            "--nfe: with --rtol or --atol, rk45 chooses the number of evaluations; leave out --nfe, "
            "or --rtol and --atol"
        )
    request = SamplingRequest.of(with_preset(options.parsed(given, sampling_settings()), asked.preset))
    request = msgspec.structs.replace(request, model_settings=options.assignments(asked.set))
    out = options.folder("--out", asked.out or Path("imgs"))
    check_outputs(request, asked, out)

    from gddim_cli.runs.folder import RunFolder

    processes = world().join()
    where = asked.use()
    folder = RunFolder(out, asked.format)
    if request.checkpoint is None:
        request = with_default_checkpoint(request, folder, asked, where)
    generation = prepared_generation(request, folder, asked, where)
    with folder.locked(lambda: waiting(out)) if processes.main else nullcontext():
        execute(generation)
    if json and processes.main:
        with stdout() as output:
            output.write((out / "run.json").read_text(encoding="utf-8"))


def check_outputs(request: SamplingRequest, asked: SampleSettings, out: Path) -> None:
    """Checks the format of the run and the paths of the other output files.

    Raises:
        UsageError: the format is unknown, or a path has an unsuitable suffix or is the path of another file of the run.
    """
    if asked.trajectory:
        from gddim_cli.images.film import check_film

        check_film("--trajectory", asked.trajectory)
        name = asked.trajectory.name
        if asked.trajectory.resolve().parent == out.resolve() and (
            name == "grid.png" or re.fullmatch(r"\d{6,}\.png", name)
        ):
            raise UsageError(
                f"--trajectory: {asked.trajectory} is the name of a file of the run itself; choose another"
            )
    raw = asked.save_raw
    options.suffix("--save-raw", raw, ".npy")
    if request.init_noise and raw and Path(request.init_noise).resolve() == raw.resolve():
        raise UsageError(f"--save-raw: {raw} is the --init-noise file; choose another")

    from gddim_cli.runs.storage.registry import FORMATS

    FORMATS.find(asked.format, "--format")


def with_default_checkpoint(
    request: SamplingRequest, folder: RunFolder, asked: SampleSettings, device: torch.device
) -> SamplingRequest:
    """The request with the default checkpoint, which rank 0 chooses for all processes.

    Raises:
        DataError, OutputError: as `choose_default`.
    """
    from gddim_cli.hub.store import default_name
    from gddim_cli.runs.default_checkpoint import choose_default

    found = default_name()
    if world().main and not asked.overwrite:
        found = choose_default(request, folder, asked.num or NUM, device, lambda: waiting(folder.path))
    name, reason = world().broadcast(found)
    say(f"checkpoint: {name} ({reason})")
    return msgspec.structs.replace(request, checkpoint=name)


def prepared_generation(
    request: SamplingRequest, folder: RunFolder, asked: SampleSettings, device: torch.device
) -> Generation:
    """The `Generation` of this request in this folder, with the network loaded.

    Raises:
        UsageError, DataError: as `prepare`; `--batch-size auto` for a sampler whose images depend on the batch; more
            images than initial states.
    """
    from gddim_cli.models.acceleration import Speed
    from gddim_cli.runs.generate import Generation
    from gddim_cli.runs.prepare import prepare

    if asked.compile:
        say("--compile: compiling the network on its first evaluation; the result is cached for later runs")
    prepared = prepare(
        request, device, compile=asked.compile, cuda_graph=asked.cuda_graph, batch_size=asked.size, say=say
    )
    for note in prepared.notes:
        say(f"note: {note}")
    if asked.automatic and prepared.sampler.batch_dependent:
        raise UsageError(f"--batch-size auto: the images of {request.sampler} depend on their batch; give a number")
    available = NUM if prepared.initial is None else len(prepared.initial)
    if prepared.initial is not None and (asked.num or 0) > available:
        raise DataError(
            f"--init-noise: {request.init_noise} holds {available} states, fewer than --num {asked.num}; lower --num"
        )
    return Generation(
        folder=folder,
        prepared=prepared,
        num=asked.num or available,
        batch_size=asked.size,
        automatic=asked.automatic,
        speed=Speed(prepared.dtype, prepared.request.tf32, None, asked.compile, asked.cuda_graph).enabled(),
        raw=asked.save_raw,
        trajectory=asked.trajectory,
        overwrite=asked.overwrite,
        force=asked.force,
    )


def sheet(given: Mapping[str, Any], asked: SampleSettings, json: bool) -> None:
    """Makes the sheet of pictures that `--compare` asks for."""
    from gddim_cli.cli import sample_sheet

    out = asked.out or Path("sheet.png")
    if world().size > 1:
        raise UsageError("--compare: runs as one process; start it without torchrun")
    rows = sample_sheet.requests_of(given, str(asked.compare), options.assignments(asked.set))
    options.suffix("--out", out, ".png")
    from gddim_cli.images.render import text_of
    from gddim_cli.runtime.files import probe, refuse_foreign

    probe(out)
    refuse_foreign("--out", out, None, asked.force or text_of(out) is not None)
    where = asked.use()
    sample_sheet.make_sheet(rows, out, asked.num, asked.size, where, json, asked.force)


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


def make_app() -> typer.Typer:
    """The command with the options of every sampler that is registered now."""
    return options.command(options.with_settings(sample, options.leading(FIRST, sampling_settings())), EPILOG)
