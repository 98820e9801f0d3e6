import math
from pathlib import Path

import numpy as np
import pytest
import torch

from unclip.diffusion import Estimate, Levels

GOLDEN = Path(__file__).parents[1] / "golden"


class Mixture:
    """An exact denoiser [B, D]: data is a mixture of isotropic Gaussians, so E[x0 | x_t] is in closed form."""

    def __init__(self, weight, mean, std):
        self.weight, self.mean, self.std = (torch.tensor(v, dtype=torch.float64) for v in (weight, mean, std))

    def __call__(self, x, at, frac=0.0):
        var = (at.alpha * self.std) ** 2 + at.sigma**2  # of x_t within each component
        off = x[:, None] - at.alpha * self.mean  # [B, K, D]
        share = (self.weight.log() - x.shape[1] / 2 * var.log() - off.square().sum(2) / (2 * var)).softmax(1)
        x0 = self.mean + (at.alpha * self.std**2 / var)[:, None] * off
        return Estimate((share[..., None] * x0).sum(1), frac)

    def draw(self, n, rng):
        k = torch.multinomial(self.weight, n, replacement=True, generator=rng)
        noise = torch.randn(n, self.mean.shape[1], generator=rng, dtype=torch.float64)
        return self.mean[k] + self.std[k, None] * noise

    @property
    def moments(self):
        """Mean [D] and covariance [D, D]."""
        mean = self.weight @ self.mean
        off = self.mean - mean
        return mean, off.T @ (self.weight[:, None] * off) + (self.weight @ self.std**2) * torch.eye(len(mean))


@pytest.fixture
def mixture():
    return Mixture([0.5, 0.3, 0.2], [[1.0, 0.5], [-1.0, 0.2], [0.1, -1.2]], [0.3, 0.2, 0.4])


@pytest.fixture
def gaussian():
    """N(mean, std^2) in each of D = 2 dimensions."""
    return Mixture([1.0], [[0.4, -0.3]], [0.5])


@pytest.fixture
def even():
    """A variance-preserving chain of data and n + 1 noisy rows, even in log alpha/sigma from 3 to -5."""

    def levels(n):
        abar = torch.sigmoid(2 * torch.linspace(3, -5, n + 1, dtype=torch.float64))
        return Levels.of(torch.cat([torch.ones(1), abar]), torch.arange(n + 2) - 1)

    return levels


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def golden():
    return lambda name: {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / f"{name}.npz").items()}


@pytest.fixture
def order():
    """The order of a method: how fast its error falls over doublings of its steps."""
    return lambda errors: math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


@pytest.fixture(autouse=True)
def one_thread():
    """These tensors are small: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
