"""VAE (Kingma & Welling 2013, 1312.6114): a distribution over codes as well, so that pictures can be drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.lineage.pyramid import Down, PyramidConfig, Up
from unclip.lineage.system import System

BIN = 2 / 255  # width of one of 256 values over [−1, 1]


@dataclass(frozen=True)
class VAEConfig:
    size: int = 64
    latent: int = 128
    beta: float = 1.0  # weight of the KL (β-VAE, Higgins et al. 2017); 1 is the bound itself
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)


def kl_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, var) ‖ N(0, I)) of [B, D] in nats, [B] (VAE, appendix B)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def nll(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """−ln p(x | z) of pictures [B, ...] in nats, [B]: a normal density times the width of a value's bin."""
    log_std = log_std.clamp(min=math.log(BIN))  # narrower than a bin, density is not probability any more
    density = 0.5 * ((x - mean) / log_std.exp()).square() + log_std + 0.5 * math.log(2 * math.pi)
    return (density - math.log(BIN)).flatten(1).sum(1)


def per_dimension(nats: Tensor, x: Tensor) -> Tensor:
    """nats [B] of pictures x [B, ...] → bits per dimension."""
    return nats / x[0].numel() / math.log(2)


class VAE(nn.Module):
    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.grid, self.width = config.size // config.pyramid.factor, config.pyramid.channels[-1]
        self.down, self.up = Down(config.pyramid, 3, self.width), Up(config.pyramid, self.width, 3)
        self.code = nn.Linear(self.width * self.grid**2, 2 * config.latent)
        self.place = nn.Linear(config.latent, self.width * self.grid**2)
        self.log_std = nn.Parameter(torch.tensor(-0.5))  # of a pixel given the code (σ-VAE, Rybkin et al. 2006.13202)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | x): mean and log-variance, [B, latent]."""
        mean, log_var = self.code(self.down(x).flatten(1)).float().chunk(2, dim=1)
        return mean, log_var.clamp(-12, 6)

    def decode(self, z: Tensor) -> Tensor:
        """z [B, latent] → the mean of p(x | z)."""
        return self.up(self.place(z).unflatten(1, (self.width, self.grid, self.grid)))

    def terms(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """−ln p(x | z) and KL(q(z | x) ‖ p(z)) in nats, [B], at z = μ + σ · eps (VAE, eq. 3 and 10)."""
        mean, log_var = self.encode(x)
        z = mean + (0.5 * log_var).exp() * eps
        return nll(x, self.decode(z), self.log_std), kl_normal(mean, log_var)

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        """The negative ELBO, the KL weighed by β, in bits per dimension."""
        error, kl = self.terms(x, torch.randn(len(x), self.config.latent, generator=g).to(x))
        return per_dimension(error + self.config.beta * kl, x).mean()


class VAESystem(System):
    title, models = "VAE", "p(x | z) p(z)"
    parts: ClassVar = {"vae": (VAEConfig, VAE)}
    vae: VAE

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size = self.vae.config.size

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.vae.decode(Draw(seeds, "vae")((self.vae.config.latent,)).to(self.vae.log_std.device))

    def reconstruct(self, pictures: Tensor) -> Tensor:
        return self.vae.decode(self.vae.encode(pictures)[0])

    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """Pictures a, b [3, S, S] → [steps, 3, S, S] along the line between their codes."""
        ends, _ = self.vae.encode(torch.stack([a, b]))
        return self.vae.decode(torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, steps, device=a.device)[:, None]))

    def bits(self, pictures: Tensor) -> Tensor:
        eps = torch.randn(len(pictures), self.vae.config.latent, generator=torch.Generator().manual_seed(0))
        return per_dimension(sum(self.vae.terms(pictures, eps.to(pictures))), pictures)  # type: ignore[arg-type]

    def features(self, pictures: Tensor) -> Tensor:
        return self.vae.encode(pictures)[0]

    def numbers(self, pictures: Tensor) -> dict[str, float]:
        return {"kl": kl_normal(*self.vae.encode(pictures)).mean().item()}
