"""CLIP's other picture tower: a ResNet-D with antialiased strides, read by attention (Radford et al. 2021, 2.4)."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.nn.attention import attend


@dataclass(frozen=True)
class ResNetConfig:
    width: int = 64  # channels after the stem; the last stage has 32 times as many
    depth: tuple[int, ...] = (3, 4, 6, 3)  # bottlenecks of each stage
    heads: int = 32  # of the attention that reads the last grid


class Bottleneck(nn.Module):
    """[B, in, H, W] → [B, 4 · channels, H / stride, W / stride]; strides are averages before a convolution."""

    def __init__(self, cin: int, channels: int, stride: int):
        super().__init__()
        out, pool = 4 * channels, nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv_1, self.norm_1 = nn.Conv2d(cin, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv_2, self.norm_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.pool = pool
        self.conv_3, self.norm_3 = nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out)
        conv, norm = nn.Conv2d(cin, out, 1, bias=False), nn.BatchNorm2d(out)
        parts: OrderedDict[str, nn.Module] = OrderedDict(pool=pool, conv=conv, norm=norm)
        self.skip = nn.Sequential(parts) if stride > 1 or cin != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm_1(self.conv_1(x)))
        h = self.pool(F.relu(self.norm_2(self.conv_2(h))))
        return F.relu(self.norm_3(self.conv_3(h)) + self.skip(x))


class AttentionPool(nn.Module):
    """[B, C, S, S] → [B, embed]: one query, the grid's mean, over the mean and every position."""

    def __init__(self, side: int, channels: int, heads: int, embed: int):
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(side**2 + 1, channels) * channels**-0.5)
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.project = nn.Linear(channels, embed)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.position
        q, k, v = (h.unflatten(-1, (self.heads, -1)).transpose(1, 2) for h in (self.q(x[:, :1]), self.k(x), self.v(x)))
        return self.project(attend(q, k, v, None).flatten(1))


class AttentionResNet(nn.Module):
    """centred pictures [B, 3, S, S] → z_i [B, embed]."""

    def __init__(self, config: ResNetConfig, image_size: int, embed: int):
        super().__init__()
        width, half = config.width, config.width // 2
        self.stem = nn.Sequential()
        for i, (cin, cout) in enumerate(((3, half), (half, half), (half, width))):
            self.stem.append(nn.Conv2d(cin, cout, 3, 2 if i == 0 else 1, padding=1, bias=False))
            self.stem.extend([nn.BatchNorm2d(cout), nn.ReLU()])
        self.stem.append(nn.AvgPool2d(2))
        self.stages, cin = nn.ModuleList(), width
        for i, depth in enumerate(config.depth):
            channels = width * 2**i
            first, cin = Bottleneck(cin, channels, 2 if i else 1), 4 * channels
            self.stages.append(nn.Sequential(first, *(Bottleneck(cin, channels, 1) for _ in range(depth - 1))))
        self.pool = AttentionPool(image_size // 32, cin, config.heads, embed)

    def forward(self, pictures: Tensor, kept: Tensor | None = None) -> Tensor:
        """kept must be None: a convolution cannot leave patches out."""
        assert kept is None, "a ResNet sees whole pictures"
        x = self.stem(pictures)
        for stage in self.stages:
            x = stage(x)
        return self.pool(x)
