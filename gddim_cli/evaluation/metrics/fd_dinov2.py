"""The Frechet distance between features of DINOv2 (Stein et al., arXiv 2306.04675)."""

from __future__ import annotations

from dataclasses import replace

from gddim_cli.evaluation.metrics.fid import FID

FD_DINOV2 = replace(FID, name="dino", title="FD-DINOv2", generic_title=None, mode="dinov2")
