"""Few-step students: what a network must estimate so that one move leads where several of a teacher's lead.

The student is a denoiser like any other, and `move` is its step: what it says in place of E[x0 | x_t] is the x0 towards
which a long step has to be taken. Guidance round the teacher becomes a part of it.
"""

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise
from unclip.diffusion.levels import Levels, mix
from unclip.diffusion.samplers import move


def landing(x: Tensor, y: Tensor, at: Levels, to: Levels) -> Tensor:
    """The x0 with which one `move` from x at `at` ends at y at `to` (Salimans & Ho 2202.00512, algorithm 2)."""
    ratio = to.sigma / at.sigma
    whole = to.alpha - at.alpha * ratio
    return mix((1 / whole, y), (-ratio / whole, x))


@torch.no_grad()
def shortcut(first: Denoise, second: Denoise, x: Tensor, at: Levels, mid: Levels, to: Levels) -> Tensor:
    """The x0 that leads from x [B, ...] in one move to where two lead: by `first` to `mid`, by `second` on to `to`.

    Progressive distillation (Salimans & Ho 2202.00512): both are the teacher, and `mid` is half-way; the student, which
    needs half of the steps, is the next teacher. Consistency distillation (Song et al. 2303.01469), of several segments
    (Heek et al. 2403.06807): `first` is the teacher and `mid` its next level, `second` the student itself and `to` the
    end of the segment, where it may have arrived already. With one segment `to` is data.

    Rows are batches [B]; conditions are bound to the denoisers.
    """
    there = mid.sigma == to.sigma  # `second` has nothing to do, and cannot be asked at data
    alpha, sigma, t = (torch.where(there, getattr(at, k), getattr(mid, k)) for k in ("alpha", "sigma", "t"))
    late = Levels(alpha, sigma, t)
    y = move(x, first(x, at).x0, at.like(x), mid.like(x))
    further = move(y, second(y, late).x0, late.like(x), to.like(x))
    y = torch.where(there.to(x.device).reshape(-1, *[1] * (x.ndim - 1)), y, further)
    return landing(x, y, at.like(x), to.like(x))
