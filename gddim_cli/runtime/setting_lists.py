"""Reads lists of values for declared settings, from YAML or the command line, and reports all mistakes at once.

Each value is kept with its place: a path such as `$.rows[2].nfe`, or an option such as `--nfe`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gddim_cli.errors import GddimError, nearest
from gddim_cli.settings import Setting, bare, brief, split

Values = dict[str, list[tuple[Any, str]]]
"""The values of each setting by key; every value comes with its place."""


def plain(values: Values, key: str) -> list[Any]:
    """The values of a setting without their places."""
    return [value for value, _ in values.get(key, [])]


def without(values: Values, keys: Collection[str]) -> Values:
    """The values of all settings except those with the given keys."""
    return {key: of for key, of in values.items() if key not in keys}


@dataclass(frozen=True)
class ListReader:
    """Reads values of settings and collects the mistakes in them.

    Attributes:
        known: every setting by key.
        single: the keys of settings that take one value.
        find: for each setting whose values are names, a function of a name and its place, which raises a GddimError if
            the name is unknown.
        problems: one line for each mistake found so far.
    """

    known: Mapping[str, Setting]
    single: Collection[str]
    find: Mapping[str, Callable[[Any, str], object]]
    problems: list[str] = field(default_factory=list)

    def mapping(self, raw: Mapping[Any, Any], place: str, elsewhere: Mapping[str, str] | None = None) -> Values:
        """The values in a mapping from a YAML file.

        Args:
            elsewhere: keys that do not belong in this mapping, each with the reason, for the message.
        """
        found: Values = {}
        for key, value in raw.items():
            where = f"{place}.{str(key)[:60]}"
            items = list(enumerate(value)) if isinstance(value, list) else []
            parts = [(part, f"{where}[{i}]") for i, part in items] if isinstance(value, list) else [(value, where)]
            if elsewhere and key in elsewhere:
                self.problems.append(f"{where}: {elsewhere[key]}")
            elif key in self.known:
                found[key] = self._checked(key, [] if value is None else parts, where, self.known[key].check)
            else:
                self.problems.append(f"{where}: there is no setting {brief(key)}; {nearest(str(key), self.known)}")
        return found

    def options(self, given: Mapping[str, Any]) -> Values:
        """The values of options by key: `--nfe 10,20` becomes `nfe: [10, 20]`."""
        found: Values = {}
        for key, text in given.items():
            setting = self.known[key]
            parts = [(part, setting.flag) for part in ([text] if key in self.single else split(text))]
            read = setting.parse if isinstance(text, str) else setting.check
            found[key] = self._checked(key, parts, setting.flag, read)
        return found

    def _checked(
        self, key: str, parts: Sequence[tuple[Any, str]], place: str, read: Callable[[Any, str], Any]
    ) -> list[tuple[Any, str]]:
        """The values of a setting that `read` accepts, without duplicates. The others are added to `problems`."""
        if not parts:
            self.problems.append(f"{place}: the list is empty; give a value, or leave {key} out")
        if len(parts) > 1 and key in self.single:
            self.problems.append(f"{place}: one value is needed, not a list")
            return []
        good: dict[Any, str] = {}
        for part, where in parts:
            number = isinstance(part, int | float) and not isinstance(part, bool)
            try:
                value = read(str(part) if number and bare(self.known[key].type) is str else part, where)
                if key in self.find:
                    self.find[key](value, where)
            except GddimError as error:
                text, flag = str(error), self.known[key].flag
                self.problems.append(f"{where}: {text[len(flag) :].lstrip(': ')}" if text.startswith(flag) else text)
                continue
            if value in good:
                self.problems.append(f"{where}: {part} is listed twice; leave one out")
            good.setdefault(value, where)
        return list(good.items())


def located(error: GddimError, where: Mapping[str, str], keys: Sequence[str] = ()) -> str:
    """The error's message, which starts with the place of the setting that caused it.

    Args:
        where: places by key.
        keys: the settings that may have caused an error whose message does not start with an option. The place is
            that of the first of these that is in `where`. If none of them is, it is the last place in `where`.
    """
    text = str(error)
    option = re.match(r"--([a-z-]+)[: ] *", text)
    key = option[1].replace("-", "_") if option else ""
    if option and key in where:
        return f"{where[key]}: {text[option.end() :]}"
    return f"{next((where[key] for key in keys if key in where), list(where.values())[-1])}: {text}"
