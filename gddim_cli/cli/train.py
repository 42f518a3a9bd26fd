"""`gddim train`: trains a checkpoint on a folder or file of images."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddim_cli.cli import options
from gddim_cli.cli.progress import Interrupts, Progress, duration, say
from gddim_cli.cli.shared_settings import ImagesKey, Machine
from gddim_cli.errors import UsageError
from gddim_cli.settings import about

if TYPE_CHECKING:
    import torch

    from gddim_cli.images.quantize import Pixels
    from gddim_cli.training.run import TrainingRun

MOST_STEPS = 10**9

EPILOG = """[bold]Examples[/bold]

gddim train mnist --data mnist.npz --out runs/mnist

gddim train mine.yaml --data photos/ --out runs/mine --steps 20000

gddim train mine.yaml --data photos/ --conditional --out runs/classes

gddim sample --checkpoint runs/mine/mine.safetensors --out imgs/"""


NUM = "Train on only this many images: the first ones if --data is a run of gddim sample, otherwise a fixed random subset."
CONDITIONAL = (
    "Train a class-conditional model. Each sub-folder is a class. For an .npz, an array holds the class labels."
)
LABEL_KEY = "Name of the .npz array with the class labels; implies --conditional. Default: train_labels."
STEPS = "Total number of steps, including those made before the run was resumed. Default: the recipe's."
NAME = "Name of the model and of its files. Default: the recipe's."
EVERY = "Number of steps between saves. Each save also writes a grid of samples."
FORCE = "Replace files in the output folder even if this run did not write them. This also replaces a run with other settings."
RECIPE = "A YAML file, or mnist for the recipe of the bundled checkpoint."
OUT = "Folder of the run. Rerun the same command to resume."
DATA = (
    "Square images of one size: a folder, .zip or .tar of images, an output folder of gddim sample, or an .npz or .npy of "
    "uint8 images."
)


class TrainSettings(Machine, frozen=True, kw_only=True):
    """What `gddim train` reads from the data, and what it changes in the recipe."""

    key: ImagesKey | None = None
    num: Annotated[int, about(NUM, panel="Data", short="-n", ge=1, le=10**12)] | None = None
    conditional: Annotated[bool, about(CONDITIONAL, panel="Data", flag="--conditional")] = False
    label_key: Annotated[str, about(LABEL_KEY, panel="Data", metavar="KEY")] | None = None
    steps: Annotated[int, about(STEPS, panel="Training")] | None = None
    name: Annotated[str, about(NAME, panel="Training", metavar="NAME")] | None = None
    every: Annotated[int, about(EVERY, panel="Output", ge=1, le=MOST_STEPS)] = 500
    force: Annotated[bool, about(FORCE, panel="Output", flag="--force")] = False


def train(
    asked: TrainSettings,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE)],
    data: Annotated[str, typer.Option(metavar="PATH", help=DATA, rich_help_panel="Data")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help=OUT, rich_help_panel="Output")],
) -> None:
    """Train a denoiser that can be sampled through cld, vp, vp-cosine, ve and psld.

    The command writes the averaged weights, their model card, grids of samples, a log, and a state file for resuming.
    """
    options.folder("--out", out)
    if not data:
        raise UsageError("--data: is empty; give a folder or a file of images")
    source = Path(data)
    from gddim_cli.training.recipe import read_recipe, with_changes

    chosen = with_changes(read_recipe(recipe), steps=asked.steps, name=asked.name)
    keep_inputs(recipe, source, out, chosen.name)

    from gddim_cli.runtime.files import locked
    from gddim_cli.training.dataset import read_dataset
    from gddim_cli.training.run import TrainingRun

    where = asked.use()
    dataset = read_dataset(source, asked.key, asked.num, asked.conditional, asked.label_key)
    with locked(out, "gddim train"):
        run = TrainingRun(chosen, dataset, out, where, asked.force)
        describe(run)
        if run.done >= chosen.steps:
            say(f"{out}: all {run.done} steps are done; raise --steps to train further")
        else:
            execute(run, asked.every)
        weights = run.export(machine(where))
    say(f"next: gddim sample --checkpoint {shlex.quote(str(weights))} --out imgs/")


def keep_inputs(recipe: str, data: Path, out: Path, name: str) -> None:
    """Refuses an output folder if this run would overwrite its own inputs or write among them.

    Raises:
        UsageError: `out` is the current folder, the data's folder or a folder inside it, or the run would overwrite the
            recipe or the data.
    """
    from gddim_cli.training.folder import output_files

    if out.resolve() == Path.cwd():
        raise UsageError("--out: cannot be the current folder; choose another folder")
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"--out: {out} is in the folder of --data, {data}; choose a folder outside of it")
    for path in (Path(recipe), data):
        for file in (out / output for output in output_files(name)):
            if file.exists() and path.exists() and file.samefile(path):
                raise UsageError(
                    f"--out: this run would write {file}, which is its input; choose another folder or --name"
                )


def execute(run: TrainingRun, every: int) -> None:
    """Trains up to the recipe's steps.

    Ctrl-C and SIGTERM take effect at the end of a step; finished steps are saved.
    """
    total, saved = run.recipe.steps, run.done
    with Interrupts() as interrupts, Progress(total, "steps", start=run.done) as progress:
        try:
            while run.done < total:
                run.step()
                progress.advance(1, f"loss {run.mean_loss:.4f}")
                if run.done % every == 0 or run.done == total:
                    run.save()
                    saved = run.done
                    progress.say(summary(run, *run.preview()))
                interrupts.check()
        except KeyboardInterrupt:
            if run.done > saved:
                run.save()
            raise


def summary(run: TrainingRun, path: Path, picture: Pixels) -> str:
    """The message after a save; on a terminal, it includes the first images of the grid."""
    from gddim_cli.images.render import half_blocks

    step, loss, seconds = run.log[-1]
    text = f"step {step}: mean loss {loss:.4f}, {duration(seconds)} of training, samples in {path}"
    if not sys.stderr.isatty():
        return text
    width = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # some terminals report 0
    cell = run.data.image_shape[1] + 2
    return f"{text}\n{half_blocks(picture[: cell + 2, : max(1, width // cell) * cell], width)}"


def describe(run: TrainingRun) -> None:
    """Prints the data, the number of parameters and the device.

    Also prints a note if the recipe describes other images, and a line if the run is resumed.
    """
    from gddim_cli.training.model_card import described, is_about

    say(f"{described(run.data)}, {run.trainer.parameters:,} parameters, on {run.device}")
    if not is_about(run.recipe, run.settings.images):
        say(
            f"note: recipe {run.recipe.name} describes other images than these; the model card says that the "
            "images are your own, and states no license for them"
        )
    if run.done:
        say(f"resuming at step {run.done}")


def machine(device: torch.device) -> str:
    """The device in words, for the model card."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores"


app = options.command(options.with_settings(train), EPILOG)
