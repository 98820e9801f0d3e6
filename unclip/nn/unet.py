"""The one U-Net: ADM's (Dhariwal & Nichol 2021), for the decoder, the upsamplers and every diffusion ancestor."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.nn.attention import KV, Attention
from unclip.nn.embed import TimeEmbedding
from unclip.nn.resnet import GroupNorm, PixelNorm, ResBlock


@dataclass(frozen=True)
class UNetConfig:
    in_channels: int = 3
    out_channels: int = 3
    channels: tuple[int, ...] = (80, 128, 192)  # of each level; every level halves the grid
    depth: int = 2  # residual blocks a level
    attention: tuple[int, ...] = (1, 2)  # levels with attention
    head: int = 32  # channels a head
    context: int | None = None  # width of the tokens that attention also looks at
    patch: int = 1  # space-to-depth before the first convolution
    layout: int = 0  # channels of a map joined to the picture there
    scale_shift: bool = True
    dropout: float = 0.0
    local: bool = False  # each position normalised by itself, so that a tile comes out as in the whole picture

    @property
    def emb(self) -> int:
        return 4 * self.channels[0]

    @property
    def grain(self) -> int:
        """Height and width must be multiples of this."""
        return self.patch << (len(self.channels) - 1)

    @property
    def reach(self) -> int:
        """How far, in pixels, a pixel can influence others through the convolutions."""
        steps = [self.patch << i for i in range(len(self.channels))]  # what one position of each level spans
        pairs = 2 * self.depth + 1  # blocks at a level, down and up, of two 3×3 convolutions each
        across = sum(2 * pairs * step for step in steps) + 4 * steps[-1]  # two more in the middle
        between = sum(2 * (low + high) for high, low in pairwise(steps)) + sum(steps[1:])  # there and back; pooling
        return across + between + 3 * self.patch  # first and last convolution; a patch is read and written whole


class SpatialAttention(nn.Module):
    """Attention over the H·W positions of [B, C, H, W], and over the context's keys when there are any."""

    def __init__(self, channels: int, head: int, context: int | None):
        super().__init__()
        self.norm, self.attention = GroupNorm(channels), Attention(channels, channels // head, context)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x: Tensor, before: KV | None = None) -> Tensor:
        y = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        y, _ = self.attention(y, before)
        return x + y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """x [B, in, H, W], t [B] → [B, out, H, W]; H and W divisible by patch · 2^(levels − 1).

    emb [B, emb] is added to the time embedding; keys are those of `keys(context)`, one pair for each attention; layout
    [B, layout, H / patch, W / patch] is joined to the picture by channel.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = c = config
        self.time = TimeEmbedding(c.channels[0], c.emb)
        self.conv_in = nn.Conv2d(c.in_channels * c.patch**2 + c.layout, c.channels[0], 3, padding=1)

        norm = PixelNorm if c.local else GroupNorm

        def res(cin: int, cout: int, how=None) -> ResBlock:
            return ResBlock(cin, cout, c.emb, how, c.scale_shift, c.dropout, norm)

        def attend(level: int) -> nn.Module:
            on = level in c.attention
            return SpatialAttention(c.channels[level], c.head, c.context) if on else nn.Identity()

        levels, last = range(len(c.channels)), len(c.channels) - 1
        width, skips = c.channels[0], [c.channels[0]]
        self.down = nn.ModuleList()
        for i in levels:
            for _ in range(c.depth):
                self.down.append(nn.ModuleList([res(width, c.channels[i]), attend(i)]))
                width = c.channels[i]
                skips.append(width)
            if i < last:
                self.down.append(nn.ModuleList([res(width, width, "down"), nn.Identity()]))
                skips.append(width)
        middle = SpatialAttention(width, c.head, c.context) if c.attention else nn.Identity()
        self.middle = nn.ModuleList([res(width, width), middle, res(width, width)])
        self.up = nn.ModuleList()
        for i in reversed(levels):
            for _ in range(c.depth + 1):
                self.up.append(nn.ModuleList([res(width + skips.pop(), c.channels[i]), attend(i), nn.Identity()]))
                width = c.channels[i]
            if i > 0:
                self.up[-1][2] = res(width, width, "up")
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, c.out_channels * c.patch**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def attentions(self) -> list[SpatialAttention]:
        return [m for m in self.modules() if isinstance(m, SpatialAttention)]

    def keys(self, context: Tensor) -> list[KV]:
        """Keys and values of context tokens [B, M, context width] for each attention: made once, used every step."""
        return [a.attention.keys(context) for a in self.attentions()]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        emb: Tensor | None = None,
        keys: list[KV] | None = None,
        layout: Tensor | None = None,
    ) -> Tensor:
        e = self.time(t)
        e = F.silu(e if emb is None else e + emb)
        given = iter(keys or [])

        def attend(module: nn.Module, h: Tensor) -> Tensor:
            return module(h, next(given, None)) if isinstance(module, SpatialAttention) else h

        x = F.pixel_unshuffle(x, self.config.patch)
        h = self.conv_in(x if layout is None else torch.cat([x, layout.to(x)], dim=1))
        skips = [h]
        for block, attention in self.down:
            h = attend(attention, block(h, e))
            skips.append(h)
        h = self.middle[0](h, e)
        h = self.middle[2](attend(self.middle[1], h), e)
        for block, attention, resize in self.up:
            h = attend(attention, block(torch.cat([h, skips.pop()], dim=1), e))
            h = resize(h, e) if isinstance(resize, ResBlock) else h
        h = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(h, self.config.patch)
