"""What the prior, the decoder and the upsamplers have in common when they learn."""

from pathlib import Path

import torch
from torch import Tensor, nn

from unclip.data.images import Batch
from unclip.diffusion.draw import Draw
from unclip.diffusion.guidance import CFG, Clip
from unclip.diffusion.levels import spread
from unclip.diffusion.samplers import ddim, walk
from unclip.train.recipe import Recipe, Stage


class DiffusionStage(Stage):
    """Gaussian diffusion of whatever `target` gives: L_simple or L_hybrid at level T · u^late, u uniform."""

    late = 1.0  # below 1, more often near pure noise

    def __init__(self, recipe: Recipe, data: Path, device: torch.device, net: nn.Module):
        super().__init__(recipe, data, device)
        self.net = net.to(device)
        if recipe.data.size and any(p.ndim == 4 for p in net.parameters()):
            net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.process = recipe.model.diffusion
        self.levels, self.denoiser = self.process.levels(), self.process.denoiser(self.net)

    def target(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, object]:
        """x0 [B, ...] and what the network is given beside the noised x0."""
        raise TypeError(f"{type(self).__name__} defines no target")

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        return self.denoised(*self.target(batch, g), g).mean()

    def denoised(self, x0: Tensor, given: object, g: torch.Generator) -> Tensor:
        """The loss of each x0 [B, ...] at a level and with noise drawn from `g`."""
        i = 1 + ((len(self.levels) - 1) * torch.rand(len(x0), generator=g, dtype=torch.float64) ** self.late).long()
        eps = noise(tuple(x0.shape), g, self.device)
        return self.denoiser.loss(x0, self.levels[i], self.levels[i - 1], eps, given=given)

    @torch.no_grad()
    def sample(self, net: nn.Module, x0: Tensor, steps: int, given: object, cfg: float = 0) -> Tensor:
        """DDIM samples of x0's shape, from the same noise at every preview."""
        denoise = self.process.denoiser(net)
        denoise = Clip(CFG(denoise, cfg) if cfg else denoise, *self.bounds)
        x = Draw(range(len(x0)), "preview").like(x0)
        for x, _ in walk(denoise, x, self.levels.spaced(spread(self.process.T, steps)).down(), ddim(), given=given):
            pass
        return x

    bounds: tuple[Tensor | float, Tensor | float] = (-1.0, 1.0)


def noise(shape: tuple[int, ...], g: torch.Generator, device: torch.device) -> Tensor:
    """Normal noise from `g`, made on the device itself when that is not the CPU."""
    if device.type != "cpu":
        g = torch.Generator(device).manual_seed(g.initial_seed())
    return torch.randn(shape, generator=g, device=device)


def chance(p: float, n: int, g: torch.Generator, device: torch.device) -> Tensor:
    """Boolean [n], true with probability p."""
    return (torch.rand(n, generator=g) < p).to(device)
