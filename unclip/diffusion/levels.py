"""Levels: the noise schedule as a table. x_t = alpha_t x_0 + sigma_t eps, from t = 0 (data) to T (noise)."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, repeat

import torch
from torch import Tensor

from unclip.errors import UnclipError


def match(c: Tensor, v: Tensor) -> Tensor:
    """Coefficient `c` where it can multiply `v`. A scalar may stay on the CPU in float64: torch reads it for free."""
    return c if c.ndim == 0 else c.to(v, non_blocking=True)


def mix(*terms: tuple[Tensor, Tensor]) -> Tensor:
    """Sum of coefficient * tensor: the coefficients are worked out in float64, the result has the tensors' dtype."""
    first, *rest = (match(c, v) * v for c, v in terms)
    return sum(rest, start=first)


@dataclass(frozen=True)
class Levels:
    """Rows of a noise schedule: one row (scalars), a training batch ([B]) or a whole chain ([T + 1], row 0 is data).

    The columns are float64 on the CPU, because 1 - alpha^2 of a first step is lost in float32.
    """

    alpha: Tensor
    sigma: Tensor
    t: Tensor  # the time the network was trained to see
    floor: float = 0.0  # stands in for the zero posterior variance of the last step, 1 -> 0
    single: bool = False  # steps are worked out from 1 - beta in single precision, as diffusers does

    @classmethod
    def of(cls, abar: Tensor, t: Tensor) -> "Levels":
        """The variance-preserving chain with alpha^2 = `abar` [T + 1], `abar[0]` = 1, seen by the network as `t`."""
        return cls(abar.sqrt(), (1 - abar).sqrt(), t)._floored()

    @classmethod
    def from_betas(cls, betas: Tensor) -> "Levels":
        """The chain of DDPM's betas [T] (DDPM, eq. 4); networks call its first noisy row time 0."""
        abar = torch.cat([torch.ones(1), 1 - betas.double()]).cumprod(0)
        return cls.of(abar, torch.arange(len(abar)) - 1)

    def _floored(self) -> "Levels":
        """iDDPM, section 3.1: the last step borrows the variance of the step before it (or is large, if alone)."""
        small, large = posterior_variance(self[1:], self[:-1])
        return replace(self, floor=(small[1] if len(small) > 1 else large[0]).item())

    def __len__(self) -> int:
        return len(self.alpha)

    @property
    def log_snr(self) -> Tensor:
        """lambda = log alpha / sigma, half the logarithm of the signal-to-noise ratio; infinite at data."""
        return (self.alpha / self.sigma).log()

    def over(self, to: "Levels") -> Tensor:
        """alpha at this level over that at `to`, of less noise."""
        ratio = self.alpha / to.alpha
        return (1 - (1 - ratio.square().float())).double().sqrt() if self.single else ratio

    def __getitem__(self, i: int | slice | Tensor) -> "Levels":
        return replace(self, alpha=self.alpha[i], sigma=self.sigma[i], t=self.t[i])

    def spaced(self, steps: Iterable[int]) -> "Levels":
        """Keep only these `steps` out of 1..T, and data: respacing is indexing. The floor is the new chain's own."""
        rows = sorted(set(steps))
        if not rows or rows[0] < 1 or rows[-1] >= len(self):
            raise UnclipError(f"cannot keep steps {rows[:1]}..{rows[-1:]}: choose at least one from 1..{len(self) - 1}")
        return self[torch.tensor([0, *rows])]._floored()

    def like(self, x: Tensor) -> "Levels":
        """Shaped to multiply `x` [B, ...], with t [B] on x's device. The coefficients stay on the CPU until mixed."""
        if self.alpha.ndim == 0:
            alpha, sigma = self.alpha, self.sigma
        else:
            alpha, sigma = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in (self.alpha, self.sigma))
        return replace(self, alpha=alpha, sigma=sigma, t=self.t.expand(len(x)).to(x.device, non_blocking=True))

    def repeat(self, times: int) -> "Levels":
        """A training batch's rows several times over, end to end; one row is left as it is."""
        return self if self.alpha.ndim == 0 else self[torch.arange(len(self)).repeat(times)]

    def down(self) -> Iterator[tuple["Levels", "Levels"]]:
        """(at, to) from noise to data: T -> T-1, ..., 1 -> 0."""
        return pairwise(self[i] for i in reversed(range(len(self))))

    def up(self) -> Iterator[tuple["Levels", "Levels"]]:
        """(at, to) from the first noisy row up, 1 -> 2, ..., T-1 -> T: the way of inversion, data taken for x_1."""
        return pairwise(self[i] for i in range(1, len(self)))


