"""A sampling request: everything an image depends on besides its index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from gddim_cli.errors import UsageError, nearest
from gddim_cli.samplers.registry import SAMPLERS, find_sampler, options_of, sampler_options
from gddim_cli.settings import Setting, about, build, declared, values

LARGEST_SEED = 2**64 - 1
TUNED = "tuned"


def checkpoint_names() -> list[str]:
    """The checkpoints of the catalogue, for shell completion."""
    from gddim_cli.hub.store import names

    return names()


def diffusion_names() -> list[str]:
    """The built-in diffusions, for shell completion."""
    from gddim_cli.diffusions.registry import DIFFUSIONS

    return list(DIFFUSIONS)


Checkpoint = Annotated[
    str,
    about(
        "Checkpoint: a name that `gddim checkpoints` lists, the path of a file, or FILE.py:FUNCTION for a network of your own. "
        "Default: cld-cifar10 if it has been downloaded, else the bundled mnist.",
        panel="Model",
        metavar="NAME|PATH",
        complete=checkpoint_names,
        min_length=1,
    ),
]
DiffusionName = Annotated[
    str,
    about(
        "Diffusion to sample through: a name that `gddim diffusions` lists, a .yaml file with a name and parameters, or a "
        ".py file that defines a diffusion. "
        "Default: the checkpoint's own.",
        panel="Model",
        metavar="NAME|FILE",
        complete=diffusion_names,
        min_length=1,
    ),
]
Classes = Annotated[
    str,
    about(
        "Classes of the images, for a conditional model. A number: only this class. all: all classes in turn. uniform: "
        "random classes, which depend on the seed and the image's index. A list such as 0,1,2 (only in gddim sample and "
        "in plan files): these classes in turn. Default: uniform.",
        panel="Model",
        metavar="N|N,M|uniform|all",
        label="class {}",
        complete=lambda: ["uniform", "all"],
        pattern=r"^[0-9a-z, ]+$",
        max_length=10_000,
    ),
]
Guidance = Annotated[
    float,
    about(
        "Weight w of classifier-free guidance: D(no class) + w (D(class) - D(no class)). Requires a conditional model that was "
        "also trained without labels. Each guided prediction counts as two evaluations. Default: 1 (no guidance).",
        panel="Model",
        label="guidance {}",
        metavar="W",
        ge=0,
        le=100,
    ),
]
Nfe = Annotated[
    int,
    about("Network evaluations per image (NFE), including the denoising step.", label="NFE {}", ge=1, le=100_000),
]
SamplerName = Annotated[
    str,
    about(
        "Sampler: a name that `gddim samplers` lists, or a .py file that defines one.",
        metavar="NAME|FILE",
        complete=lambda: list(SAMPLERS),
    ),
]
Seed = Annotated[
    int,
    about(
        "Seed. The noise of image i depends only on the seed and i, not on batch size or device.",
        label="seed {}",
        ge=0,
        most=LARGEST_SEED,
    ),
]
K = Annotated[
    Literal["R", "L"],
    about(
        "Factor K of the covariance Sigma = K K^T: R (gDDIM's factor) or L (the Cholesky factor). K defines the noise "
        "prediction. Default: the checkpoint's.",
        panel="Advanced",
        label="K = {}",
    ),
]
Denoise = Annotated[
    bool,
    about(
        "End with a denoising step, which takes one evaluation. Default: the checkpoint's.",
        panel="Advanced",
        label="denoising step",
    ),
]
NamedGrid = Annotated[str, msgspec.Meta(pattern=r"^(logsnr|rho:\d+(\.\d+)?)$", description="rho:P")]
TimeGrid = Annotated[
    NamedGrid | Annotated[float, msgspec.Meta(gt=0, le=100)],
    about(
        "Time grid. P: even steps in t^(1/P); linear is the same as 1, and quadratic the same as 2. logsnr: even steps in "
        "the log SNR. rho:P: even steps in (noise level)^(1/P); rho is the same as rho:7. Default: the sampler's or the "
        "checkpoint's, usually quadratic.",
        panel="Advanced",
        label="time grid {}",
        metavar="linear|quadratic|P|logsnr|rho:P",
        aliases={"linear": 1.0, "quadratic": 2.0, "logsnr": "logsnr", "rho": "rho:7"},
    ),
]
TEnd = Annotated[
    float,
    about(
        "Time at which sampling ends, above 0. Default: the checkpoint's.",
        panel="Advanced",
        label="t_end {}",
        gt=0,
        le=1e6,
    ),
]
Quantize = Annotated[
    Literal["floor", "round"],
    about(
        "Rounding when images in [-1, 1] are converted to 0..255. Default: the checkpoint's.",
        panel="Advanced",
        label="quantize {}",
    ),
]
Dtype = Annotated[
    Literal["float32", "float64", "bfloat16", "float16"],
    about(
        "Precision of the network. The long names (float32, ...) are also accepted. 16-bit types run under autocast.",
        panel="Speed",
        label="{}",
        metavar="fp32|fp64|bf16|fp16",
        aliases={"fp32": "float32", "fp64": "float64", "bf16": "bfloat16", "fp16": "float16"},
    ),
]
Tf32 = Annotated[
    bool,
    about(
        "Use TF32 for the network's float32 products, on NVIDIA GPUs. This changes the images slightly.",
        panel="Speed",
        label="tf32",
    ),
]
InitNoise = Annotated[
    str,
    about(
        "File of initial states u_T, used instead of draws from the prior. It is an .npy of shape [N, D, C, H, W], where "
        "D is the state dimension per pixel (2 for CLD); for D = 1, the shape is [N, C, H, W]. For BDM, the states are "
        "spectra. The states are not rescaled, so their standard deviation should be the prior's.",
        panel="Advanced",
        metavar="FILE.npy",
        min_length=1,
    ),
]


class SamplingRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"classes": "class"}
):
    """What to sample. None stands for the default of the checkpoint, the diffusion or the sampler.

    `prepare` resolves a request: it fills in every default, and the fields that a user cannot set, such as the SHA-256
    of files. Equal resolved requests yield equal images.

    Attributes:
        options: the sampler's options by key.
        model_settings: settings that the checkpoint file does not record, by their names in the program that wrote the
            file.
        parameters: the parameters of the diffusion.
        diffusion_sha256, checkpoint_sha256, sampler_sha256, init_noise_sha256: the SHA-256 of the file that
            `diffusion`, `checkpoint`, `sampler` or `init_noise` names.
        batch_size: images per batch, if the images of a batch depend on each other; else None.
    """

    checkpoint: Checkpoint | None = None
    checkpoint_sha256: str | None = None
    model_settings: dict[str, int | float | bool | str | None] = {}
    diffusion: DiffusionName | None = None
    parameters: dict[str, int | float | bool | str | None] | None = None
    diffusion_sha256: str | None = None
    classes: Classes | None = None
    guidance: Guidance | None = None
    sampler: SamplerName = "gddim"
    sampler_sha256: str | None = None
    nfe: Nfe = 50
    seed: Seed = 0
    options: dict[str, int | float | bool | str | None] = {}
    k: K | None = None
    denoise: Denoise | None = None
    time_grid: TimeGrid | None = None
    t_start: float | None = None
    t_end: TEnd | None = None
    quantize: Quantize | None = None
    dtype: Dtype = "float32"
    tf32: Tf32 = False
    init_noise: InitNoise | None = None
    init_noise_sha256: str | None = None
    batch_size: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], where: Mapping[str, str] | None = None) -> SamplingRequest:
        """A request from values by key, as on the command line and in plans; None stands for "not given".

        Args:
            where: for each key, the option or the path in a plan that gave its value, for error messages. Default: the
                setting's flag.

        Raises:
            UsageError: an unknown key, a value outside its range, or an option that the sampler does not have.
        """
        own = {key: value for key, value in given.items() if key in declared(cls)}
        rest = {key: value for key, value in given.items() if key not in own}
        if rest.get("solver") is not None and own.get("sampler") is None:
            own["sampler"] = TUNED
        request = build(cls, own, "sampling", lambda key: (where or {}).get(key, f"--{key.replace('_', '-')}"))
        options = options_of(request.sampler, rest, where)
        defaults = type(options)()
        found = {key: value for key, value in values(options).items() if value != values(defaults)[key]}
        return msgspec.structs.replace(request, options=found)

    @property
    def sampler_options(self) -> msgspec.Struct:
        """The sampler's options as its struct.

        Raises:
            UsageError: an unknown sampler or option, or a value outside its range.
        """
        return options_of(self.sampler, self.options)

    def flat(self) -> dict[str, Any]:
        """All settings by key, including the sampler's options."""
        keys = zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True)
        found = {key: getattr(self, name) for name, key in keys if name != "options"}
        return {**found, **self.options}


