"""Gated PixelCNN (van den Oord et al. 2016, 1606.05328): categories on a grid, each given those before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.draw import Draw
from unclip.lineage.palette import Palette, shrink
from unclip.lineage.system import System, choose
from unclip.lineage.vae import per_dimension


@dataclass(frozen=True)
class PixelCNNConfig:
    grid: int = 16
    codes: int = 512
    width: int = 64
    depth: int = 6
    kernel: int = 5
    given: int = 0  # kinds of codes of a coarser grid that are told beforehand


class Gated(nn.Module):
    """y = tanh(W_f ∗ x) ⊙ σ(W_g ∗ x) in two stacks: what lies above, and what lies left in the row (figure 2)."""

    def __init__(self, width: int, kernel: int, first: bool, context: bool):
        super().__init__()
        self.reach, self.first = kernel // 2, first
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + 1 - first))
        self.down, self.out = nn.Conv2d(2 * width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.context = nn.Conv2d(width, 4 * width, 1) if context else None

    def forward(self, v: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks [B, width, h, w] for all places at once."""
        k = self.reach
        above = self.vertical(F.pad(v, (k, k, k, 0)))  # a row and those above it …
        passed = F.pad(above, (0, 0, 1, 0))[:, :, :-1]  # … one row down: the row itself has its own stack
        row = self.across(F.pad(h, (k, 0, 0, 0))) + self.down(passed)
        if context is not None:
            add_v, add_h = self.told(context)
            above, row = above + add_v, row + add_h
        return gate(above), self.further(h, row)

    def told(self, context: Tensor) -> tuple[Tensor, ...]:
        """What a map of every place adds to either stack (eq. 4)."""
        assert self.context is not None
        return self.context(context).chunk(2, dim=1)

    def across(self, left: Tensor) -> Tensor:
        """h, padded on the left → what lies there; the first layer leaves out the place itself."""
        return self.horizontal(left[..., :-1] if self.first else left)

    def further(self, h: Tensor, row: Tensor) -> Tensor:
        new = self.out(gate(row))
        return new if self.first else h + new


def gate(x: Tensor) -> Tensor:
    """Eq. 2."""
    f, g = x.chunk(2, dim=1)
    return f.tanh() * g.sigmoid()


