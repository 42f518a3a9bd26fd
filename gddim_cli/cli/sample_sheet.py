"""`gddim sample --compare`: a table of pictures from the same noises, with a row per sampler and a column per NFE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddim_cli.cli.progress import Progress, say, show_json
from gddim_cli.errors import UsageError
from gddim_cli.runs.request import SamplingRequest, sampling_settings, with_preset
from gddim_cli.samplers.registry import find_sampler
from gddim_cli.settings import split

if TYPE_CHECKING:
    import torch

    from gddim_cli.runs.prepared_run import PreparedRun

NFE = "5,10,20,50"
MOST = 64
"""Maximum number of images in an entry of the sheet."""


def samplers(text: str, where: str = "--compare") -> list[dict[str, Any]]:
    """The settings of each sampler of a list such as `gddim:2,em,heun:time_grid=linear`, by key.

    After a sampler's name, `:2` sets the order, `:key=value` any sampling setting, and `:preset=paper` a preset.

    Raises:
        UsageError: an unknown sampler or setting, a value outside its range, or no sampler at all.
    """
    known, found = sampling_settings(), []
    for one in split(text):
        name, *parts = one.split(":")
        find_sampler(name, where)
        given: dict[str, Any] = {"sampler": name}
        for part in parts:
            key, value = part.split("=", 1) if "=" in part else ("order", part)
            if key not in (*known, "preset") or key in given:
                raise UsageError(
                    f"{where} {one}: '{part}': expected an order, or a setting as key=value, each setting once"
                )
            given[key] = value if key == "preset" else known[key].parse(value, f"{where} {name}:{key}")
        found.append(given)
    if not found:
        raise UsageError(f"{where}: name at least one sampler, as in gddim:2,em")
    return found


def requests_of(given: Mapping[str, str | bool], compare: str, set: Mapping[str, str]) -> list[list[SamplingRequest]]:
    """The requests: for each sampler a list with one request for each NFE.

    Args:
        given: the sampling options by key; `nfe` may be a comma-separated list.
        set: the settings of `--set`.

    Raises:
        UsageError: as `samplers` and `SamplingRequest.of`; or `--sampler` is given as well as `--compare`.
    """
    known = sampling_settings()
    if "sampler" in given:
        raise UsageError("--sampler: --compare names the samplers; leave out one of the two options")
    budgets = [known["nfe"].parse(part) for part in split(str(given.get("nfe", NFE)))]
    base = {key: known[key].parse(of) if isinstance(of, str) else of for key, of in given.items() if key != "nfe"}
    rows = []
    for own in samplers(compare):
        preset = own.pop("preset", None)
        rows.append({**with_preset({**base, **own}, preset), "model_settings": set})
    return [[request_of({**row, "nfe": nfe}) for nfe in budgets] for row in rows]


def request_of(settings: dict[str, Any]) -> SamplingRequest:
    """The request of these settings by key."""
    import msgspec

    model_settings = settings.pop("model_settings")
    return msgspec.structs.replace(SamplingRequest.of(settings), model_settings=model_settings)


def prepared_rows(
    rows: list[list[SamplingRequest]], device: torch.device, batch_size: int
) -> list[list[PreparedRun | None]]:
    """The prepared run of each request, or None if the sampler does not support the request.

    Rows without a run are left out. Each reason for which a request is unsupported is printed as a note.

    Raises:
        GddimError: the model cannot be loaded; UsageError if no run is left.
    """
    from gddim_cli.runs.prepare import load_model, prepare

    model, found, refused = load_model(rows[0][0], device, say=say), [], dict[str, UsageError]()
    for row in rows:
        runs: list[PreparedRun | None] = []
        for request in row:
            try:
                runs.append(prepare(request, device, model=model, batch_size=batch_size))
            except UsageError as error:
                refused.setdefault(str(error), error)
                runs.append(None)
        found += [runs] if any(runs) else []
    for reason in refused if found else ():
        say(f"note: left out: {reason}")
    if not found:
        raise next(iter(refused.values()))
    return found


def make_sheet(
    rows: list[list[SamplingRequest]],
    out: Path,
    num: int | None,
    batch_size: int,
    device: torch.device,
    json: bool,
    force: bool,
) -> None:
    """Draws the images of every request and writes the sheet; its PNG records the resolved requests.

    Raises:
        GddimError: as `prepared_rows` and the samplers; the sheet cannot be written, or `out` is a sheet of other
            requests and `force` is not set.
    """
    import msgspec

    from gddim_cli.images.quantize import quantize
    from gddim_cli.images.render import text_of
    from gddim_cli.images.sheet import SHOWN, Entry, Sheet
    from gddim_cli.runs.converged import first_images
    from gddim_cli.runs.request_labels import labels
    from gddim_cli.runtime.files import replacing
    from gddim_cli.runtime.memory import memory_for

    count = num or SHOWN
    if count > MOST:
        raise UsageError(f"--num: a sheet has at most {MOST} images in each entry, not {count}")
    columns = [f"NFE {request.nfe}" for request in rows[0]]
    table = prepared_rows(rows, device, batch_size)
    runs = [run for row in table for run in row if run]
    resolved = [run.request for run in runs]
    recorded = msgspec.json.encode(resolved).decode()
    if not force and text_of(out) not in (None, recorded):
        raise UsageError(f"--out: {out} is a sheet of other settings; choose another name, or --force")
    names = iter(labels([run.request for run in runs], "nfe"))
    entries: dict[str, list[Entry]] = {}
    with Progress(count * len(runs), "images") as progress:
        for row in table:
            name, *_ = [next(names) for run in row if run]
            if name in entries:
                raise UsageError(f"--compare: {name} is listed twice; leave one out")
            entries[name] = []
            for run in row:
                if run is None:
                    entries[name].append(Entry(None, "unavailable"))
                    continue
                with memory_for(batch_size, device, "give a smaller --batch-size"):
                    pixels = quantize(first_images(run, count, batch_size), run.config.quantize)
                spent = "" if run.evaluations == run.request.nfe else f"{run.evaluations} evaluations"
                entries[name].append(Entry(pixels, spent))
                progress.advance(count)
    first = runs[0]
    caption = f"{first.model.name}: all pictures start from the same noises (seed {first.request.seed})."
    with replacing(out) as temporary:
        temporary.write_bytes(Sheet(columns, entries, caption).png(recorded))
    say(f"{out}: {len(entries)} samplers, {len(columns)} values of NFE, {count} images per cell")
    if json:
        show_json({"sheet": str(out), "requests": resolved})
