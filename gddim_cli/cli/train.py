"""`gddim train`: a folder of images to a checkpoint."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Interrupts, Progress, duration, say
from gddim_cli.errors import UsageError
from gddim_cli.runtime.device import find_device

if TYPE_CHECKING:
    import torch

    from gddim_cli.training.recipe import Recipe
    from gddim_cli.training.trainer import Trainer

EPILOG = """[bold]Examples[/bold]

gddim train mnist --data mnist.npz --out runs/mnist

gddim train mine.yaml --data photos/ --out runs/mine --steps 20000

gddim sample --checkpoint runs/mine/mine.safetensors --out imgs/"""


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="mnist (the bundled checkpoint's) or a YAML file.")],
    data: Annotated[Path, typer.Option(help="A folder of images of one size, or an .npz with uint8 images.")],
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on with what is there.")],
    steps: Annotated[int | None, typer.Option(help="In all, earlier calls included (default: the recipe's).")] = None,
    key: Annotated[
        str | None, typer.Option(help="The array in the .npz (default: train_images, or the only images).")
    ] = None,
    every: Annotated[int, typer.Option(help="Steps between savings, each with a grid of samples.")] = 500,
    device: options.Device = "auto",
) -> None:
    """Train a denoiser that every diffusion of small blocks can sample from.

    Writes state.pt, log.csv, grid-STEP.png, and the averaged weights with their card.
    """
    options.positive("--every", every)

    import torch

    from gddim_cli.runs.images import read_images
    from gddim_cli.training.trainer import Trainer

    where = find_device(device)
    chosen = read_recipe(recipe, steps)
    trainer = Trainer(chosen, torch.from_numpy(read_images(data, key)), out, where)
    say(describe(trainer))
    if trainer.done >= chosen.steps:
        say(f"{out} has its {trainer.done} steps; give more --steps to go on")
    else:
        run(trainer, every)
    say(f"gddim sample --checkpoint {trainer.export(machine(where))} --out imgs/")


def read_recipe(reference: str, steps: int | None) -> Recipe:
    """The recipe of a bundled checkpoint by name, or of a YAML file.

    Raises:
        UsageError: an unknown name, or --steps that is not positive.
        DataError: a file that is no recipe.
    """
    import msgspec

    from gddim_cli.hub.store import bundled_folder
    from gddim_cli.runtime.typed_yaml import read_yaml, typed
    from gddim_cli.training.recipe import Recipe

    path = Path(reference)
    if not path.suffix:
        path = bundled_folder() / f"{reference}.train.yaml"
        if not path.is_file():
            raise UsageError(f"there is no recipe '{reference}'; known: mnist, or the path of a YAML file")
    found = typed(read_yaml(path), Recipe, path)
    return found if steps is None else msgspec.structs.replace(found, steps=options.positive("--steps", steps))


def run(trainer: Trainer, every: int) -> None:
    """Trains to the recipe's steps. Ctrl-C and a polite kill wait for the step's end, and what is done is saved."""
    total, saved = trainer.recipe.steps, trainer.done
    with Interrupts() as interrupts, Progress(total, "steps", start=trainer.done) as progress:
        try:
            while trainer.done < total:
                loss = trainer.step()
                progress.advance(1, f"loss {loss:.4f}")
                if trainer.done % every == 0 or trainer.done == total:
                    trainer.save()
                    saved = trainer.done
                    progress.say(preview(trainer))
                interrupts.check()
        except KeyboardInterrupt:
            if trainer.done > saved:
                trainer.save()
            raise


def preview(trainer: Trainer) -> str:
    """Writes `grid-STEP.png`; on a terminal, shows some of it too."""
    from gddim_cli.images.render import grid, half_blocks, write_png

    path = trainer.out / f"grid-{trainer.done:06d}.png"
    images = trainer.samples(64)
    write_png(path, grid(images))
    step, loss, seconds = trainer.log[-1]
    text = f"step {step}: mean loss {loss:.4f}, {duration(seconds)} in all, samples in {path}"
    if not sys.stderr.isatty():
        return text
    width = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # some terminals do not know theirs
    columns = max(1, min(8, width // (images.shape[2] + 2)))
    return f"{text}\n{half_blocks(grid(images[:columns], columns), width)}"


def describe(trainer: Trainer) -> str:
    count, channels, size, _ = trainer.images.shape
    parameters = sum(p.numel() for p in trainer.network.parameters())
    what = f"{count} images {size}x{size}x{channels}, {parameters:,} parameters, on {trainer.device}"
    return what + (f", going on from step {trainer.done}" if trainer.done else "")


def machine(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores"


app = options.command(train, EPILOG)
