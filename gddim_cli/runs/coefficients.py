"""gDDIM's coefficients for a request, computed without a model, for use in other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gddim_cli.diffusions.base import check_times
from gddim_cli.diffusions.registry import find_diffusion
from gddim_cli.numerics.quadrature import Array
from gddim_cli.runs.prepare import given_config
from gddim_cli.runs.request import SamplingRequest
from gddim_cli.samplers import gddim
from gddim_cli.samplers.coefficients import Coefficients
from gddim_cli.samplers.stochastic import step_covariance


def coefficients_of(given: Mapping[str, Any]) -> tuple[str, Coefficients, Array]:
    """The diffusion's name, gDDIM's coefficients, and the covariance of each step's noise, [N, D, D].

    Args:
        given: settings by key; `diffusion` is required.

    Raises:
        UsageError: a setting is unknown, outside its range, or not supported by the sampler or the diffusion.
    """
    request = SamplingRequest.of(given)
    diffusion = find_diffusion(str(request.diffusion))
    config = dataclasses.replace(diffusion.sampling, **given_config(request))
    check_times(diffusion, config)
    options = request.sampler_options
    assert isinstance(options, gddim.GddimOptions)
    found = gddim.prepare(diffusion, config, request.nfe - config.denoise, options).coefficients
    assert found is not None  # Only gDDIM with the corrector has no coefficients, and no caller asks for the corrector.
    return diffusion.name, found, step_covariance(diffusion, found.t, options.lam)
