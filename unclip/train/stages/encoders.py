"""What a stage reads captions and pictures with."""

from pathlib import Path

import torch
from torch import Tensor

from unclip.data import captions
from unclip.data.images import Batch, Corpus, compose
from unclip.errors import UnclipError
from unclip.models.clip import CLIP, CLIPConfig
from unclip.models.tokenizer import Tokenizer
from unclip.train.recipe import Recipe
from unclip.weights.checkpoint import load_module

TOKENIZER = Path("tokenizer") / "tokenizer.json"
MANY = 32  # captions that a picture is matched against


class Encoders:
    """What the later stages read captions and pictures with: the tokenizer, and CLIP, frozen."""

    def __init__(self, model: Path, device: torch.device):
        if not (model / "clip").is_dir():
            raise UnclipError(f"{str(model)!r} holds no trained CLIP; train it first: unclip train mini.clip --out …")
        self.tokenizer, self.device = Tokenizer.load(model / TOKENIZER), device
        net, self.config = load_module(model / "clip", CLIPConfig, CLIP)
        self.clip = net.to(device)
        self.table: Tensor | None = None

    @torch.no_grad()
    def plain(self, corpus: Corpus) -> Tensor:
        """Unit z_i [N, D] of all of a corpus, on white. They never change: they are made once."""
        if self.table is None:
            self.table = torch.cat([self.clip.encode_image(compose(part)) for part in corpus.images.split(256)])
        return self.table

    @torch.no_grad()
    def z_i(self, batch: Batch, corpus: Corpus) -> Tensor:
        """Unit z_i of a batch."""
        z_i, varied = self.plain(corpus)[batch.index.to(self.device)], ~batch.plain
        if varied.any():
            z_i[varied] = self.clip.encode_image(batch.pictures[varied])
        return z_i

    def tokens(self, lines: list[str]) -> Tensor:
        return tokens(self.tokenizer, lines, self.config.context).to(self.device)


def tokens(tokenizer: Tokenizer, lines: list[str], context: int) -> Tensor:
    """Token ids [B, L], L the longest caption's length rounded up to 8: shorter sequences, few shapes."""
    ids, seen = tokenizer.encode(lines, context)
    return ids[:, : min(context, -(-int(seen.sum(1).max()) // 8) * 8)]


def held_out(recipe: Recipe, data: Path, split: str, limit: int) -> tuple[Tensor, list[str], list[dict]]:
    """The first pictures of a split on white, [N, 3, S, S], their captions and metas; every run sees the same."""
    corpus = Corpus.load(data, recipe.data.size, split, recipe.data.core, limit, recipe.data.crop)
    lines = [captions.canonical(m) if "label" in m else m["caption"] for m in corpus.meta]
    return compose(corpus.images), lines, corpus.meta
