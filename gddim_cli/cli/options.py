"""Command-line options: those declared as settings, and those that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperGroup

from gddim_cli.cli import progress
from gddim_cli.errors import UsageError

if TYPE_CHECKING:
    import msgspec
    from typer._click.core import Context

    from gddim_cli.settings import Setting

S = TypeVar("S", bound="msgspec.Struct")
HELP = {"help_option_names": ["-h", "--help"]}
PANELS = ("Model", "Sampler", "Data", "Training", "Images", "Reference", "Metrics", "Output", "Speed", "Advanced")
"""The groups of options in `--help`, in order."""

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.", rich_help_panel="Output")]


def set_quiet(value: bool) -> None:
    """Silences progress and notes on stderr; errors are still printed."""
    progress.QUIET = value


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=set_quiet, help="Print no progress or notes on stderr.", rich_help_panel="Output"
    ),
]


def command(function: Callable[..., Any], epilog: str | None = None) -> typer.Typer:
    """A typer application with one command, which has `-h` and `--quiet`."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings=HELP,
    )
    app.command(epilog=epilog)(quietable(function))
    return app


class DefaultCommandGroup(TyperGroup):
    """A group with a hidden default command, `run`, which is called unless the first argument names another command."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: Any
    ) -> Context:
        """The context of the command that the first argument names, or else the context of `run` with the group's name."""
        if args and args[0] in self.commands and args[0] != "run":
            return super().make_context(info_name, args, parent, **extra)
        return self.commands["run"].make_context(info_name, args, parent, **extra)


def command_group(default: Callable[..., Any], others: Mapping[str, Callable[..., Any]], epilog: str) -> typer.Typer:
    """As `command`, but with several commands: `default`, whose help ends with `epilog`, and `others` by name."""
    app = typer.Typer(cls=DefaultCommandGroup, rich_markup_mode="rich", context_settings=HELP)
    app.command("run", hidden=True, epilog=epilog, context_settings=HELP)(quietable(default))
    for name, function in others.items():
        app.command(name, context_settings=HELP)(quietable(function))
    return app


def quietable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the option `--quiet` added."""
    option = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)

    def run(**given: Any) -> Any:
        del given["quiet"]
        with progress.data_only():
            return function(**given)

    return with_parameters(function, run, sorted([*parameters(function), option], key=place_in_help))


def place_in_help(parameter: inspect.Parameter) -> tuple[int, bool]:
    """The sort key of parameters in `--help`: by panel, and within a panel those without a default first."""
    return panel_number(parameter), parameter.default is not parameter.empty


def panel_number(parameter: inspect.Parameter) -> int:
    """The position of a parameter's panel in `--help`; -1, which comes first, for arguments and options without a panel."""
    for meta in getattr(parameter.annotation, "__metadata__", ()):
        if (panel := getattr(meta, "rich_help_panel", None)) in PANELS:
            return PANELS.index(panel)
    return -1


def with_settings(
    function: Callable[..., Any], settings: Iterable[Setting] = (), *, lists: Iterable[Setting] = ()
) -> Callable[..., Any]:
    """The command with an option added for each declared setting.

    `function` receives, as its argument `given`, the texts that the user gives for `settings` and `lists`, by key. It
    may also have a parameter `asked`, annotated with a struct of settings. Each setting of the struct then becomes an
    option, and `asked` receives the struct with the values.

    Args:
        lists: settings whose options take a comma-separated list.
    """
    from gddim_cli.settings import declared

    own = {parameter.name: parameter for parameter in parameters(function)}
    own.pop("given", None)
    struct = own.pop("asked").annotation if "asked" in own else None
    listed, of_struct = list(lists), list(declared(struct).values()) if struct else []
    loose = [*listed, *settings]
    options = [parameter_of(setting, number < len(listed)) for number, setting in enumerate([*loose, *of_struct])]

    def run(**rest: Any) -> Any:
        def texts(settings: list[Setting]) -> dict[str, Any]:
            return {setting.key: text for setting in settings if (text := rest.pop(setting.name)) is not None}

        given = {"given": texts(loose)} if loose else {}
        asked = {"asked": built(struct, texts(of_struct), f"gddim {function.__name__}")} if struct else {}
        return function(**rest, **given, **asked)

    return with_parameters(function, run, [*options, *own.values()])


