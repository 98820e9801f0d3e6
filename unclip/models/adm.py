"""ADM and what came before it: a U-Net that knows the class, and a classifier of noisy pictures to guide it (Dhariwal &
Nichol 2021, 2105.05233; Nichol & Dhariwal 2021, 2102.09672)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.process import Process
from unclip.nn.attention import attend
from unclip.nn.unet import Halves, UNet, UNetConfig, looking


@dataclass(frozen=True)
class ADMConfig:
    size: int = 64
    classes: int = 1000  # 0: none are told
    unet: UNetConfig = field(default_factory=lambda: UNetConfig(out_channels=6, channels=(192, 384, 576, 768), depth=3))
    diffusion: Process = field(default_factory=lambda: Process(variance="learned"))
    guidance: float = 1.0  # how much of the classifier's gradient was published with it


class ADM(nn.Module):
    """x [B, 3, S, S], t [B], class y [B], small picture low [B, 3, s, s] → [B, 6, S, S]."""

    def __init__(self, config: ADMConfig):
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet)
        self.labels = nn.Embedding(config.classes, config.unet.emb) if config.classes else None

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, low: Tensor | None = None) -> Tensor:
        emb = self.labels(y) if self.labels is not None else None
        return self.unet(x, t, emb, layout=None if low is None else enlarged(low, x)).float()


def enlarged(low: Tensor, x: Tensor) -> Tensor:
    """[B, 3, s, s] → as high and wide as x, bilinear: what the upsamplers of ADM and GLIDE are given."""
    return F.interpolate(low, x.shape[2:], mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class ClassifierConfig:
    size: int = 64
    classes: int = 1000
    unet: UNetConfig = field(default_factory=lambda: UNetConfig(channels=(128, 256, 384, 512), depth=4))


class GridPool(nn.Module):
    """[B, C, S, S] → [B, out]: one query, the grid's mean, over the mean and every position (CLIP's, section 2.4)."""

    def __init__(self, side: int, channels: int, heads: int, out: int):
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(side**2 + 1, channels) * channels**-0.5)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.position
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(attend(q[:, :, :1], k, v, None).flatten(1))


class Classifier(nn.Module):
    """noisy x [B, 3, S, S], t [B] → logits [B, classes]: the downward half of the U-Net, read by attention."""

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config, c = config, config.unet
        width, side = c.channels[-1], config.size // c.grain
        self.unet = Halves(c)
        self.norm_out, self.pool = self.unet.norm(width), GridPool(side, width, width // c.head, config.classes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h, _ = self.unet.halve(x, F.silu(self.unet.time(t)), looking())
        return self.pool(F.silu(self.norm_out(h))).float()
