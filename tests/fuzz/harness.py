"""`gddim` in a forked process: limited in time and memory, watched, and judged by the rules that hold for every input."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import pkgutil
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gddim_cli

CPU_SECONDS, WAIT_SECONDS, WALL_SECONDS = 20, 20, 90
"""Limits of a call: its processor time, the rest of its time (waiting for a pipe, say), and the time to its end by force."""
MEMORY = 2 << 30
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.rename": 1,
    "os.link": 1,
    "os.symlink": 1,
    "os.truncate": 0,
}
"""Audit events of changes to the file system, and which argument is the path that changes."""
EXECUTED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn")
CONNECTED = ("socket.connect", "socket.getaddrinfo")
CACHES = ("TMPDIR", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME")
HARMLESS = ("'uname'", "'fc-list'")
"""Programs that Python's library and Matplotlib run."""
SPECIAL = ("/dev/", "/proc/self/")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass
class Case:
    """One call.

    Attributes:
        words: the command line.
        inputs: files and folders that must not change.
        note: what was done to them, for the report.
    """

    words: Sequence[object]
    inputs: Sequence[Path] = ()
    note: str = ""


@dataclass
class Outcome:
    """What a call did.

    `status` is negative after a signal, `waited` is the time in which it did not compute, and `memory` is its own,
    without the parent's at the fork.
    """

    status: int
    out: str
    err: str
    seconds: float
    waited: float
    memory: int
    events: list[str] = field(default_factory=list)


def import_everything() -> None:
    """Imports what commands import when they are called, once for all forked processes."""
    for module in pkgutil.walk_packages(gddim_cli.__path__, "gddim_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("torch._dynamo", "matplotlib.font_manager", "diffusers.models.unets.unet_2d"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def call(words: Sequence[object], sandbox: Path, folder: Path) -> Outcome:
    """Runs `gddim WORDS` in a folder of the sandbox, outside of which nothing can be written."""
    logs = {name: sandbox / f".{name}" for name in ("out", "err", "events")}
    began = time.monotonic()
    inherited = resident()
    child = os.fork()
    if child == 0:
        run_child([str(word) for word in words], sandbox, folder, logs)
    status, usage = wait(child)
    text = {name: path.read_bytes().decode("utf-8", "backslashreplace") for name, path in logs.items()}
    for path in logs.values():
        path.unlink()
    code = os.waitstatus_to_exitcode(status)
    memory = usage.ru_maxrss * 1024 - inherited
    seconds = time.monotonic() - began
    waited = seconds - usage.ru_utime - usage.ru_stime
    return Outcome(code, text["out"], text["err"], seconds, waited, memory, text["events"].splitlines())


def resident() -> int:
    """This process's memory in bytes, which a forked child starts with."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def wait(child: int) -> tuple[int, resource.struct_rusage]:
    """The child's status and usage; it is killed when its time is over."""
    until = time.monotonic() + WALL_SECONDS
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            until = float("inf")
        time.sleep(0.002)


def run_child(words: list[str], sandbox: Path, folder: Path, logs: dict[str, Path]) -> None:
    """The child's part: never returns."""
    code = 99
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(logs[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        events = os.open(logs["events"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        tempfile.tempdir = str(sandbox / "tmp")
        os.environ |= {"GDDIM_HOME": str(sandbox / "home"), **dict.fromkeys(CACHES, tempfile.tempdir)}
        (sandbox / "tmp").mkdir(exist_ok=True)
        sys.dont_write_bytecode = True
        os.chdir(folder)
        sys.argv = ["gddim", *words]
        sys.addaudithook(lambda event, arguments: watch(event, arguments, sandbox, events))
        from gddim_cli.cli.main import main

        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 (anything that the command raises is a finding)
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def watch(event: str, arguments: tuple, sandbox: Path, log: int) -> None:
    """Notes what a call must not do, and prevents it."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, int) or not flags & WRITES:
            return
    elif event in CHANGES:
        path = arguments[CHANGES[event]]
    elif event in EXECUTED or event in CONNECTED:
        what = repr(arguments[0])
        if what in HARMLESS:
            return
        os.write(log, f"{event}: {what:.100} {arguments[1]!r:.60}\n".encode("utf-8", "backslashreplace"))
        raise PermissionError(13, f"not allowed: {event}")
    else:
        return
    if path is None or isinstance(path, int):
        return
    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
    if not name.startswith((f"{sandbox}/", *SPECIAL)) and name != str(sandbox):
        os.write(log, f"{event}: {name}\n".encode("utf-8", "backslashreplace"))
        raise PermissionError(13, "not allowed")


def fingerprint(paths: Sequence[Path]) -> dict[str, str]:
    """The content of files, those in folders included, by their names."""
    found = {}
    for path in paths:
        for file in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
            if file.is_file():
                found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
            else:
                found[str(file)] = "not a file"
    return found


def faults(outcome: Outcome) -> list[str]:
    """What is wrong with an outcome, whatever the input was."""
    found = [f"did {event}" for event in outcome.events]
    lines = outcome.err.splitlines()
    errors = [line for line in lines if line.startswith("gddim: ")]
    if outcome.status not in (0, 1, 2):
        found.append(f"status {outcome.status}")
    if "Traceback" in outcome.err:
        found.append("a traceback")
    if "Warning" in outcome.err:
        found.append("a library's warning")
    failed_check = outcome.status == 1 and "\nFAILED" in outcome.out  # gddim check says so on stdout
    if outcome.status in (1, 2) and not failed_check and (len(errors) != 1 or lines[-1] != errors[0]):
        found.append(f"{len(errors)} error lines")
    if outcome.status == 0 and errors:
        found.append("an error, and status 0")
    if any(len(line) > 2000 for line in lines):
        found.append("a line of more than 2000 characters")
    if CONTROL.search(outcome.err) or CONTROL.search(outcome.out.replace("\t", " ")):
        found.append("a control character")
    if outcome.waited > WAIT_SECONDS:
        found.append(f"waited {outcome.waited:.0f} s")
    if outcome.memory > MEMORY:
        found.append(f"{outcome.memory / 1e9:.1f} GB")
    return found
