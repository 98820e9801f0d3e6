"""DDPM (Ho et al. 2020, 2006.11239) and improved DDPM (Nichol & Dhariwal 2021, 2102.09672): configurations of the core.

DDPM: the loss is the error of eps, the variance fixed, the schedule linear, and every level is walked. iDDPM: the
variance is learned by L_hybrid, the schedule is a cosine, levels are drawn where the loss is large, and few are walked.

The network itself says v, from which eps = sigma x_t + alpha v follows. One that says eps must copy its input where
that is nearly all noise, and its normalisation hides the mean: a hundredth of that wrong is a tint all over x0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from unclip.diffusion.denoiser import Denoise
from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import Clip
from unclip.diffusion.levels import spread
from unclip.diffusion.likelihood import vlb
from unclip.diffusion.process import Process
from unclip.diffusion.samplers import Step, ddpm, walk
from unclip.lineage.system import System
from unclip.nn.unet import UNet, UNetConfig

KEPT = 10  # losses remembered of each level (iDDPM, eq. 18)


@dataclass(frozen=True)
class DiffusionConfig:
    size: int = 32
    importance: bool = False  # draw levels in proportion to √E[L²] (iDDPM, eq. 18)
    unet: UNetConfig = field(
        default_factory=lambda: UNetConfig(channels=(16, 32, 64), depth=1, attention=(2,), scale_shift=False)
    )
    diffusion: Process = field(default_factory=lambda: Process("linear", predicts="v", simple=True))


class Diffusion(nn.Module):
    """A U-Net and the process that it reverses."""

    def __init__(self, config: DiffusionConfig):
        super().__init__()
        self.config, self.unet = config, UNet(config.unet)
        if config.importance:
            self.register_buffer("past", torch.zeros(config.diffusion.T, KEPT))
            self.register_buffer("met", torch.zeros(config.diffusion.T, dtype=torch.long))
        self.past: Tensor
        self.met: Tensor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t)

    def levels_for(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of the chain [n] in 1..T and the weights that undo their being drawn unevenly."""
        T = self.config.diffusion.T
        if not self.config.importance or self.met.min() < KEPT:
            return torch.randint(1, T + 1, (n,), generator=g), torch.ones(n)
        p = self.past.square().mean(1).sqrt().cpu().double()
        p = 0.999 * p / p.sum() + 0.001 / T
        i = torch.multinomial(p, n, replacement=True, generator=g)
        return i + 1, (1 / (T * p[i])).float()

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        """L_simple (DDPM, eq. 14), or with a learned variance L_hybrid (iDDPM, eq. 16)."""
        levels = self.config.diffusion.levels()
        i, weight = self.levels_for(len(x), g)
        noise = torch.randn(x.shape, generator=g).to(x)
        loss = self.config.diffusion.denoiser(self).loss(x, levels[i], levels[i - 1], noise)
        if self.config.importance:
            self.remember(i - 1, loss.detach())
        return (weight.to(loss) * loss).mean()

    def remember(self, rows: Tensor, loss: Tensor) -> None:
        for row, value in zip(rows.tolist(), loss.tolist(), strict=True):
            self.past[row, self.met[row] % KEPT] = value
            self.met[row] += 1

    @torch.no_grad()
    def sample(
        self, draw: Draw, steps: int, step: Step = ddpm, guide: Callable[[Denoise], Denoise] = lambda denoise: denoise
    ) -> Tensor:
        """[B, 3, S, S] in `steps` evenly spread levels; `guide` wraps the clipped denoiser."""
        process = self.config.diffusion
        denoise = guide(Clip(process.denoiser(self)))
        x = draw((3, self.config.size, self.config.size)).to(self.unet.conv_in.weight.device)
        for x, _ in walk(denoise, x, process.levels().spaced(spread(process.T, steps)).down(), step, draw.like):
            pass
        return x

    @torch.no_grad()
    def bits(self, x: Tensor, steps: int) -> Tensor:
        """The variational bound over `steps` levels in bits per dimension, [B] (DDPM, eq. 5)."""
        process, draw = self.config.diffusion, Draw(range(len(x)), "bits")
        return vlb(Clip(process.denoiser(self)), x, process.levels().spaced(spread(process.T, steps)), draw.like)


class DDPMSystem(System):
    title, models = "DDPM", "p(x), fixed variances"
    parts: ClassVar = {"ddpm": (DiffusionConfig, Diffusion)}
    ddpm: Diffusion
    calls = 250

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.net: Diffusion = next(iter(parts.values()))  # type: ignore[assignment]
        self.size = self.net.config.size
        self.calls = min(self.calls, self.net.config.diffusion.T)

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.net.sample(Draw(seeds, "diffusion"), self.calls)

    def bits(self, pictures: Tensor) -> Tensor:
        return self.net.bits(pictures, self.calls)


class ImprovedSystem(DDPMSystem):
    title, models = "iDDPM", "p(x), learned variances"
    parts: ClassVar = {"iddpm": (DiffusionConfig, Diffusion)}
    calls = 100
