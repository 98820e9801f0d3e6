"""AE, DAE, MAE: a code from which the picture can be told. They learn features, not a distribution.

AE: Hinton & Salakhutdinov 2006. DAE: Vincent et al. 2008. MAE: He et al. 2021, 2111.06377.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.lineage.pyramid import Down, PyramidConfig, Up
from unclip.lineage.system import System
from unclip.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class AEConfig:
    size: int = 64
    latent: int = 128
    noise: float = 0.0  # standard deviation of what corrupts the input: above 0 it is a denoising autoencoder
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)


class AE(nn.Module):
    """x → code f(x) [B, latent] → g(f(x)). With `noise` the input is x̃ = x + noise · eps, the target x itself."""

    def __init__(self, config: AEConfig):
        super().__init__()
        self.config = config
        self.grid, self.width = config.size // config.pyramid.factor, config.pyramid.channels[-1]
        self.down, self.up = Down(config.pyramid, 3, self.width), Up(config.pyramid, self.width, 3)
        self.code = nn.Linear(self.width * self.grid**2, config.latent)
        self.decode = nn.Linear(config.latent, self.width * self.grid**2)

    def encode(self, x: Tensor) -> Tensor:
        return self.code(self.down(x).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.decode(self.encode(x)).unflatten(1, (self.width, self.grid, self.grid))
        return self.up(h)

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        """E |x − g(f(x̃))|² with x̃ ~ q(x̃ | x) (DAE, eq. 1 to 4, with squared error); x̃ = x without noise."""
        return (self(self.corrupt(x, g)) - x).square().mean()

    def corrupt(self, x: Tensor, g: torch.Generator) -> Tensor:
        return x + self.config.noise * torch.randn(x.shape, generator=g).to(x) if self.config.noise else x


@dataclass(frozen=True)
class MAEConfig:
    size: int = 64
    patch: int = 8
    hidden: float = 0.75  # share of the patches that the encoder does not see
    encoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(192, 6, 6))
    decoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(96, 2, 3))


class MAE(nn.Module):
    """A Transformer over a quarter of the patches; a small one that tells the other three quarters (MAE, figure 1)."""

    def __init__(self, config: MAEConfig):
        super().__init__()
        self.config = config
        self.count, values = (config.size // config.patch) ** 2, 3 * config.patch**2
        self.patches = nn.Linear(values, config.encoder.width)
        self.place = nn.Parameter(torch.randn(self.count, config.encoder.width) * 0.02)
        self.encoder, self.decoder = Transformer(config.encoder), Transformer(config.decoder)
        self.narrow = nn.Linear(config.encoder.width, config.decoder.width)
        self.mask = nn.Parameter(torch.randn(config.decoder.width) * 0.02)
        self.place_out = nn.Parameter(torch.randn(self.count, config.decoder.width) * 0.02)
        self.out = nn.Linear(config.decoder.width, values)

    def cut(self, x: Tensor) -> Tensor:
        """[B, 3, S, S] → [B, patches, values]."""
        return F.pixel_unshuffle(x, self.config.patch).flatten(2).mT

    def join(self, patches: Tensor) -> Tensor:
        side = self.config.size // self.config.patch
        return F.pixel_shuffle(patches.mT.unflatten(2, (side, side)), self.config.patch)

    def encode(self, patches: Tensor, seen: Tensor) -> Tensor:
        """patches [B, N, values], seen [B, K] → [B, K, width]: hidden patches cost nothing (MAE, section 3)."""
        kept = patches.gather(1, seen[..., None].expand(-1, -1, patches.shape[2]))
        return self.encoder(self.patches(kept) + self.place[seen])[0]

    def forward(self, patches: Tensor, seen: Tensor) -> Tensor:
        """All patches as they are told from the seen ones [B, K]."""
        told = self.narrow(self.encode(patches, seen))
        full = self.mask.expand(len(told), self.count, -1)
        full = full.scatter(1, seen[..., None].expand(-1, -1, told.shape[2]), told.to(full.dtype))
        return self.out(self.decoder(full + self.place_out)[0])

    def split(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Places seen [n, K] and hidden [n, N − K], drawn anew for each picture."""
        order = torch.rand(n, self.count, generator=g).argsort(1)
        kept = max(1, round((1 - self.config.hidden) * self.count))
        return order[:, :kept], order[:, kept:]

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        """Squared error of the hidden patches alone (MAE, section 3, "Reconstruction target")."""
        patches, (seen, hidden) = self.cut(x), self.split(len(x), g)
        error = (self(patches, seen.to(x.device)) - patches).square().mean(2)
        return error.gather(1, hidden.to(x.device)).mean()


class AutoencoderSystem(System):
    title, models, draws = "AE", "x ≈ g(f(x))", False
    parts: ClassVar = {"ae": (AEConfig, AE)}
    ae: AE

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.net: AE = next(iter(parts.values()))  # type: ignore[assignment]
        self.size = self.net.config.size

    def reconstruct(self, pictures: Tensor) -> Tensor:
        return self.net(pictures)

    def features(self, pictures: Tensor) -> Tensor:
        return self.net.encode(pictures)


class DenoisingSystem(AutoencoderSystem):
    title, models = "DAE", "x ≈ g(f(x + noise))"
    parts: ClassVar = {"dae": (AEConfig, AE)}

    def reconstruct(self, pictures: Tensor) -> Tensor:
        """From a noised picture, which is what it learnt."""
        return self.net(self.net.corrupt(pictures, torch.Generator().manual_seed(0)))


class MaskedSystem(System):
    title, models, draws = "MAE", "hidden patches | seen patches", False
    parts: ClassVar = {"mae": (MAEConfig, MAE)}
    mae: MAE

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size = self.mae.config.size

    def reconstruct(self, pictures: Tensor) -> Tensor:
        """The seen quarter as it is, and what is told of the rest."""
        patches = self.mae.cut(pictures)
        seen, hidden = self.mae.split(len(pictures), torch.Generator().manual_seed(0))
        told = self.mae(patches, seen)
        return self.mae.join(patches.scatter(1, hidden[..., None].expand(-1, -1, patches.shape[2]),
                                             told.gather(1, hidden[..., None].expand(-1, -1, patches.shape[2]))))

    def features(self, pictures: Tensor) -> Tensor:
        patches = self.mae.cut(pictures)
        everything: Sequence[int] = range(self.mae.count)
        return self.mae.encode(patches, torch.tensor(everything).expand(len(pictures), -1)).mean(1)
