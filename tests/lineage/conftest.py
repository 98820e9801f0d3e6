"""Eight small pictures that a network can learn by heart, and whether it has."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(scope="session")
def eight() -> Tensor:
    """[8, 3, 16, 16]: a coloured bar or block on white, no two alike."""
    pictures = torch.ones(8, 3, 16, 16)
    colours = torch.tensor([[0.8, -0.8, -0.8], [-0.8, 0.6, -0.8], [-0.7, -0.6, 0.9], [-0.9, -0.9, -0.9]])
    for i in range(8):
        box = (slice(2, 14), slice(5, 11)) if i < 4 else (slice(6, 12), slice(1, 15))
        pictures[i, :, box[0], box[1]] = colours[i % 4][:, None, None]
    return pictures


@pytest.fixture(scope="session")
def memorise() -> Callable:
    return _memorise


@pytest.fixture(scope="session")
def nearest() -> Callable:
    return _nearest


def _memorise(net: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int, lr: float = 3e-3) -> float:
    """Train on `loss(g)`; the mean of the last losses."""
    learnt = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr, betas=(0.9, 0.99), weight_decay=0)
    last = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20, 4 * (1 - step / steps))
        value = loss(torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        last = [*last[-9:], value.item()]
    net.eval()
    return sum(last) / len(last)


def _nearest(drawn: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """For each drawn picture the mean squared error to the nearest known one, and which that is."""
    error = (drawn[:, None] - known[None]).square().flatten(2).mean(2)
    least = error.min(1)
    return least.values, least.indices
