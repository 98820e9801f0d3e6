"""The one residual block: ADM's, with scale-shift conditioning and resampling inside (BigGAN style)."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from unclip.nn.norm import GroupNorm, PixelNorm


def resample(x: Tensor, how: Literal["up", "down"] | None) -> Tensor:
    """Nearest-neighbour doubling or 2×2 averaging of [B, C, H, W]."""
    if how == "up":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.avg_pool2d(x, 2) if how == "down" else x


class Pointwise(nn.Conv2d):
    """A 1×1 convolution as one matrix product: on a CPU the convolution's own sums depend on the number of threads."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """x [B, in, H, W], emb [B, emb] → [B, out, H', W'].

    scale_shift: norm(h)·(1 + s) + b with (s, b) from emb (ADM, "AdaGN"); else emb is added to h. With emb = 0 nothing
    conditions the block.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb: int,
        how: Literal["up", "down"] | None = None,
        scale_shift: bool = True,
        dropout: float = 0.0,
        norm: type[GroupNorm] | type[PixelNorm] = GroupNorm,
    ):
        super().__init__()
        self.how: Literal["up", "down"] | None = how
        self.scale_shift = scale_shift
        self.norm_1, self.conv_1 = norm(in_channels), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.emb = nn.Linear(emb, (2 if scale_shift else 1) * out_channels) if emb else None
        self.norm_2, self.dropout = norm(out_channels), nn.Dropout(dropout)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = Pointwise(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        for last in self.conv_2.parameters():
            nn.init.zeros_(last)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """emb has passed the SiLU already: it is the same for every block."""
        h = self.conv_1(resample(F.silu(self.norm_1(x)), self.how))
        e = self.emb(emb)[:, :, None, None] if self.emb is not None else None
        if e is None:
            h = self.norm_2(h)
        elif self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm_2(h) * (1 + scale) + shift
        else:
            h = self.norm_2(h + e)
        h = self.conv_2(self.dropout(F.silu(h)))
        return self.skip(resample(x, self.how)) + h


class Resample(nn.Module):
    """[B, C, H, W] → twice or half as high and wide, by a convolution (DDPM's, between its levels)."""

    def __init__(self, channels: int, how: Literal["up", "down"]):
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if how == "down" else 1, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(resample(x, "up") if self.how == "up" else x)
