"""A checkpoint's card: everything about a model that its tensors do not say."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import msgspec

from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.diffusions.registry import make_diffusion
from gddim_cli.errors import CheckpointError, UsageError
from gddim_cli.runtime.text import printable

NoiseLevel = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the images that a model makes."""

    channels: Annotated[int, msgspec.Meta(ge=1, le=16)]
    size: Annotated[int, msgspec.Meta(ge=1, le=1024)]


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model is sampled by default; what is absent is the diffusion's default."""

    t_start: float | None = None
    t_end: float | None = None
    grid_power: float | None = None
    denoise: bool | None = None
    k: KChoice | None = None
    quantize: Literal["floor", "round"] | None = None

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """These values, and the diffusion's own for those that are absent."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return dataclasses.replace(diffusion.sampling, **own)


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a published file is.

    Attributes:
        file: its name; a mirror has it under that name.
        format: a checkpoint format's name, `native`, or `verbatim` for files that are kept as they are.
        settings: what the file does not tell, by the names of the format's options.
        size: in bytes, about: few of the sizes are published.
        google_drive: its id there.
        google_drive_folder: the id of the folder it is in.
        smallest_number: where the folder has no such file, the one of its name with the smallest number is meant.
        hugging_face: the repository on the Hugging Face Hub.
        url: its address elsewhere.
        sha256: pinned, whole or its beginning, where one is published.
    """

    file: str
    format: str
    size: int
    settings: dict[str, Any] = {}
    google_drive: str | None = None
    google_drive_folder: str | None = None
    smallest_number: bool = False
    hugging_face: str | None = None
    url: str | None = None
    sha256: str | None = None

    @property
    def page(self) -> str:
        """The address at which a browser shows the file."""
        if self.google_drive:
            return f"https://drive.google.com/file/d/{self.google_drive}/view"
        if self.google_drive_folder:
            return f"https://drive.google.com/drive/folders/{self.google_drive_folder}"
        if self.hugging_face:
            return f"https://huggingface.co/{self.hugging_face}"
        return self.url or "nowhere"


class FileCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A published file that is no checkpoint: the statistics of a reference, an Inception or another network.

    Attributes:
        name: what `gddim download` calls it.
        kind: what it is.
        arrays: what an .npz has in it.
    """

    name: str
    title: str
    kind: Literal["statistics", "inception", "network"]
    source: Source
    arrays: list[str] = []
    license: dict[str, str] = {}
    cite: list[str] = []


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One checkpoint.

    Attributes:
        name: what `--checkpoint` calls it.
        title: one line on what it is.
        network: its kind (`kind`) and its arguments.
        parameterization: what the network predicts. A convention of `gddim_cli.models.conventions` makes it an isotropic
            denoiser, which can be sampled in any diffusion per pixel. `eps` is the noise prediction for K = R in the card's
            own diffusion, `mixed_score` CLD-SGM's part of the velocity's score.
        diffusion: its name (`name`) and parameters.
        time_scale: the network's time in units of t, for `eps` and `mixed_score`.
        convention: the parameters of the convention.
        labels: number of classes; 0: the network takes none.
        noise_range: the standard deviations of the noise that the network supports, for images in [-1, 1].
        data_range: of the images that the network was trained on.
        preprocessing: of images before training and after sampling, in words.
        sha256: of the native weights file, where it is pinned.
        source: where the authors published it.
        published: what they report of it.
        reference: the named reference statistics that its published FID was measured against.
        parameters: numbers in the network.
        training: data, steps, time, machine: how it came about.
        license: of weights and data.
    """

    name: str
    title: str
    images: Images
    network: dict[str, Any]
    parameterization: str
    diffusion: dict[str, Any]
    time_scale: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    convention: dict[str, Any] = {}
    labels: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    noise_range: tuple[NoiseLevel, NoiseLevel] | None = None
    data_range: tuple[float, float] = (-1.0, 1.0)
    preprocessing: str = ""
    sampling: Sampling = Sampling()
    sha256: str | None = None
    source: Source | None = None
    published: dict[str, Any] = {}
    reference: str | None = None
    parameters: int | None = None
    training: dict[str, Any] = {}
    license: dict[str, str] = {}
    cite: list[str] = []

    def __post_init__(self) -> None:
        for name in ("noise_range", "data_range"):
            found = getattr(self, name)
            if found is not None and not found[0] < found[1]:
                raise ValueError(f"{name} {found[0]:g} to {found[1]:g} does not rise")

    def make_diffusion(self) -> Diffusion:
        """The card's diffusion.

        Raises:
            CheckpointError: the card names an unknown one, or parameters that it does not have.
        """
        parameters = dict(self.diffusion)
        try:
            return make_diffusion(str(parameters.pop("name", "")), parameters)
        except UsageError as error:
            raise CheckpointError(f"card of {printable(self.name)}: {printable(error, 300)}") from error
