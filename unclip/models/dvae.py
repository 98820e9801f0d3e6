"""DALL·E 1's discrete autoencoder (Ramesh et al. 2021, 2102.12092, appendix A): pictures ↔ a grid of 8,192 words."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4
EDGE = 0.1  # pictures are squeezed into [0.1, 0.9] before they are coded, for the sake of the logit-Laplace loss


@dataclass(frozen=True)
class DVAEEncoderConfig:
    width: int = 256  # channels of the finest level; each coarser one has twice as many
    codes: int = 8192
    depth: int = 2  # blocks a level


@dataclass(frozen=True)
class DVAEDecoderConfig:
    width: int = 256
    first: int = 128  # channels into which the codes are embedded
    codes: int = 8192
    depth: int = 2


class Bottleneck(nn.Module):
    """x [B, in, H, W] → [B, out, H, W]; `kernels` of its four convolutions. The gain makes the sum of all small."""

    def __init__(self, cin: int, cout: int, kernels: tuple[int, ...], gain: float):
        super().__init__()
        self.gain, hidden = gain, cout // 4
        widths = [cin, hidden, hidden, hidden, cout]
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()
        convs = [nn.Conv2d(a, b, k, padding=k // 2) for (a, b), k in zip(pairwise(widths), kernels, strict=True)]
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for conv in self.convs:
            h = conv(F.relu(h))
        return self.skip(x) + self.gain * h


def levels(widths: list[int], depth: int, kernels: tuple[int, ...], resize: nn.Module) -> nn.Sequential:
    """Blocks of each width, `resize` between them; widths[0] is what comes in."""
    gain = 1 / (LEVELS * depth) ** 2
    parts: list[nn.Module] = []
    for i, (cin, cout) in enumerate(pairwise(widths)):
        blocks = [Bottleneck(cin if j == 0 else cout, cout, kernels, gain) for j in range(depth)]
        after = resize if i + 1 < LEVELS else nn.Identity()
        parts.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks), resize=after)))
    return nn.Sequential(*parts)


class DVAEEncoder(nn.Module):
    """pictures [B, 3, H, W] in [−1, 1] → logits [B, codes, H / 8, W / 8]."""

    def __init__(self, config: DVAEEncoderConfig):
        super().__init__()
        self.config, n = config, config.width
        self.first = nn.Conv2d(3, n, 7, padding=3)
        self.levels = levels([n, n, 2 * n, 4 * n, 8 * n], config.depth, (3, 3, 3, 1), nn.MaxPool2d(2))
        self.last = nn.Conv2d(8 * n, config.codes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = (1 - 2 * EDGE) * (pictures + 1) / 2 + EDGE
        return self.last(F.relu(self.levels(self.first(x))))


class DVAEDecoder(nn.Module):
    """codes one-hot, or their probabilities [B, codes, h, w] → pictures [B, 3, 8h, 8w] in [−1, 1]."""

    def __init__(self, config: DVAEDecoderConfig):
        super().__init__()
        self.config, n = config, config.width
        self.first = nn.Conv2d(config.codes, config.first, 1)
        resize = nn.Upsample(scale_factor=2, mode="nearest")
        self.levels = levels([config.first, 8 * n, 4 * n, 2 * n, n], config.depth, (1, 3, 3, 3), resize)
        self.last = nn.Conv2d(n, 6, 1)

    def statistics(self, codes: Tensor) -> Tensor:
        """[B, 6, 8h, 8w]: location and log scale of each colour's logit-Laplace distribution."""
        return self.last(F.relu(self.levels(self.first(codes))))

    def forward(self, codes: Tensor) -> Tensor:
        x = (self.statistics(codes)[:, :3].sigmoid() - EDGE) / (1 - 2 * EDGE)
        return x.clamp(0, 1) * 2 - 1
