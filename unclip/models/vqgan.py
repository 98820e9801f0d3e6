"""VQGAN (Esser et al. 2021, 2012.09841), and MoVQ (Zheng et al. 2022, 2209.09002), whose decoder's norms see the codes.

Pictures become a grid of vectors, each the nearest of a codebook; the decoder draws the picture from the grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.nn.attention import Attention
from unclip.nn.norm import GroupNorm
from unclip.nn.resnet import Pointwise


@dataclass(frozen=True)
class VQGANConfig:
    channels: int = 128
    multiples: tuple[int, ...] = (1, 1, 2, 2, 4)  # of the channels, at each level; all but the last halve the grid
    depth: int = 2  # residual blocks a level; the decoder has one more
    attention: tuple[int, ...] = (4,)  # levels with attention
    latent: int = 256  # channels of the grid
    embed: int = 256  # width of a code
    codes: int = 1024
    spatial: bool = False  # MoVQ: scale and shift of the decoder's norms come from the codes
    groups: int = 32  # of all other norms


class SpatialNorm(nn.Module):
    """GroupNorm(h) · scale(z) + shift(z), z [B, embed, h, w] enlarged to the picture's grid (MoVQ, equation 4)."""

    def __init__(self, channels: int, embed: int):
        super().__init__()
        self.norm = GroupNorm(channels, 1e-6)
        self.scale, self.shift = Pointwise(embed, channels, 1), Pointwise(embed, channels, 1)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        z = F.interpolate(z, h.shape[2:], mode="nearest")
        return self.norm(h) * self.scale(z) + self.shift(z)


class PlainNorm(nn.Module):
    def __init__(self, channels: int, groups: int = 32):
        super().__init__()
        self.norm = GroupNorm(channels, 1e-6)
        if channels % groups == 0:
            self.norm.num_groups = groups

    def forward(self, h: Tensor, z: Tensor | None) -> Tensor:
        return self.norm(h)


Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """x [B, in, H, W] → [B, out, H, W]: a residual block that knows no time."""

    def __init__(self, cin: int, cout: int, norm: Norm):
        super().__init__()
        self.norm_1, self.conv_1 = norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm_2, self.conv_2 = norm(cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.skip = Pointwise(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x, z)))
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h, z)))


class GridAttention(nn.Module):
    """One head over every position of [B, C, H, W]."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        self.norm, self.attention = norm(channels), Attention(channels, 1)

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        y, _ = self.attention(self.norm(x, z).flatten(2).mT)
        return x + y.mT.unflatten(2, x.shape[2:])


class Down(nn.Conv2d):
    """Half the grid; the odd row and column of padding are at the far edges."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Conv2d):
    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one size of grid, each with attention or without, and the change of size after them."""

    def __init__(self, cin: int, cout: int, depth: int, attention: bool, norm: Norm, resize: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(Block(cin if i == 0 else cout, cout, norm) for i in range(depth))
        self.attentions = nn.ModuleList(GridAttention(cout, norm) for _ in range(depth if attention else 0))
        self.resize = resize

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x, z)
            x = self.attentions[i](x, z) if len(self.attentions) else x
        return self.resize(x)


class Encoder(nn.Module):
    def __init__(self, config: VQGANConfig):
        super().__init__()
        c, widths = config, [config.channels * m for m in config.multiples]
        norm = partial(PlainNorm, groups=c.groups)
        self.conv_in = nn.Conv2d(3, c.channels, 3, padding=1)
        self.levels, width = nn.ModuleList(), c.channels
        for i, out in enumerate(widths):
            resize = Down(out) if i + 1 < len(widths) else nn.Identity()
            self.levels.append(Level(width, out, c.depth, i in c.attention, norm, resize))
            width = out
        self.middle = nn.ModuleList(
            [Block(width, width, norm), GridAttention(width, norm), Block(width, width, norm)]
        )
        self.norm_out, self.conv_out = norm(width), nn.Conv2d(width, c.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for part in (*self.levels, *self.middle):
            x = part(x, None)
        return self.conv_out(F.silu(self.norm_out(x, None)))


class Decoder(nn.Module):
    """The levels are numbered as the encoder's, from the finest, and walked from the coarsest."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        c, widths = config, [config.channels * m for m in config.multiples]

        def norm(channels: int) -> nn.Module:
            return SpatialNorm(channels, c.embed) if c.spatial else PlainNorm(channels, c.groups)

        width = widths[-1]
        self.conv_in = nn.Conv2d(c.latent, width, 3, padding=1)
        self.middle = nn.ModuleList([Block(width, width, norm), GridAttention(width, norm), Block(width, width, norm)])
        self.levels = nn.ModuleList()
        for i, out in enumerate(widths):
            before = widths[min(i + 1, len(widths) - 1)]
            resize = Up(out) if i else nn.Identity()
            self.levels.append(Level(before, out, c.depth + 1, i in c.attention, norm, resize))
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        x = self.conv_in(x)
        for part in (*self.middle, *reversed(self.levels)):
            x = part(x, z)
        return self.conv_out(F.silu(self.norm_out(x, z)))


class VQGAN(nn.Module):
    """pictures [B, 3, H, W] in [−1, 1] ↔ z [B, embed, H / f, W / f] ↔ codes [B, H / f, W / f], f = 2^(levels − 1)."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.codebook = nn.Embedding(config.codes, config.embed)
        self.before, self.after = Pointwise(config.latent, config.embed, 1), Pointwise(config.embed, config.latent, 1)

    def encode(self, pictures: Tensor) -> Tensor:
        """z before it is quantised; Kandinsky's latents are these."""
        return self.before(self.encoder(pictures))

    def quantise(self, z: Tensor) -> Tensor:
        """The index of the code nearest to each place of z."""
        return torch.cdist(z.flatten(2).mT.float(), self.codebook.weight[None].float()).argmin(-1).view(
            len(z), *z.shape[2:]
        )

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.after(z), z)

    def draw(self, codes: Tensor) -> Tensor:
        """codes [B, h, w] → pictures."""
        return self.decode(self.codebook(codes).permute(0, 3, 1, 2))
