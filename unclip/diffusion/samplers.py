"""Samplers: each is one step function (x, est, at, to, past, randn) -> x at `to`; `walk` drives them all."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from unclip.diffusion.denoiser import PREDICTS, Denoise, Estimate, inverse
from unclip.diffusion.draw import white
from unclip.diffusion.levels import Levels, match, mix, posterior_mean, posterior_variance

Randn = Callable[[Tensor], Tensor]
Past = tuple[tuple[Levels, Estimate, Tensor], ...]  # the last four steps, latest first: where, the estimate there, x
Step = Callable[[Tensor, Estimate, Levels, Levels, Past, Randn], Tensor]


def walk(
    denoise: Denoise, x: Tensor, path: Iterable[tuple[Levels, Levels]], step: Step, randn: Randn = white, **cond
) -> Iterator[tuple[Tensor, Estimate]]:
    """Walk `x` [B, ...] along `path` (levels.down() samples, levels.up() inverts).

    Yields, after every step, x at its new level and the estimate it was made from: previews come free.
    """
    past: Past = ()
    for at, to in path:
        est = denoise(x, at, **cond)
        x, was = step(x, est, at, to, past, randn), x
        past = ((at, est, was), *past[:3])
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
    expected variance of x0 given x_t. [T, ...] gives each element of x0 its own.
    """

    def step(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
        small, beta = posterior_variance(at, to)
        best = small + (to.alpha * beta / at.sigma**2) ** 2 * mse[at.t]
        return _ancestral(x, est, at, to, match(best.log(), x), randn)

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


def ahead(x0: Tensor, at: Levels, to: Levels, past: Past) -> Tensor:
    """x0 as it may be half-way to `to`: extrapolated in lambda = log alpha/sigma from the step before."""
    if not past or to.sigma == 0:
        return x0
    (was, before, _), *_ = past
    r = (at.log_snr - was.log_snr) / (to.log_snr - at.log_snr)
    return mix((1 + 0.5 / r, x0), (-0.5 / r, before.spend(was)))


def dpmpp_2m(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2211.01095, algorithm 2): `move` with x0 extrapolated."""
    return move(x, ahead(est.spend(at), at, to, past), at, to)


def dpmpp_sde(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2211.01095, eq. 18): ancestral sampling with x0 extrapolated."""
    est = Estimate(ahead(est.spend(at), at, to, past))
    return _ancestral(x, est, at, to, est.log_var(at, to), randn)


def unipc(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
    """UniPC of order 3 (Zhao et al. 2302.04867, algorithms 5 and 6): DPM-Solver++(2M), and before each step the one
    before it is put right by the estimate at its end. That costs no call of the denoiser.

    A step is affine in x0: to put it right is to add what a better x0 would have added.
    """
    x0 = est.spend(at)
    if past:
        (was, before, _), *older = past
        used = ahead(before.spend(was), was, at, tuple(older))
        better = between(x0, at, past)
        x = x + mix((at.alpha - was.alpha * at.sigma / was.sigma, better - used))
    return move(x, ahead(x0, at, to, past), at, to)


def between(x0: Tensor, at: Levels, past: Past) -> Tensor:
    """The mean of x0 over the step that ended at `at`, weighed by e^lambda as the exact solution weighs it
    (DPM-Solver++, eq. 8): of the polynomial through the estimates at both ends and at the step before, if any."""
    (was, before, _), *older = past
    start, h = before.spend(was), at.log_snr - was.log_snr
    one = -1 / torch.expm1(-h) - 1 / h  # the means of u and u^2, where lambda is that of `was` + u h
    two = -1 / torch.expm1(-h) - 2 * one / h
    if not older:
        return mix((1 - one, start), (one, x0))
    (long_ago, oldest, _), *_ = older
    r = (was.log_snr - long_ago.log_snr) / h
    bend = (two - one) / (1 + r)  # of the second divided difference, ((x0 - start) - (start - oldest) / r) / (1 + r)
    return mix((1 - one - bend - bend / r, start), (one + bend, x0), (bend / r, oldest.spend(long_ago)))


ADAMS = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def plms(predicts: str = "eps") -> Step:
    """PNDM by linear multisteps alone (Liu et al. 2202.09778, eq. 12): `move` by eps extrapolated from four steps, or
    by whatever else the network predicts, as diffusers has it; by v it is of first order alone.

    Steps before the fourth know fewer. Where the path stays at the level that its first step led to, see `twice`, that
    step is put right by the mean of both its ends.
    """

    def said(at: Levels, est: Estimate, x: Tensor) -> Tensor:
        a, b = PREDICTS[predicts](at)
        return mix((a - b * at.alpha / at.sigma, est.spend(at)), (b / at.sigma, x))

    def step(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
        if len(past) == 1 and at.t == to.t:
            ((was, before, x_was),) = past
            y, x, at = (said(at, est, x) + said(was, before, x_was)) / 2, x_was, was
        else:
            latest = {entry[0].t.item(): entry for entry in reversed(((at, est, x), *past))}
            ys = [said(*entry) for entry in reversed(latest.values())][:4]
            y = torch.stack([c * y for c, y in zip(ADAMS[len(ys) - 1], ys, strict=True)]).sum(0)
        c, d = inverse(predicts, at)
        return move(x, mix((c, x), (d, y)), at, to)

    return step


def twice(levels: Levels) -> Levels:
    """The chain that stays for one more step where its first one leads to, as `plms` begins."""
    last = len(levels) - 1
    return levels[torch.tensor([*range(last), last - 1, last])] if last > 1 else levels


def renoise(x: Tensor, est: Estimate, at: Levels, to: Levels, past: Past, randn: Randn) -> Tensor:
    """Few-step students: jump to x0, noise it anew (Consistency Models 2303.01469, algorithm 1)."""
    x0 = est.spend(at)
    return x0 if to.sigma == 0 else mix((to.alpha, x0), (to.sigma, randn(x)))
