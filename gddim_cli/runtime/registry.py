"""Registries of named specs, which describe samplers, metrics, checkpoint formats and storage formats."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from gddim_cli.errors import GddimError, UsageError, nearest
from gddim_cli.runtime.text import message_of, printable

GROUP = "gddim.plugins"
"""The entry-point group of plugins: each entry point is a spec, or a list of specs."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The base of all specs.

    Attributes:
        name: the name by which options and plans refer to the spec.
    """

    name: str = field(kw_only=False)

    def __post_init__(self) -> None:
        """Raises UsageError if a field for text holds something else, since specs also come from users' files."""
        for member in fields(self):
            value = getattr(self, member.name)
            if member.type in ("str", "str | None") and not (
                isinstance(value, str) or (value is None and "None" in member.type)
            ):
                raise UsageError(f"{type(self).__name__}: {member.name} is {value!r}, not a text")


T = TypeVar("T", bound=Spec)


class Registry(Mapping[str, T], Generic[T]):
    """The specs of one kind by name. They are built in, come from installed plugins, or were registered by a program.

    Attributes:
        kind: the class of the specs.
        word: the noun for a spec in messages.
    """

    def __init__(self, word: str, kind: type[T], builtin: Sequence[T]) -> None:
        self.word, self.kind = word, kind
        self._things = {thing.name: thing for thing in builtin}
        REGISTRIES.append(self)
        for thing in [thing for thing in PENDING if isinstance(thing, kind)]:
            PENDING.remove(thing)
            self.add(thing)

    def __getitem__(self, name: str) -> T:
        """The spec of that name. Raises KeyError if it is unknown; `find` raises an error with a message instead."""
        load_plugins()
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(self._things)

    def __len__(self) -> int:
        load_plugins()
        return len(self._things)

    def find(self, name: str, where: str) -> T:
        """The spec of that name.

        Args:
            where: the option or key that gave the name, for messages, for example `--sampler`.

        Raises:
            UsageError: the name is unknown; the message suggests the nearest one.
        """
        if name not in self:
            raise UsageError(f"{where}: there is no {self.word} '{printable(name, 100)}'; {nearest(name, self)}")
        return self[name]

    def add(self, thing: T) -> None:
        """Adds a spec.

        Raises:
            UsageError: the name is taken.
        """
        if self._things.get(thing.name, thing) is not thing:
            raise UsageError(f"there is a {self.word} '{thing.name}' already; choose another name")
        self._things[thing.name] = thing

    def remove(self, name: str) -> None:
        """Removes a spec that was added."""
        self._things.pop(name, None)


REGISTRIES: list[Registry[Any]] = []
PENDING: list[Spec] = []
"""Registered specs whose registry has not been imported yet."""
ORIGINS: dict[int, str] = {}
"""Where specs of users' files and of plugins come from, by the id of the spec: the path, or the plugin's entry point."""


def register(thing: Spec) -> Spec:
    """Adds a spec to the registry of its kind and returns it.

    Raises:
        UsageError: the argument is not a spec, or its name is taken.
    """
    if not isinstance(thing, Spec):
        raise UsageError(f"{thing!r} is not a spec (SamplerSpec, MetricSpec, ...) and cannot be registered")
    for registry in REGISTRIES:
        if isinstance(thing, registry.kind):
            registry.add(thing)
            break
    else:
        PENDING.append(thing)
    return thing


@cache
def load_plugins() -> None:
    """Registers the specs that installed packages provide in the entry-point group `gddim.plugins`.

    Raises:
        GddimError: a plugin cannot be imported.
    """
    for entry in entry_points(group=GROUP):
        try:
            with redirect_stdout(sys.stderr):  # stdout may hold JSON
                found = entry.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # The plugin's code may raise anything, or try to exit.
            reason = f"{type(error).__name__}: {message_of(error)}"
            raise GddimError(f"plugin {entry.value}: cannot be loaded: {reason}; repair or uninstall it") from error
        for thing in found if isinstance(found, (list, tuple)) else [found]:
            ORIGINS[id(register(thing))] = f"plugin {entry.value}"


def origin(spec: Spec) -> str | None:
    """The path or the entry point that a spec comes from; None if it is built in, or registered by a program."""
    return ORIGINS.get(id(spec))
