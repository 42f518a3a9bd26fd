"""From cells to a checked plan: every cell is prepared once, and everything that is wrong is reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from msgspec.structs import replace

from gddim_cli.bench.cell import Cell
from gddim_cli.bench.plan_file import PlanError
from gddim_cli.bench.published import PROTOCOL, number
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan, Result, short_hash
from gddim_cli.errors import DataError, GddimError, UsageError
from gddim_cli.evaluation.evaluator import Evaluator
from gddim_cli.hub.store import card_of, names
from gddim_cli.runs.prepared_run import PreparedRun

NUM = 500
Where = Mapping[str, str]


@dataclass
class Checker:
    """Collects the cells and results of a plan, its problems, and notes on it, a sentence each.

    Attributes:
        lenient: leave out cells that the model cannot make, as in a preset with another checkpoint.
        overridden: whether options replaced settings, so that rows may have become equal.
    """

    resources: Resources
    problems: list[str]
    notes: list[str]
    lenient: bool = False
    overridden: bool = False
    cells: list[Cell] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    _rows: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)

    def check(self, cell: Cell, where: Where) -> None:
        """Tries a cell's checkpoint, evaluator and sampler one after the other, and adds it or what is wrong with it."""
        model = evaluator = None
        with self._collecting(where, "checkpoint"), self.resources.memory():
            model = self.resources.model(cell.request)
        with self._collecting(where, "inception", "protocol", "ref"):
            if model:
                evaluator = self.resources.evaluator(cell, model.image_shape)
            elif (name := cell.request.checkpoint or "") in names():  # its missing files are named as well
                images = card_of(name).images
                self.resources.evaluator(cell, (images.channels, images.size, images.size))
        if not model:
            return
        protocol = evaluator.protocol if evaluator else None
        if protocol and not cell.request.quantize:
            cell = replace(cell, request=replace(cell.request, quantize=protocol.quantize))
        with self._collecting(where, "diffusion", "init_noise"):
            prepared = self.resources.prepare(cell.request)
            if prepared.diffusion.D == 1 and cell.request.k:
                self.notes.append(f"K has no effect in {prepared.diffusion.name}; one row stands for all.")
                cell = replace(cell, request=replace(cell.request, k=None))
                prepared = self.resources.prepare(cell.request)
            self.notes += [f"{prepared.diffusion.name}: {note}." for note in prepared.notes]
            if evaluator:
                self._add(cell, pending(cell, prepared, evaluator), where["row"])

    @contextmanager
    def _collecting(self, where: Where, *keys: str) -> Iterator[None]:
        """Adds an error to the problems; `keys` are the settings that it may be about if it does not say so."""
        try:
            yield
        except GddimError as error:
            usage = isinstance(error, UsageError)
            line = located(error, where, keys)
            if usage and self.lenient:
                self.notes.append(f"Left out: {line}.")
            elif usage or str(error) not in self._missing:  # one missing file is one problem for all rows
                self._missing.add(str(error))
                self.problems.append(line)

    def _add(self, cell: Cell, result: Result, row: str) -> None:
        """Adds a cell to its table, where it may stand already."""
        cell = replace(cell, key=result.key)
        earlier, first_row = self._rows.setdefault((cell.table, cell.key), (len(self.cells), row))
        if earlier == len(self.cells):
            self.cells.append(cell)
            self.results[cell.key] = result
        elif row == first_row:  # a setting without effect
            return
        elif not self.overridden:
            flat = cell.request.flat()
            said = ", ".join(
                f"{key} {flat[key]}" for key in ("sampler", "order", "lambda", "nfe", "seed") if key in flat
            )
            self.problems.append(f"{row}: {said} is a cell of {first_row} too; leave one out")
        elif number(self.cells[earlier], result.request) is None:  # the row that is the cell's own may come later
            self.cells[earlier] = cell

    def plan(self, source: str, solver_error: int) -> BenchPlan:
        """The plan, results of one model and of the same images together; raises PlanError for all that is wrong."""
        if self.problems or not self.cells:
            raise PlanError(source, self.problems or self.notes or [f"{source}: has no cells"])
        cells, results = self.cells, list(self.results.values())
        if any(cell.published for cell in cells) and not any(number(c, self.results[c.key].request) for c in cells):
            self.notes.append(
                f"No published numbers: they need the paper's checkpoints and settings, and --protocol {PROTOCOL}."
            )
        keys = [(r.request.checkpoint_sha256, r.request.dtype, r.request.tf32) for r in results]
        first = {key: i for i, key in reversed([*enumerate(keys)])} | {
            r.features: i for i, r in reversed([*enumerate(results)])
        }
        order = sorted(range(len(results)), key=lambda i: (first[keys[i]], first[results[i].features]))
        notes, ordered = list(dict.fromkeys(self.notes)), [results[i] for i in order]
        return BenchPlan(source=source, solver_error=solver_error, notes=notes, cells=cells, results=ordered)


def pending(cell: Cell, prepared: PreparedRun, evaluator: Evaluator) -> Result:
    """The result of a cell before it has been measured; raises DataError where `init_noise` has too few states."""
    num = cell.num or (evaluator.protocol.num if evaluator.protocol else NUM)
    if prepared.initial is not None and num > len(prepared.initial):
        raise DataError(f"--init-noise: holds {len(prepared.initial)} states, fewer than the {num} images; lower --num")
    identity, request = evaluator.identity(), prepared.request
    extractor = [identity[name] for name in ("mode", "network", "weights_sha256")]
    key, features = short_hash(request, num, identity), short_hash(request, num, extractor)
    return Result(key, features, request, num, identity, prepared.sampler.nfe)


def located(error: GddimError, where: Where, keys: Sequence[str]) -> str:
    """The error's message with the place of the setting that it is about, or of the row."""
    text = str(error)
    option = re.match(r"--([a-z-]+)[: ] *", text)
    key = option[1].replace("-", "_").replace("metrics", "metric") if option else ""
    if option and key in where:
        return f"{where[key]}: {text[option.end() :]}"
    return f"{next((where[key] for key in keys if key in where), where['row'])}: {text}"