def sampling_settings() -> dict[str, Setting]:
    """Every setting of a request by key, including the options of all samplers."""
    return {**declared(SamplingRequest), **sampler_options()}


def differences(old: SamplingRequest, new: SamplingRequest) -> list[str]:
    """The differences between two requests, as `name: old -> new`."""
    a, b = old.flat(), new.flat()
    return [f"{key}: {a.get(key)} -> {b.get(key)}" for key in {**a, **b} if a.get(key) != b.get(key)]


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"sampler": "gddim", "order": 2, "predict": "eps", "k": "R", "time_grid": 2.0},
}
"""Named groups of settings. `paper` is the scheme of arXiv 2206.05564; changes to the defaults do not affect it."""


def with_preset(given: Mapping[str, Any], preset: str | None) -> dict[str, Any]:
    """The given settings together with those of a preset, by key.

    Raises:
        UsageError: an unknown preset, or a given setting whose value differs from the preset's.
    """
    if preset is None:
        return dict(given)
    if preset not in PRESETS:
        raise UsageError(f"--preset: there is no preset '{preset}'; {nearest(preset, PRESETS)}")
    for key, value in PRESETS[preset].items():
        if given.get(key) not in (None, value):
            raise UsageError(
                f"--{key.replace('_', '-')} {given[key]}: the preset {preset} has {value}; leave out one of them"
            )
    return {**given, **PRESETS[preset]}


def refuse_unused(request: SamplingRequest) -> None:
    """Raises UsageError for settings that the sampler would ignore."""
    spec = find_sampler(request.sampler)
    if request.time_grid is not None and not spec.uses_time_grid:
        raise UsageError(f"--time-grid: {spec.name} chooses its own steps; leave --time-grid out")