class PixelCNN(nn.Module):
    """p(codes) = Π p(code i | codes before i in raster order), all factors at once for given codes (eq. 1)."""

    def __init__(self, config: PixelCNNConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.codes, config.width)
        self.context = nn.Embedding(config.given, config.width) if config.given else None
        self.place = nn.Parameter(torch.zeros(1, config.width, config.grid, config.grid))
        self.layers = nn.ModuleList(
            Gated(config.width, config.kernel, i == 0, bool(config.given)) for i in range(config.depth)
        )
        self.out = nn.Sequential(nn.ReLU(), nn.Conv2d(config.width, config.codes, 1))

    def told(self, given: Tensor | None) -> Tensor | None:
        """Codes of a coarser grid [B, h, w] → a map for every place of this one."""
        if self.context is None or given is None:
            return None
        return F.interpolate(self.context(given).permute(0, 3, 1, 2), size=(self.config.grid,) * 2)

    def forward(self, codes: Tensor, given: Tensor | None = None) -> Tensor:
        """codes [B, h, w], given [B, h', w'] → logits [B, codes, h, w]; at a place they know only what is before it."""
        h = v = self.embed(codes).permute(0, 3, 1, 2)
        context = self.told(given)
        for layer in self.layers:
            v, h = layer(v, h, context)
        return self.out(h + self.place)

    def nll(self, codes: Tensor, given: Tensor | None = None) -> Tensor:
        """−ln p of each code, [B, h, w]."""
        return F.cross_entropy(self(codes, given), codes, reduction="none")

    def loss(self, codes: Tensor, given: Tensor | None = None) -> Tensor:
        """Nats a code."""
        return self.nll(codes, given).mean()

    @torch.no_grad()
    def sample(self, draw: Draw, temperature: float = 1.0, top_k: int = 0, given: Tensor | None = None,
               start: Tensor | None = None, known: int = 0) -> Tensor:  # fmt: skip
        """Codes [B, h, w], place by place. A layer is asked for that place alone: what it says of the rows above is
        computed once for a row, what lies to the left is kept (Ramachandran et al. 2017, 1704.06001).

        start: codes of which the first `known` rows are kept.
        """
        side, width, k, n = self.config.grid, self.config.width, self.config.kernel // 2, len(draw.generators)
        zeros, context = self.place.new_zeros, self.told(given)
        codes = zeros(n, side, side, dtype=torch.long) if start is None else start.clone()
        told = [None if context is None else layer.told(context) for layer in self.layers]
        rows = [zeros(n, width, k + 1, side + 2 * k) for _ in self.layers]  # the last of each layer's v
        above = [zeros(n, 2 * width, 1, side) for _ in self.layers]
        for y in range(side):
            if y >= known:
                passed = [layer.down(a) if t is None else layer.down(a) + t[1][:, :, y : y + 1]
                          for layer, a, t in zip(self.layers, above, told, strict=True)]  # fmt: skip
                lefts = [zeros(n, width, 1, k + side) for _ in self.layers]
                for x in range(side):
                    h = zeros(n, width, 1, 1)  # not drawn yet, and the first layer does not look
                    for layer, left, p in zip(self.layers, lefts, passed, strict=True):
                        left[..., k + x : k + x + 1] = h
                        h = layer.further(h, layer.across(left[..., x : x + k + 1]) + p[..., x : x + 1])
                    logits = self.out(h + self.place[:, :, y : y + 1, x : x + 1]).flatten(1)
                    codes[:, y, x] = choose(logits, draw, temperature, top_k).to(codes.device)
                    lefts[0][..., 0, k + x] = self.embed(codes[:, y, x])
            v = self.embed(codes[:, y]).mT[:, :, None]
            for i, (layer, t) in enumerate(zip(self.layers, told, strict=True)):
                rows[i] = torch.cat([rows[i][:, :, 1:], F.pad(v, (k, k))], dim=2)
                above[i] = layer.vertical(rows[i])
                v = gate(above[i] if t is None else above[i] + t[0][:, :, y : y + 1])
        return codes


@dataclass(frozen=True)
class PixelsConfig:
    """PixelCNN on pixels, each one of the colours of a palette."""

    colours: int = 512
    net: PixelCNNConfig = PixelCNNConfig(32, 512, 48, 6)

    @property
    def size(self) -> int:
        return self.net.grid


class Pixels(nn.Module):
    def __init__(self, config: PixelsConfig):
        super().__init__()
        self.config, self.palette, self.net = config, Palette(config.colours), PixelCNN(config.net)

    def loss(self, x: Tensor, g: torch.Generator) -> Tensor:
        return self.net.loss(self.palette.nearest(x))


class PixelsSystem(System):
    title, models = "PixelCNN", "Π p(pixel | pixels before)"
    parts: ClassVar = {"pixelcnn": (PixelsConfig, Pixels)}
    pixelcnn: Pixels
    temperature, top_k = 1.0, 0

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size, self.calls = self.pixelcnn.config.size, self.pixelcnn.config.size**2

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.pixelcnn.palette(self.pixelcnn.net.sample(Draw(seeds, "pixelcnn"), self.temperature, self.top_k))

    def complete(self, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
        """The lower half drawn anew."""
        codes = self.pixelcnn.palette.nearest(shrink(pictures, self.size))
        draw, known = Draw(seeds, "pixelcnn"), self.size // 2
        drawn = self.pixelcnn.net.sample(draw, self.temperature, self.top_k, start=codes, known=known)
        return self.pixelcnn.palette(drawn)

    def redraw(self, pictures: Tensor, where: Tensor, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.complete(pictures, seeds)

    def bits(self, pictures: Tensor) -> Tensor:
        """Of the palette's pictures: −log2 p a pixel over its three values, as Image-GPT counts."""
        return per_dimension(self.pixelcnn.net.nll(self.pixelcnn.palette.nearest(pictures)).flatten(1).sum(1), pictures)
