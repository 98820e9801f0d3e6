"""The diffusion prior P(z_i | y): a causal Transformer that denoises z_i given a caption (DALL·E 2, section 2.2)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.diffusion.levels import mix, spread
from unclip.diffusion.process import Process
from unclip.models.prefix import Prefix, Prefixed
from unclip.nn.attention import causal
from unclip.nn.embed import TimeEmbedding
from unclip.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class PriorConfig:
    embed: int = 256  # width of z_i and z_t
    text: int = 256  # width of the encoded text
    context: int = 32
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(width=320, depth=6, heads=5))
    diffusion: Process = field(default_factory=lambda: Process(predicts="x0"))
    whiten: float = 0.0  # how far z_i's principal axes are brought to one spread: 0 the paper's z_i, 1 all alike
    affine: bool = False  # z_i and z_t as CLIP gives them, of any length, z_i by its mean and deviation: Karlo's
    reach: float = 5.0  # then: how many deviations an estimate may lie from the mean
    null: bool = True  # what stands for no caption is learned; else it is the empty caption
    measured: int = 0  # levels at which the error of the estimate was measured, for Analytic-DPM


class Space(nn.Module):
    """The coordinates that z_i is denoised in: unit z_i [..., D] ↔ u [..., D], of variance 1 on average.

    Plain, u is √D · z_i (the paper's factor 17.2 does this for its CLIP). But nearly all the variance of z_i may lie in
    a few directions, and what makes a picture recognisable in the others, where squared error hardly counts. Whitened
    by w, the k-th principal axis of √D · z_i, of deviation s_k, has the deviation s_k^(1 − w), times a constant.
    """

    def __init__(self, dim: int, whiten: float):
        super().__init__()
        self.scale, self.whiten = dim**0.5, whiten
        if whiten:
            self.mean: Tensor
            self.axes: Tensor
            self.deviation: Tensor
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("axes", torch.zeros(dim, dim).fill_diagonal_(1))  # columns
            self.register_buffer("deviation", torch.ones(dim))

    @torch.no_grad()
    def fit(self, z_i: Tensor) -> None:
        """Take the principal axes of unit z_i [N, D]."""
        if self.whiten:
            x = self.scale * z_i.double()
            variance, axes = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
            self.mean.copy_(x.mean(0))
            self.axes.copy_(axes)
            self.deviation.copy_(variance.clamp(min=1e-6).sqrt())

    def reach(self, deviations: float = 5.0) -> Tensor | float:
        """How far from 0 a coordinate [D] may lie."""
        return deviations * self.unit * self.deviation ** (1 - self.whiten) if self.whiten else deviations

    @property
    def unit(self) -> Tensor:
        """Brings the mean variance to 1."""
        return self.deviation.pow(2 * (1 - self.whiten)).mean().rsqrt()

    def enter(self, z_i: Tensor) -> Tensor:
        """unit z_i [..., D] → u."""
        x = self.scale * z_i
        return (x - self.mean) @ self.axes * (self.unit * self.deviation**-self.whiten) if self.whiten else x

    def leave(self, u: Tensor) -> Tensor:
        """u [..., D] → unit z_i."""
        x = u / (self.unit * self.deviation**-self.whiten) @ self.axes.T + self.mean if self.whiten else u
        return F.normalize(x, dim=-1)


class Affine(nn.Module):
    """z_i [..., D] of any length ↔ u = (z_i − mean) / deviation, each coordinate by its own (Karlo, Kandinsky)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, deviations: float):
        super().__init__()
        self.scale, self.deviations = 1.0, deviations
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    @torch.no_grad()
    def fit(self, z_i: Tensor) -> None:
        """Take the mean and deviation of z_i [N, D]."""
        self.mean.copy_(z_i.mean(0))
        self.deviation.copy_(z_i.std(0))

    def reach(self) -> float:
        return self.deviations

    def enter(self, z_i: Tensor) -> Tensor:
        return (z_i - self.mean) / self.deviation

    def leave(self, u: Tensor) -> Tensor:
        return u * self.deviation + self.mean


class Prior(Prefixed):
    """Sequence: encoded text, z_t, t, noised z_i, final; the last output is the estimate of the clean z_i.

    z_i is denoised in the coordinates u of `space`; z_t enters as √D · unit vector.
    """

    def __init__(self, config: PriorConfig):
        super().__init__()
        self.config = config
        width = config.transformer.width
        c = config
        self.space = Affine(c.embed, c.reach) if c.affine else Space(c.embed, c.whiten)
        self.text, self.z_t, self.z_i = (nn.Linear(n, width) for n in (config.text, config.embed, config.embed))
        self.time = TimeEmbedding(width, width)
        self.final = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, config.context + 4, width) * 0.02)
        if config.null:
            self.null_text = nn.Parameter(torch.randn(config.context, config.text) * 0.02)
            self.null_z_t = nn.Parameter(torch.randn(config.embed) * 0.02)
        self.transformer = Transformer(config.transformer)
        self.out = nn.Linear(width, config.embed)
        if config.measured:
            self.error: Tensor
            self.register_buffer("error", torch.zeros(config.measured, config.embed))

    def forward(self, x: Tensor, t: Tensor, given: Prefix) -> Tensor:
        """x: noised u [B · n, embed], n side by side for each of the B captions of `given`; t [B · n] → u's estimate.

        The n of a caption share its keys: they stand in one sequence, and none sees another.
        """
        captions = len(given.seen)
        n = len(x) // captions
        tail = torch.cat([self.time(t)[:, None], self.z_i(x)[:, None], self.final.expand(len(x), -1, -1)], dim=1)
        tail = (tail + self.position[:, -3:]).unflatten(0, (captions, n)).flatten(1, 2)
        own = torch.block_diag(*causal(3).expand(n, 3, 3)).to(x.device).expand(captions, 1, -1, -1)
        mask = torch.cat([given.seen.expand(-1, -1, 3 * n, -1), own.bool()], dim=-1)
        y, _ = self.transformer(tail, mask, given.keys)
        return self.out(y[:, 2::3].flatten(0, 1)).float()

    @torch.no_grad()
    def measure(self, z_i: Tensor, given: Prefix, levels: int) -> Tensor:
        """Mean squared error [levels, embed] of the estimate of u at `levels` times from 1 to T, for unit z_i
        [B, embed] under their captions. Of the best estimate it is the expected variance of u given its noised self."""
        u, process = self.space.enter(z_i), self.config.diffusion
        noise = Draw(range(len(u)), "measure").like(u)
        denoise, table, errors = process.denoiser(self), process.levels(), []
        for row in spread(process.T, levels):
            x = mix((table[row].alpha, u), (table[row].sigma, noise))
            errors.append((denoise(x, table[row], given=given).x0 - u).square().mean(0))
        return torch.stack(errors)

    def variance(self) -> Tensor:
        """What `analytic` asks for, [T, embed]: the measured errors, linear in time between the levels."""
        between = F.interpolate(self.error.T[None], self.config.diffusion.T, mode="linear", align_corners=True)
        return between[0].T.double().cpu()
