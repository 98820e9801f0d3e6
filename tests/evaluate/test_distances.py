import numpy as np
import pytest
import torch

from unclip.errors import UnclipError
from unclip.evaluate.distances import cubic, frechet, kernel


def normal(n: int, mean: torch.Tensor, root: torch.Tensor, seed: int) -> torch.Tensor:
    """n draws from N(mean, root rootᵀ)."""
    g = torch.Generator().manual_seed(seed)
    return mean + torch.randn(n, len(mean), dtype=torch.float64, generator=g) @ root.T


def whitened(n: int, d: int, seed: int) -> torch.Tensor:
    """n vectors with a mean of exactly 0 and a covariance of exactly 1."""
    x = normal(n, torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64), seed)
    x = x - x.mean(0)
    return torch.linalg.qr(x).Q * (n - 1) ** 0.5


def test_frechet_of_gaussians_whose_covariances_commute():
    # N(0, diag s²) and N(m, diag t²): |m|² + Σ (s − t)².
    s, t, m = (torch.tensor(v, dtype=torch.float64) for v in ([1, 2, 0.5, 3], [2, 2, 1.5, 1], [1, 0, -1, 2]))
    a, b = whitened(50, 4, 0) * s, whitened(70, 4, 1) * t + m
    assert frechet(a, b) == pytest.approx(float(m.square().sum() + (s - t).square().sum()), rel=1e-12)


@pytest.mark.parametrize("n", [200, 12])
def test_frechet_against_the_matrix_square_root(n):
    linalg = pytest.importorskip("scipy.linalg")
    root = torch.randn(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    a = normal(n, torch.zeros(9, dtype=torch.float64), torch.eye(9, dtype=torch.float64), 3)
    b = normal(n + 5, torch.ones(9, dtype=torch.float64), root, 4)
    cov_a, cov_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    true = (a.mean(0) - b.mean(0)).square().sum().item()
    true += np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real)
    assert frechet(a, b) == pytest.approx(true, rel=1e-9)
    assert frechet(b, a) == pytest.approx(true, rel=1e-9)


def test_frechet_with_fewer_pictures_than_features():
    # Both covariances are singular: nothing is lost, and a set is at distance 0 from itself.
    a = normal(10, torch.zeros(40, dtype=torch.float64), torch.eye(40, dtype=torch.float64), 5)
    assert frechet(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet(a, a + 1) == pytest.approx(40, rel=1e-10)


def test_frechet_of_one_distribution_is_too_high_as_the_docstring_says():
    d, n = 16, 400
    zero, one = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    mean = np.mean([frechet(normal(n, zero, one, 2 * s), normal(n, zero, one, 2 * s + 1)) for s in range(30)])
    assert mean == pytest.approx((2 * d + d**2 / 2) / n, rel=0.1)


def test_kernel_distance_is_the_sum_over_unequal_pairs():
    a, b = whitened(6, 3, 0), whitened(6, 3, 1) + 0.5
    k = [[[float(cubic(x[None], y[None])) for y in q] for x in p] for p, q in ((a, a), (b, b), (a, b))]
    true = sum(k[0][i][j] + k[1][i][j] - k[2][i][j] - k[2][j][i] for i in range(6) for j in range(6) if i != j) / 30
    assert kernel(a, b)[0] == pytest.approx(true, rel=1e-12)
    assert float(cubic(a[:1], b[:1])) == pytest.approx((float(a[0] @ b[0]) / 3 + 1) ** 3)


def test_kernel_distance_of_one_distribution_is_unbiased_and_its_error_honest():
    zero, one = torch.zeros(5, dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    pairs = [kernel(normal(40, zero, one, 2 * s), normal(40, zero, one, 2 * s + 1)) for s in range(200)]
    values, errors = np.array(pairs).T
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5
    assert values.min() < 0 < values.max()  # a biased estimate is never below 0
    assert 1 < errors.mean() / values.std() < 2  # the jackknife is cautious where the distance is 0


def test_kernel_distance_of_shifted_gaussians():
    # In one dimension E (xy + 1)³ = 1 + 3 E[x] E[y] + 3 E[x²] E[y²] + E[x³] E[y³] for independent x and y.
    m = 0.7
    zero, one = torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64)
    p, q = (0, 1, 0), (m, 1 + m**2, m**3 + 3 * m)  # first three moments
    mean = [1 + 3 * x[0] * y[0] + 3 * x[1] * y[1] + x[2] * y[2] for x, y in ((p, p), (q, q), (p, q))]
    true = mean[0] + mean[1] - 2 * mean[2]
    pairs = [kernel(normal(100, zero, one, 2 * s), normal(100, zero + m, one, 2 * s + 1)) for s in range(100)]
    values, errors = np.array(pairs).T
    assert abs(values.mean() - true) < 3 * values.std() / len(values) ** 0.5
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)


def test_kernel_distance_of_a_set_from_itself_is_zero():
    a = whitened(8, 3, 0)
    assert kernel(a, a) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))


def test_too_few_pictures_are_refused():
    a = torch.ones(2, 3)
    with pytest.raises(UnclipError, match="three or more"):
        kernel(a, a)
    with pytest.raises(UnclipError, match="as many"):
        kernel(torch.ones(4, 3), torch.ones(5, 3))
    with pytest.raises(UnclipError, match="two or more"):
        frechet(a[:1], a)
