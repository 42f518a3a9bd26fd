"""`gddim sample`: a checkpoint to a folder of images."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Progress, duration, say, stdout
from gddim_cli.errors import UsageError
from gddim_cli.runtime.distributed import world

if TYPE_CHECKING:
    import torch

    from gddim_cli.checkpoints.load import Checkpoint
    from gddim_cli.models.acceleration import Speed
    from gddim_cli.runs.folder import Run
    from gddim_cli.runs.generate import Generation

NUM = 100

EPILOG = """[bold]Examples[/bold]

gddim sample --nfe 50 --out imgs/

gddim sample --nfe 20 --order 3 --num 500 --seed 7 --out more/

gddim sample --nfe 50 --out imgs/ --trajectory forming.gif --save-raw states.npy"""


def sample(
    nfe: options.Nfe = 50,
    out: Annotated[
        Path, typer.Option(help="The run's folder; the same command completes what is missing there.")
    ] = Path("imgs"),
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="A named checkpoint or a file (default: cld-cifar10 if downloaded, else mnist)."
        ),
    ] = None,
    num: Annotated[int | None, typer.Option("--num", "-n", help="Images wanted in the folder (default: 100).")] = None,
    seed: Annotated[
        int, typer.Option(help="Image i starts from the noise of (seed, i), whatever the batch or device.")
    ] = 0,
    sampler: Annotated[str, typer.Option(help="One of those that gddim samplers lists.")] = "gddim",
    order: options.Order = None,
    lam: options.Lambda = None,
    eta: Annotated[float | None, typer.Option(help="Noise of ddim: 0 none, 1 ancestral.")] = None,
    corrector: Annotated[
        bool, typer.Option("--corrector", help="Correct each step of gddim: twice the evaluations.")
    ] = False,
    rtol: Annotated[float | None, typer.Option(help="Of rk45 (default: tuned to spend --nfe).")] = None,
    atol: Annotated[float | None, typer.Option(help="Of rk45 (default: as --rtol).")] = None,
    k: options.K = None,
    diffusion: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Sample in another diffusion (default: the card's).")
    ] = None,
    denoise: options.Denoise = None,
    time_grid: options.TimeGrid = None,
    t_end: options.TEnd = None,
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="N|auto", help="Images at once, auto: measured; for speed, not for the images (but rk45's)."
        ),
    ] = "64",
    device: options.Device = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="|".join(options.NAMED_DTYPES),
            help="Of the network (fp32, bf16, ... too); 16 bits run as autocast.",
        ),
    ] = "float32",
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network: minutes at first, kept for the next time.")
    ] = False,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Launch each evaluation as one (NVIDIA); what small batches wait for.")
    ] = False,
    tf32: Annotated[
        bool,
        typer.Option("--tf32", help="Round the products of float32 to 10 bits (NVIDIA); changes the images a little."),
    ] = False,
    format: Annotated[
        str, typer.Option(metavar="png|npz|tar", help="PNGs, or shards of 10 000 images: .npz, or .tar of PNGs.")
    ] = "png",
    quantize: Annotated[
        str | None, typer.Option(metavar="floor|round", help="How [-1, 1] becomes 0..255 (default: the card's).")
    ] = None,
    trajectory: Annotated[
        Path | None, typer.Option(metavar="FILE.gif", help="How the grid forms, step by step.")
    ] = None,
    init_noise: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="States u_T in place of the prior's: \\[N, 2, C, H, W] for CLD, else \\[N, C, H, W] (BDM: the spectrum).",
        ),
    ] = None,
    save_raw: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="The final states too, float32, before quantisation.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run that is in the folder and begin anew.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Draw images: gDDIM by default, or any sampler of `gddim samplers`."""
    options.positive("--nfe", nfe)
    size = options.batch_size(batch_size)
    options.one_of("--format", format, ("png", "npz", "tar"))
    options.seed(seed)
    options.folder("--out", out)
    options.suffix("--trajectory", trajectory, ".gif")
    options.suffix("--save-raw", save_raw, ".npy")
    if num is not None:
        options.positive("--num", num)
    given = options.sampling_choices(k, denoise, time_grid, t_end, quantize)

    from gddim_cli.models.acceleration import Speed
    from gddim_cli.runs.folder import RunFolder
    from gddim_cli.runs.generate import Generation
    from gddim_cli.runs.prepare import choose_diffusion, identity
    from gddim_cli.runs.request import Settings, read_states
    from gddim_cli.runs.sampler import Sampler
    from gddim_cli.runtime.files import sha256
    from gddim_cli.samplers.registry import Choices, plan

    team = world().join()
    where = options.torch_device(device)
    kind = options.torch_dtype(dtype, where)
    speed = Speed(kind, tf32=tf32, compile=compile, cuda_graph=cuda_graph).on(where)
    model = choose_model(checkpoint, where, speed)
    if compile:
        say("--compile: the first evaluation compiles the network; what comes of it is kept for the next time")
    medium, defaults = choose_diffusion(model.card, diffusion)
    chosen = dataclasses.replace(defaults, **given)
    choices = Choices(order, lam, eta, corrector, rtol, atol)
    model.eps(medium, chosen.k)  # what the model cannot do is refused before anything is computed
    ready = plan(sampler, medium, chosen, nfe, choices)
    if size is None and ready.batch_dependent:
        raise UsageError(f"--batch-size auto: the images of {sampler} depend on their batch; give a number")
    if init_noise and save_raw and init_noise.resolve() == save_raw.resolve():
        raise UsageError(f"--save-raw: {save_raw} is the --init-noise file; choose another")
    initial = read_states(init_noise, medium.D, model.card.images, num) if init_noise else None
    settings = Settings(
        checkpoint=model.card.name,
        checkpoint_sha256=model.sha256,
        diffusion=identity(medium, diffusion),
        sampler=sampler,
        nfe=nfe,
        seed=seed,
        dtype=options.dtype_name(dtype),
        tf32=tf32,
        format=format,
        init_noise_sha256=sha256(init_noise) if init_noise else None,
        batch_size=size if ready.batch_dependent else None,
        **dataclasses.asdict(chosen),
        **{**dataclasses.asdict(choices), "order": ready.order},
    )
    generation = Generation(
        folder=RunFolder(out, format),
        settings=settings,
        sampler=Sampler(model, medium, ready, chosen.k, seed, where, kind, initial),
        num=num or (len(initial) if initial is not None else NUM),
        batch_size=size or options.BATCH_SIZE,
        automatic=size is None,
        speed=speed.enabled(),
        raw=save_raw,
        trajectory=trajectory,
        overwrite=overwrite,
    )
    with generation.folder.locked(lambda: waiting(out)) if team.main else nullcontext():
        execute(generation)
    if json and team.main:
        with stdout() as output:
            output.write((out / "run.json").read_text())


