"""The diffusion prior learns z_i from captions."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.data.images import Batch
from unclip.models.prior import Prior, PriorConfig
from unclip.train.recipe import Recipe
from unclip.train.stages.diffusion import DiffusionStage, chance
from unclip.train.stages.encoders import MANY, Encoders, held_out


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    model: PriorConfig = field(default_factory=PriorConfig)
    drop: float = 0.1  # how often the condition is left out
    late: float = 0.4  # beyond t = 700 lies what the caption must tell; before, noised z_i tells most of it itself
    repeats: int = 8  # noised z_i for each caption: its prefix is most of the work, and they share it

    def stage(self, data: Path, model: Path, device: torch.device) -> "PriorStage":
        return PriorStage(self, data, model, device)


class PriorStage(DiffusionStage):
    recipe: PriorRecipe
    bounds = (-5.0, 5.0)

    def __init__(self, recipe: PriorRecipe, data: Path, model: Path, device: torch.device):
        self.encoders = Encoders(model, device)
        super().__init__(recipe, data, device, Prior(recipe.model))
        self.late = recipe.late
        self.splits = {s: held_out(recipe, data, s, 8 * MANY)[:2] for s in ("val", "compose")}

    def target(self, batch: Batch, g: torch.Generator) -> tuple[Tensor, object]:
        ids = self.encoders.tokens(batch.captions)
        z_i = self.encoders.z_i(batch, self.corpus)
        with torch.no_grad():
            text, z_t = self.encoders.clip.encode_text(ids)
        drop = chance(self.recipe.drop, len(ids), g, self.device)
        given = self.net.condition(text, z_t, ids != 0, drop)
        return (self.net.scale * z_i).repeat_interleave(self.recipe.repeats, 0), given.repeat(self.recipe.repeats)

    @torch.no_grad()
    def preview(self, net: nn.Module) -> tuple[None, dict[str, float]]:
        """Cosine of the sampled z_i to the true one and to z_t, and of z_t to the true z_i as the baseline."""
        measures = {}
        for name, (pictures, lines) in self.splits.items():
            ids = self.encoders.tokens(lines)
            text, z_t = self.encoders.clip.encode_text(ids)
            given = net.condition(text, z_t, ids != 0, torch.zeros(len(ids), dtype=torch.bool, device=self.device))
            z_i = self.encoders.clip.encode_image(pictures.to(self.device))
            z = F.normalize(self.sample(net, z_i, 16, given), dim=-1)
            right = [(a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
                     for a, b in zip(z.split(MANY), z_t.split(MANY), strict=True)]  # fmt: skip
            measures[f"{name}_cos_z_i"] = (z * z_i).sum(1).mean().item()
            measures[f"{name}_cos_z_t"] = (z * z_t).sum(1).mean().item()
            measures[f"{name}_recall"] = torch.cat(right).float().mean().item()
        return None, measures
