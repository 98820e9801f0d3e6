"""GAN (Goodfellow et al. 2014), in the form that trains: R3GAN (Huang et al. 2024, 2501.05441).

One network draws, another tells drawn from real. The game is relativistic, each drawn picture against a real one, and
the slope of the critic is penalised on both; with that, plain residual networks suffice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.lineage.pyramid import Down, PyramidConfig, Up
from unclip.lineage.reader import reader
from unclip.lineage.system import System


@dataclass(frozen=True)
class GANConfig:
    size: int = 64
    latent: int = 64
    embed: int = 256  # width of the caption's embedding
    emb: int = 128  # width of what conditions the generator's blocks
    gamma: float = 2.0  # weight of the slope's penalty
    generator: PyramidConfig = field(default_factory=lambda: PyramidConfig((48, 64, 96), 1, 4))
    critic: PyramidConfig = field(default_factory=lambda: PyramidConfig((48, 64, 96), 1, 4))


class Generator(nn.Module):
    """z [B, latent], z_t [B, embed] → pictures [B, 3, S, S]."""

    def __init__(self, config: GANConfig):
        super().__init__()
        side, width = config.size // config.generator.factor, config.generator.channels[-1]
        self.scale = config.embed**0.5
        self.emb = nn.Sequential(nn.Linear(config.latent + config.embed, config.emb), nn.SiLU(),
                                 nn.Linear(config.emb, config.emb))  # fmt: skip
        self.start = nn.Linear(config.latent + config.embed, width * side**2)
        self.shape = (width, side, side)
        self.up = Up(config.generator, width, 3, config.emb)

    def forward(self, z: Tensor, z_t: Tensor) -> Tensor:
        told = torch.cat([z, self.scale * z_t], dim=1)
        return self.up(self.start(told).unflatten(1, self.shape), F.silu(self.emb(told)))


class Critic(nn.Module):
    """x [B, 3, S, S], z_t [B, embed] → how real x is for this caption, [B] (projection: Miyato & Koyama 1802.05637)."""

    def __init__(self, config: GANConfig):
        super().__init__()
        side, width = config.size // config.critic.factor, config.critic.channels[-1]
        self.scale = config.embed**0.5
        self.down, self.flat = Down(config.critic, 3, width), nn.Linear(width * side**2, 2 * width)
        self.score, self.caption = nn.Linear(2 * width, 1), nn.Linear(config.embed, 2 * width)

    def forward(self, x: Tensor, z_t: Tensor) -> Tensor:
        h = F.silu(self.flat(F.silu(self.down(x)).flatten(1)))
        fits = (h * self.caption(self.scale * z_t)).mean(1)
        return (self.score(h)[:, 0] + fits).float()


def slope(score: Tensor, x: Tensor) -> Tensor:
    """|∇_x D(x)|² of each picture, [B]: R1 on real ones, R2 on drawn ones (R3GAN, section 2.2)."""
    (g,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return g.square().flatten(1).sum(1)


class GAN(nn.Module):
    def __init__(self, config: GANConfig):
        super().__init__()
        self.config, self.generator, self.critic = config, Generator(config), Critic(config)

    def loss(self, x: Tensor, z_t: Tensor, g: torch.Generator) -> Tensor:
        """Both players' losses in one: each gets the gradient of its own alone, so one optimiser serves both.

        L_D = E f(D(G(z)) − D(x)) + γ/2 (R1 + R2) and L_G = E f(D(x) − D(G(z))), f = softplus (R3GAN, section 2.1).
        """
        drawn = self.generator(torch.randn(len(x), self.config.latent, generator=g).to(x), z_t)
        real, fake = x.detach().requires_grad_(), drawn.detach().float().requires_grad_()
        d_real, d_fake = self.critic(real, z_t), self.critic(fake, z_t)
        penalty = slope(d_real, real) + slope(d_fake, fake)
        critic = (F.softplus(d_fake - d_real) + 0.5 * self.config.gamma * penalty).mean()
        self.critic.requires_grad_(False)
        generator = F.softplus(d_real.detach() - self.critic(drawn, z_t)).mean()
        self.critic.requires_grad_(True)
        return critic + generator


class GANSystem(System):
    title, models, text = "GAN", "x = G(z, caption)", True
    parts: ClassVar = {"gan": (GANConfig, GAN)}
    gan: GAN

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size = self.gan.config.size

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        device = self.gan.critic.score.weight.device
        z = Draw(seeds, "gan")((self.gan.config.latent,)).to(device)
        return self.gan.generator(z, reader(device).z_t(captions)).clamp(-1, 1)
