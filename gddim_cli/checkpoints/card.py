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
        file: the file's name, also on a mirror.
        format: a checkpoint format's name, `native`, or `verbatim` for files that are kept as they are.
        settings: what the file does not record, by the names of the format's options.
        size: approximate size in bytes; few exact sizes are published.
        google_drive: the file's id on Google Drive.
        google_drive_folder: the id of its folder on Google Drive.
        smallest_number: if that folder has no file of this name, take the one whose name differs in its number only, the
            smallest.
        hugging_face: the repository on the Hugging Face Hub.
        url: the file's address on another server.
        sha256: the published SHA-256, whole or its beginning.
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
    """A published file that is not a checkpoint: the statistics of a reference, an Inception or another network.

    Attributes:
        name: what `gddim download` calls it.
        kind: the kind of file.
        arrays: the arrays of an .npz.
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
        data_range: the range of the images that the network was trained on.
        preprocessing: what is done to images before training and after sampling, in words.
        sha256: SHA-256 of the native weights file, if pinned.
        source: where the authors published the file.
        published: the results that the authors report.
        reference: the named reference statistics that its published FID was measured against.
        parameters: number of weights.
        training: data, steps, time and machine of the training.
        license: licences of the weights and of the data.
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
            CheckpointError: the card names an unknown diffusion, or parameters that the diffusion does not have.
        """
        parameters = dict(self.diffusion)
        try:
            return make_diffusion(str(parameters.pop("name", "")), parameters)
        except UsageError as error:
            raise CheckpointError(f"card of {printable(self.name)}: {printable(error, 300)}") from error
