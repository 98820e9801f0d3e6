"""A denoiser: an estimate of x0 from x_t, made from a network that predicts eps, x0, v or the flow."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from unclip.diffusion.levels import Levels, match, mix, posterior_variance
from unclip.diffusion.likelihood import bits
from unclip.errors import UnclipError


@dataclass(frozen=True)
class Estimate:
    """What a denoiser knows of x0 [B, ...]."""

    x0: Tensor
    frac: Tensor | float = 0.0  # of the log-variance's range: 0 = beta~ ("small"), 1 = beta ("large"), or learned
    grad: Tensor | float = 0.0  # grad_x log p(y | x_t) gathered by guidance, for the step to spend
    plain: Tensor | None = None  # x0 as it was before classifier-free guidance moved it

    def log_var(self, at: Levels, to: Levels) -> Tensor:
        """Log-variance of p(x_to | x_at): between log beta~ and log beta (iDDPM, eq. 15)."""
        small, large = (match(v.log(), self.x0) for v in posterior_variance(at, to))
        return small + self.frac * (large - small)

    def spend(self, at: Levels) -> Tensor:
        """x0 once eps has moved by -sigma * grad (ADM, algorithm 2)."""
        return self.x0 + mix((at.sigma**2 / at.alpha, self.grad)) if isinstance(self.grad, Tensor) else self.x0

    def each(self, f: Callable[[Tensor], Tensor]) -> "Estimate":
        """`f` applied to every field that is a tensor."""
        frac, grad = (f(v) if isinstance(v, Tensor) else v for v in (self.frac, self.grad))
        return Estimate(f(self.x0), frac, grad, self.plain if self.plain is None else f(self.plain))


class Denoise(Protocol):
    """A Denoiser, or any guidance that wraps one. `at` is one row, or a batch [B] of rows."""

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate: ...


# Every parameterisation is y = a x_0 + b eps; here is (a, b) at a level.
PREDICTS: dict[str, Callable[[Levels], tuple[Tensor, Tensor]]] = {
    "eps": lambda at: (torch.zeros_like(at.alpha), torch.ones_like(at.alpha)),  # DDPM, eq. 12
    "x0": lambda at: (torch.ones_like(at.alpha), torch.zeros_like(at.alpha)),
    "v": lambda at: (-at.sigma, at.alpha),  # Salimans & Ho 2202.00512, section 4
    "flow": lambda at: (-torch.ones_like(at.alpha), torch.ones_like(at.alpha)),  # Liu et al. 2209.03003, eq. 1
}


def inverse(predicts: str, at: Levels) -> tuple[Tensor, Tensor]:
    """(c, d) with x_0 = c x_t + d y, from y = a x_0 + b eps and x_t = alpha x_0 + sigma eps."""
    a, b = PREDICTS[predicts](at)
    det = b * at.alpha - a * at.sigma
    return b / det, -at.sigma / det


Weight = Callable[[Levels], Tensor]  # of the squared error of the predicted quantity


def uniform(at: Levels) -> Tensor:
    """Of eps: L_simple (DDPM, eq. 14)."""
    return torch.ones_like(at.alpha)


def min_snr(gamma: float = 5.0, predicts: str = "eps") -> Weight:
    """min(SNR, gamma) on the error of x0 (Hang et al. 2303.09556, section 3.4), carried over to what is predicted."""

    def weight(at: Levels) -> Tensor:
        _, d = inverse(predicts, at)  # an error of y is one of d y in x0
        return (at.alpha / at.sigma).square().clamp(max=gamma) * d.square()

    return weight


def simple(predicts: str) -> Weight:
    """L_simple of the eps that follows from what is predicted, the error of x0 times its whole SNR: of v, alpha^2."""
    return min_snr(math.inf, predicts)


def capped(limit: float = 20.0) -> Weight:
    """min(1 / sigma^2, limit): for a network that predicts x0 this is the loss on v, kept finite near data."""
    return lambda at: (1 / at.sigma.square()).clamp(max=limit)


class Denoiser(nn.Module):
    """`net(x, t, **cond)` [B, C, ...] (2C for a learned variance) with t [B], as a Denoise.

    `predicts` is a key of PREDICTS. `vlb` is iDDPM's lambda times T: 1 for lambda = 0.001 and 1000 steps.

    `floor` > 0 is the squared error of x0 that the network does not get below at any level. x_t / alpha is itself an
    estimate of x0, of squared error (sigma / alpha)^2: the two are weighed by their inverse variances. Such a network
    has learned variances beyond beta to cover its own error; sampling keeps them within the range.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        predicts: str = "eps",
        variance: Literal["small", "large", "learned"] = "small",
        weight: Weight = uniform,
        vlb: float = 1.0,
        floor: float = 0.0,
    ):
        super().__init__()
        if predicts not in PREDICTS:
            raise UnclipError(f"a network cannot predict {predicts!r}: choose one of {', '.join(PREDICTS)}")
        if variance not in ("small", "large", "learned"):
            raise UnclipError(f"no variance is called {variance!r}: choose small, large or learned")
        self.net, self.predicts, self.variance, self.weight = net, predicts, variance, weight
        self.vlb, self.floor = vlb, floor

    def run(self, x: Tensor, at: Levels, **cond) -> tuple[Tensor, Tensor | float]:
        """The network's prediction, in x's dtype whatever it computes in, and its variance fraction."""
        y = self.net(x, at.t, **cond).to(x.dtype)
        if self.variance != "learned":
            return y, float(self.variance == "large")
        y, v = y.chunk(2, dim=1)
        return y, (v + 1) / 2

    def to_x0(self, y: Tensor, x: Tensor, at: Levels) -> Tensor:
        c, d = inverse(self.predicts, at)
        if self.floor:
            own = self.floor / (self.floor + (at.sigma / at.alpha).square())
            c, d = own / at.alpha + (1 - own) * c, (1 - own) * d
        return mix((c, x), (d, y))

    def forward(self, x: Tensor, at: Levels, **cond) -> Estimate:
        at = at.like(x)
        y, frac = self.run(x, at, **cond)
        if self.floor and isinstance(frac, Tensor):
            frac = frac.clamp(0, 1)
        return Estimate(self.to_x0(y, x, at), frac)

    def loss(self, x0: Tensor, at: Levels, to: Levels, noise: Tensor, **cond) -> Tensor:
        """Weighted L_simple (DDPM, eq. 14) of each sample, [B]; with a learned variance L_hybrid (iDDPM, eq. 16).

        x0 and noise [B, ...] in float32; at = levels[i], to = levels[i - 1] for i [B] drawn from 1..T on the CPU.
        """
        weight, at, to = self.weight(at), at.like(x0), to.like(x0)
        x = mix((at.alpha, x0), (at.sigma, noise))  # DDPM, eq. 4
        y, frac = self.run(x, at, **cond)
        a, b = PREDICTS[self.predicts](at)
        loss = mix((weight, (y - mix((a, x0), (b, noise))).square().flatten(1).mean(1)))
        if self.variance == "learned":  # L_vlb teaches the variance alone: the mean is held (iDDPM, section 3.1)
            loss = loss + self.vlb * bits(x0, Estimate(self.to_x0(y.detach(), x, at), frac), at, to)
        return loss
