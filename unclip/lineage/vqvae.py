"""VQ-VAE (van den Oord et al. 2017, 1711.00937) and VQ-VAE-2 (Razavi et al. 2019, 1906.00446): pictures as codes.

The book of codes is learnt, or with FSQ (Mentzer et al. 2023, 2309.15505) it is a grid that nobody need learn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.errors import UnclipError
from unclip.lineage.pixelcnn import PixelCNN, PixelCNNConfig
from unclip.lineage.pyramid import Down, PyramidConfig, Up
from unclip.lineage.system import System
from unclip.lineage.vae import nll, per_dimension


@dataclass(frozen=True)
class CodebookConfig:
    codes: int = 512  # K
    width: int = 64  # D
    decay: float = 0.99  # γ of the averages that the codes are
    beta: float = 0.25  # weight of the commitment
    least: float = 0.02  # a code used less often than this share of the mean is put where an input is
    levels: tuple[int, ...] = ()  # FSQ instead, with so many values of each of its few channels: their product is K


class Quantised(NamedTuple):
    z: Tensor  # [B, D, h, w]: the codes, through which gradients pass as if they were the input
    index: Tensor  # [B, h, w]
    commitment: Tensor  # |z_e − sg(e)|²
    perplexity: Tensor  # e^H of how often each code was used in this batch: 1 to K


class Codebook(nn.Module):
    """The nearest of K codes; the codes are moving averages of what is nearest to them (VQ-VAE, appendix A.1)."""

    def __init__(self, config: CodebookConfig):
        super().__init__()
        self.config = config
        self.register_buffer("codes", torch.randn(config.codes, config.width))
        self.register_buffer("count", torch.zeros(config.codes))  # N_k, eq. 6
        self.register_buffer("total", torch.zeros(config.codes, config.width))  # m_k, eq. 7
        self.codes: Tensor
        self.count: Tensor
        self.total: Tensor

    def look(self, index: Tensor) -> Tensor:
        """index [B, h, w] → [B, D, h, w]."""
        return F.embedding(index, self.codes).permute(0, 3, 1, 2)

    def forward(self, z: Tensor, g: torch.Generator | None = None) -> Quantised:
        """z [B, D, h, w]; with a generator the codes learn from it."""
        rows = z.permute(0, 2, 3, 1)
        flat = rows.flatten(0, 2).float()
        with torch.autocast(z.device.type, enabled=False):  # averages of many small steps
            index = (self.codes.square().sum(1) - 2 * flat @ self.codes.T).argmin(1)  # eq. 1; |z|² is the same for all
            if g is not None:
                self.learn(flat.detach(), index, g)
        index = index.view(rows.shape[:3])
        e = self.look(index).to(z)
        straight = z + (e - z).detach()  # section 3.2
        return Quantised(straight, index, (z - e).square().mean(), perplexity(index, len(self.codes)))

    @torch.no_grad()
    def learn(self, flat: Tensor, index: Tensor, g: torch.Generator) -> None:
        """Eq. 6 to 8, then codes that nothing chooses are put on inputs of this batch, drawn from `g`."""
        hot = F.one_hot(index, len(self.codes)).to(flat)
        self.count.lerp_(hot.sum(0), 1 - self.config.decay)
        self.total.lerp_(hot.T @ flat, 1 - self.config.decay)
        dead = self.count < self.config.least * self.count.mean()
        picks = torch.randint(len(flat), (len(dead),), generator=g).to(flat.device)
        self.total[dead], self.count[dead] = flat[picks][dead] * self.count.mean(), self.count.mean()
        self.codes.copy_(self.total / self.count[:, None].clamp(min=1e-8))


class FSQ(nn.Module):
    """Finite scalar quantisation: a few bounded channels, each rounded to its levels (FSQ, section 3.1, appendix A).

    Nothing is learnt of the codes, none can die, and no commitment is asked for.
    """

    def __init__(self, config: CodebookConfig):
        super().__init__()
        if math.prod(config.levels) != config.codes:
            raise UnclipError(f"levels {config.levels} make {math.prod(config.levels)} codes, not {config.codes}; "
                              "set codes to their product")  # fmt: skip
        self.codes, channels = config.codes, len(config.levels)
        self.narrow, self.wide = nn.Linear(config.width, channels), nn.Linear(channels, config.width)
        levels = torch.tensor(config.levels)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("basis", levels.cumprod(0) // levels, persistent=False)
        self.levels: Tensor
        self.basis: Tensor

    def bound(self, z: Tensor) -> Tensor:
        """[..., channels] → within the range of the levels, of an even number of them shifted by half a step."""
        half, offset = (self.levels - 1) * 1.001 / 2, 0.5 * (self.levels % 2 == 0)
        return (z + (offset / half).atanh()).tanh() * half - offset

    def look(self, index: Tensor) -> Tensor:
        """index [B, h, w] → [B, D, h, w]."""
        values = index[..., None] // self.basis % self.levels - self.levels // 2
        return self.wide(values / (self.levels // 2)).permute(0, 3, 1, 2)

    def forward(self, z: Tensor, g: torch.Generator | None = None) -> Quantised:
        """z [B, D, h, w]; rounding lets gradients straight through."""
        bounded = self.bound(self.narrow(z.permute(0, 2, 3, 1)).float())
        rounded = bounded + (bounded.round() - bounded).detach()
        index = ((rounded.detach().round().long() + self.levels // 2) * self.basis).sum(-1)
        straight = self.wide(rounded / (self.levels // 2)).permute(0, 3, 1, 2)
        return Quantised(straight, index, z.new_zeros(()), perplexity(index, self.codes))


def perplexity(index: Tensor, codes: int) -> Tensor:
    used = torch.bincount(index.flatten(), minlength=codes).float() / index.numel()
    return (-(used * used.clamp(min=1e-10).log()).sum()).exp()


def quantiser(config: CodebookConfig) -> Codebook | FSQ:
    return FSQ(config) if config.levels else Codebook(config)


@dataclass(frozen=True)
class VQVAEConfig:
    size: int = 64
    pyramid: PyramidConfig = field(default_factory=lambda: PyramidConfig((32, 64), 1, 2))
    codebook: CodebookConfig = field(default_factory=CodebookConfig)


class VQVAE(nn.Module):
    """L = −ln p(x | z_q) + β |z_e − sg(e)|², the codes learning by their averages (VQ-VAE, eq. 3)."""

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.config = config
        self.down = Down(config.pyramid, 3, config.codebook.width)
        self.book = quantiser(config.codebook)
        self.up = Up(config.pyramid, config.codebook.width, 3)
        self.log_std = nn.Parameter(torch.tensor(-0.5))
        self.grid = config.size // config.pyramid.factor

    def encode(self, x: Tensor) -> Tensor:
        """[B, 3, S, S] → codes [B, h, w]."""
        return self.book(self.down(x)).index

    def decode(self, index: Tensor) -> Tensor:
        return self.up(self.book.look(index))

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        q = self.book(self.down(x), g)
        return per_dimension(nll(x, self.up(q.z), self.log_std), x).mean() + self.config.codebook.beta * q.commitment

    def bits(self, x: Tensor) -> Tensor:
        """−log2 p(x | z_q) per dimension, [B]; a prior adds the price of the codes (VQ-VAE, section 3.3)."""
        return per_dimension(nll(x, self.decode(self.encode(x)), self.log_std), x)


@dataclass(frozen=True)
class VQVAE2Config:
    size: int = 64
    bottom: PyramidConfig = field(default_factory=lambda: PyramidConfig((32, 64), 1, 2))
    top: PyramidConfig = field(default_factory=lambda: PyramidConfig((64, 64), 1, 1))  # of the bottom's grid
    codebook: CodebookConfig = field(default_factory=CodebookConfig)


class VQVAE2(nn.Module):
    """Two levels of codes: the top for what is shown, the bottom, which sees the top, for detail (VQ-VAE-2, alg. 1)."""

    def __init__(self, config: VQVAE2Config):
        super().__init__()
        self.config, width = config, config.codebook.width
        self.down, self.down_top = Down(config.bottom, 3, width), Down(config.top, width, width)
        self.book, self.book_top = quantiser(config.codebook), quantiser(config.codebook)
        self.up_top = Up(config.top, width, width)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.up = Up(config.bottom, 2 * width, 3)
        self.log_std = nn.Parameter(torch.tensor(-0.5))
        self.grid = config.size // config.bottom.factor
        self.grid_top = self.grid // config.top.factor

    def quantise(self, x: Tensor, g: torch.Generator | None = None) -> tuple[Quantised, Quantised]:
        """The top's codes and the bottom's."""
        h = self.down(x)
        top = self.book_top(self.down_top(F.silu(h)), g)
        return top, self.book(self.join(torch.cat([h, self.up_top(top.z)], dim=1)), g)

    def draw(self, top: Tensor, bottom: Tensor) -> Tensor:
        """Embedded codes of both levels → pictures."""
        return self.up(torch.cat([self.up_top(top), bottom], dim=1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        top, bottom = self.quantise(x)
        return top.index, bottom.index

    def decode(self, top: Tensor, bottom: Tensor) -> Tensor:
        return self.draw(self.book_top.look(top), self.book.look(bottom))

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        top, bottom = self.quantise(x, g)
        error = per_dimension(nll(x, self.draw(top.z, bottom.z), self.log_std), x).mean()
        return error + self.config.codebook.beta * (top.commitment + bottom.commitment)

    def bits(self, x: Tensor) -> Tensor:
        return per_dimension(nll(x, self.decode(*self.encode(x)), self.log_std), x)


class VQVAESystem(System):
    title, models = "VQ-VAE", "p(x | codes) p(codes)"
    parts: ClassVar = {"vqvae": (VQVAEConfig, VQVAE), "vqvae_prior": (PixelCNNConfig, PixelCNN)}
    vqvae: VQVAE
    vqvae_prior: PixelCNN
    temperature, top_k = 1.0, 0

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size, self.calls = self.vqvae.config.size, self.vqvae.grid**2 + 1

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.vqvae.decode(self.vqvae_prior.sample(Draw(seeds, "vqvae"), self.temperature, self.top_k))

    def reconstruct(self, pictures: Tensor) -> Tensor:
        return self.vqvae.decode(self.vqvae.encode(pictures))

    def bits(self, pictures: Tensor) -> Tensor:
        price = self.vqvae_prior.nll(self.vqvae.encode(pictures)).flatten(1).sum(1)
        return self.vqvae.bits(pictures) + per_dimension(price, pictures)

    def features(self, pictures: Tensor) -> Tensor:
        return self.vqvae.book(self.vqvae.down(pictures)).z.flatten(2).mean(2)

    def numbers(self, pictures: Tensor) -> dict[str, float]:
        return {"perplexity": perplexity(self.vqvae.encode(pictures), self.vqvae.config.codebook.codes).item()}


class VQVAE2System(System):
    title, models = "VQ-VAE-2", "p(x | top, bottom) p(bottom | top) p(top)"
    parts: ClassVar = {"vqvae2": (VQVAE2Config, VQVAE2), "vqvae2_top": (PixelCNNConfig, PixelCNN),
                       "vqvae2_bottom": (PixelCNNConfig, PixelCNN)}  # fmt: skip
    vqvae2: VQVAE2
    vqvae2_top: PixelCNN
    vqvae2_bottom: PixelCNN
    temperature, top_k = 1.0, 0

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size = self.vqvae2.config.size
        self.calls = self.vqvae2.grid**2 + self.vqvae2.grid_top**2 + 1

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        top = self.vqvae2_top.sample(Draw(seeds, "top"), self.temperature, self.top_k)
        bottom = self.vqvae2_bottom.sample(Draw(seeds, "bottom"), self.temperature, self.top_k, given=top)
        return self.vqvae2.decode(top, bottom)

    def reconstruct(self, pictures: Tensor) -> Tensor:
        return self.vqvae2.decode(*self.vqvae2.encode(pictures))

    def bits(self, pictures: Tensor) -> Tensor:
        top, bottom = self.vqvae2.encode(pictures)
        price = self.vqvae2_top.nll(top).flatten(1).sum(1) + self.vqvae2_bottom.nll(bottom, top).flatten(1).sum(1)
        return self.vqvae2.bits(pictures) + per_dimension(price, pictures)

    def numbers(self, pictures: Tensor) -> dict[str, float]:
        top, bottom = (perplexity(index, self.vqvae2.config.codebook.codes).item()
                       for index in self.vqvae2.encode(pictures))  # fmt: skip
        return {"perplexity": bottom, "perplexity_top": top}
