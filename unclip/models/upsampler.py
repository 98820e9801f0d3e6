"""Diffusion upsamplers: unconditional ADM U-Nets of convolutions only, the small picture joined by channel
(DALL·E 2, section 2.1, after SR3)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.denoiser import Denoise
from unclip.diffusion.process import Process
from unclip.diffusion.tiles import Tiled
from unclip.nn.unet import UNet, UNetConfig


@dataclass(frozen=True)
class UpsamplerConfig:
    low: int = 64
    size: int = 256
    residual: bool = True  # the output is added to the enlarged picture: what is left to learn is detail
    unet: UNetConfig = field(
        default_factory=lambda: UNetConfig(in_channels=6, channels=(64, 96, 128), attention=(), patch=4)
    )
    diffusion: Process = field(default_factory=lambda: Process(predicts="x0", cap=20.0))
    antialias: bool = False  # the small picture is enlarged by the other bicubic kernel, and its overshoots are kept
    last: bool = False  # the last step is left to a network of its own, trained to look sharp (Karlo's)


class Upsampler(nn.Module):
    """64 → 256 or 256 → 1024. Trained on crops, applied to the whole picture, of any height and width: it sees no
    position and has no attention."""

    turns = ("unet", "last")  # of which one is used at a time

    def __init__(self, config: UpsamplerConfig):
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet)
        self.last = UNet(config.unet) if config.last else None

    def condition(self, low: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """low [B, 3, h, w] in [−1, 1] → [B, 3, H, W], bicubic; constant while x is denoised, so computed once.

        size: (H, W), by default as many times the small picture's as the network was trained for.
        """
        size = size or (low.shape[2] * self.factor, low.shape[3] * self.factor)
        if self.config.antialias:
            return F.interpolate(low, size, mode="bicubic", align_corners=False, antialias=True)
        return F.interpolate(low, size, mode="bicubic", align_corners=False).clamp(-1, 1)

    @property
    def factor(self) -> int:
        return self.config.size // self.config.low

    def denoiser(self, tile: int | None = None) -> Denoise:
        """In tiles of so many pixels a side, or whole: the same if the network is `local`, else tiles are blended."""
        denoise, unet, side = self.config.diffusion.denoiser(self), self.config.unet, tile
        if side is None:
            return denoise
        halo, blend = (unet.reach, 0) if unet.local else (side // 8, side // 8)
        return Tiled(denoise, side, halo, blend, unet.grain)

    def forward(self, x: Tensor, t: Tensor, given: Tensor) -> Tensor:
        """x, given [B, 3, H, W], t [B] → [B, out, H, W]."""
        unet = self.last if self.last is not None and not t.any() else self.unet
        y = unet(torch.cat([x, given.to(x)], dim=1), t).float()
        return y + given if self.config.residual else y
