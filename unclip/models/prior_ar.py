"""The autoregressive prior P(z_i | y): a Transformer that draws z_i code by code (DALL·E 2, section 2.2)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.special import ndtr, ndtri

from unclip.models.prefix import Prefix, Prefixed
from unclip.nn.attention import causal
from unclip.nn.embed import sinusoidal
from unclip.nn.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class PriorARConfig:
    embed: int = 256  # width of z_i and z_t
    text: int = 256  # width of the encoded text
    context: int = 32
    components: int = 0  # principal components of z_i that are drawn; 0: as many as training finds to be needed
    buckets: int = 1024
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(width=256, depth=6, heads=4))


class Codes(nn.Module):
    """unit z_i [..., D] ↔ 1 + K codes: the bucket of z_i · z_t, then those of z_i's first K principal components.

    A bucket's edges are quantiles of the Gaussian with the number's own mean and deviation over the corpus. So all
    buckets are the right one about equally often and none stays untrained (evenly spaced ones would be empty by the
    hundred); code c means the same of every component, its c-th quantile, and they can share one embedding; and a
    loss of log(buckets) is that of knowing nothing. With 1024 buckets the rounding costs 0.03% of the variance.
    """

    def __init__(self, dim: int, components: int, buckets: int):
        super().__init__()
        self.buckets, self.scale = buckets, dim**0.5
        self.mean: Tensor
        self.axes: Tensor
        self.centre: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("axes", torch.zeros(dim, components).fill_diagonal_(1))  # columns, by decreasing variance
        self.register_buffer("centre", torch.zeros(1 + components))  # of z_i · z_t, then of each component
        self.register_buffer("spread", torch.ones(1 + components))  # deviation

    @torch.no_grad()
    def fit(self, z_i: Tensor, dots: Tensor) -> None:
        """Take the principal axes of unit z_i [N, D], and the spread of `dots`, some z_i · z_t of the corpus."""
        variance, axes = principal(z_i)
        k = self.axes.shape[1]
        self.mean.copy_(z_i.double().mean(0))
        self.axes.copy_(axes[:, :k])
        self.spread.copy_(torch.cat([dots.double().std()[None], variance[:k].sqrt()]).clamp(min=1e-6))
        self.centre[0] = dots.mean()

    def enter(self, z_i: Tensor, z_t: Tensor) -> Tensor:
        """unit z_i, z_t [..., D] → codes [..., 1 + K]."""
        dot = (z_i * z_t).sum(-1, keepdim=True)
        y = (torch.cat([dot, (z_i - self.mean) @ self.axes], dim=-1) - self.centre) / self.spread
        return (ndtr(y) * self.buckets).long().clamp(0, self.buckets - 1)

    def leave(self, codes: Tensor) -> Tensor:
        """codes [..., 1 + k], k ≤ K → unit z_i [..., D]; each is read as its bucket's median, what is left out as 0."""
        y = ndtri((codes[..., 1:] + 0.5) / self.buckets)
        k = y.shape[-1]
        return F.normalize(self.mean + (y * self.spread[1 : 1 + k]) @ self.axes[:, :k].T, dim=-1)


def principal(z_i: Tensor) -> tuple[Tensor, Tensor]:
    """z_i [N, D] → variances [D], decreasing, and axes [D, D], in columns; both in float64."""
    x = z_i.double() - z_i.double().mean(0)
    variance, axes = torch.linalg.eigh(x.T @ x / len(x))
    return variance.flip(0).clamp(min=0), axes.flip(1)


def needed(z_i: Tensor, error: float = 0.01) -> int:
    """The smallest number of principal components that rebuild z_i [N, D] with under `error` of its variance lost."""
    variance, _ = principal(z_i)
    return int((variance.cumsum(0) <= (1 - error) * variance.sum()).sum()) + 1


