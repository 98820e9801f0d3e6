"""The diffusion prior learns z_i from captions."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from unclip.data.images import Batch
from unclip.models.prefix import Prefix, Prefixed
from unclip.models.prior import Prior, PriorConfig
from unclip.nn.adapter import plain
from unclip.train.recipe import Recipe
from unclip.train.stages.diffusion import DiffusionStage, chance
from unclip.train.stages.encoders import MANY, Encoders, held_out
from unclip.weights import hub
from unclip.weights.checkpoint import save_module


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    model: PriorConfig = field(default_factory=PriorConfig)
    drop: float = 0.1  # how often the condition is left out
    late: float = 0.6  # beyond t = 700 lies what the caption must tell; before, noised z_i tells most of it itself
    repeats: int = 4  # noised z_i for each caption: its prefix is much of the work, and they share it
    parts: int = 4  # of a batch by length of caption, so that short captions need not be padded to the longest
    measured: int = 12  # levels at which the estimate's error is measured when weights are written (Analytic-DPM)

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
            given, _ = condition(self.net, self.encoders, ids[rows, : lengths[rows].max()], drop[rows])
            losses.append(self.denoised(u[rows].repeat_interleave(self.recipe.repeats, 0), given, g))
        return torch.cat(losses).mean()

    def preview(self, net: Prior) -> tuple[None, dict[str, float]]:
        def draw(given: Prefix, like: Tensor) -> Tensor:
            return net.space.leave(self.sample(net, like, 16, given))

        return None, agreement(net, self.encoders, self.splits, draw)

    @torch.no_grad()
    def export(self, net: Prior, model: Path, notes: dict[str, str]) -> None:
        config, tensors = net.config, plain(net)
        if self.recipe.measured:
            pictures = torch.cat([pictures for pictures, _ in self.splits.values()]).to(self.device)
            ids = self.encoders.tokens([line for _, lines in self.splits.values() for line in lines])
            given, _ = condition(net, self.encoders, ids, torch.zeros(len(ids), dtype=torch.bool, device=self.device))
            error = net.measure(self.encoders.clip.encode_image(pictures), given, self.recipe.measured)
            config, tensors = replace(config, measured=self.recipe.measured), tensors | {"error": error}
        save_module(model / self.recipe.name, config, tensors, torch.float16, notes)
        hub.write_index(model, model.parent.name)


def condition(net: Prefixed, encoders: Encoders, ids: Tensor, drop: Tensor) -> tuple[Prefix, Tensor]:
    """What a prior is told by token ids [B, L], and their z_t [B, embed]."""
    with torch.no_grad():
        text, z_t = encoders.clip.encode_text(ids)
    return net.condition(text, z_t, ids != 0, drop), z_t


@torch.no_grad()
def agreement(
    net: Prefixed,
    encoders: Encoders,
    splits: dict[str, tuple[Tensor, list[str]]],
    draw: Callable[[Prefix, Tensor], Tensor],
) -> dict[str, float]:
    """Cosine of the z_i that `draw(given, like)` gives to the true one and to z_t, and how often z_t is its nearest."""
    measures = {}
    for name, (pictures, lines) in splits.items():
        ids = encoders.tokens(lines)
        given, z_t = condition(net, encoders, ids, torch.zeros(len(ids), dtype=torch.bool, device=ids.device))
        z_i = encoders.clip.encode_image(pictures.to(ids.device))
        z = draw(given, z_i)
        right = [(a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
                 for a, b in zip(z.split(MANY), z_t.split(MANY), strict=True)]  # fmt: skip
        measures[f"{name}_cos_z_i"] = (z * z_i).sum(1).mean().item()
        measures[f"{name}_cos_z_t"] = (z * z_t).sum(1).mean().item()
        measures[f"{name}_recall"] = torch.cat(right).float().mean().item()
    return measures
