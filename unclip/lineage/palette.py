"""Pixels as one of a few colours: Image-GPT's 9-bit palette, by k-means (Chen et al. 2020, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Palette(nn.Module):
    """index [B, H, W] → pictures [B, 3, H, W], and back by the nearest colour."""

    def __init__(self, colours: int):
        super().__init__()
        self.register_buffer("colours", torch.zeros(colours, 3))
        self.colours: Tensor

    def nearest(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] in [−1, 1] → [B, H, W]."""
        flat = x.permute(0, 2, 3, 1)
        return torch.cdist(flat.flatten(0, 2), self.colours.to(x)).argmin(1).view(flat.shape[:3])

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.colours).permute(0, 3, 1, 2)

    def quantised(self, x: Tensor) -> Tensor:
        return self(self.nearest(x))

    @torch.no_grad()
    def fit(self, x: Tensor, g: torch.Generator, steps: int = 12, most: int = 40_000) -> None:
        """k-means on pixels of x [B, 3, H, W]: distinct ones first, as most of a picture may be one white."""
        pixels = x.permute(0, 2, 3, 1).flatten(0, 2)
        pixels = torch.unique(((pixels + 1) * 127.5).round(), dim=0) / 127.5 - 1
        pixels = pixels[torch.randperm(len(pixels), generator=g)[:most]]
        k = len(self.colours)
        centres = pixels[torch.arange(k) % len(pixels)].clone()
        for _ in range(steps):
            own = torch.cdist(pixels, centres).argmin(1)
            count = torch.bincount(own, minlength=k)[:, None]
            mean = torch.zeros_like(centres).index_add_(0, own, pixels) / count.clamp(min=1)
            centres = torch.where(count > 0, mean, centres)
        ends = torch.tensor([[1.0] * 3, [-1.0] * 3])
        centres[torch.cdist(ends, centres).argmin(1)] = ends  # white ground and black lines stay what they are
        self.colours.copy_(centres)


def shrink(pictures: Tensor, size: int) -> Tensor:
    """[B, 3, S, S] → [B, 3, size, size]: each pixel the mean of what it covers."""
    return pictures if pictures.shape[-1] == size else F.adaptive_avg_pool2d(pictures, size)
