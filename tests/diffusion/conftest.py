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
        var, off = self._within(x, at)
        x0 = self.mean + (at.alpha * self.std**2 / var)[:, None] * off
        return Estimate((self.log_share(x, at).exp()[..., None] * x0).sum(1), frac)

    def _within(self, x, at):
        """Variance of x_t [K] within each component, and how far x_t is from its mean [B, K, D]."""
        return (at.alpha * self.std) ** 2 + at.sigma**2, x[:, None] - at.alpha * self.mean

    def log_share(self, x, at):
        """log p(k | x_t) [B, K] of each component: an exact noised classifier."""
        var, off = self._within(x, at)
        return (self.weight.log() - x.shape[1] / 2 * var.log() - off.square().sum(2) / (2 * var)).log_softmax(1)

    def weighed(self, factor):
        """The mixture with component k `factor[k]` times as likely: p(x | y), where p(y | k) is `factor`."""
        weight = self.weight * torch.tensor(factor, dtype=torch.float64)
        return Mixture((weight / weight.sum()).tolist(), self.mean.tolist(), self.std.tolist())

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
