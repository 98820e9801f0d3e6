"""A picture as the pair (z_i, x_T): what CLIP knows of it, and all the rest (DALL·E 2, section 3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Estimate
from unclip.diffusion.levels import Levels
from unclip.diffusion.samplers import ddim, move, walk
from unclip.errors import UnclipError
from unclip.files import write_bytes


@dataclass(frozen=True)
class Latents:
    """unit z_i [B, D], and the noise x_T [B, 3, S, S] that the decoder makes the picture from without chance."""

    z_i: Tensor
    x_T: Tensor

    def to(self, device: torch.device) -> "Latents":
        return Latents(self.z_i.to(device), self.x_T.to(device))

    def save(self, path: str | Path) -> None:
        from safetensors.torch import save

        write_bytes(path, save({"z_i": self.z_i.cpu(), "x_T": self.x_T.cpu().contiguous()}))

    @classmethod
    def load(cls, path: str | Path) -> "Latents":
        """Raises UnclipError for a file that holds another thing."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(path)
            return cls(found["z_i"], found["x_T"])
        except (OSError, SafetensorError, KeyError) as e:
            raise UnclipError(f"{str(path)!r} holds no z_i and x_T of `unclip invert`: {e}") from e


def up(denoise: Denoise, x: Tensor, levels: Levels, calls: int, **cond) -> Iterator[tuple[Tensor, Estimate]]:
    """From a picture x [B, ...] to x_T: DDIM backwards. With one call a step, x0 is estimated where x is, as published.

    More calls solve for the x whose step down leads back: x = x + (known − down(x)), sped up by mixing the tries so far
    (Anderson 1965).
    """
    if calls == 1:
        yield from walk(denoise, x, levels.up(), ddim(), **cond)
        return
    for to, at in levels.up():
        known, tries, misses = x, [], []
        for _ in range(calls):
            est = denoise(x, at, **cond)
            tries.append(x)
            misses.append(known - move(x, est.x0, at, to))
            x = mixed(tries[-4:], misses[-4:])
        yield x, est


def mixed(tries: Sequence[Tensor], misses: Sequence[Tensor]) -> Tensor:
    """The next try: of all mixtures of the last ones, that whose miss would be smallest, and a step by this miss."""
    x, miss = tries[-1], misses[-1]
    if len(tries) == 1:
        return x + miss
    dx, dr = (torch.stack([(v[-1] - w).flatten(1) for w in v[:-1]], dim=1) for v in (tries, misses))
    dx, dr = dx.double(), dr.double()
    gram = dr @ dr.mT  # [B, tries, tries]
    ridge = 1e-10 * gram.diagonal(dim1=1, dim2=2).amax(dim=1) + 1e-30  # tries may be all alike
    gram = gram + ridge[:, None, None] * torch.eye(gram.shape[1], device=gram.device)
    share = torch.linalg.solve(gram, dr @ miss.flatten(1).double()[:, :, None])
    return x + miss - ((dx + dr).mT @ share).reshape(x.shape).to(x)
