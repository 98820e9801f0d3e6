"""The decoder learns pictures from z_i and captions."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from unclip.data.images import Batch
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.pictures import grid
from unclip.train.recipe import Recipe
from unclip.train.stages.diffusion import DiffusionStage, chance
from unclip.train.stages.encoders import Encoders, held_out


@dataclass(frozen=True)
class DecoderRecipe(Recipe):
    model: DecoderConfig = field(default_factory=DecoderConfig)
    drop_z: float = 0.1  # how often z_i is the learned null
    drop_text: float = 0.5  # how often the caption is empty
    late: float = 1.0  # below 1, more often near pure noise

    def stage(self, data: Path, model: Path, device: torch.device) -> "DecoderStage":
        return DecoderStage(self, data, model, device)


class DecoderStage(DiffusionStage):
    recipe: DecoderRecipe
    net: Decoder

    def __init__(self, recipe: DecoderRecipe, data: Path, model: Path, device: torch.device):
        self.encoders = Encoders(model, device)
        super().__init__(recipe, data, device, Decoder(recipe.model))
        self.late = recipe.late
        pictures, self.lines, _ = held_out(recipe, data, "compose", 24)
        self.real = pictures.to(device)

    def target(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, object]:
        ids = self.encoders.tokens(batch.captions)
        z_i = self.encoders.z_i(batch, self.corpus)
        drop_z, drop_text = (chance(p, len(ids), g, self.device) for p in (self.recipe.drop_z, self.recipe.drop_text))
        return batch.pictures, self.net.condition(z_i, ids, drop_z, drop_text)

    @torch.no_grad()
    def preview(self, net: Decoder) -> tuple[Image.Image, dict[str, float]]:
        """Rows of eight: unseen pictures, and beneath what the decoder makes of their z_i and caption."""
        n = len(self.real)
        ids = self.encoders.tokens(self.lines * 2)
        z_i = self.encoders.clip.encode_image(self.real).repeat(2, 1)
        absent = torch.arange(2 * n, device=self.device) < n
        made = self.sample(net, self.real, 12, net.condition(z_i, ids, absent, absent), cfg=2.0)
        rows = [part for pair in zip(self.real.split(8), made.split(8), strict=True) for part in pair]
        return grid(torch.cat(rows)), {"mse": (made - self.real).square().mean().item()}
