"""The registry of conventions, by the names that model cards give as `parameterization`."""

from __future__ import annotations

from gddim_cli.models.conventions import direct, edm, flow, subvp, ve, vp
from gddim_cli.models.conventions.base import ConventionSpec
from gddim_cli.runtime.registry import Registry

CONVENTIONS = Registry(
    "parameterization",
    ConventionSpec,
    [direct.SPEC, edm.SPEC, vp.NOISE, vp.VELOCITY, vp.CLEAN_IMAGE, subvp.SPEC, ve.SCORE, ve.RESIDUAL, flow.SPEC],
)