def leading(first: Sequence[str], settings: Mapping[str, Setting]) -> list[Setting]:
    """The settings in order: those with the keys `first`, then the others."""
    return [settings[key] for key in dict.fromkeys((*first, *settings))]


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """A function's parameters with their annotations evaluated."""
    hints = get_type_hints(function, include_extras=True)
    found = inspect.signature(function).parameters.values()
    return [p.replace(annotation=hints.get(p.name, p.annotation), kind=p.KEYWORD_ONLY) for p in found]


def with_parameters(
    function: Callable[..., Any], run: Callable[..., Any], found: list[inspect.Parameter]
) -> Callable[..., Any]:
    """`run` under the name and documentation of `function`, with these parameters.

    Each paragraph of the documentation becomes one line, which `--help` wraps to the terminal's width.
    """
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    run.__name__, run.__doc__ = function.__name__, "\n\n".join(" ".join(part.split()) for part in paragraphs)
    run.__signature__ = inspect.Signature(found)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in found}
    return run


def parameter_of(setting: Setting, lists: bool) -> inspect.Parameter:
    """A declared setting as a parameter that typer understands."""
    if setting.is_flag and not lists:
        decls = [setting.about.flag or f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"]
        kind = bool | None
        metavar = None
    else:
        # A setting that is a list of strings becomes an option that may be given several times.
        decls, kind = [setting.flag], list[str] | None if setting.is_texts else str | None  # type: ignore[assignment]
        metavar = "true,false" if setting.is_flag else f"{setting.metavar},..." if lists else setting.metavar
    if setting.about.short:
        decls.append(setting.about.short)
    says_default = (
        setting.default is None or setting.default is False or setting.default == [] or "Default" in setting.help
    )
    option = typer.Option(
        *decls,
        metavar=metavar,
        help=markup(setting.help if says_default else f"{setting.help} Default: {setting.default}."),
        rich_help_panel=setting.about.panel,
        autocompletion=completion(setting),
        show_default=False,
    )
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def markup(text: str) -> str:
    """The text with its square brackets escaped, so that rich does not read them as markup."""
    return text.replace("[", "\\[")


def completion(setting: Setting) -> Callable[[str], list[str]] | None:
    """A function that completes a setting's value in the shell, or the last value of a comma-separated list."""
    from gddim_cli.settings import choices

    def complete(incomplete: str) -> list[str]:
        known = setting.about.complete() if setting.about.complete else choices(setting.type)
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{value}" for value in known if value.startswith(last)]

    return complete if setting.about.complete or choices(setting.type) else None


def parsed(given: Mapping[str, Any], settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The values of the texts given on the command line, by key.

    Raises:
        UsageError: a text that is not a value of its setting.
    """
    return {key: settings[key].parse(value) if isinstance(value, str) else value for key, value in given.items()}


def built(struct: type[S], given: Mapping[str, Any], command: str) -> S:
    """Builds the struct of a command's options from their texts by key.

    Raises:
        UsageError: a text that is not a value of its setting, or a value outside its range; the message names the option.
    """
    from gddim_cli.settings import build, declared

    known = declared(struct)
    return build(struct, parsed(given, known), command, lambda key: known[key].flag)


def written(given: Mapping[str, Any], settings: Mapping[str, Setting]) -> list[str]:
    """The given options, written as the arguments of a command line."""
    found: list[str] = []
    for key, value in given.items():
        flag = settings[key].flag
        off = f"--no-{flag.removeprefix('--')}"
        found += [flag if value else off] if isinstance(value, bool) else [flag, str(value)]
    return found


def assignments(texts: list[str] | None) -> dict[str, str]:
    """The values of `--set NAME=VALUE` by name.

    Raises:
        UsageError: a text without `=`, or a name that is given twice.
    """
    found: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise UsageError(f"--set {text}: expected NAME=VALUE, each name once")
        found[name] = value
    return found


def folder(option: str, path: Path) -> Path:
    """Returns the path, unless it is the current folder. An empty name also means the current folder.

    Raises:
        UsageError: the path is the current folder; the message names the option.
    """
    if path == Path():
        raise UsageError(f"{option}: cannot be the current folder; choose another folder")
    return path


def suffix(option: str, path: Path | None, ending: str) -> None:
    """Raises UsageError if the file's name does not end in `ending`."""
    if path is not None and path.suffix.lower() != ending:
        raise UsageError(f"{option}: {path} does not end in {ending}")
