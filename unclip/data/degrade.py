"""How the small picture is spoilt while an upsampler learns, so that it forgives the decoder's mistakes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(x: Tensor, sigma: float = 0.6, kernel: int = 3) -> Tensor:
    """Gaussian blur of [B, C, H, W], borders reflected; the paper's values for 64 → 256 (DALL·E 2, section 2.1)."""
    at = torch.arange(kernel, device=x.device, dtype=x.dtype) - kernel // 2
    tap = torch.exp(-0.5 * (at / sigma) ** 2)
    tap = (tap / tap.sum()).expand(x.shape[1], 1, 1, kernel)
    x = F.conv2d(F.pad(x, [kernel // 2] * 4, mode="reflect"), tap, groups=x.shape[1])
    return F.conv2d(x, tap.transpose(2, 3), groups=x.shape[1])
