"""DALL·E 1 (Ramesh et al. 2021, 2102.12092): a discrete VAE, and one Transformer over a caption and its codes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.lineage.pyramid import Down, PyramidConfig, Up
from unclip.lineage.reader import enlarge, reader
from unclip.lineage.sequence import unroll
from unclip.lineage.system import System
from unclip.lineage.vae import per_dimension
from unclip.lineage.vqvae import perplexity
from unclip.models.dvae import EDGE
from unclip.nn.attention import causal
from unclip.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class DVAEConfig:
    size: int = 64
    codes: int = 512  # 8192 in the paper
    width: int = 64
    beta: float = 1.0  # weight of the KL; 6.6 in the paper, for its 1024 codes of a picture
    last: float = 1 / 16  # the temperature τ falls from 1 to this …
    anneal: int = 200  # … over so many steps
    least: float = 0.0  # ln b of a pixel at least: lower, and the plain ground takes all of the gradient
    pyramid: PyramidConfig = field(default_factory=lambda: PyramidConfig((64, 96), 1, 4))


def logit_laplace(y: Tensor, mean: Tensor, log_b: Tensor) -> Tensor:
    """−ln f(y | μ, b) of values y in (0, 1), for f = exp(−|logit y − μ| / b) / (2 b y (1 − y)) (appendix A.3)."""
    return math.log(2) + log_b + (y * (1 - y)).log() + (y.logit() - mean).abs() * (-log_b).exp()


class DVAE(nn.Module):
    """Pictures as a grid of codes, chosen softly while it learns: z = Σ softmax((logits + gumbel) / τ) e.

    The published network, which `unclip.models.dvae` holds, is slow to draw anything at this size.
    """

    def __init__(self, config: DVAEConfig):
        super().__init__()
        self.config = config
        self.down = Down(config.pyramid, 3, config.codes)
        self.codes = nn.Embedding(config.codes, config.width)
        self.up = Up(config.pyramid, config.width, 6)
        self.grid = config.size // config.pyramid.factor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """[B, 3, S, S] → codes [B, h, w]."""
        return self.down(x).argmax(1)

    def decode(self, codes: Tensor) -> Tensor:
        y = self.up(self.codes(codes).permute(0, 3, 1, 2)).float()[:, :3].sigmoid()
        return ((y - EDGE) / (1 - 2 * EDGE) * 2 - 1).clamp(-1, 1)

    def temperature(self) -> Tensor:
        return torch.exp(math.log(self.config.last) * (self.steps / self.config.anneal).clamp(max=1))

    def terms(self, x: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """−ln p(x | z) and KL(q(z | x) ‖ uniform) in nats, [B] (eq. 1; Gumbel-softmax: section 2.1)."""
        logits = self.down(x).float()
        u = torch.rand(logits.shape, generator=g).clamp(1e-9, 1 - 1e-7).to(x)
        soft = ((logits - (-u.log()).log()) / self.temperature()).softmax(1)
        mean, log_b = self.up(torch.einsum("bkhw,kd->bdhw", soft, self.codes.weight)).float().chunk(2, dim=1)
        y = (1 - 2 * EDGE) * (x + 1) / 2 + EDGE
        error = logit_laplace(y, mean, log_b.clamp(self.config.least, 3)).flatten(1).sum(1)
        error = error - x[0].numel() * math.log((1 - 2 * EDGE) / 255)  # a density times the width of a value's bin
        log_q = logits.log_softmax(1)
        kl = (log_q.exp() * (log_q + math.log(self.config.codes))).flatten(1).sum(1)
        return error, kl

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        """The negative bound in bits per dimension."""
        error, kl = self.terms(x, g)
        self.steps += 1
        return per_dimension(error + self.config.beta * kl, x).mean()


@dataclass(frozen=True)
class DALLEConfig:
    vocab: int = 8192
    context: int = 24  # text tokens; 256 in the paper
    codes: int = 512
    grid: int = 8  # 32 in the paper
    kernel: int = 5  # of the convolutional attention; 11 in the paper
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(192, 6, 6))


def pattern(kind: str, text: int, grid: int, kernel: int) -> Tensor:
    """Mask [N, N], N = text + grid²: text sees the text before it; a code all text and part of the codes before it.

    row: the `grid` codes before it. column: those above it. convolution: those near it (figure 11).
    """
    codes = torch.arange(grid**2)
    y, x = codes // grid, codes % grid
    back = codes[:, None] - codes[None]
    near = {
        "row": back <= grid,
        "column": x[:, None] == x[None],
        "convolution": (y[:, None] - y[None] <= kernel // 2) & ((x[:, None] - x[None]).abs() <= kernel // 2),
    }[kind]
    mask = causal(text + grid**2)
    mask[text:, text:] &= near
    return mask


class DALLE(nn.Module):
    """One sequence: caption, then codes in raster order; every position tells the next (section 2.2)."""

    def __init__(self, config: DALLEConfig):
        super().__init__()
        self.config, width = config, config.transformer.width
        self.text = nn.Embedding(config.vocab + config.context, width)  # a padding token of its own at each place
        self.codes = nn.Embedding(config.codes, width)
        self.place = nn.Parameter(torch.randn(config.context, width) * 0.02)
        self.row = nn.Parameter(torch.randn(config.grid, 1, width) * 0.02)
        self.column = nn.Parameter(torch.randn(1, config.grid, width) * 0.02)
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, config.codes)
        nn.init.normal_(self.text.weight, std=0.02)
        nn.init.normal_(self.codes.weight, std=0.02)

    def masks(self, device: torch.device) -> list[Tensor]:
        """Of each block: every fourth looks along columns, the last around, the others along rows (appendix B.1)."""
        c, depth = self.config, self.config.transformer.depth
        kinds = ["convolution" if i == depth - 1 else "column" if i % 4 == 2 else "row" for i in range(depth)]
        made = {kind: pattern(kind, c.context, c.grid, c.kernel).to(device) for kind in set(kinds)}
        return [made[kind] for kind in kinds]

    def read(self, ids: Tensor) -> Tensor:
        """ids [B, context], zero padded → [B, context, width]."""
        pads = self.config.vocab + torch.arange(self.config.context, device=ids.device)
        return self.text(torch.where(ids == 0, pads, ids)) + self.place

    def see(self, codes: Tensor) -> Tensor:
        """The first codes of a grid, [B, n ≤ grid²] → [B, n, width]."""
        return self.codes(codes) + (self.row + self.column).flatten(0, 1)[: codes.shape[1]]

    def forward(self, ids: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """ids [B, context], codes [B, grid²] → what the Transformer says at the text [B, context, width], and the
        logits of the codes [B, grid², codes]."""
        x = torch.cat([self.read(ids), self.see(codes[:, :-1])], dim=1)
        n = x.shape[1]
        y, _ = self.transformer(x, [mask[:n, :n] for mask in self.masks(x.device)])
        last = self.config.context - 1
        return y[:, :last], self.head(y[:, last:])

    def loss(self, ids: Tensor, codes: Tensor) -> Tensor:
        """Cross-entropy: an eighth for the text, seven eighths for the picture (section 2.2)."""
        text, logits = self(ids, codes)
        told = ids[:, 1:] != 0
        text = F.linear(text[told], self.text.weight[: self.config.vocab])
        return F.cross_entropy(text, ids[:, 1:][told]) / 8 + 7 * F.cross_entropy(logits.mT, codes) / 8

    def sample(self, ids: Tensor, draw: Draw, temperature: float = 1.0, top_k: int = 0) -> Tensor:
        """Codes [B, grid, grid] for captions, keys and values kept."""
        c, places = self.config, (self.row + self.column).flatten(0, 1)
        drawn = unroll(
            self.transformer, self.masks(ids.device), self.read(ids), lambda code, i: self.codes(code) + places[i],
            self.head, c.grid**2, draw, temperature, top_k,
        )  # fmt: skip
        return drawn.unflatten(1, (c.grid, c.grid))


class DALLESystem(System):
    title, models, text = "DALL·E 1", "p(x | codes) p(codes, caption)", True
    parts: ClassVar = {"dvae": (DVAEConfig, DVAE), "dalle1": (DALLEConfig, DALLE)}
    dvae: DVAE
    dalle1: DALLE
    temperature, top_k, candidates = 0.9, 128, 4  # of each caption the best by CLIP is kept (section 2.5: of 512)

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size, self.calls = self.dvae.config.size, self.candidates * (self.dvae.grid**2 + 1) + 1

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        device = self.dvae.steps.device
        read, n = reader(device), self.candidates
        ids = read.ids(captions, self.dalle1.config.context).repeat_interleave(n, 0)
        draw = Draw([seed * n + i for seed in seeds for i in range(n)], "dalle1")
        pictures = self.dvae.decode(self.dalle1.sample(ids, draw, self.temperature, self.top_k))
        near = read.z_i(enlarge(pictures, 64)).unflatten(0, (-1, n)) @ read.z_t(captions)[:, :, None]
        return pictures.unflatten(0, (-1, n))[torch.arange(len(near)), near[..., 0].argmax(1)]

    def reconstruct(self, pictures: Tensor) -> Tensor:
        return self.dvae.decode(self.dvae.encode(pictures))

    def numbers(self, pictures: Tensor) -> dict[str, float]:
        return {"perplexity": perplexity(self.dvae.encode(pictures), self.dvae.config.codes).item()}
