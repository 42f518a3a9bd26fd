"""From a plan's cells to work: every cell is built and its judge opened before anything runs, all problems told at once."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from gddim_cli.bench.folder import Asked, PlacedCell, Result
from gddim_cli.bench.plan import K_MATTERS, Cell, Plan, Wanted
from gddim_cli.bench.published import PROTOCOL, Number, number
from gddim_cli.bench.tools import Bench, Shape
from gddim_cli.bench.words import PlanError
from gddim_cli.checkpoints.card import Images
from gddim_cli.checkpoints.load import Checkpoint
from gddim_cli.diffusions.base import Diffusion, SamplingConfig
from gddim_cli.errors import CheckpointError, DataError, GddimError, UsageError
from gddim_cli.hub.store import card_of, names
from gddim_cli.runs.prepare import choose_diffusion, identity
from gddim_cli.runs.request import Settings
from gddim_cli.runs.sampler import Sampler
from gddim_cli.samplers import registry as methods

if TYPE_CHECKING:
    from gddim_cli.evaluation.evaluator import Evaluator

NUM = 500


@dataclass(frozen=True)
class Job:
    """A cell made ready.

    Attributes:
        settings: all that its images depend on.
        num: images.
        judge: what measures them.
        plan: the sampler.
        key: names all of that: equal keys are equal numbers.
    """

    cell: Cell
    settings: Settings
    num: int
    judge: Evaluator
    medium: Diffusion
    chosen: SamplingConfig
    plan: methods.Plan
    key: str

    @property
    def deterministic(self) -> bool:
        """Whether its images solve the probability flow, so that they have an exact solution."""
        noise = self.settings.eta if self.settings.sampler == "ddim" else self.settings.lam
        return not noise and self.settings.sampler not in ("sscs", "ancestral")

    @property
    def nfe(self) -> int:
        """Evaluations that an image takes, as far as they are known beforehand."""
        return self.plan.nfe or self.cell.nfe

    def sampler(self, bench: Bench) -> Sampler:
        """What makes its images."""
        model = bench.model(self.cell.checkpoint, self.cell.dtype)
        dtype = getattr(torch, self.cell.dtype)
        return Sampler(model, self.medium, self.plan, self.chosen.k, self.cell.seed, bench.device, dtype)


@dataclass(frozen=True)
class Placed:
    """A job in its table."""

    job: Job
    table: str
    published: str | None

    @property
    def printed(self) -> Number | None:
        """What the paper has for it."""
        return number(self.published, msgspec.to_builtins(self.job.cell), msgspec.to_builtins(self.job.settings))


@dataclass(frozen=True)
class Program:
    """A plan that can run.

    Attributes:
        placed: every cell of every table, in the plan's order.
        jobs: each once, in the order of work.
        notes: what was left out, and why.
        solver_error: images whose distance to the converged solution is measured; 0 for none.
    """

    source: str
    placed: list[Placed]
    jobs: list[Job]
    notes: list[str]
    solver_error: int


def prepare(plan: Plan, bench: Bench) -> Program:
    """Builds every cell.

    Raises:
        PlanError: all of them, each with the line or option that it comes from.
    """
    problems = list(plan.problems)
    notes: list[str] = []
    placed: list[Placed] = []
    where: dict[tuple[str, str], Wanted] = {}
    at: dict[tuple[str, str], int] = {}
    ready: dict[Cell, Job] = {}
    absent: set[str] = set()
    for wanted in _by_checkpoint(plan.wanted):
        cell = wanted.cell
        try:
            job = ready[cell] if cell in ready else make_job(cell, bench)
        except GddimError:
            for error, words in all_errors(cell, bench):
                lenient = plan.lenient and isinstance(error, UsageError)
                if not isinstance(error, UsageError) and str(error) in absent:
                    continue  # one missing file is one problem, however many rows want it
                absent.add(str(error))
                where_said = place(wanted, error, words)
                (notes if lenient else problems).append(f"{where_said}: {str(error).removeprefix(f'{where_said}: ')}")
            continue
        ready[cell] = job
        first = where.setdefault((wanted.table, job.key), wanted)
        if first is wanted:
            at[wanted.table, job.key] = len(placed)
            placed.append(Placed(job, wanted.table, wanted.published))
        elif not plan.overridden:
            problems.append(f"{wanted.where['row']}: {told(cell)} is a cell of {first.where['row']} too; leave one out")
        elif placed[at[wanted.table, job.key]].printed is None:  # the row that is the cell's own may come later
            placed[at[wanted.table, job.key]] = Placed(job, wanted.table, wanted.published)
    if problems or not placed:
        raise PlanError(plan.source, problems or notes or [f"{plan.source}: no cell is left"])
    order = {id(wanted): number for number, wanted in enumerate(plan.wanted)}
    placed.sort(key=lambda one: order[id(where[one.table, one.job.key])])
    if any(one.published for one in placed) and all(one.printed is None for one in placed):
        notes.append(f"the published numbers: they are of the paper's checkpoints and settings, --protocol {PROTOCOL}")
    jobs = list({one.job.key: one.job for one in placed}.values())
    first_seen = {job.cell.checkpoint: number for number, job in reversed(list(enumerate(jobs)))}
    jobs.sort(key=lambda job: first_seen[job.cell.checkpoint])
    return Program(plan.source, placed, jobs, list(dict.fromkeys(notes)), plan.solver_error)


def all_errors(cell: Cell, bench: Bench) -> list[tuple[GddimError, tuple[str, ...]]]:
    """Everything that keeps a cell from being made: its checkpoint, its sampler and its judge are tried apart.

    With each error the words that it may be about.
    """
    found: list[tuple[GddimError, tuple[str, ...]]] = []
    card = None
    try:
        card = bench.model(cell.checkpoint, cell.dtype).card
        build(cell, bench, None)
    except GddimError as error:
        found.append((error, ("diffusion",) if card else ("checkpoint",)))
    if card is None and cell.checkpoint in names():
        card = card_of(cell.checkpoint)
    try:
        if card:
            bench.judge(cell, shape_of(card.images))
    except GddimError as error:
        found.append((error, ("inception", "protocol", "ref")))
    return found


def _by_checkpoint(wanted: list[Wanted]) -> list[Wanted]:
    """So that each model is loaded once."""
    return sorted(wanted, key=lambda one: (one.cell.checkpoint, one.cell.dtype))


def shape_of(images: Images) -> Shape:
    return images.size, images.size, images.channels


def told(cell: Cell) -> str:
    """A cell in a few words, for messages."""
    words = msgspec.to_builtins(cell)
    return ", ".join(f"{word} {words[word]}" for word in ("sampler", "order", "lambda", "nfe", "seed") if word in words)


def place(wanted: Wanted, error: GddimError, words: tuple[str, ...]) -> str:
    """Where the word was said that an error is about: the option that it names, or, of a file, the first of `words`."""
    option = re.match(r"--([a-z-]+)", str(error))
    word = option[1].replace("-", "_") if option else ""
    of_file = words if isinstance(error, CheckpointError | DataError) else ()
    found = [wanted.where[name] for name in (word, *of_file) if name in wanted.where]
    return found[0] if found else wanted.where["row"]


def build(
    cell: Cell, bench: Bench, judge: Evaluator | None
) -> tuple[Checkpoint, Diffusion, SamplingConfig, methods.Plan]:
    """The model, the diffusion, how it is sampled under the judge's protocol, and the sampler.

    Raises:
        GddimError: the checkpoint is not here, or the model or sampler cannot do it.
    """
    model = bench.model(cell.checkpoint, cell.dtype)
    medium, defaults = choose_diffusion(model.card, cell.diffusion)
    given: dict[str, Any] = {"quantize": judge.protocol.quantize} if judge and judge.protocol else {}
    given |= {name: value for name, value in cell.given.items() if name != "k" or cell.sampler in K_MATTERS}
    chosen = dataclasses.replace(defaults, **given)
    model.eps(medium, chosen.k)
    return model, medium, chosen, methods.plan(cell.sampler, medium, chosen, cell.nfe, cell.choices)


def make_job(cell: Cell, bench: Bench) -> Job:
    """A cell made ready.

    Raises:
        GddimError: as `build`, or nothing can measure it.
    """
    judge = bench.judge(cell, shape_of(bench.model(cell.checkpoint, cell.dtype).card.images))
    model, medium, chosen, plan = build(cell, bench, judge)
    settings = Settings(
        checkpoint=model.card.name,
        checkpoint_sha256=model.sha256,
        diffusion=identity(medium, cell.diffusion),
        sampler=cell.sampler,
        nfe=cell.nfe,
        seed=cell.seed,
        dtype=cell.dtype,
        format="npz",
        batch_size=bench.batch_size if plan.batch_dependent else None,
        **dataclasses.asdict(chosen),
        **{**dataclasses.asdict(cell.choices), "order": plan.order, **plain_noise(cell), **tolerances(cell)},
    )
    num = cell.num or (judge.protocol.num if judge.protocol else NUM)
    return Job(cell, settings, num, judge, medium, chosen, plan, key_of(settings, num, judge.identity()))


def plain_noise(cell: Cell) -> dict[str, float]:
    """The samplers' own noise where none was said, so that saying it makes no other cell."""
    if cell.sampler == "ddim":
        return {"eta": cell.eta or 0.0}
    if cell.sampler == "gddim":
        return {"lam": cell.lam or 0.0}
    if cell.sampler == "em":
        return {"lam": 1.0 if cell.lam is None else cell.lam}
    return {}


def tolerances(cell: Cell) -> dict[str, float]:
    """Both of RK45's where one was said: it stands for the other."""
    found = cell.rtol or cell.atol
    return {"rtol": cell.rtol or found, "atol": cell.atol or found} if found else {}


def key_of(settings: Settings, num: int, judge: dict[str, Any]) -> str:
    """A short name of all that a cell's number depends on."""
    whole = {"settings": msgspec.to_builtins(settings), "num": num, "judge": judge}
    return hashlib.sha256(msgspec.json.encode(whole, order="sorted")).hexdigest()[:16]


def skeleton(job: Job) -> Result:
    """A cell's result before it has one."""
    settings = msgspec.to_builtins(job.settings)
    del settings["format"]  # of files that are not written
    return Result(key=job.key, settings=settings, num=job.num, judge=job.judge.identity())


def describe(program: Program) -> Asked:
    """The plan as `plan.json` keeps it."""
    placed = [
        PlacedCell(one.job.key, one.table, msgspec.to_builtins(one.job.cell), one.published) for one in program.placed
    ]
    cells = [skeleton(job) for job in program.jobs]
    return Asked(
        source=program.source, solver_error=program.solver_error, notes=program.notes, cells=cells, placed=placed
    )
