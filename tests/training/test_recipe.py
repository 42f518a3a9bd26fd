"""Recipes: ranges, nested keys, and their table in docs/training.md."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gddim_cli.errors import DataError, UsageError
from gddim_cli.settings import Setting, bare, declared, description
from gddim_cli.training.recipe import Data, Network, NoiseLevels, Recipe, as_recipe, read_recipe

PAGE = (Path(__file__).parent.parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
SECTIONS = {"": Recipe, "network.": Network, "sigma.": NoiseLevels, "data.": Data}
SMALLEST = {"name": "x", "steps": 1}


def values_of(setting: Setting) -> str:
    """The values that a field takes, as the table says them."""
    metas = [meta for meta in setting.type.__metadata__ if isinstance(meta, msgspec.Meta)]
    longest = next((meta.max_length for meta in metas if meta.max_length), None)
    pattern = next((meta.pattern for meta in metas if meta.pattern), None)
    if pattern:
        return {r"^[\w-]+\Z": f"1 to {longest} letters, digits, _ or -", r"^[0-9a-f]{64}\Z": "64 hexadecimal digits"}[
            pattern
        ]
    if bare(setting.type) is str:
        return f"a text of at most {longest} characters"
    if typing.get_origin(bare(setting.type)) is tuple:
        return f"a list of 1 to {longest}, each {description(typing.get_args(bare(setting.type))[0])}"
    return description(setting.type)


def default_of(struct: type[msgspec.Struct], setting: Setting) -> str:
    """The default of a field, as the table says it."""
    field = next(field for field in msgspec.structs.fields(struct) if field.name == setting.name)
    if field.default is msgspec.NODEFAULT:
        return "required"
    value = msgspec.to_builtins(field.default)
    return "none" if value is None else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def rows() -> list[str]:
    """The table's rows, one per field."""
    return [
        f"| `{prefix}{key}` | {setting.help} | {values_of(setting)} | {default_of(struct, setting)} |"
        for prefix, struct in SECTIONS.items()
        for key, setting in declared(struct).items()
    ]


def test_the_page_lists_every_field_with_its_range_and_default() -> None:
    assert re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE) == rows(), "\n".join(rows())


def test_every_field_is_declared() -> None:
    for struct in SECTIONS.values():
        nested = {"network", "sigma", "data"} & set(struct.__struct_fields__)
        assert set(declared(struct)) == set(struct.__struct_fields__) - nested


def test_the_recipes_of_the_page_are_recipes() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        as_recipe(yaml.safe_load(block), "docs/training.md")


def test_the_page_names_only_options_that_exist(gddim) -> None:
    blocks = "".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    for command in set(re.findall(r"gddim (\w+)", blocks)):
        lines = [line for line in blocks.splitlines() if f"gddim {command}" in line]
        known = gddim(command, "--help").out
        assert not [option for line in lines for option in re.findall(r"--[a-z-]+", line) if option not in known]


@pytest.mark.parametrize("setting", [*declared(Recipe).values(), *declared(NoiseLevels).values()], ids=lambda s: s.key)
def test_numbers_outside_their_range_are_refused(setting: Setting) -> None:
    if bare(setting.type) not in (int, float):
        return
    place = "sigma" if setting.key in declared(NoiseLevels) else None
    for value in (1e30, -1e30, 10**11 if setting.key != "seed" else 10**13):
        raw = {**SMALLEST, **({place: {setting.key: value}} if place else {setting.key: value})}
        with pytest.raises(DataError, match=re.escape(f"$.{place}.{setting.key}" if place else f"$.{setting.key}")):
            as_recipe(raw, "r.yaml")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [*Recipe.__struct_fields__, *Network.__struct_fields__, *NoiseLevels.__struct_fields__, "title", "image_size"]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3), max_size=4)
)
@example({"network": {"\n": None}})
def test_any_mapping_is_a_recipe_or_one_line(raw: dict) -> None:
    try:
        recipe = as_recipe({**SMALLEST, **raw}, "r.yaml")
    except DataError as error:
        message = str(error)
    else:
        message = "r.yaml: fine"
        assert as_recipe(msgspec.to_builtins(recipe), "r.yaml") == recipe
    assert message.startswith("r.yaml: ")
    assert "\n" not in message


def test_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mnits", "", "../mnist", "mnist.train", "cld-cifar10"):
        with pytest.raises((UsageError, DataError)):
            read_recipe(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("name: mine\nsteps: 5\n")
    assert read_recipe("mine").name == "mine"
