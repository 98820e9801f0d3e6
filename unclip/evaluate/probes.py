"""Linear probes: how much of what a picture shows can be read off its features by one matrix."""

from collections import Counter
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


def subjects(metas: Sequence[Mapping[str, Any]], most: int = 12) -> list[str]:
    """The commonest keywords of a corpus."""
    return [word for word, _ in Counter(k for m in metas for k in m.get("keywords", ())).most_common(most)]


def kinds(metas: Sequence[Mapping[str, Any]], words: Sequence[str]) -> Tensor:
    """The number of the first of `words` among a picture's keywords, −1 for none, [N]."""
    found = [[i for i, word in enumerate(words) if word in m.get("keywords", ())] for m in metas]
    return torch.tensor([numbers[0] if numbers else -1 for numbers in found])
