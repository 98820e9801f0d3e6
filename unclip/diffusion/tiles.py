"""A picture denoised in overlapping tiles, so that memory depends on the tile and not on the picture."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Estimate
from unclip.diffusion.levels import Levels
from unclip.errors import UnclipError


class Tiled:
    """The estimate of x0 for x [B, C, H, W], put together from tiles of at most `side` × `side` pixels.

    Of each tile `halo` pixels at its inner edges are only context and thrown away; over the next `blend` pixels
    neighbours are mixed linearly. With a halo that covers the network's reach, and nothing in it that looks at the
    whole picture, tiles give what the whole picture gives but for rounding. A network with group normalisation, which
    sees the mean and variance of what it is given, differs from tile to tile: blending hides the seam. Every step of a
    sampler puts the whole picture together again, so that tiles go on from what their neighbours made.

    Conditions are [B, ?, H, W] as well. Edges lie on multiples of `grain`. An estimate's variance is left out.
    """

    def __init__(self, denoise: Denoise, side: int, halo: int, blend: int = 0, grain: int = 1):
        self.denoise, self.side, self.blend, self.grain = denoise, side, blend, grain
        self.overlap = -(-(2 * halo + blend) // grain) * grain
        if side % grain or side <= self.overlap:
            least = self.overlap + grain
            raise UnclipError(f"tile is {side}; for these weights it must be a multiple of {grain}, {least} or more")

    def __call__(self, x: Tensor, at: Levels, **cond) -> Estimate:
        rows, columns = (list(self.spans(n)) for n in x.shape[2:])
        if len(rows) == len(columns) == 1:
            return self.denoise(x, at, **cond)
        whole = torch.zeros_like(x)
        for y, height in rows:
            for z, width in columns:
                part = self.denoise(x[..., y, z], at, **{name: v[..., y, z] for name, v in cond.items()}).x0
                whole[..., y, z] += part * (height[:, None] * width).to(part)
        return Estimate(whole)

    def spans(self, length: int) -> Iterator[tuple[slice, Tensor]]:
        """Tiles of one axis, evenly spread: where each lies and the weights of its pixels, which add up to 1."""
        count = max(1, -(-(length - self.overlap) // (self.side - self.overlap)))
        apart = (length - self.side) / max(1, count - 1) / self.grain
        starts = [round(i * apart) * self.grain for i in range(count)]
        ends = [min(length, start + self.side) for start in starts]
        at = torch.arange(length) + 0.5
        # From where to where each tile takes over from the one before it.
        middles = [(start + end) / 2 for end, start in zip(ends[:-1], starts[1:], strict=True)]
        rises = [torch.ones(length), *(self.ramp(at - middle) for middle in middles), torch.zeros(length)]
        for (rise, fall), start, end in zip(pairwise(rises), starts, ends, strict=True):
            yield slice(start, end), (rise - fall)[start:end]

    def ramp(self, x: Tensor) -> Tensor:
        """0 to 1 over `blend` pixels around 0."""
        return (x / self.blend + 0.5).clamp(0, 1) if self.blend else (x > 0).float()