class PriorAR(Prefixed):
    """Sequence: encoded text, z_t, first, the code of z_i · z_t, those of z_i; each output is the next code's logits.

    The paper: 319 of 1024 components, and the code of z_i · z_t drawn from the top half of its distribution, so that a
    z_i that goes well with the caption is asked for.
    """

    def __init__(self, config: PriorARConfig):
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.space = Codes(config.embed, config.components, config.buckets)
        self.text, self.z_t = nn.Linear(config.text, width), nn.Linear(config.embed, width)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, config.context + 2 + config.components, width) * 0.02)
        self.null_text = nn.Parameter(torch.randn(config.context, config.text) * 0.02)
        self.null_z_t = nn.Parameter(torch.randn(config.embed) * 0.02)
        self.transformer = Transformer(config.transformer)
        # Codes are in order, and neighbours begin alike, as input and, by the same table, as output.
        self.codes = nn.Parameter(torch.empty(config.buckets, width))
        if not self.codes.is_meta:
            self.codes.data = 0.05 * sinusoidal(torch.arange(config.buckets), width)

    def tail(self, codes: Tensor, start: int) -> Tensor:
        """codes [B, n] as they stand from place `start` behind z_t on, `first` before them if that is 0."""
        x = F.embedding(codes, self.codes) * self.codes.shape[1] ** 0.5
        if start == 0:
            x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1)
        begin = self.config.context + 1 + start
        return x + self.position[:, begin : begin + x.shape[1]]

    def logits(self, y: Tensor) -> Tensor:
        return F.linear(y, self.codes).float()

    def forward(self, codes: Tensor, given: Prefix) -> Tensor:
        """codes [B, n ≤ K] known so far → logits [B, n + 1, buckets] of each of them and the next."""
        x = self.tail(codes, 0)
        n = x.shape[1]
        mask = causal(n, given.seen.shape[-1], x.device) & F.pad(given.seen, (0, n), value=True)
        return self.logits(self.transformer(x, mask, given.keys)[0])

    def loss(self, z_i: Tensor, z_t: Tensor, given: Prefix) -> Tensor:
        """Cross-entropy of the codes of unit z_i [B, embed], in nats a code."""
        codes = self.space.enter(z_i, z_t)
        return F.cross_entropy(self(codes[:, :-1], given).flatten(0, 1), codes.flatten())

    def sample(
        self, given: Prefix, u: Tensor, guidance: float | None = None, temperature: float = 1.0, top_p: float = 1.0
    ) -> Iterator[Tensor]:
        """Draw the codes one by one, each at the quantile u [B · n, 1 + K] of its distribution; n for each caption.

        Yields after every code those so far, [B · n, 1 … 1 + K]. guidance: `given` is of [2B] captions, those to steer
        away from first, and the logits are moved from the ones past the others. top_p: only the likeliest codes that
        make up so much are drawn from (Holtzman et al. 1904.09751).
        """
        branches = 1 if guidance is None else 2
        times = branches * len(u) // len(given.seen)
        keys = [(k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in given.keys]
        seen = given.seen.repeat_interleave(times, 0)
        codes = torch.empty(len(u), 0, dtype=torch.long, device=u.device)
        for i in range(1 + self.config.components):
            x = self.tail(codes[:, max(0, i - 1) :], i).repeat(branches, 1, 1)
            seen = F.pad(seen, (0, 1), value=True)
            y, keys = self.transformer(x, seen, keys)
            logits = self.logits(y[:, -1])
            if guidance is not None:
                absent, asked = logits.chunk(2)
                logits = absent.lerp(asked, guidance)
            code = pick(logits / temperature, u[:, i], top_p, upper=i == 0)
            codes = torch.cat([codes, code[:, None]], dim=1)
            yield codes


def pick(logits: Tensor, u: Tensor, top_p: float = 1.0, upper: bool = False) -> Tensor:
    """The code [B] at quantile u [B] of softmax(logits) [B, buckets], the lower codes first.

    upper: only of the upper half of the distribution; top_p: only of the likeliest that make up so much.
    """
    p = logits.double().softmax(-1)
    if upper:
        above = p.flip(1).cumsum(1).flip(1) - p
        p = p * (above < 0.5)
    if top_p < 1:
        ranked, order = (p / p.sum(1, keepdim=True)).sort(descending=True, stable=True)
        p = torch.zeros_like(p).scatter(1, order, ranked * (ranked.cumsum(1) - ranked < top_p))
    edges = p.cumsum(1)
    return torch.searchsorted(edges, u.double()[:, None] * edges[:, -1:])[:, 0].clamp(max=logits.shape[1] - 1)
