"""Guidance: denoisers that wrap denoisers. Clip goes outside CFG, and Guide outside Clip."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Estimate
from unclip.diffusion.levels import Levels


class CFG:
    """Classifier-free guidance (Ho & Salimans 2207.12598, eq. 6, as GLIDE scales it: 1 leaves the condition alone).

    The conditions are those of a doubled batch [2B], unconditional half first: both halves run as one batch.
    At one x_t, eps is an affine function of x0, so that mixing x0 mixes eps. The variance stays the conditional half's.
    """

    def __init__(self, denoise: Denoise, scale: float):
        self.denoise, self.scale = denoise, scale

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        both = self.denoise(torch.cat([x, x]), at, **cond)
        absent, given = both.each(lambda v: v[: len(x)]), both.each(lambda v: v[len(x) :])
        return replace(given, x0=absent.x0.lerp(given.x0, self.scale))


class Guide:
    """Gathers scale * grad_x log p(y | x) for the step to spend (ADM, algorithms 1 and 2).

    `log_prob(x, at)` [B] judges the noisy x, as a classifier trained on noise does; with `through` it judges the
    estimate of x0, and the gradient passes through the denoiser (which inference mode does not allow).
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


class Clip:
    """Keeps the estimate of x0 within [lo, hi], the range of the data: numbers, or a tensor that fits x0."""

    def __init__(self, denoise: Denoise, lo: Tensor | float = -1.0, hi: Tensor | float = 1.0):
        self.denoise, self.lo, self.hi = denoise, lo, hi

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        est = self.denoise(x, at, **cond)
        return replace(est, x0=est.x0.clamp(self.lo, self.hi))


class Threshold:
    """Dynamic thresholding (Imagen 2205.11487, section 2.3): clip at a quantile s >= 1 of `|x0|`, then divide by s."""

    def __init__(self, denoise: Denoise, quantile: float = 0.995):
        self.denoise, self.quantile = denoise, quantile

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        est = self.denoise(x, at, **cond)
        s = est.x0.abs().flatten(1).float().quantile(self.quantile, dim=1).clamp(min=1).to(x)
        s = s.reshape(-1, *[1] * (x.ndim - 1))
        return replace(est, x0=est.x0.clamp(-s, s) / s)
