"""DDIM with eta (Song, Meng & Ermon, arXiv 2010.02502), for diffusions with one number a pixel or a frequency."""

from __future__ import annotations

import numpy as np

from gddim_cli.diffusions.base import Diffusion
from gddim_cli.numerics.quadrature import Array
from gddim_cli.samplers.coefficients import Coefficients, denoising_step


def ddim_coefficients(diffusion: Diffusion, t: Array, eta: float, denoise: bool = False) -> Coefficients:
    """From t to s < t, with `u_t = a_t x_0 + s_t eps`: `a_s x0hat + sqrt(s_s^2 - sigma^2) eps + sigma z` (Eq. 12),

    `x0hat = (u_t - s_t eps) / a_t`, `sigma = eta (s_s / s_t) sqrt(s_t^2 - (a_t / a_s)^2 s_s^2)`.

    eta = 0 is gDDIM of order 0. eta = 1 draws from `p(u_s | u_t, x0hat)`: ancestral sampling, for BDM in each frequency
    (Hoogeboom & Salimans, arXiv 2209.05557).
    """
    then, now = diffusion.R(t[:-1]), diffusion.R(t[1:])
    back = diffusion.Psi(t[1:], t[:-1])  # a_s / a_t
    sigma = eta * now / then * np.sqrt(np.maximum(then**2 - (now / back) ** 2, 0.0))
    c = np.sqrt(np.maximum(now**2 - sigma**2, 0.0)) - back * then
    last = denoising_step(diffusion, t[-1], "R") if denoise else None
    return Coefficients(t, back, c[:, None], "R", last, sigma if eta else None)
