"""Names, lists and cards of checkpoints and published files."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from gddim_cli.checkpoints.card import Card
from gddim_cli.checkpoints.load import empty_network
from gddim_cli.errors import CheckpointError
from gddim_cli.hub import store
from gddim_cli.hub.load import load

CPU = torch.device("cpu")


def test_names(cards, gddim):
    done = gddim("download", "smal")
    assert done.status == 2
    assert "did you mean 'small'" in done.last
    del cards.made["small"]["source"]
    cards.write()
    assert "ships with gddim" in gddim("download", "small").last
    assert "one NAME" in gddim("download", "stats", "small", "--from", "x").last


def test_weights_changed_in_the_cache_are_refused(cards, gddim):
    assert gddim("download", "small").status == 0
    path = store.cached_weights("small")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load("small", CPU)
    done = gddim("download", "small")
    assert done.status == 0
    assert "changed since its download, fetching it again" in done.err
    assert load("small", CPU)
    store.record_path("small").write_text("{")
    with pytest.raises(CheckpointError, match=r"small.json: damaged"):
        load("small", CPU)


def test_the_list_and_a_card(cards, gddim):
    before = {entry["name"]: entry for entry in json.loads(gddim("checkpoints", "--json").out)}
    assert before["small"]["state"] == before["stats"]["state"] == "available"
    assert before["small"]["fid"] == 2.2565
    gddim("download", "small")
    after = {entry["name"]: entry for entry in json.loads(gddim("checkpoints", "--json").out)}
    assert after["small"]["state"] == "downloaded"
    assert after["small"]["parameters"] > 400_000
    assert after["small"]["size"] == store.cached_weights("small").stat().st_size
    shown = json.loads(gddim("checkpoints", "small", "--json").out)
    assert shown["seen"]["sha256"]
    assert shown["path"] == str(store.cached_weights("small"))
    assert yaml.safe_load(gddim("checkpoints", "stats").out)["arrays"] == ["mu", "sigma"]
    assert "small" in gddim("checkpoints").out
    assert "did you mean 'small'" in gddim("checkpoints", "smal").last
    assert "nothing to remove" in gddim("checkpoints", "remove", "stats").err
    assert gddim("checkpoints", "remove").status == 2
    assert gddim("checkpoints", "a", "b").status == 2


def test_cards_of_files_are_whole(listed):
    assert store.file_names()[:3] == ["dinov2", "inception", "inception-pytorch"]
    for name in store.file_names():
        card = store.file_card_of(name)
        assert card.name == name
        assert card.source.format == "verbatim"
        assert card.source.size > 1e7
        assert card.source.page.startswith("https://")
    pinned = store.file_card_of("inception").source.sha256
    assert pinned == "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
    assert not set(store.file_names()) & set(store.names())


def test_files_of_other_programs_are_described(gddim, golden_file, tmp_path):
    """The format, and the settings that it may need; nothing is converted."""
    shown = json.loads(gddim("checkpoints", golden_file("guided_small_cond.pt"), "--json").out)
    assert (shown["format"], "OpenAI" in shown["title"]) == ("openai", True)
    assert shown["settings"]["noise_schedule"] == "Noise schedule."
    assert yaml.safe_load(gddim("checkpoints", golden_file("edm_small_vp.pkl")).out)["settings"] == {}
    (tmp_path / "x.pt").write_bytes(b"hello")
    for path in (tmp_path / "x.pt", tmp_path):
        refused = gddim("checkpoints", path)
        assert (refused.status, refused.err.count("\n")) == (1, 1)
        assert "a checkpoint of a known format" in refused.err
    shutil.copy(golden_file("edm_small_vp.pkl"), tmp_path)
    assert json.loads(gddim("checkpoints", tmp_path, "--json").out)["format"] == "edm"


COUNTED = [name for name in store.names() if store.card_of(name).parameters]


@pytest.mark.parametrize("name", COUNTED)
def test_a_card_has_as_many_parameters_as_its_network(name):
    """Published counts, to which each card was compared when it was written: 55.7 M for edm-cifar10-uncond-vp."""
    card = store.card_of(name)
    if card.network["kind"] == "diffusers-unet2d":
        pytest.skip("the folder's own configuration completes the network")
    network = empty_network(card, Path(name))
    assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters


def edited(tiny, path, **changes):
    """The tiny checkpoint with another card inside."""
    from safetensors.torch import load_file, save_file

    from gddim_cli.checkpoints import native

    card, _ = native.read(tiny)
    import msgspec

    raw = msgspec.to_builtins(card)
    for key, value in changes.items():
        target, (*parents, last) = raw, key.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    text = json.dumps(raw) if "raw" not in changes else changes["raw"]
    save_file(load_file(tiny), path, metadata={native.CARD: text})
    return path


@pytest.mark.parametrize(
    "changes",
    [
        *({"images__size": size} for size in (0, -1, 10**9, "x", 1.5, 10**400)),
        *({"images__channels": count} for count in (0, 10**9, [1])),
        *({"network__image_size": size} for size in (0, -1, 10**9)),
        *({"network__sigma_data": value} for value in ([1], 1e300, 0, -1, "x", None)),
        *({"network__blocks": count} for count in (10**6, -1, 10**30)),
        *({"network__channels": widths} for widths in ([], [10**9], [16] * 10**5, [[16]])),
        {"network__kind": "\x1b[31m" + "x" * 10**5},
        {"parameterization": "x" * 10**5},
        {"diffusion": {"name": "x" * 10**5}},
        {"diffusion": {"name": "cld", "beta_0": 1e308}},
        {"noise_range": [5, 1]},
        {"noise_range": [-1, 1e400]},
        {"data_range": [1, 1]},
        {"labels": -1},
        {"labels": 10**9},
        {"convention": {"sigma_data": 1}},
        {"raw": "[" * 10**5},
        {"raw": "{" * 3},
        {"raw": "null"},
        {"raw": '{"name": ' + "9" * 5000 + "}"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_cards_are_checked_before_anything_is_allocated(tiny, tmp_path, changes):
    path = edited(tiny, tmp_path / "x.safetensors", **changes)
    with pytest.raises(CheckpointError) as caught:
        load(str(path), CPU)
    text = str(caught.value)
    assert str(path) in text or "card of tiny" in text
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 1500


def test_names_are_whole_at_80_columns(gddim, monkeypatch):
    from gddim_cli.cli import checkpoints

    console = __import__("rich.console").console
    for table in (checkpoints.checkpoint_table, checkpoints.file_table):
        from gddim_cli.hub.catalogue import entries

        kinds = ("checkpoint",) if table is checkpoints.checkpoint_table else ("statistics", "inception", "network")
        found = [entry for entry in entries() if entry.kind in kinds]
        out = io.StringIO()
        console.Console(file=out, width=80).print(table(found, wide=False))
        assert all(f" {entry.name} " in out.getvalue() for entry in found)
        assert max(map(len, out.getvalue().splitlines())) <= 80


@pytest.mark.parametrize("name", store.names())
def test_every_card_of_the_catalogue(name):
    from gddim_cli.checkpoints.convert import find_format
    from gddim_cli.checkpoints.formats.base import build_options
    from gddim_cli.checkpoints.load import convention_of, noise_range

    card = store.card_of(name)
    assert isinstance(card, Card)
    assert card.name == name
    assert card.make_diffusion()
    assert card.license["weights"]
    if card.source is None:
        return
    assert card.cite
    assert card.source.size > 1e6
    assert card.source.page.startswith("https://")
    build_options(find_format(card.source.format, name), card.source.settings)
    convention = convention_of(card)
    if convention is not None:
        low, high = noise_range(card, convention)
        defined = convention.sigma_range
        assert defined[0] * 0.98 <= low < high <= defined[1] * 1.001
    if card.published.get("fid"):
        assert {"dataset", "fid"} <= set(card.published)


def test_a_native_file_has_a_card_too(tiny, gddim):
    shown = json.loads(gddim("checkpoints", tiny, "--json").out)
    assert (shown["name"], shown["path"]) == ("tiny", str(tiny))
    assert "there is no checkpoint" in gddim("checkpoints", "none.safetensors").err


def test_a_part_of_several_names(gddim):
    done = gddim("download", "cifar10")
    assert done.status == 2
    assert "names that contain it: bdm-cifar10, cfm-cifar10, cld-cifar10" in done.err
    assert re.search(r" and \d+ more, see gddim checkpoints$", done.err.strip())
    assert "did you mean 'vp-cifar10'" in gddim("download", "vp-cifr10").err
