"""Noise that depends on an image's own seed alone: not on its batch, device, memory layout, or another stage."""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from unclip.errors import UnclipError


def white(x: Tensor) -> Tensor:
    """Standard normal noise for `x` from torch's global generator. (`randn_like` would follow x's memory layout.)"""
    return torch.randn(x.shape, dtype=x.dtype, device=x.device)


class Draw:
    """One generator per image, on the CPU, seeded by the image's seed and the name of the stage that draws.

    >>> draw = Draw([7, 8], "decoder")
    >>> x = draw((3, 64, 64))  # [2, 3, 64, 64]
    >>> frames = walk(denoise, x, levels.down(), ddpm, draw.like)
    """

    def __init__(self, seeds: Sequence[int], stream: str):
        self.generators = [torch.Generator().manual_seed(self.hash(seed, stream)) for seed in seeds]

    @staticmethod
    def hash(seed: int, stream: str) -> int:
        """The same on every machine and release, unlike Python's own hash."""
        return int.from_bytes(blake2b(f"{stream}:{seed}".encode(), digest_size=8).digest(), "little")

    def __call__(self, shape: Sequence[int] | Tensor) -> Tensor:
        """Noise [B, *shape] in float32 on the CPU, or noise to go with a batch `x` (see `like`)."""
        if isinstance(shape, Tensor):
            return self.like(shape)
        return torch.stack([torch.randn(tuple(shape), generator=g) for g in self.generators])

    def like(self, x: Tensor) -> Tensor:
        """Noise for `x` [B, ...], on its device and in its dtype; image i's from generator i."""
        if len(x) != len(self.generators):
            raise UnclipError(f"a batch of {len(x)} needs as many seeds, not {len(self.generators)}")
        return self(x.shape[1:]).to(x)


class Several:
    """Noise for `times` candidates of each image, all from the image's own generator."""

    def __init__(self, draw: Draw, times: int):
        self.draw, self.times = draw, times

    def __call__(self, shape: Sequence[int]) -> Tensor:
        return self.draw((self.times, *shape)).flatten(0, 1)

    def like(self, x: Tensor) -> Tensor:
        return self(x.shape[1:]).to(x)