def choose_model(reference: str | None, device: torch.device, speed: Speed) -> Checkpoint:
    """The checkpoint that was named, or the default one, which it then says.

    Raises:
        CheckpointError: as `load`.
    """
    from gddim_cli.hub.load import load
    from gddim_cli.hub.store import default_name

    if reference is None:
        reference, reason = default_name()
        say(f"checkpoint: {reference} ({reason})")
    return load(reference, device, speed)


def waiting(out: Path) -> None:
    from gddim_cli.runs.folder import GRACE

    say(f"{out}: another gddim sample is at work there; waiting up to {GRACE:.0f} s for it to end")


def execute(generation: Generation) -> Run:
    """Makes what is missing, with a progress bar, and says what there is.

    Raises:
        GddimError: as `Generation`.
    """
    todo = generation.prepare()
    plan, asked = generation.sampler.plan, generation.settings.nfe
    if plan.nfe not in (None, asked):
        say(f"{generation.settings.sampler} cannot spend {asked} evaluations exactly: NFE {plan.nfe}")
    steps, num, out = generation.sampler.plan.steps, generation.num, generation.folder.path
    if 0 < len(todo) < num:
        say(f"{out}: {num - len(todo)} of {num} images are there, {len(todo)} to go")
    batches, team = len(generation.batches(todo)), generation.team
    if todo and batches < team.size:
        say(f"{batches} of {team.size} processes have a batch to make; a smaller --batch-size gives one to each")
    if todo and generation.automatic:
        say(f"batch size: {generation.batch_size}")
    with Progress(num, "images", start=num - len(todo)) as progress:
        run = generation.run(todo, lambda images: progress.advance(images / steps))
    where = f"{out} (see {out / 'grid.png'})"
    if todo:
        seconds = run.sessions[-1].seconds
        say(f"{num} images in {where}: NFE {run.nfe:g}, {duration(seconds)}, {len(todo) / seconds:.3g} images/s")
    else:
        say(f"all {num} images are already in {where}")
    return run
