"""Guidance: denoisers that wrap denoisers. Clip goes outside CFG, Guide and Known outside Clip."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Estimate
from unclip.diffusion.levels import Levels


class CFG:
    """Classifier-free guidance (Ho & Salimans 2207.12598, eq. 6, as GLIDE scales it: 1 leaves the condition alone).

    The conditions are those of a doubled batch [2B], unconditional half first: both halves run as one batch. With more
    scales there is a branch [B] more for each, given all that the branch before it is given and something else:
    x0 = x0_0 + s_1 (x0_1 - x0_0) + s_2 (x0_2 - x0_1) + ... (Brooks et al. 2211.09800, eq. 3).

    At one x_t, eps is an affine function of x0, so that mixing x0 mixes eps. The variance stays the last branch's.
    """

    def __init__(self, denoise: Denoise, *scales: float):
        self.denoise, self.scales = denoise, scales

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        branches = 1 + len(self.scales)
        every = self.denoise(torch.cat([x] * branches), at.repeat(branches), **cond)
        first, *rest = steps = list(pairwise(every.x0.split(len(x))))
        x0 = torch.lerp(*first, self.scales[0])
        for scale, (less, more) in zip(self.scales[1:], rest, strict=True):
            x0 = x0 + scale * (more - less)
        return replace(every.each(lambda v: v[-len(x) :]), x0=x0, plain=steps[-1][1])


class Unguided:
    """The last of the `branches` that conditions for CFG are made of, alone: the condition left as it is."""

    def __init__(self, denoise: Denoise, branches: int = 2):
        self.denoise, self.branches = denoise, branches

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        return self.denoise(x, at, **last(cond, self.branches))


def last(cond: Any, branches: int) -> Any:
    """The last of so many equal parts of every tensor in `cond`, which may be nested in dicts, lists and tuples."""
    if isinstance(cond, Tensor):
        return cond.tensor_split(branches)[-1]
    if isinstance(cond, dict):
        return {name: last(v, branches) for name, v in cond.items()}
    if isinstance(cond, (list, tuple)):
        parts = [last(v, branches) for v in cond]
        return type(cond)(*parts) if hasattr(cond, "_fields") else type(cond)(parts)
    return cond


class Interval:
    """`inside` at the times first <= t <= last, `outside` at all others (Kynkaanniemi et al. 2404.07724)."""

    def __init__(self, inside: Denoise, outside: Denoise, first: float, last: float):
        self.inside, self.outside, self.first, self.last = inside, outside, first, last

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        return (self.inside if self.first <= at.t <= self.last else self.outside)(x, at, **cond)


class Rescale:
    """Takes back, by `share`, what CFG added to the deviation of x0 (Lin et al. 2305.08891, section 3.4)."""

    def __init__(self, denoise: Denoise, share: float = 0.7):
        self.denoise, self.share = denoise, share

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        est = self.denoise(x, at, **cond)
        if est.plain is None:
            return est
        plain, guided = (v.flatten(1).std(1) for v in (est.plain, est.x0))
        gain = 1 + self.share * (plain / guided - 1)
        return replace(est, x0=gain.reshape(-1, *[1] * (x.ndim - 1)) * est.x0)


class Guide:
    """Gathers scale * grad_x log p(y | x) for the step to spend (ADM, algorithms 1 and 2).

    `log_prob(x, at)` [B] judges the noisy x, as a classifier trained on noise does; with `through` it judges the
    estimate of x0, and the gradient passes through the denoiser (which inference mode does not allow).

    DDIM and its kin spend sigma^2 / alpha of it, which has no bound where alpha is all but 0: begin such a walk below
    the top of a cosine schedule, as `karras` does, unless log_prob is known to be flat there.
    """

    def __init__(
        self, denoise: Denoise, log_prob: Callable[[Tensor, Levels], Tensor], scale: float = 1.0, through: bool = False
    ):
        self.denoise, self.log_prob, self.scale, self.through = denoise, log_prob, scale, through

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            with torch.set_grad_enabled(self.through):
                est = self.denoise(x, at, **cond)
            seen = est.x0 if self.through else x
            (g,) = torch.autograd.grad(self.log_prob(seen, at.like(x)).sum(), x)
        return replace(est.each(torch.detach), grad=est.grad + self.scale * g)


def classified(net: Callable[[Tensor, Tensor], Tensor], y: Tensor) -> Callable[[Tensor, Levels], Tensor]:
    """For Guide: log p(y | x_t) by a classifier net(x_t, t) [B, classes] trained on noise; y [B] (ADM, section 4)."""
    return lambda x, at: net(x, at.t).log_softmax(1).gather(1, y[:, None])[:, 0]


def resembling(look: Callable[[Tensor, Tensor], Tensor], z: Tensor) -> Callable[[Tensor, Levels], Tensor]:
    """For Guide: f(x_t) . z, where look(x_t, t) [B, D] is a noised CLIP's unit embedding and z [B, D] that of a caption
    or a picture (GLIDE 2112.10741, eq. 6)."""
    return lambda x, at: (look(x, at.t) * z).sum(1)


class Clip:
    """Keeps the estimate of x0 within [lo, hi], the range of the data: numbers, or a tensor that fits x0."""

    def __init__(self, denoise: Denoise, lo: Tensor | float = -1.0, hi: Tensor | float = 1.0):
        self.denoise, self.lo, self.hi = denoise, lo, hi

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        est = self.denoise(x, at, **cond)
        lo, hi = (torch.as_tensor(bound).to(est.x0) for bound in (self.lo, self.hi))
        return replace(est, x0=est.x0.clamp(lo, hi))


class Threshold:
    """Dynamic thresholding (Imagen 2205.11487, section 2.3): clip at a quantile s >= 1 of `|x0|`, then divide by s."""

    def __init__(self, denoise: Denoise, quantile: float = 0.995):
        self.denoise, self.quantile = denoise, quantile

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        est = self.denoise(x, at, **cond)
        return replace(est, x0=squeezed(est.x0, self.quantile))


def squeezed(x0: Tensor, quantile: float, most: float | None = None) -> Tensor:
    """x0 clipped at a quantile s of `|x0|`, 1 <= s <= most, then divided by s."""
    s = x0.abs().flatten(1).float().quantile(quantile, dim=1).clamp(1, most).to(x0)
    s = s.reshape(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-s, s) / s


class Known:
    """Holds the estimate of x0 to a picture where its pixels are known. Every sampler then ends with these pixels."""

    def __init__(self, denoise: Denoise, x0: Tensor, known: Tensor):
        self.denoise, self.x0, self.known = denoise, x0, known

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        est = self.denoise(x, at, **cond)
        return replace(est, x0=torch.where(self.known, self.x0, est.x0))


def steered(
    denoise: Denoise, scales: Sequence[float], rescale: float = 0.0, interval: tuple[float, float] | None = None
) -> Denoise:
    """`denoise` under CFG by these scales, if there are any, at the times within `interval`."""
    plain = denoise
    if scales:
        denoise = CFG(denoise, *scales)
        if rescale:
            denoise = Rescale(denoise, rescale)
        if interval is not None:
            denoise = Interval(denoise, Unguided(plain, 1 + len(scales)), *interval)
    return denoise
