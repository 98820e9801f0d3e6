"""The one U-Net: ADM's (Dhariwal & Nichol 2021), for the decoder, the upsamplers and every diffusion ancestor."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.nn.attention import KV, Attention
from unclip.nn.embed import TimeEmbedding
from unclip.nn.norm import GroupNorm, PixelNorm
from unclip.nn.resnet import Resample, ResBlock

Look = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class UNetConfig:
    in_channels: int = 3
    out_channels: int = 3
    channels: tuple[int, ...] = (80, 128, 192)  # of each level; every level halves the grid
    depth: int = 2  # residual blocks a level
    attention: tuple[int, ...] = (1, 2)  # levels with attention
    head: int = 32  # channels a head
    heads: int = 0  # of every attention, however wide; 0: as many as `head` gives
    context: int | None = None  # width of the tokens that attention also looks at
    patch: int = 1  # space-to-depth before the first convolution
    layout: int = 0  # channels of a map joined to the picture there
    scale_shift: bool = True
    convolve: bool = False  # a convolution halves and doubles the grid (DDPM), not a residual block (ADM)
    time: int = 0  # width of the time's sinusoids; 0: that of the first level
    dropout: float = 0.0
    local: bool = False  # each position normalised by itself, so that a tile comes out as in the whole picture
    transformer: bool = False  # attention within a Transformer block, the context apart (latent diffusion)

    @property
    def emb(self) -> int:
        return 4 * (self.time or self.channels[0])

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

    def __init__(self, channels: int, heads: int, context: int | None):
        super().__init__()
        self.norm, self.attention = GroupNorm(channels), Attention(channels, heads, context)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x: Tensor, before: KV | None = None, seen: Tensor | None = None) -> Tensor:
        """seen [B, M]: false where a context's token is padding."""
        y = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        mask = None if seen is None else F.pad(seen, (0, y.shape[1]), value=True)[:, None, None]
        y, _ = self.attention(y, before, mask)
        return x + y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class SpatialTransformer(nn.Module):
    """A Transformer block over the positions of [B, C, H, W]: it looks at itself, then at the context (Rombach et al.
    2112.10752, section 3.3); its layer is gated (GEGLU, Shazeer 2002.05202, eq. 6)."""

    def __init__(self, channels: int, heads: int, context: int | None):
        super().__init__()
        self.norm, self.enter = GroupNorm(channels, 1e-6), nn.Linear(channels, channels)
        self.norm_1, self.itself = nn.LayerNorm(channels), Attention(channels, heads)
        self.norm_2, self.attention = nn.LayerNorm(channels), Attention(channels, heads, context, own=False)
        self.norm_3, self.gated = nn.LayerNorm(channels), nn.Linear(channels, 8 * channels)
        self.mlp, self.leave = nn.Linear(4 * channels, channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, before: KV | None = None, seen: Tensor | None = None) -> Tensor:
        """seen [B, M]: false where a context's token is padding."""
        y = self.enter(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        y = y + self.itself(self.norm_1(y))[0]
        y = y + self.attention(self.norm_2(y), before, None if seen is None else seen[:, None, None])[0]
        value, gate = self.gated(self.norm_3(y)).chunk(2, dim=-1)
        y = y + self.mlp(value * F.gelu(gate))
        return x + self.leave(y).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class Halves(nn.Module):
    """The way down of a U-Net, and its middle: x [B, in, H, W] → [B, C, H / 2^n, W / 2^n]."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = c = config
        self.time = TimeEmbedding(c.time or c.channels[0], c.emb)
        self.conv_in = nn.Conv2d(c.in_channels * c.patch**2 + c.layout, c.channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        width, self.widths = c.channels[0], [c.channels[0]]  # of what is kept for the way up
        for i in range(len(c.channels)):
            for _ in range(c.depth):
                self.down.append(nn.ModuleList([self.res(width, c.channels[i]), self.attend(i)]))
                width = c.channels[i]
                self.widths.append(width)
            if i < len(c.channels) - 1:
                self.down.append(nn.ModuleList([self.resize(width, "down"), nn.Identity()]))
                self.widths.append(width)
        middle = self.attend(-1) if c.attention else nn.Identity()
        self.middle = nn.ModuleList([self.res(width, width), middle, self.res(width, width)])

    @property
    def norm(self) -> type[GroupNorm] | type[PixelNorm]:
        return PixelNorm if self.config.local else GroupNorm

    def res(self, cin: int, cout: int, how: Literal["up", "down"] | None = None) -> ResBlock:
        c = self.config
        return ResBlock(cin, cout, c.emb, how, c.scale_shift, c.dropout, self.norm)

    def resize(self, width: int, how: Literal["up", "down"]) -> nn.Module:
        return Resample(width, how) if self.config.convolve else self.res(width, width, how)

    def attend(self, level: int) -> nn.Module:
        c = self.config
        if level >= 0 and level not in c.attention:
            return nn.Identity()
        kind = SpatialTransformer if c.transformer else SpatialAttention
        return kind(c.channels[level], c.heads or c.channels[level] // c.head, c.context)

    def halve(self, h: Tensor, e: Tensor, look: Look) -> tuple[Tensor, list[Tensor]]:
        """The middle's output, and what each block on the way down gave."""
        h = self.conv_in(h)
        skips = [h]
        for block, attention in self.down:  # pyright: ignore[reportGeneralTypeIssues]
            h = look(attention, block(h, e))
            skips.append(h)
        h = self.middle[0](h, e)
        return self.middle[2](look(self.middle[1], h), e), skips


def looking(keys: list[KV] | None = None, seen: Tensor | None = None) -> Look:
    """Applies one attention after the other to a map, each with the next of the context's keys."""
    given = iter(keys or [])

    def look(module: nn.Module, h: Tensor) -> Tensor:
        return module(h, next(given, None), seen) if isinstance(module, (SpatialAttention, SpatialTransformer)) else h

    return look


class UNet(Halves):
    """x [B, in, H, W], t [B] → [B, out, H, W]; H and W divisible by patch · 2^(levels − 1).

    emb [B, emb] is added to the time embedding; keys are those of `keys(context)`, one pair for each attention, and
    seen [B, M] is false where the context is padding; layout [B, layout, H / patch, W / patch] is joined to the picture
    by channel.
    """

    def __init__(self, config: UNetConfig):
        super().__init__(config)
        c, width, skips = config, config.channels[-1], list(self.widths)
        self.up = nn.ModuleList()
        for i in reversed(range(len(c.channels))):
            for k in range(c.depth + 1):
                block = self.res(width + skips.pop(), c.channels[i])
                width = c.channels[i]
                last = i > 0 and k == c.depth
                resize = self.resize(width, "up") if last else nn.Identity()
                self.up.append(nn.ModuleList([block, self.attend(i), resize]))
        self.norm_out = self.norm(width)
        self.conv_out = nn.Conv2d(width, c.out_channels * c.patch**2, 3, padding=1)
        for last in self.conv_out.parameters():
            nn.init.zeros_(last)

    def attentions(self) -> list[SpatialAttention | SpatialTransformer]:
        return [m for m in self.modules() if isinstance(m, (SpatialAttention, SpatialTransformer))]

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
        seen: Tensor | None = None,
    ) -> Tensor:
        e = self.time(t)
        e = F.silu(e if emb is None else e + emb)
        look = looking(keys, seen)
        x = F.pixel_unshuffle(x, self.config.patch)
        h, skips = self.halve(x if layout is None else torch.cat([x, layout.to(x)], dim=1), e, look)
        for block, attention, resize in self.up:  # pyright: ignore[reportGeneralTypeIssues]
            h = look(attention, block(torch.cat([h, skips.pop()], dim=1), e))
            h = h if isinstance(resize, nn.Identity) else resize(h, e)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return F.pixel_shuffle(h, self.config.patch)
