"""How the small picture is spoilt while an upsampler learns, so that it forgives what it is given."""

import io
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.pictures import to_uint8


def gaussian_blur(x: Tensor, sigma: float = 0.6, kernel: int = 3) -> Tensor:
    """Gaussian blur of [B, C, H, W], borders reflected; the paper's values for 64 → 256 (DALL·E 2, section 2.1)."""
    at = torch.arange(kernel, device=x.device, dtype=x.dtype) - kernel // 2
    tap = torch.exp(-0.5 * (at / sigma) ** 2)
    tap = (tap / tap.sum()).expand(x.shape[1], 1, 1, kernel)
    x = convolve(F.pad(x, [kernel // 2] * 4, mode="reflect"), tap)
    return convolve(x, tap.transpose(2, 3))


def convolve(x: Tensor, tap: Tensor) -> Tensor:
    """Each channel by itself, in the picture's own precision: in bfloat16 it would have fewer shades than its file."""
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, tap, groups=x.shape[1])


def bsr(high: Tensor, factor: int, g: torch.Generator) -> Tensor:
    """[B, 3, H, W] → [B, 3, H / factor, W / factor], both in [−1, 1], spoilt at random (Zhang et al. 2103.14006).

    Two blurs, a resizing, noise and JPEG in an order drawn anew for each picture, then the rest of the reduction and
    JPEG once more. Everything random is a function of `g`, which is on the CPU. The mild end of BSRGAN's ranges: what
    is enlarged here are a decoder's pictures and users' own, not scans.
    """
    return torch.cat([spoil(picture[None], factor, g) for picture in high])


def spoil(x: Tensor, factor: int, g: torch.Generator) -> Tensor:
    """One picture [1, 3, H, W] of `bsr`."""
    size = [side // factor for side in x.shape[2:]]
    between = math.exp(draw(g, 0.0, math.log(factor)))  # reduced by so much on the way
    steps: list[Callable[[Tensor], Tensor]] = [
        partial(blur, g=g),
        partial(blur, g=g),
        lambda x: resize(x, [round(side / between) for side in x.shape[2:]], g),
        partial(speckle, g=g),
        partial(jpeg, g=g),
    ]
    for i in torch.randperm(len(steps), generator=g).tolist():
        x = steps[i](x)
    return jpeg(resize(x, size, g), g)


def draw(g: torch.Generator, low: float, high: float) -> float:
    """Uniform in [low, high)."""
    return low + (high - low) * torch.rand(1, generator=g).item()


def blur(x: Tensor, g: torch.Generator, kernel: int = 9) -> Tensor:
    """A Gaussian of random widths along random axes; half the time a round one."""
    a, turn = draw(g, 0.1, 2.0), draw(g, 0.0, math.pi)
    b = a if draw(g, 0, 1) < 0.5 else draw(g, 0.1, 2.0)
    y, z = torch.meshgrid(*[torch.arange(kernel, dtype=x.dtype) - kernel // 2] * 2, indexing="ij")
    along, across = math.cos(turn) * z + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * z
    tap = torch.exp(-0.5 * ((along / a) ** 2 + (across / b) ** 2))
    tap = (tap / tap.sum()).to(x.device).expand(x.shape[1], 1, kernel, kernel)
    return convolve(F.pad(x, [kernel // 2] * 4, mode="replicate"), tap)


def resize(x: Tensor, size: list[int], g: torch.Generator) -> Tensor:
    """By area, bilinear or bicubic interpolation, whichever comes."""
    mode = ("area", "bilinear", "bicubic")[int(draw(g, 0, 3))]
    smooth = {} if mode == "area" else {"antialias": True, "align_corners": False}
    return F.interpolate(x, size, mode=mode, **smooth).clamp(-1, 1)


def speckle(x: Tensor, g: torch.Generator) -> Tensor:
    """Gaussian noise of up to 8 of 255 levels, of its own in each channel or the same in all."""
    shape = (1, 3 if draw(g, 0, 1) < 0.6 else 1, *x.shape[2:])
    strength = draw(g, 0.0, 8.0) / 127.5
    return (x + strength * torch.randn(shape, generator=g).to(x)).clamp(-1, 1)


def jpeg(x: Tensor, g: torch.Generator) -> Tensor:
    """Written as JPEG of quality 60 to 95 and read again."""
    file = io.BytesIO()
    Image.fromarray(to_uint8(x)[0].numpy()).save(file, "JPEG", quality=int(draw(g, 60, 96)))
    with Image.open(file) as picture:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return (pixels.to(x) / 127.5 - 1)[None]
