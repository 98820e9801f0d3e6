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
        k = self.reach
        above = self.vertical(F.pad(v, (k, k, k, 0)))  # a row and those above it …
        passed = F.pad(above, (0, 0, 1, 0))[:, :, :-1]  # … one row down: the row itself has its own stack
        left = F.pad(h, (k, 0, 0, 0))
        row = self.horizontal(left[..., :-1] if self.first else left) + self.down(passed)  # the first: without itself
        if self.context is not None and context is not None:
            add_v, add_h = self.context(context).chunk(2, dim=1)
            above, row = above + add_v, row + add_h  # eq. 4
        new = self.out(gate(row))
        return gate(above), new if self.first else h + new


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
        return self.rows(codes, self.told(given), 0)

    def rows(self, codes: Tensor, context: Tensor | None, first: int) -> Tensor:
        """`forward` for some rows of the grid, of which `first` is the first."""
        x = self.embed(codes).permute(0, 3, 1, 2)
        rows = slice(first, first + codes.shape[1])
        context = context[:, :, rows] if context is not None else None
        v = x
        h = x
        for layer in self.layers:
            v, h = layer(v, h, context)
        return self.out(h + self.place[:, :, rows])

    def nll(self, codes: Tensor, given: Tensor | None = None) -> Tensor:
        """−ln p of each code, [B, h, w]."""
        return F.cross_entropy(self(codes, given), codes, reduction="none")

    def loss(self, codes: Tensor, given: Tensor | None = None) -> Tensor:
        """Nats a code."""
        return self.nll(codes, given).mean()

    @torch.no_grad()
    def sample(self, draw: Draw, given: Tensor | None = None, temperature: float = 1.0, start: Tensor | None = None,
               known: int = 0) -> Tensor:  # fmt: skip
        """Codes [B, h, w], place by place. Only the rows that a place can see are computed.

        start: codes of which the first `known` rows are kept.
        """
        side, reach = self.config.grid, self.config.depth * (self.config.kernel // 2) + 1
        device = self.place.device
        blank = torch.zeros(len(draw.generators), side, side, dtype=torch.long, device=device)
        codes = blank if start is None else start.clone()
        context = self.told(given)
        for y in range(known, side):
            first = max(0, y - reach)
            for x in range(side):
                logits = self.rows(codes[:, first : y + 1], context, first)[:, :, -1, x]
                codes[:, y, x] = choose(logits, draw, temperature).to(device)
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

    def __init__(self, **parts: nn.Module):
        super().__init__(**parts)
        self.size, self.calls = self.pixelcnn.config.size, self.pixelcnn.config.size**2

    def sample(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.pixelcnn.palette(self.pixelcnn.net.sample(Draw(seeds, "pixelcnn")))

    def complete(self, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
        """The lower half drawn anew."""
        codes = self.pixelcnn.palette.nearest(shrink(pictures, self.size))
        drawn = self.pixelcnn.net.sample(Draw(seeds, "pixelcnn"), start=codes, known=self.size // 2)
        return self.pixelcnn.palette(drawn)

    def redraw(self, pictures: Tensor, where: Tensor, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return self.complete(pictures, seeds)

    def bits(self, pictures: Tensor) -> Tensor:
        """Of the palette's pictures: −log2 p a pixel over its three values, as Image-GPT counts."""
        return per_dimension(self.pixelcnn.net.nll(self.pixelcnn.palette.nearest(pictures)).flatten(1).sum(1), pictures)
