"""Pictures to a small grid and back: the halves of a U-Net without what joins them, from the one residual block."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unclip.nn.norm import GroupNorm
from unclip.nn.resnet import ResBlock


@dataclass(frozen=True)
class PyramidConfig:
    channels: tuple[int, ...] = (48, 64, 96)  # of each level; every level halves the grid
    depth: int = 1  # residual blocks a level
    patch: int = 4  # space-to-depth before the first level

    @property
    def factor(self) -> int:
        """How many pixels of a side become one place of the grid."""
        return self.patch * 2 ** (len(self.channels) - 1)


class Down(nn.Module):
    """x [B, in, S, S] (and emb [B, emb]) → [B, out, S / factor, S / factor]."""

    def __init__(self, config: PyramidConfig, in_channels: int, out_channels: int, emb: int = 0):
        super().__init__()
        self.patch, widths = config.patch, config.channels
        self.conv_in = nn.Conv2d(in_channels * config.patch**2, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for width, after in zip(widths, [*widths[1:], None], strict=True):
            self.blocks.extend(ResBlock(width, width, emb) for _ in range(config.depth))
            if after:
                self.blocks.append(ResBlock(width, after, emb, "down"))
        self.norm, self.conv_out = GroupNorm(widths[-1]), nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.conv_in(F.pixel_unshuffle(x, self.patch))
        for block in self.blocks:
            h = block(h, emb)
        return self.conv_out(F.silu(self.norm(h)))


class Up(nn.Module):
    """h [B, in, s, s] (and emb [B, emb]) → [B, out, s · factor, s · factor]."""

    def __init__(self, config: PyramidConfig, in_channels: int, out_channels: int, emb: int = 0):
        super().__init__()
        self.patch, widths = config.patch, config.channels[::-1]
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for width, after in zip(widths, [*widths[1:], None], strict=True):
            self.blocks.extend(ResBlock(width, width, emb) for _ in range(config.depth))
            if after:
                self.blocks.append(ResBlock(width, after, emb, "up"))
        self.norm = GroupNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_channels * self.patch**2, 3, padding=1)

    def forward(self, h: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.conv_in(h)
        for block in self.blocks:
            h = block(h, emb)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm(h))), self.patch)
