"""Optimiser, learning rate and weight average."""

import copy

import torch
from torch import nn


def adamw(net: nn.Module, lr: float, beta2: float, eps: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels alone, never gains, biases or learned vectors."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), eps=eps, fused=True)


def rate(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate: linear warm-up, a plateau, linear to zero over the last `decay` of the steps.

    The plateau does not depend on `steps`, so that a run may be lengthened.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = min(1.0, (steps - step) / max(1.0, decay * steps))
    return rise * fall


class EMA:
    """Exponential moving average of the weights, short at first: decay min(decay, (1 + step) / (10 + step))."""

    def __init__(self, net: nn.Module, decay: float):
        self.net, self.decay = copy.deepcopy(net).requires_grad_(False).eval(), decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.net.parameters()), [p.detach() for p in net.parameters()], weight)
