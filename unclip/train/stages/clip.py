"""CLIP and the judge: pictures and captions in one space."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unclip.data import captions
from unclip.data.images import Batch, jitter
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.tokenizer import Tokenizer
from unclip.train.recipe import Recipe, Stage
from unclip.train.stages.encoders import MANY, TOKENIZER, held_out, tokens


@dataclass(frozen=True)
class CLIPRecipe(Recipe):
    model: CLIPConfig = field(default_factory=CLIPConfig)
    keep: float = 0.5  # share of the patches that the image tower sees in training (FLIP, Li et al. 2212.00794)

    def stage(self, data: Path, model: Path, device: torch.device) -> "CLIPStage":
        return CLIPStage(self, data, model, device)


class CLIPStage(Stage):
    """Also makes the tokenizer when the run has none yet."""

    recipe: CLIPRecipe
    net: CLIP

    def __init__(self, recipe: CLIPRecipe, data: Path, model: Path, device: torch.device):
        super().__init__(recipe, data, device)
        if not (model / TOKENIZER).exists():
            (model / TOKENIZER).parent.mkdir(parents=True, exist_ok=True)
            Tokenizer.train(captions.every(self.corpus.meta), recipe.model.vocab).save(model / TOKENIZER)
        self.tokenizer = Tokenizer.load(model / TOKENIZER)
        self.net = CLIP(recipe.model).to(device)
        self.splits = {s: held_out(recipe, data, s, 16 * MANY) for s in ("val", "compose")}

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        ids = tokens(self.tokenizer, batch.captions, self.recipe.model.context).to(self.device)
        metas = [self.corpus.meta[i] for i in batch.index.tolist()]
        pairs = list(zip(metas, batch.captions, strict=True))
        same = torch.tensor([[describes(other, line, meta) for other, line in pairs] for meta in metas])
        pictures = jitter(batch.pictures, g)
        return self.net.loss(pictures, ids, same.to(self.device), self.recipe.keep, g)

    @torch.no_grad()
    def preview(self, net: CLIP) -> tuple[None, dict[str, float]]:
        return None, {f"{name}_recall": recall(net, self.tokenizer, *split[:2]) for name, split in self.splits.items()}


def describes(other: dict, caption: str, meta: dict) -> bool:
    """Whether a caption drawn for picture `other` is true of picture `meta` too, as far as their labels tell."""
    if other.get("label", other["key"]) != meta.get("label", meta["key"]):
        return False
    style = other.get("style", "")
    return style == meta.get("style") or not captions.names_style(caption, style)


@torch.no_grad()
def recall(clip: CLIP, tokenizer: Tokenizer, pictures: Tensor, lines: list[str]) -> float:
    """recall@1: how often a picture's own caption is the nearest of MANY (its neighbours in the list)."""
    device = clip.log_scale.device
    z_i = torch.cat([clip.encode_image(p.to(device)) for p in pictures.split(MANY)])
    z_t = torch.cat([clip.encode_text(tokens(tokenizer, lines[i : i + MANY], clip.config.context).to(device))[1]
                     for i in range(0, len(lines), MANY)])  # fmt: skip
    right = [(a @ b.T).argmax(1) == torch.arange(len(a), device=device)
             for a, b in zip(z_i.split(MANY), z_t.split(MANY), strict=True)]  # fmt: skip
    return torch.cat(right).float().mean().item()