def linear(T: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Betas [T] of DDPM, section 4, with its ends given for 1000 steps and scaled to T (iDDPM's code)."""
    return torch.linspace(first * 1000 / T, last * 1000 / T, T, dtype=torch.float64)


def scaled(T: int, first: float = 0.00085, last: float = 0.012) -> Tensor:
    """Betas [T] whose square roots are evenly spaced (latent diffusion's code)."""
    return torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64) ** 2


def cosine(T: int) -> Tensor:
    """Betas [T] of iDDPM, eq. 17: abar_t = f(t) / f(0), f(t) = cos^2((t/T + s) / (1 + s) pi/2), s = 0.008."""
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def spread(T: int, *counts: int) -> list[int]:
    """counts[i] steps, evenly spread over the i-th of len(counts) equal sections of 1..T, both ends of it kept.

    `spread(1000, 25)` is the respacing "25" of iDDPM's code, `spread(1000, 10, 15, 20)` its "10,15,20".
    """
    steps, start = [], 1
    for i, n in enumerate(counts):
        size = len(range(i, T, len(counts)))
        if not 1 <= n <= size:
            raise UnclipError(f"cannot spread {n} steps over a section of {size}: ask for 1 to {size}")
        stride = (size - 1) / (n - 1) if n > 1 else 1.0
        steps += [start + round(k) for k in accumulate(repeat(stride, n - 1), initial=0.0)]
        start += size
    return steps


def karras(levels: Levels, n: int, rho: float = 7.0, most: float = 80.0) -> list[int]:
    """n steps of the whole chain `levels` with sigma / alpha spaced as EDM's (Karras et al. 2206.00364, eq. 5), each on
    the nearest row that is free. The first is the noisiest row with sigma / alpha <= most: beyond it a step is lost."""
    T, ratio = len(levels) - 1, levels.sigma[1:] / levels.alpha[1:]
    if not 1 <= n <= T:
        raise UnclipError(f"cannot choose {n} of {T} steps: ask for 1 to {T}")
    ends = torch.stack([ratio[0], ratio[ratio <= most].max()]) ** (1 / rho)
    want = ends[0].lerp(ends[1], torch.linspace(1, 0, n, dtype=torch.float64).flip(0)) ** rho
    nearest = 1 + (want.log()[:, None] - ratio.log()).abs().argmin(1)
    i = torch.arange(n)
    rows = (nearest - i).cummax(0).values + i  # each above the one before
    return torch.minimum(rows, T - n + 1 + i).tolist()


def strides(T: int, n: int) -> list[int]:
    """n steps that cut 1..T into equal parts, the last of them T: the levels of few-step students.

    Unlike `spread` it leaves out the first step, which a sampler that has few would waste.
    """
    if not 1 <= n <= T:
        raise UnclipError(f"cannot cut {T} steps into {n} strides: ask for 1 to {T}")
    return [round(T * (k + 1) / n) for k in range(n)]


def hops(T: int, n: int) -> list[int]:
    """n of 1..T, each as far from the one before, the first kept: "ddim25" of iDDPM's code is `hops(1000, 25)`."""
    steps = list(range(1, T + 1, -(-T // n))) if 1 <= n <= T else []
    if len(steps) != n:
        near = f"; {len(steps)} would do" if steps else f": ask for 1 to {T}"
        raise UnclipError(f"{n} steps cannot lie equally far apart in {T}{near}")
    return steps


def posterior_variance(at: Levels, to: Levels) -> tuple[Tensor, Tensor]:
    """(beta~, beta): least and greatest sensible variance of p(x_to | x_at) (DDPM, eq. 7 and section 3.2).

    beta = sigma_at^2 - (alpha_at / alpha_to)^2 sigma_to^2, which is 1 - alpha_at^2 / alpha_to^2 where variance is kept.
    """
    beta = at.sigma**2 - (at.over(to) * to.sigma) ** 2
    return (beta * to.sigma**2 / at.sigma**2).where(to.sigma > 0, at.floor), beta


def posterior_mean(x: Tensor, x0: Tensor, at: Levels, to: Levels) -> Tensor:
    """Mean of q(x_to | x_at = x, x_0) (DDPM, eq. 7)."""
    _, beta = posterior_variance(at, to)
    return mix((to.alpha * beta / at.sigma**2, x0), (at.over(to) * to.sigma**2 / at.sigma**2, x))
