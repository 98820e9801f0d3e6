"""Great circles: z_i and x_T live near spheres, where a straight line between two would leave them (DALL·E 2, 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def slerp(a: Tensor, b: Tensor, theta: float) -> Tensor:
    """The point at `theta` in [0, 1] of the great circle from a to b, whole vectors of one shape: never per element.

    Exactly `a` at 0 and `b` at 1; between, the norm goes evenly from that of a to that of b. Opposite vectors are
    joined over a fixed direction at right angles; a vector of zeros has no direction, and is left along a line.
    """
    if theta in (0, 1):
        return b.clone() if theta else a.clone()
    u, v = a.flatten().double(), b.flatten().double()
    na, nb = u.norm(), v.norm()
    if na == 0 or nb == 0:
        return a.lerp(b, theta)
    u, v = u / na, v / nb
    angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # acos(u·v) loses half of the digits near its ends
    across = v - (u @ v) * u
    if across.norm() < 1e-9:  # equal or opposite
        across = torch.zeros_like(u).index_fill(0, u.abs().argmin(), 1.0)
        across = across - (u @ across) * u
    across = across / across.norm()
    point = (theta * angle).cos() * u + (theta * angle).sin() * across
    return ((na + theta * (nb - na)) * point).reshape(a.shape).to(a)


def blend(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of vectors of one shape on the sphere: slerps in turn, each new vector by its share so far.

    Exact where one weight is all; with three or more, the order has a small say.
    """
    mean, total = vectors[0], weights[0]
    for vector, weight in zip(vectors[1:], weights[1:], strict=True):
        total += weight
        mean = slerp(mean, vector, weight / total if total else 0)
    return mean
