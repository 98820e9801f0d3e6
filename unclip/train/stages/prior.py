"""The diffusion prior learns z_i from captions."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unclip.data.images import Batch
from unclip.models.prior import Prefix, Prior, PriorConfig
from unclip.train.recipe import Recipe
from unclip.train.stages.diffusion import DiffusionStage, chance
from unclip.train.stages.encoders import MANY, Encoders, held_out


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    model: PriorConfig = field(default_factory=PriorConfig)
    drop: float = 0.1  # how often the condition is left out
    late: float = 0.6  # beyond t = 700 lies what the caption must tell; before, noised z_i tells most of it itself
    repeats: int = 4  # noised z_i for each caption: its prefix is much of the work, and they share it
    parts: int = 4  # of a batch by length of caption, so that short captions need not be padded to the longest

    def stage(self, data: Path, model: Path, device: torch.device) -> "PriorStage":
        return PriorStage(self, data, model, device)


class PriorStage(DiffusionStage):
    recipe: PriorRecipe
    net: Prior

    def __init__(self, recipe: PriorRecipe, data: Path, model: Path, device: torch.device):
        self.encoders = Encoders(model, device)
        super().__init__(recipe, data, device, Prior(recipe.model))
        self.net.space.fit(self.encoders.plain(self.corpus))
        reach = self.net.space.reach()
        self.late, self.bounds = recipe.late, (-reach, reach)
        self.splits = {s: held_out(recipe, data, s, 8 * MANY)[:2] for s in ("val", "compose")}

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        ids = self.encoders.tokens(batch.captions)
        u = self.net.space.enter(self.encoders.z_i(batch, self.corpus))
        drop = chance(self.recipe.drop, len(ids), g, self.device)
        lengths = (ids != 0).sum(1)
        losses = []
        for rows in lengths.argsort(stable=True).chunk(self.recipe.parts):
            given = self.given(ids[rows, : lengths[rows].max()], drop[rows])
            losses.append(self.denoised(u[rows].repeat_interleave(self.recipe.repeats, 0), given, g))
        return torch.cat(losses).mean()

    def given(self, ids: Tensor, drop: Tensor) -> Prefix:
        with torch.no_grad():
            text, z_t = self.encoders.clip.encode_text(ids)
        return self.net.condition(text, z_t, ids != 0, drop)

    @torch.no_grad()
    def preview(self, net: Prior) -> tuple[None, dict[str, float]]:
        """Cosine of the sampled z_i to the true one and to z_t, and of z_t to the true z_i as the baseline."""
        measures = {}
        for name, (pictures, lines) in self.splits.items():
            ids = self.encoders.tokens(lines)
            text, z_t = self.encoders.clip.encode_text(ids)
            given = net.condition(text, z_t, ids != 0, torch.zeros(len(ids), dtype=torch.bool, device=self.device))
            z_i = self.encoders.clip.encode_image(pictures.to(self.device))
            z = net.space.leave(self.sample(net, z_i, 16, given))
            right = [(a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
                     for a, b in zip(z.split(MANY), z_t.split(MANY), strict=True)]  # fmt: skip
            measures[f"{name}_cos_z_i"] = (z * z_i).sum(1).mean().item()
            measures[f"{name}_cos_z_t"] = (z * z_t).sum(1).mean().item()
            measures[f"{name}_recall"] = torch.cat(right).float().mean().item()
        return None, measures
