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
    """The weighted mean of vectors of one shape on the sphere, in whatever order they are given (Buss & Fillmore 2001):
    the point from which the great-circle arcs to them, times their weights, add up to nothing.

    Exact where one weight is all, and the slerp of two; the norm is the weighted mean of norms. Where nothing is nearer
    than all else, as between opposite vectors, it is found from a fixed direction. Vectors of zeros only shorten it.
    """
    total = sum(weights)
    parts = [(v, w / total) for v, w in zip(vectors, weights, strict=True) if w]
    if len(parts) == 1:
        return parts[0][0].clone()
    if len(parts) == 2:
        (a, _), (b, theta) = parts
        return slerp(a, b, theta)
    v, share = torch.stack([v.flatten().double() for v, _ in parts]), torch.tensor([w for _, w in parts]).double()
    share = share.to(v.device)
    norms = v.norm(dim=1)
    u = v / norms.clamp(min=1e-30)[:, None]
    mean = share @ u
    if mean.norm() < 1e-9:
        mean = torch.zeros_like(mean).index_fill(0, (share @ u.abs()).argmin(), 1.0)
    for _ in range(100):
        mean = mean / mean.norm()
        across = u - (u @ mean)[:, None] * mean  # of each arc the direction in which it leaves the mean
        sine = across.norm(dim=1)
        arcs = torch.atan2(sine, u @ mean) / sine.clamp(min=1e-30)
        step = (share * arcs) @ across
        if (far := step.norm()) < 1e-12:
            break
        mean = far.cos() * mean + far.sin() * step / far
    return ((share @ norms) * mean).reshape(vectors[0].shape).to(vectors[0])
