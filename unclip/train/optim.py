"""Optimiser, learning rate and weight average."""

import torch
from torch import Tensor, nn

from unclip.machine import native_bfloat16
from unclip.nn.adapter import twin


def optimiser(net: nn.Module, kind: str, lr: float, beta2: float, eps: float, weight_decay: float) -> "AdamW":
    """AdamW that decays matrices and kernels alone; with kind "muon", Muon for those of layers, AdamW for the rest."""
    layers = [m.weight for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))] if kind == "muon" else []
    inner = {id(p) for p in layers if p.requires_grad}
    others = [p for p in net.parameters() if p.requires_grad and id(p) not in inner]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay, "muon": False},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "muon": False},
        {"params": [p for p in net.parameters() if id(p) in inner], "weight_decay": weight_decay, "muon": True},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=lr, betas=(0.9, beta2), eps=eps, fused=True)


class AdamW(torch.optim.AdamW):
    """AdamW whose groups may ask for Muon (Jordan 2024): momentum, orthogonalised, in steps of AdamW's usual size."""

    def __setstate__(self, state: dict) -> None:
        torch.optim.Optimizer.__setstate__(self, state)  # AdamW's own looks for its moments in every group

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        everything = self.param_groups
        self.param_groups = [group for group in everything if not group["muon"]]
        super().step()
        self.param_groups = everything
        for group in everything:
            for p in group["params"] if group["muon"] else ():
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                update = orthogonal(p.grad.lerp(momentum, 0.95).flatten(1))
                update *= 0.2 * max(update.shape) ** 0.5  # root mean square 0.2, as AdamW's (Liu et al. 2502.16982)
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.view(p.shape), alpha=group["lr"])


def orthogonal(g: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix to g [m, n], roughly: five Newton-Schulz steps, singular values near 1."""
    x = g.T if g.shape[0] > g.shape[1] else g
    x = (x / (x.norm() + 1e-7)).to(torch.bfloat16 if native_bfloat16(g.device) else g.dtype)
    for _ in range(5):
        a = x @ x.T
        x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.T if g.shape[0] > g.shape[1] else x).to(g.dtype)


def rate(step: int, steps: int, warmup: int, decay: float) -> float:
    """Share of the peak learning rate: linear warm-up, a plateau, linear to zero over the last `decay` of the steps.

    The plateau does not depend on `steps`, so that a run may be lengthened.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = min(1.0, (steps - step) / max(1.0, decay * steps))
    return rise * fall


class EMA:
    """Exponential moving average of the weights, short at first: decay min(decay, (1 + step) / (10 + step)).

    Weights that are frozen are those of the network itself."""

    def __init__(self, net: nn.Module, decay: float):
        self.net, self.decay = twin(net).requires_grad_(False).eval(), decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        pairs = zip(self.net.parameters(), net.parameters(), strict=True)
        mine, now = zip(*((mine, now.detach()) for mine, now in pairs if mine is not now), strict=True)
        torch._foreach_lerp_(mine, now, weight)  # pyright: ignore[reportPrivateImportUsage]
        for mine, now in zip(self.net.buffers(), net.buffers(), strict=True):
            mine.copy_(now)  # what a network counts for itself, such as a codebook's averages, is not averaged again
