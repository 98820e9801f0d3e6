"""Embeddings of time."""

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, width: int, period: float = 10_000.0) -> Tensor:
    """Transformer position code of a time t [B] → [B, width], cosines first (DDPM appendix B, as ADM orders it)."""
    rate = torch.exp(-math.log(period) * torch.arange(width // 2, device=t.device) / (width // 2))
    angle = t[:, None].float() * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class TimeEmbedding(nn.Sequential):
    """t [B] → [B, out]: sinusoids through a two-layer network."""

    def __init__(self, width: int, out: int):
        super().__init__(nn.Linear(width, out), nn.SiLU(), nn.Linear(out, out))
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        return super().forward(sinusoidal(t, self.width).to(next(self.parameters()).dtype))
