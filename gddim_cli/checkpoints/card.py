"""A checkpoint's card: everything about a model except its tensors."""

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
    """Shape of the images that a model generates: the number of channels, and the side in pixels."""

    channels: Annotated[int, msgspec.Meta(ge=1, le=16)]
    size: Annotated[int, msgspec.Meta(ge=1, le=1024)]


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model is sampled by default. A field that is None stands for the diffusion's default."""

    t_start: float | None = None
    t_end: float | None = None
    grid_power: float | None = None
    denoise: bool | None = None
    k: KChoice | None = None
    quantize: Literal["floor", "round"] | None = None

    def config(self, diffusion: Diffusion) -> SamplingConfig:
        """The default configuration of `diffusion`, overridden by the fields that are not None."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return dataclasses.replace(diffusion.sampling, **own)


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a published file can be downloaded, and what is known about it.

    Attributes:
        file: the file's name, which is the same on a mirror.
        format: the name of a checkpoint format, or `native`, or `verbatim` (the file is kept unconverted).
        settings: values, by name, of format options that are not recorded in the file.
        size: approximate size in bytes.
        google_drive: the file's id on Google Drive.
        google_drive_folder: the id of the folder on Google Drive that contains the file.
        smallest_number: what to do if the folder on Google Drive has no `file`. If True, a file is taken
            whose name differs only in the number, such as `checkpoint_12` for `checkpoint_26`; of several such files, the one
            with the smallest number.
        hugging_face: the repository on the Hugging Face Hub.
        url: the file's address on any other server.
        sha256: the published SHA-256, or its first digits.
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
        """The address of a page from which the file can be downloaded with a browser."""
        if self.google_drive:
            return f"https://drive.google.com/file/d/{self.google_drive}/view"
        if self.google_drive_folder:
            return f"https://drive.google.com/drive/folders/{self.google_drive_folder}"
        if self.hugging_face:
            return f"https://huggingface.co/{self.hugging_face}"
        return self.url or "nowhere"


class FileCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A published file that is not a checkpoint: reference statistics, or a feature network.

    Attributes:
        name: the name to give to `gddim download`.
        kind: `statistics`, `inception` (an Inception network) or `network` (another feature network).
        arrays: for an .npz, the names of the arrays that it must hold.
    """

    name: str
    title: str
    kind: Literal["statistics", "inception", "network"]
    source: Source
    arrays: list[str] = []
    license: dict[str, str] = {}
    cite: list[str] = []


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known about one checkpoint.

    Attributes:
        name: the name to give to `--checkpoint`.
        title: a description in one line.
        network: the network's kind (`kind`) and its arguments.
        parameterization: what the network predicts. `eps`: the noise in the card's own diffusion, with gDDIM's K = R.
            `mixed_score`: the learned part of the velocity's score, as in CLD-SGM. Any other name is one of the
            conventions in `gddim_cli.models.conventions`; each turns a prediction into a denoiser for isotropic noise.
            A denoiser can be sampled in every diffusion whose matrices are the same for all pixels.
        diffusion: the diffusion's name (`name`) and parameters.
        time_scale: for `eps` and `mixed_score`, the network's time input at time t is `time_scale * t`.
        convention: the parameters of the convention that `parameterization` names.
        labels: number of classes; 0 if the network takes no class labels.
        noise_range: the lowest and highest noise level that the network supports, as standard deviations for images in
            [-1, 1].
        data_range: the range of pixel values in training.
        preprocessing: a description of what is done to images before training and after sampling.
        sha256: SHA-256 of the native weights file, if pinned.
        source: where the authors published the file.
        published: the results that the authors report.
        reference: the name of the reference statistics against which the published FID was measured.
        parameters: number of weights.
        training: how the model was trained: data, number of steps, duration, machine.
        license: licenses of the weights and of the data.
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
                raise ValueError(f"{name} {found[0]:g} to {found[1]:g} is not increasing")

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
