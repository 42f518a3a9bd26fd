"""Every tensor of the full-size releases has one place, and the architecture is read off its names and shapes."""

import itertools
import re

import pytest
import torch

from gddim_cli.checkpoints.formats import gddim_flax
from gddim_cli.checkpoints.formats.base import build_options, given_values, parse_settings
from gddim_cli.checkpoints.formats.ncsnpp import complete, infer
from gddim_cli.checkpoints.formats.ncsnpp_names import places, rename
from gddim_cli.checkpoints.native import all_finite
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.models.networks.ncsnpp import NCSNpp
from gddim_cli.models.networks.skip_init import SkipInit

RELEASES = [
    ("gddim_cld_cifar10_flax", "flax", 963, {"in_channels": 6, "out_channels": 6}),
    ("cldsgm_cifar10_torch", "torch", 963, {"in_channels": 6, "out_channels": 3}),
    (
        "scoresde_vp_ddpmpp_deep_torch",
        "torch",
        956,
        {"in_channels": 3, "out_channels": 3, "embedding_type": "positional", "progressive_input": "none"},
    ),
]
CARD = {"image_size": 32, "fir": True, "attn_resolutions": [16]}
SMALL = {"in_channels": 2, "out_channels": 2, "image_size": 16, "nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1}


def quiet(_):
    pass


def on_meta(**arguments):
    with torch.device("meta"):
        return NCSNpp(**arguments)


def own_names(listed):
    return {key.removeprefix("module.all_modules."): shape for key, shape in listed.items() if key != "module.sigmas"}


@pytest.mark.parametrize(("name", "layout", "count", "options"), RELEASES)
def test_every_tensor_of_a_release_is_placed_once(listed, name, layout, count, options):
    shapes = own_names(listed(name))
    network = on_meta(image_size=32, fir="none" not in options.values(), **options)
    found = list(places(network, layout))
    assert len(found) == len(shapes) == count
    assert {place.original: place.original_shape for place in found} == shapes
    assert {place.name: place.shape for place in found} == {n: tuple(t.shape) for n, t in network.state_dict().items()}


@pytest.mark.parametrize(("name", "layout", "count", "options"), RELEASES)
def test_architecture_of_a_release(listed, name, layout, count, options):
    told = infer(own_names(listed(name)), layout, name)
    published = {"nf": 128, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 8, "attn_resolutions": [16], "image_size": 32}
    expected = {"embedding_type": "fourier", "progressive_input": "residual", "fir": True, **published, **options}
    assert complete(told, {}, CARD, quiet) == expected


CONFIGURATIONS = [
    {**SMALL, "ch_mult": mult, "num_res_blocks": blocks, "attn_resolutions": sides, **more}
    for mult, blocks, sides, more in itertools.product(
        ([2, 1], [1, 2, 2], [1, 1, 1, 2]),
        (1, 3),
        ([], [16]),
        ({}, {"fir": False}, {"progressive_input": "none"}, {"embedding_type": "positional"}),
    )
] + [{**SMALL, "ch_mult": [2], "attn_resolutions": [16], "progressive_input": "none"}]


@pytest.mark.parametrize("layout", ["flax", "torch"])
@pytest.mark.parametrize("arguments", CONFIGURATIONS, ids=str)
def test_architecture_of_any_other(arguments, layout):
    shapes = {place.original: place.original_shape for place in places(on_meta(**arguments), layout)}
    told = infer(shapes, layout, "it")
    full = {"fir": True, "progressive_input": "residual", "embedding_type": "fourier", **arguments}
    assert told.arguments == {key: full[key] for key in told.arguments}
    if layout == "torch":
        assert [16 >> level for level in told.attention] == arguments["attn_resolutions"]
    assert complete(told, {}, full, quiet) == full


def test_flax_says_where_attention_is_only_where_widths_differ():
    def told(sides):
        arguments = {**SMALL, "ch_mult": [1, 2, 2, 3], "attn_resolutions": sides}
        return infer({p.original: p.original_shape for p in places(on_meta(**arguments), "flax")}, "flax", "it")

    assert told([16]).attention == (0,)
    assert told([2]).attention == (3,)
    assert told([8]).attention is None


def test_what_the_person_sets():
    shapes = {place.original: place.original_shape for place in places(on_meta(**SMALL), "flax")}
    told = infer(shapes, "flax", "it")
    said = []
    assert complete(told, {"image_size": 64, "nf": 8}, CARD, said.append)["attn_resolutions"] == [64]
    assert said == []
    complete(told, {}, CARD, said.append)
    assert len(said) == 1
    assert "image_size=32 is assumed" in said[0]
    for given, message in [
        ({"nf": 16}, "nf=16 contradicts the tensors, which say 8"),
        ({"attn_resolutions": [8], "image_size": 16}, r"attn_resolutions=\[8\] contradicts the tensors.*\[16\]"),
    ]:
        with pytest.raises(UsageError, match=message):
            complete(told, given, CARD, quiet)


def parse(words):
    return given_values(build_options(gddim_flax.SPEC, parse_settings(gddim_flax.SPEC, words)))


def test_values_of_set():
    words = ["nf=16", "ch_mult=1,2,2", "attn_resolutions=[]", "fir=false", "embedding_type=fourier"]
    expected = {"nf": 16, "ch_mult": [1, 2, 2], "attn_resolutions": [], "fir": False, "embedding_type": "fourier"}
    assert parse(words) == expected
    assert parse(["attn_resolutions=16", "fir=True"]) == {"attn_resolutions": [16], "fir": True}
    for word, message in [
        ("nf", "expected name=value; settings of gddim-flax: image_size"),
        ("num_blocks=1", "--set num_blocks: .* did you mean 'num_res_blocks'"),
        ("nf=many", "--set nf: 'many': expected a whole number"),
        ("nf=[", "expected a whole number"),
        ("nf=99999999999999999999", "expected a whole number from 4 to 4096"),
        ("ch_mult=1,x", "--set ch_mult: .*expected a list of values, each a whole number"),
        ("progressive_input=input_skip", "'input_skip': expected one of residual, none"),
    ]:
        with pytest.raises(UsageError, match=message):
            parse([word])


def test_ambiguous_attention_needs_to_be_said():
    arguments = {**SMALL, "ch_mult": [2, 2], "attn_resolutions": [8]}
    told = infer({p.original: p.original_shape for p in places(on_meta(**arguments), "flax")}, "flax", "it")
    with pytest.raises(UsageError, match=r"attn_resolutions=.* is needed"):
        complete(told, {"image_size": 16}, CARD, quiet)
    assert complete(told, {"image_size": 16, "attn_resolutions": [8]}, CARD, quiet)["attn_resolutions"] == [8]


def tensors_of(network, layout):
    return {p.original: torch.zeros(p.original_shape) for p in places(network, layout)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("8.GroupNorm_0.weight"),
            "tensor 8.GroupNorm_0.weight, needed for down.1.blocks.0.norm_in.weight, is missing",
        ),
        (lambda t: t.update({"7.Extra": torch.zeros(1)}), "unexpected tensor 7.Extra; this network has no such tensor"),
        (lambda t: t.update({"2.weight": torch.zeros(3, 3)}), r"tensor 2.weight is \[3, 3\]; \[32, 32\] is needed"),
        (lambda t: t.update({"2.bias": torch.zeros(32).double()}), "tensor 2.bias is float64; float32 is needed"),
        (lambda t: t.update({"2.bias": torch.zeros(32).int()}), "tensor 2.bias is int32; float32 is needed"),
        (lambda t: t["2.bias"].fill_(float("nan")), "tensor 2.bias holds NaN"),
    ],
)
def test_the_first_misfit_is_named(change, message):
    network = on_meta(**SMALL)
    tensors = tensors_of(network, "torch")
    change(tensors)
    with pytest.raises(CheckpointError, match=f"^it: {message}"):
        rename(tensors, network, "torch", "it")


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"weight": (3,)},
        {"Conv_0/kernel": (3, 3, 2, 8)},
        {"Conv_0/kernel": (3, 3, 2, 8), "Conv_1/kernel": (3, 3, 8, 2), "ResnetBlockBigGANpp_0/Conv_1/kernel": (3,)},
        {"Conv_0/kernel": (3, 3, 2, 8), "Conv_1/kernel": (3, 3, 8, 2)}
        | {f"ResnetBlockBigGANpp_{i}/{c}/kernel": (3, 3, 8, 8) for i in range(4) for c in ("Conv_0", "Conv_1")},
        {"encoder_0/embeddings": (1,), "Conv_99999999/kernel": (3, 3, 2, 8)},
    ],
)
def test_other_models_are_refused(shapes):
    with pytest.raises(CheckpointError, match=r"^it: .*NCSN\+\+"):
        infer(shapes, "flax", "it")


def test_flax_and_torch_place_the_same_tensors():
    network = on_meta(**SMALL)
    flax, theirs = (list(places(network, layout)) for layout in ("flax", "torch"))
    assert [p.name for p in flax] == [p.name for p in theirs]
    assert all(re.fullmatch(r"\w+_\d+(/\w+)+", p.original) for p in flax)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_found_anywhere(bad):
    for at in (0, 511, 1023):
        tensor = torch.randn(1024)
        assert all_finite(tensor)
        tensor[at] = bad
        assert not all_finite(tensor)
    assert all_finite(torch.empty(0))
    assert all_finite(torch.ones(2, dtype=torch.int64))


def test_a_blank_network_is_made_without_random_numbers():
    state = torch.random.get_rng_state()
    with SkipInit():
        made = NCSNpp(**{**SMALL, "embedding_type": "positional"})
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {n: t.shape for n, t in made.state_dict().items()} == {
        n: t.shape for n, t in on_meta(**{**SMALL, "embedding_type": "positional"}).state_dict().items()
    }
