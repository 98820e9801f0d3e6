"""Distances between two sets of pictures, given as features. In Inception's space these are FID and KID; in any other
they are not, and go by their own names: Fréchet distance and kernel distance."""

import torch
from torch import Tensor

from unclip.errors import UnclipError


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to features a [N, D] and b [M, D].

    |μ_a − μ_b|² + tr(Σ_a) + tr(Σ_b) − 2 tr((Σ_a Σ_b)^½)   (Heusel et al. 2017, 1706.08500, equation 6)

    The last trace is the sum of the singular values of R_a R_bᵀ, where Σ = RᵀR by QR of the centred features: no matrix
    square root is taken, so nothing is lost where N < D leaves Σ singular.

    Too high for small N: two samples of N from one Gaussian of D features with variance 1 are on average about
    (2D + D²/2)/N apart. Compare only equal N.
    """
    (mean_a, root_a), (mean_b, root_b) = moments(a), moments(b)
    between = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return float((mean_a - mean_b).square().sum() + root_a.square().sum() + root_b.square().sum() - 2 * between)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """features [N, D] → mean [D], and R [min(N, D), D] with RᵀR the unbiased covariance."""
    if len(features) < 2:
        raise UnclipError(f"{len(features)} picture has no covariance; two or more are needed")
    features = features.double()
    mean = features.mean(0)
    return mean, torch.linalg.qr((features - mean) / (len(features) - 1) ** 0.5, mode="r").R


def kernel(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Unbiased squared MMD of features a [N, D] and b [N, D] with KID's kernel (x·y/D + 1)³, and its standard error
    (Bińkowski et al. 2018, 1801.01401).

    Row i of a may belong to row i of b, as a drawn picture to the real one of its caption: such pairs are left out
    (the U-statistic of Gretton et al. 2012, lemma 6). The error is the jackknife's, of leaving out one pair.
    """
    n = len(a)
    if n != len(b) or n < 3:
        raise UnclipError(f"{n} and {len(b)} pictures; the kernel distance needs as many of each, three or more")
    a, b = a.double(), b.double()
    cross = cubic(a, b)
    h = (cubic(a, a) + cubic(b, b) - cross - cross.T).fill_diagonal_(0)
    rows, total = h.sum(1), h.sum()
    without = (total - 2 * rows) / ((n - 1) * (n - 2))
    error = ((n - 1) * without.var(correction=0)).sqrt()
    return float(total / (n * (n - 1))), float(error)


def cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def precision_recall(fake: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of fake features [N, D] among the real [M, D], and of real ones among the fake (Kynkäänniemi et al. 2019,
    1904.06991, eq. 1 to 3): fidelity, and diversity. A point lies among others when it is nearer to one of them than
    that one's k-th neighbour is."""
    if min(len(fake), len(real)) <= k:
        raise UnclipError(f"{len(fake)} and {len(real)} pictures; with k = {k} there must be more than {k} of each")

    def covered(points: Tensor, among: Tensor) -> float:
        radius = torch.cdist(among, among).kthvalue(k + 1, dim=1).values  # the first is itself
        return (torch.cdist(points, among) <= radius).any(1).double().mean().item()

    fake, real = fake.double(), real.double()
    return covered(fake, real), covered(real, fake)


def spread(a: Tensor, b: Tensor) -> float:
    """How far a[i] is from b[i], two pictures of one caption, to how far from b[j], of another, as features [N, D]:
    means of squared distances. 0 where a caption has but one picture, 1 where it does not count."""
    n, far = len(a), torch.cdist(a.double(), b.double()).square()
    own = far.diagonal().mean()
    return float(own / ((far.sum() - own * n) / (n * (n - 1))).clamp(min=1e-12))
