"""Stable unCLIP's decoder: Stable Diffusion 2.1 given z_i as well, which may be noised to leave it room.

It draws in the latents of an autoencoder. How much noise was added to z_i is told beside it (as Imagen, 2205.11487,
section 2.4, has it for upsamplers).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unclip.diffusion.levels import mix
from unclip.diffusion.process import Process
from unclip.models.decoder import Condition
from unclip.nn.embed import sinusoidal
from unclip.nn.unet import UNet, UNetConfig


@dataclass(frozen=True)
class NoisedDecoderConfig:
    size: int = 96  # of the latent
    channels: int = 4
    embed: int = 1024  # width of z_i
    unet: UNetConfig = field(default_factory=lambda: UNetConfig(
        4, 4, (320, 640, 1280, 1280), 2, (0, 1, 2), 64, context=1024, scale_shift=False, convolve=True,
        transformer=True,
    ))  # fmt: skip
    diffusion: Process = field(default_factory=lambda: Process("scaled", predicts="v", betas=(0.00085, 0.012)))


class NoisedDecoder(nn.Module):
    """z_i and the time it was noised to are added to the time embedding; the encoded caption is the context."""

    def __init__(self, config: NoisedDecoderConfig):
        super().__init__()
        self.config = c = config
        self.z_emb = nn.Sequential(nn.Linear(2 * c.embed, c.unet.emb), nn.SiLU(), nn.Linear(c.unet.emb, c.unet.emb))
        self.unet = UNet(c.unet)

    def condition(self, z_i: Tensor, text: Tensor) -> Condition:
        """z_i [B, 2 · embed] as `Noiser` gives it, all 0 where it is absent; text [B, L, context width]."""
        return Condition(self.z_emb(z_i), self.unet.keys(text))

    def forward(self, x: Tensor, t: Tensor, given: Condition) -> Tensor:
        """x [B, channels, S, S], t [B] → [B, channels, S, S]."""
        return self.unet(x, t, *given).float()


@dataclass(frozen=True)
class NoiserConfig:
    embed: int = 1024
    diffusion: Process = field(default_factory=Process)


class Noiser(nn.Module):
    """Noises z_i, each coordinate by its own mean and deviation over pictures."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: NoiserConfig):
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.embed))
        self.register_buffer("deviation", torch.ones(config.embed))

    def forward(self, z_i: Tensor, level: int, noise: Tensor) -> Tensor:
        """z_i, noise [B, embed]; level from 0 to T − 1 → z_i with so much noise, and the level's sinusoids beside it,
        [B, 2 · embed]."""
        at = self.config.diffusion.levels()[level + 1]
        u = mix((at.alpha, (z_i - self.mean) / self.deviation), (at.sigma, noise))
        told = sinusoidal(torch.full((len(z_i),), level, device=z_i.device), self.config.embed)
        return torch.cat([u * self.deviation + self.mean, told.to(z_i)], dim=1)
