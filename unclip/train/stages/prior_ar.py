"""The autoregressive prior learns z_i, as codes, from captions."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from unclip.data import captions
from unclip.data.images import Batch
from unclip.models.prefix import Prefix
from unclip.models.prior_ar import PriorAR, PriorARConfig, needed
from unclip.nn.adapter import plain
from unclip.train.recipe import Recipe, Stage
from unclip.train.stages.diffusion import chance
from unclip.train.stages.encoders import MANY, Encoders, held_out
from unclip.train.stages.prior import agreement, condition
from unclip.weights import hub
from unclip.weights.checkpoint import save_module


@dataclass(frozen=True)
class PriorARRecipe(Recipe):
    model: PriorARConfig = field(default_factory=PriorARConfig)
    drop: float = 0.1  # how often the condition is left out
    lost: float = 0.01  # share of z_i's variance that the components left out may hold
    parts: int = 4  # of a batch by length of caption, so that short captions need not be padded to the longest

    def stage(self, data: Path, model: Path, device: torch.device) -> "PriorARStage":
        return PriorARStage(self, data, model, device)


class PriorARStage(Stage):
    """The principal components, and their number if the recipe leaves it open, are those of the corpus."""

    recipe: PriorARRecipe
    net: PriorAR

    def __init__(self, recipe: PriorARRecipe, data: Path, model: Path, device: torch.device):
        super().__init__(recipe, data, device)
        self.encoders = Encoders(model, device)
        z_i = self.encoders.plain(self.corpus)
        components = recipe.model.components or needed(z_i, recipe.lost)
        self.net = PriorAR(replace(recipe.model, components=components)).to(device)
        self.net.space.fit(z_i, self.dots(z_i))
        self.splits = {s: held_out(recipe, data, s, 8 * MANY)[:2] for s in ("val", "compose")}

    @torch.no_grad()
    def dots(self, z_i: Tensor) -> Tensor:
        """z_i · z_t of some of the corpus, under their own captions."""
        rows = range(0, len(z_i), -(-len(z_i) // 1024))
        lines = [captions.canonical(m) if "label" in m else m["caption"] for m in (self.corpus.meta[i] for i in rows)]
        z_t = torch.cat([self.encoders.clip.encode_text(ids)[1] for ids in self.encoders.tokens(lines).split(256)])
        return (z_i[list(rows)] * z_t).sum(1)

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        ids = self.encoders.tokens(batch.captions)
        z_i = self.encoders.z_i(batch, self.corpus)
        drop = chance(self.recipe.drop, len(ids), g, self.device)
        lengths, losses = (ids != 0).sum(1), []
        for rows in lengths.argsort(stable=True).chunk(self.recipe.parts):
            given, z_t = condition(self.net, self.encoders, ids[rows, : lengths[rows].max()], drop[rows])
            losses.append(len(rows) * self.net.loss(z_i[rows], z_t, given))
        return torch.stack(losses).sum() / len(ids)

    def preview(self, net: PriorAR) -> tuple[None, dict[str, float]]:
        def draw(given: Prefix, like: Tensor) -> Tensor:
            u = torch.rand(len(like), 1 + net.config.components, generator=torch.Generator().manual_seed(0))
            *_, codes = net.sample(given, u.to(like.device))
            return net.space.leave(codes)

        return None, agreement(net, self.encoders, self.splits, draw)

    def export(self, net: PriorAR, model: Path, notes: dict[str, str]) -> None:
        save_module(model / self.recipe.name, net.config, plain(net), torch.float16, notes)
        hub.write_index(model, model.parent.name)
