"""What `gddim bench` shows: the plan, the table as it fills in, what is done, two runs beside each other."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddim_cli.bench.folder import Folder
from gddim_cli.bench.runner import Listener
from gddim_cli.cli.progress import Progress, duration, say, show_table, stdout

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from gddim_cli.bench.compare import Pair
    from gddim_cli.bench.folder import Asked, Result
    from gddim_cli.bench.jobs import Bench, Job, Program
    from gddim_cli.bench.report import Results
    from gddim_cli.bench.sheets import Sheet


def write_json(value: Any) -> None:
    import msgspec

    with stdout() as out:
        out.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
