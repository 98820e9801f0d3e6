"""The upsampler learns large pictures from small ones, on crops."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.data.degrade import bsr, gaussian_blur
from unclip.data.images import Batch
from unclip.models.upsampler import Upsampler, UpsamplerConfig
from unclip.pictures import grid
from unclip.train.recipe import Recipe
from unclip.train.stages.diffusion import DiffusionStage, chance
from unclip.train.stages.encoders import held_out


@dataclass(frozen=True)
class UpsamplerRecipe(Recipe):
    model: UpsamplerConfig = field(default_factory=UpsamplerConfig)
    blur: float = 0.5  # how often the small picture is blurred
    bsr: float = 0.0  # how often it is degraded as BSRGAN does

    def stage(self, data: Path, model: Path, device: torch.device) -> "UpsamplerStage":
        return UpsamplerStage(self, data, device)


class UpsamplerStage(DiffusionStage):
    """Learns on crops of a quarter of the side."""

    recipe: UpsamplerRecipe
    net: Upsampler

    def __init__(self, recipe: UpsamplerRecipe, data: Path, device: torch.device):
        net = Upsampler(recipe.model)
        super().__init__(recipe, data, device, net)
        self.enlarge, self.factor = net.condition, net.factor  # neither hangs on its weights
        self.real = held_out(recipe, data, "val", 6)[0].to(device)

    def target(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, Tensor]:
        low = F.avg_pool2d(batch.pictures, self.factor)
        blurred = chance(self.recipe.blur, len(low), g, self.device)
        low = torch.where(blurred[:, None, None, None], gaussian_blur(low), low)
        if (spoilt := chance(self.recipe.bsr, len(low), g, self.device)).any():
            low[spoilt] = bsr(batch.pictures[spoilt], self.factor, g)
        x0, high = crops(batch.pictures, self.enlarge(low), self.recipe.model.low, self.factor, g)
        return x0, high

    @torch.no_grad()
    def preview(self, net: Upsampler) -> tuple[Image.Image, dict[str, float]]:
        """Rows: the small picture enlarged, what the upsampler makes of it, the real one."""
        low = self.enlarge(F.avg_pool2d(self.real, self.factor))
        made = self.sample(net, self.real, 8, low)
        error = {name: (x - self.real).square().mean().item() for name, x in (("mse", made), ("mse_bicubic", low))}
        return grid(torch.cat([low, made, self.real]), columns=len(low)), error


def crops(a: Tensor, b: Tensor, size: int, multiple: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same random crop [size, size] of each pair of pictures, its corner on a multiple of `multiple`."""
    corners = torch.randint(0, (a.shape[2] - size) // multiple + 1, (len(a), 2), generator=g) * multiple
    both = torch.cat([a, b], dim=1)
    cut = [p[:, y : y + size, x : x + size] for p, (y, x) in zip(both, corners.tolist(), strict=True)]
    first, second = torch.stack(cut).split([a.shape[1], b.shape[1]], dim=1)
    return first, second
