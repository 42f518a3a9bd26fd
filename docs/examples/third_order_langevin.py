"""A diffusion of position, velocity and acceleration, as an example of a user's own diffusion.

    gddim check docs/examples/third_order_langevin.py
    gddim sample --diffusion docs/examples/third_order_langevin.py --nfe 50 --out images/

Noise enters through the acceleration only, so the path of a pixel has one derivative more than in critically-damped
Langevin diffusion (CLD), where noise enters through the velocity:

    dx =  c beta v dt
    dv = -c beta x dt + g beta a dt
    da = -g beta v dt - f beta a dt + sqrt(2 f beta) dw

`F + F^T = -GG`, so N(0, I) is stationary. The characteristic polynomial of the drift, in units of beta, is
`s^3 + f s^2 + (c^2 + g^2) s + c^2 f`. It is `(s + 1)^3`, which is critical damping, for `f = 3`, `c = sqrt(1/3)` and
`g = sqrt(8/3)`.
"""

from dataclasses import dataclass

import numpy as np

from gddim_cli.diffusions.base import Diffusion, SamplingConfig

C, G, FRICTION = np.sqrt(1 / 3), np.sqrt(8 / 3), 3.0
DRIFT = np.array([[0.0, C, 0.0], [-C, 0.0, G], [0.0, -G, -FRICTION]])
NOISE = np.diag([0.0, 0.0, 2 * FRICTION])


@dataclass(frozen=True)
class ThirdOrderLangevin(Diffusion):
    """Critically damped Langevin dynamics of third order: `u = (x, v, a)`, `F = beta DRIFT`, `GG = beta NOISE`.

    Attributes:
        beta: the rate; the image fades as `e^{-beta t}` times a quadratic in t.
        variance: of velocity and acceleration at t = 0.
        eps: the small variance of the image at t = 0.
    """

    name = "third-order-langevin"
    D = 3
    sampling = SamplingConfig(denoise=True)

    beta: float = 11.0
    variance: float = 0.04
    eps: float = 1e-6

    def F(self, t):
        return np.broadcast_to(self.beta * DRIFT, (*np.shape(t), 3, 3))

    def GG(self, t):
        return np.broadcast_to(self.beta * NOISE, (*np.shape(t), 3, 3))

    @property
    def Sigma_0(self):
        return np.diag([self.eps, self.variance, self.variance])

    @property
    def prior_factor(self):
        return np.eye(3)

    # The four members above are enough. A closed form of Psi is faster, and `gddim check` compares it with F.

    def Psi(self, t, s):
        """`e^{-b} (I + b N + b^2 N^2 / 2)` with `b = beta (t - s)`, since `N = DRIFT + I` has `N^3 = 0`."""
        b = self.beta * (np.asarray(t, dtype=np.float64) - s)[..., None, None]
        n = DRIFT + np.eye(3)
        return np.exp(-b) * (np.eye(3) + b * n + b**2 / 2 * n @ n)
