"""Samplers: each is one step function (x, est, at, to, past, randn) -> x at `to`; `walk` drives them all."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Estimate
from unclip.diffusion.draw import white
from unclip.diffusion.levels import Levels, mix, posterior_mean, posterior_variance

Randn = Callable[[Tensor], Tensor]
Past = tuple[Levels, Estimate] | None  # the step before: where it was, what was estimated there
Step = Callable[[Tensor, Estimate, Levels, Levels, Past, Randn], Tensor]


def walk(
    denoise: Denoise, x: Tensor, path: Iterable[tuple[Levels, Levels]], step: Step, randn: Randn = white, **cond
) -> Iterator[tuple[Tensor, Estimate]]:
    """Walk `x` [B, ...] along `path` (levels.down() samples, levels.up() inverts).

    Yields, after every step, x at its new level and the estimate it was made from: previews come free.
    """
    past = None
    for at, to in path:
        est = denoise(x, at, **cond)
        x = step(x, est, at, to, past, randn)
        past = at, est
        yield x, est


def move(x: Tensor, x0: Tensor, at: Levels, to: Levels) -> Tensor:
    """The noise-free step: keep eps, change its scale (DDIM, eq. 12 with sigma = 0; DPM-Solver++(1))."""
    ratio = to.sigma / at.sigma
    return mix((ratio, x), (to.alpha - at.alpha * ratio, x0))


def _ancestral(x: Tensor, est: Estimate, at: Levels, to: Levels, log_var: Tensor, randn: Randn) -> Tensor:
    """A draw from N(mean, var), the gradient spent on the mean (ADM, algorithm 1); the last step keeps the mean."""
    mean = posterior_mean(x, est.x0, at, to) + log_var.exp() * est.grad
    return mean if to.sigma == 0 else mean + (0.5 * log_var).exp() * randn(x)


def ddpm(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
    """Ancestral sampling with the estimate's own variance (DDPM, algorithm 2)."""
    return _ancestral(x, est, at, to, est.log_var(at, to), randn)


def analytic(mse: Tensor) -> Step:
    """Ancestral sampling with the best variance, beta~ + (d mean / d x0)^2 E Var[x0 | x_t] (Analytic-DPM, theorem 1).

    `mse` [T] is the denoiser's mean squared error of x0 at each trained time: for the best denoiser that is the
    expected variance of x0 given x_t.
    """

    def step(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
        small, beta = posterior_variance(at, to)
        best = small + (to.alpha * beta / at.sigma**2) ** 2 * mse[at.t]
        return _ancestral(x, est, at, to, best.log(), randn)

    return step


def ddim(eta: float = 0.0) -> Step:
    """DDIM, eq. 12 and 16: `eta` 0 draws nothing, 1 is as random as ancestral sampling."""

    def step(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
        x0 = est.spend(at)
        if eta == 0 or to.sigma == 0:
            return move(x, x0, at, to)
        s = eta * posterior_variance(at, to)[0].sqrt()
        quiet = replace(to, sigma=(to.sigma**2 - s**2).clamp(min=0).sqrt())
        return move(x, x0, at, quiet) + mix((s, randn(x)))

    return step


def dpmpp_2m(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2211.01095, algorithm 2): `move` with x0 extrapolated in lambda = log alpha/sigma."""
    x0 = est.spend(at)
    if past is None or to.sigma == 0:
        return move(x, x0, at, to)
    was, before = past
    l0, l1, l2 = ((level.alpha / level.sigma).log() for level in (was, at, to))
    r = (l1 - l0) / (l2 - l1)
    return move(x, mix((1 + 0.5 / r, x0), (-0.5 / r, before.spend(was))), at, to)


def renoise(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
    """Few-step students: jump to x0, noise it anew (Consistency Models 2303.01469, algorithm 1)."""
    x0 = est.spend(at)
    return x0 if to.sigma == 0 else mix((to.alpha, x0), (to.sigma, randn(x)))
