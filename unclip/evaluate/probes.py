"""Linear probes: how much of what a picture shows can be read off its features by one matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def probe(train: Tensor, y: Tensor, test: Tensor, y_test: Tensor, ridge: float = 1.0) -> float:
    """Share of test features [M, D] whose class is told by the ridge regression from train features [N, D]."""
    mean, std = train.double().mean(0), train.double().std(0) + 1e-6
    a, b = (torch.cat([(x.double() - mean) / std, x.new_ones(len(x), 1).double()], dim=1) for x in (train, test))
    weights = torch.linalg.solve(a.T @ a + ridge * torch.eye(a.shape[1], dtype=a.dtype), a.T @ F.one_hot(y).double())
    return ((b @ weights).argmax(1) == y_test).double().mean().item()


def kinds(field: str, *metas: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    """For each list of metas the number of each picture's `field` among the values that the first has, −1 for others
    and for none, [N]."""
    values = sorted({m[field] for m in metas[0] if m.get(field)})
    return tuple(torch.tensor([values.index(m[field]) if m.get(field) in values else -1 for m in ms]) for ms in metas)
