"""A checkpoint's card: everything about a model that its tensors do not say."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import msgspec

from gddim_cli.diffusions.base import Diffusion, KChoice, SamplingConfig
from gddim_cli.diffusions.registry import make_diffusion
from gddim_cli.errors import CheckpointError, UsageError


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the images a model makes."""

    channels: int
    size: int


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model is sampled unless the person says otherwise; what is absent is the diffusion's default."""

    t_start: float | None = None
    t_end: float | None = None
    grid_power: float | None = None
    denoise: bool | None = None
    k: KChoice | None = None
    quantize: Literal["floor", "round"] | None = None

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """These values, and the diffusion's own where there is none."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return dataclasses.replace(diffusion.sampling, **own)


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a published file is.

    Attributes:
        file: its name; a mirror has it under that name.
        format: a checkpoint format's name, `native`, or `verbatim` for files that are kept as they are.
        settings: what the file does not tell, by the names of the format's options.
        size: in bytes, about: none of the sizes is published.
        google_drive: its id there.
        google_drive_folder: the id of the folder it is in.
        url: its address elsewhere.
        sha256: pinned, whole or its beginning, where one is published.
    """

    file: str
    format: str
    size: int
    settings: dict[str, Any] = {}
    google_drive: str | None = None
    google_drive_folder: str | None = None
    url: str | None = None
    sha256: str | None = None

    @property
    def page(self) -> str:
        """The address at which a person finds the file."""
        if self.google_drive:
            return f"https://drive.google.com/file/d/{self.google_drive}/view"
        if self.google_drive_folder:
            return f"https://drive.google.com/drive/folders/{self.google_drive_folder}"
        return self.url or "nowhere"


class FileCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A published file that is no checkpoint: a reference's statistics, or an Inception network.

    Attributes:
        name: what `gddim download` calls it.
        kind: what it is.
        arrays: what an .npz has in it.
    """

    name: str
    title: str
    kind: Literal["statistics", "inception"]
    source: Source
    arrays: list[str] = []
    license: dict[str, str] = {}
    cite: list[str] = []


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One checkpoint.

    Attributes:
        name: what `--checkpoint` calls it.
        title: one line on what it is.
        parameterization: what the network predicts: `denoiser` is `E[x_0 | x_0 + N(0, sigma^2)]`, `eps` the noise
            prediction for K = R in the card's own diffusion, `mixed_score` CLD-SGM's part of the velocity's score.
        network: its kind (`kind`) and its arguments.
        diffusion: its name (`name`) and parameters.
        time_scale: the network's time in units of t.
        preprocessing: of images before training and after sampling, in words.
        sha256: of the native weights file, where it is pinned.
        source: where the authors published it.
        published: what they report of it.
        parameters: numbers in the network.
        training: data, steps, time, machine: how it came about.
        license: of weights and data.
    """

    name: str
    title: str
    images: Images
    network: dict[str, Any]
    parameterization: Literal["denoiser", "eps", "mixed_score"]
    diffusion: dict[str, Any]
    time_scale: float = 1.0
    preprocessing: str = ""
    sampling: Sampling = Sampling()
    sha256: str | None = None
    source: Source | None = None
    published: dict[str, Any] = {}
    parameters: int | None = None
    training: dict[str, Any] = {}
    license: dict[str, str] = {}
    cite: list[str] = []

    def make_diffusion(self) -> Diffusion:
        """The diffusion that the card names.

        Raises:
            CheckpointError: the card names none that there is.
        """
        parameters = dict(self.diffusion)
        try:
            return make_diffusion(str(parameters.pop("name", "")), parameters)
        except UsageError as error:
            raise CheckpointError(f"card of {self.name}: {error}") from error
