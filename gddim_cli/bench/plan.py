"""Makes a checked plan from a plan file and options: prepares every cell once, and reports all mistakes together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import msgspec
from msgspec.structs import replace

from gddim_cli.bench.cell import PLAN_SETTINGS, Cell, PlanSettings
from gddim_cli.bench.plan_file import PlanError, PlanFile, read_plan_file
from gddim_cli.bench.published import PROTOCOL, number
from gddim_cli.bench.resources import Resources
from gddim_cli.bench.results import BenchPlan, Result, pending
from gddim_cli.errors import GddimError, UsageError
from gddim_cli.hub.store import BUNDLED, card_of, names
from gddim_cli.runs.request import TUNED
from gddim_cli.runtime.setting_lists import Values, located, plain, without
from gddim_cli.samplers.registry import find_sampler, having, sampler_options
from gddim_cli.settings import declared

PRESETS = Path(__file__).parent / "presets"
ELSEWHERE = {*PLAN_SETTINGS, "nfe", "num", "seeds", "metric", "mode", "inception", "features", "dtype", "tf32"}
"""Options that leave the rows of the default plan as they are."""
DEFAULTS = {"checkpoint": BUNDLED, "dtype": "float32", "tf32": False, "sampler": "gddim", "predict": "eps", "seeds": 0}
"""The default settings of a row. The checkpoint is first and therefore varies slowest: each network is loaded only once.
`predict` is fixed, so that all columns of a row show the same method: the default of gddim sample depends on NFE."""
Where = Mapping[str, str]


def read_plan(path: Path | None, preset: str | None, options: Values, problems: list[str]) -> PlanFile:
    """The plan from a file, from a preset, or the default plan; raises DataError, see `read_plan_file`.

    The default plan compares samplers. An option other than the checkpoint, the reference and those in `ELSEWHERE`
    replaces the rows of the plan by a single row, whose default sampler is gDDIM.
    """
    if path is not None:
        return read_plan_file(path, problems)
    title = f"the preset {preset}" if preset else "the default plan"
    plan = read_plan_file(PRESETS / f"{preset or 'default'}.yaml", problems, title)
    plan.preset = True
    if preset:
        return plan
    changed = {key for key in options.keys() - ELSEWHERE if plain(options, key) != plain(plan.top, key)}
    if changed:
        if changed - {"checkpoint", "ref"}:
            plan.source, plan.rows, plan.preset = "the options", [({}, "$")], False
        dropped = {"solver_error": changed, "ref": changed & {"checkpoint", "protocol"}, "num": changed & {"protocol"}}
        plan.top = without(plan.top, [key for key, why in dropped.items() if why])
    return plan


class Planner:
    """Makes the cells of a plan.

    A row has a cell for each combination of the values in its lists. Options override the row's settings, which override
    the plan's. If options change a preset, unsupported cells are left out with a note. `own`: settings of the plan as a whole.
    """

    def __init__(self, file: PlanFile, options: Values, problems: list[str]) -> None:
        self.file, self.problems = file, problems
        self.over = without(options, PLAN_SETTINGS)
        given = {key: of[0][0] for key, of in {**file.top, **options}.items() if key in PLAN_SETTINGS and of}
        self.own = PlanSettings(**{"solver_error": "solver_error_images" in given or None, **given})
        self.lenient = file.preset and bool(self.over.keys() - ELSEWHERE)
        self.notes: list[str] = []
        self.cells: list[Cell] = []
        self.results: dict[str, Result] = {}
        self._rows: dict[tuple[str, str], tuple[int, str]] = {}
        self._missing: set[str] = set()

    def expand(self) -> Iterator[tuple[Cell, Where]]:
        """Every cell of every row, with the places of its settings by key, for error messages. "row": the row's place."""
        hidden = {*PLAN_SETTINGS, *(("ref", "protocol", "mode") if {"ref", "protocol"} & self.over.keys() else ())}
        top = without(self.file.top, hidden)
        used: set[str] = set()
        for row, place in self.file.rows:
            own = {**without(row, hidden), **self.over}
            given = {**top, **own}
            if not all(given.get(key, True) for key in ("sampler", "checkpoint", "nfe")):
                continue  # An invalid value has already been reported.
            implied = {"sampler": TUNED} if given.get("solver") else {}
            defaults: Values = {key: [(of, place)] for key, of in {**DEFAULTS, **implied}.items()}
            given = {**defaults, **{key: values for key, values in given.items() if values}}
            self._check_row(given, self.over if "sampler" in self.over else own, place, used)
            yield from self._product(given, place) if "nfe" in given else ()
        for key in [key for key in sampler_options() if key not in used]:
            if of := self.over.get(key) or top.get(key):
                self.problems.append(f"{of[0][1]}: an option of {', '.join(having(key))}; leave it out")

    def _check_row(self, given: Values, own: Values, place: str, used: set[str]) -> None:
        """Reports a row without NFE, a row with several NFE and a fixed tolerance, and each option in `own` (settings
        of the row itself) that none of its samplers has. Adds to `used` the options that are reported or supported."""
        specs = [find_sampler(name) for name in plain(given, "sampler")]
        samplers = [spec.name for spec in specs]
        if "nfe" not in given:
            self.problems.append(f"{place}: nfe is missing; give the network evaluations, as in nfe: [10, 20, 50]")
        elif "rk45" in samplers and {"rtol", "atol"} & given.keys() and len(given["nfe"]) > 1:
            self.problems.append(f"{given['nfe'][1][1]}: with rtol or atol, rk45 chooses its own NFE; give one NFE")
        for key in [key for key in sampler_options() if key in given]:
            supported = bool({*having(key)} & {*samplers})
            used |= {key} if supported or key in own else set()
            if not supported and key in own:
                wrong = f"unsupported by {', '.join(samplers)}; an option of {', '.join(having(key))}"
                self.problems.append(f"{own[key][0][1]}: {wrong}")
        unaffected = [spec.name for spec in specs if len(given.get("k", [])) > 1 and not spec.uses_k]
        self.notes += [f"K has no effect on {name}; R and L give one row." for name in unaffected]

    def _product(self, given: Values, place: str) -> Iterable[tuple[Cell, Where]]:
        """The cells of a row, without repetitions. Options that a cell's sampler does not have are dropped."""
        found: dict[bytes, tuple[Cell, Where]] = {}
        for values in product(*given.values()):
            own = dict(zip(given, values, strict=True))
            where = {("metrics" if key == "metric" else key): at for key, (_, at) in own.items()} | {"row": place}
            spec = find_sampler(own["sampler"][0])
            unused = sampler_options().keys() - declared(spec.options).keys() | (set() if spec.uses_k else {"k"})
            cell = Cell.of({key: value for key, (value, _) in own.items() if key not in unused}, where)
            found.setdefault(msgspec.json.encode(cell), (cell, where))
        return found.values()

    def plan(self, resources: Resources) -> BenchPlan:
        """The checked plan; results from the same images are adjacent. Raises PlanError, which lists all mistakes."""
        for cell, where in self.expand():
            self._check(cell, where, resources)
        if self.problems or not self.cells:
            raise PlanError(self.file.source, self.problems or self.notes or [f"{self.file.source}: has no cells"])
        published = [number(cell, self.results[cell.key].request) for cell in self.cells if cell.published]
        if published and not any(published):
            self.notes.append(f"No published numbers: they require the paper's settings, and --protocol {PROTOCOL}.")
        features = list(dict.fromkeys(result.features for result in self.results.values()))
        results = sorted(self.results.values(), key=lambda result: features.index(result.features))
        self.notes += resources.notes
        bare = [result for result in results if not result.has_metric]
        if bare and self.own.keep_images:
            self.notes.append("Without a reference, only the pictures of the sheets are kept, not all images.")
        asked = bool(bare) if self.own.solver_error is None else self.own.solver_error
        images = self.own.solver_error_images if asked else 0
        return BenchPlan(self.file.source, images, list(dict.fromkeys(self.notes)), self.cells, results)

    def _check(self, cell: Cell, where: Where, resources: Resources) -> None:
        """Opens a cell's checkpoint, evaluator and sampler. Adds the cell to the plan, or mistakes to `problems`."""
        model = evaluator = None
        opened = False
        with self._collecting(where, "checkpoint"), resources.memory():
            model = resources.model(cell.request)
        with self._collecting(where, "features", "inception", "protocol", "ref"):
            if model:
                evaluator, opened = resources.evaluator(cell, model.image_shape), True
            elif (name := cell.request.checkpoint or "") in names():  # Report missing files of the reference, too.
                images = card_of(name).images
                resources.evaluator(cell, (images.channels, images.size, images.size))
        if not model:
            return
        if evaluator and evaluator.protocol and not cell.request.quantize:
            cell = replace(cell, request=replace(cell.request, quantize=evaluator.protocol.quantize))
        with self._collecting(where, "diffusion", "init_noise"):
            prepared = resources.prepare(cell.request)
            if prepared.diffusion.D == 1 and cell.request.k:
                self.notes.append(f"K has no effect in {prepared.diffusion.name}; R and L give one row.")
                cell = replace(cell, request=replace(cell.request, k=None))
                prepared = resources.prepare(cell.request)
            self.notes += [f"{prepared.diffusion.name}: {note}." for note in prepared.notes]
            if opened:
                self._add(cell, pending(cell, prepared, evaluator, self.own.solver_error_images), where["row"])

    @contextmanager
    def _collecting(self, where: Where, *keys: str) -> Iterator[None]:
        """If the block raises an error, adds it to the problems or notes. `keys` are the settings that may have caused it."""
        try:
            yield
        except GddimError as error:
            usage, line = isinstance(error, UsageError), located(error, where, keys)
            if usage and self.lenient:
                self.notes.append(f"Left out: {line}.")
            elif usage or str(error) not in self._missing:  # A missing file is reported once, not for every row.
                self._missing.add(str(error))
                self.problems.append(line)

    def _add(self, cell: Cell, result: Result, row: str) -> None:
        earlier, first_row = self._rows.setdefault((cell.table, result.key), (len(self.cells), row))
        cell = replace(cell, key=result.key)
        if earlier == len(self.cells):
            self.cells.append(cell)
            self.results[cell.key] = result
        elif row != first_row and not self.over:
            flat = cell.request.flat()
            named = [key for key in ("sampler", "order", "lambda", "nfe", "seed") if key in flat]
            said = ", ".join(f"{key} {flat[key]}" for key in named)
            self.problems.append(f"{row}: {said} is also a cell of {first_row}; leave one out")
        elif row != first_row and number(self.cells[earlier], result.request) is None:
            self.cells[earlier] = cell  # The later row may have a published number.
