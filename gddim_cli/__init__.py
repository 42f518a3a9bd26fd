"""gddim: few-evaluation sampling from linear diffusion models, and FID against NFE."""

__version__ = "0.1.0"
