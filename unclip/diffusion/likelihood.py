"""The variational bound: terms of -log2 p(x0), in bits per dimension (DDPM, eq. 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unclip.diffusion.draw import white
from unclip.diffusion.levels import Levels, match, mix, posterior_variance

if TYPE_CHECKING:
    from unclip.diffusion.denoiser import Denoise, Estimate


def cdf(z: Tensor) -> Tensor:
    """Standard normal distribution function to 2e-4, (1 + tanh u) / 2 written so that its lower tail keeps digits."""
    return torch.sigmoid(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))


def decoder_nll(x0: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """-ln p(x0) of each element, for x0 one of 256 bins over [-1, 1], the outer two open-ended (DDPM, eq. 13)."""
    off, rate = mean - x0, (-log_std).exp()
    inner = cdf((1 / 255 - off.abs()) * rate) - cdf((-1 / 255 - off.abs()) * rate)  # mirrored into the lower tail
    outer = cdf((1 / 255 + off * x0.sign()) * rate)
    p = torch.where(x0.abs() > 0.999, outer, inner)
    return -p.clamp(min=1e-12).log()


def bits(x0: Tensor, est: Estimate, at: Levels, to: Levels) -> Tensor:
    """L_{t-1} = KL(q(x_to | x_at, x0) || p(x_to | x_at)), or L_0 = -log2 p(x0 | x_1) where `to` is data; [B]."""
    small, beta = posterior_variance(at, to)
    log_var = est.log_var(at, to)
    gap = mix((to.alpha * beta / at.sigma**2, x0 - est.x0))  # between the two means: x_at's share cancels
    d = match(small.log(), x0) - log_var
    kl = 0.5 * (torch.expm1(d) - d + gap**2 * (-log_var).exp())
    nll = decoder_nll(x0, est.x0, 0.5 * log_var)  # where `to` is data, the mean is the estimate itself
    return torch.where((to.sigma == 0).to(x0.device), nll, kl).flatten(1).mean(1) / math.log(2)


def prior_bits(x0: Tensor, at: Levels) -> Tensor:
    """L_T = KL(q(x_T | x0) || N(0, 1)), [B]."""
    spread = at.sigma**2 - 1 - 2 * at.sigma.log()
    return (0.5 * (mix((at.alpha**2, x0**2)) + spread)).flatten(1).mean(1) / math.log(2)


def vlb(denoise: Denoise, x0: Tensor, levels: Levels, randn: Callable = white, **cond) -> Tensor:
    """Upper bound on -log2 p(x0) in bits per dimension, [B]: L_T + ... + L_0, each with one fresh draw of x_t."""
    total = prior_bits(x0, levels[-1])
    for at, to in levels.down():
        x = mix((at.alpha, x0), (at.sigma, randn(x0)))
        total = total + bits(x0, denoise(x, at, **cond), at, to)
    return total
