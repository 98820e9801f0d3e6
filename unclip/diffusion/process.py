"""The choices that make a network a diffusion model, as they stand in its configuration."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from unclip.diffusion.denoiser import Denoiser, capped, min_snr, simple, uniform
from unclip.diffusion.levels import Levels, cosine, hops, karras, linear, scaled, spread, strides


@dataclass(frozen=True)
class Process:
    """schedule over T steps; what the network predicts; its variance; how the loss weighs the levels.

    cap > 0 weighs the squared error by min(1 / sigma², cap); snr > 0 by min-SNR; `simple` makes it that of eps,
    whatever is predicted; else all levels weigh the same.
    floor: the squared error of x0 that the network cannot get below; near data x_t itself tells more, see `Denoiser`.
    single: table and steps are worked out in single precision, as diffusers does: near data z_i is off by a thousandth.
    rescale: the network is told t · 1000 / T, whatever T is (iDDPM's code). betas: first and last of a linear schedule,
    or of one whose roots are linear ("scaled").
    """

    schedule: Literal["cosine", "linear", "scaled"] = "cosine"
    T: int = 1000
    predicts: Literal["eps", "x0", "v", "flow"] = "eps"
    variance: Literal["small", "large", "learned"] = "small"
    cap: float = 0.0
    snr: float = 0.0
    simple: bool = False
    floor: float = 0.0
    rescale: bool = False
    betas: tuple[float, ...] = (1e-4, 0.02)
    single: bool = False

    def levels(self) -> Levels:
        if self.schedule == "cosine":
            betas = cosine(self.T)
        else:
            betas = (scaled if self.schedule == "scaled" else linear)(self.T, *self.betas)
        levels = Levels.from_betas(betas)
        if self.single:
            abar = torch.cat([torch.ones(1), (1 - betas.float()).cumprod(0)])
            levels = replace(Levels.of(abar.double(), levels.t), single=True)
            levels.alpha[0] = betas[0].float() / (1 - abar[1])  # 1, were it not for rounding: the last step's factor
        return replace(levels, t=levels.t * 1000 / self.T) if self.rescale else levels

    def spaced(self, steps: int, spacing: str = "even", top: int | None = None) -> Levels:
        """The chain to sample along: `steps` of its rows, "even" in time, equally far apart as iDDPM has them for
        DDIM ("hops"), spaced as EDM's ("karras"), or those that few-step students are taught ("strides"). top: of the
        rows up to this one alone. A single step is the noisiest: to draw from another would leave noise."""
        top = self.T if top is None else top
        levels = self.levels()[: top + 1]
        if spacing == "karras":
            return levels.spaced(karras(levels, steps))
        spacing = "strides" if steps == 1 else spacing
        return levels.spaced({"even": spread, "hops": hops, "strides": strides}[spacing](top, steps))

    def weight(self) -> Callable:
        if self.cap:
            return capped(self.cap)
        if self.simple:
            return simple(self.predicts)
        return min_snr(self.snr, self.predicts) if self.snr else uniform

    def denoiser(self, net: nn.Module) -> Denoiser:
        return Denoiser(net, self.predicts, self.variance, self.weight(), floor=self.floor)
