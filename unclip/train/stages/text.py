"""More words for a trained CLIP: its text tower learns to read them as those that it knows.

The picture tower stays, and with it z_i and all that draws from it. No picture is looked at: what a word should mean
the tower itself says, of the plain caption that means the same (distillation across paraphrases, as Reimers & Gurevych
2004.09813 do across languages).
"""

import copy
import random
from collections import ChainMap, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.data import captions, thesaurus
from unclip.data.images import Batch
from unclip.errors import UnclipError
from unclip.models.clip import CLIP, CLIPConfig
from unclip.train.recipe import Recipe, Stage
from unclip.train.stages.clip import recall
from unclip.train.stages.encoders import MANY, Encoders, held_out
from unclip.train.stages.fast import Pair
from unclip.weights import hub
from unclip.weights.checkpoint import save_module


@dataclass(frozen=True)
class TextRecipe(Recipe):
    model: CLIPConfig = field(default_factory=CLIPConfig)  # of the trained CLIP
    old: float = 0.5  # share of a batch that is captions as they were, which must stay where they were
    named: float = 0.7  # share of the others that are each English name of a label as often, however many it has
    keep: float = 3.0  # how much more their loss counts
    parts: int = 6  # of a batch by length of caption, so that short captions need not be padded to the longest

    def stage(self, data: Path, model: Path, device: torch.device) -> "TextStage":
        return TextStage(self, data, model, device)


class TextStage(Stage):
    recipe: TextRecipe
    net: Pair  # the text tower, and the one that it was: a checkpoint must hold both

    def __init__(self, recipe: TextRecipe, data: Path, model: Path, device: torch.device):
        super().__init__(recipe, data, device)
        self.encoders, words = Encoders(model, device), thesaurus.load(data)
        if self.encoders.config != recipe.model:
            raise UnclipError(f"{str(model / 'clip')!r} was trained with other settings of the model than the recipe's")
        self.names, self.chinese = words["en"], words["zh"]
        self.shown: dict[str, list[dict]] = defaultdict(list)  # what is captioned with a label
        for meta in self.corpus.meta:
            self.shown[meta.get("label", "")].append(meta)
        every = [*words["en"].items(), *words.get("near", {}).items()]
        self.pairs = [(name, label) for label, names in every if label in self.shown for name in names]
        before = self.encoders.clip.text
        self.net = Pair(copy.deepcopy(before).requires_grad_(True), before)
        self.splits = {s: held_out(recipe, data, s, 8 * MANY)[:2] for s in ("val", "compose")}

    def batch(self, step: int, share: slice = slice(None)) -> Batch:
        """Captions to learn, and after them those that mean the same."""
        c = self.recipe
        rng = random.Random(f"{c.train.seed} {step} {share.start}")
        rows = self.corpus.rows(step, c.train.batch, c.train.seed)[share]
        pairs = [self.pair(self.corpus.meta[i], rng) for i in rows.tolist()]
        lines = [new for new, _ in pairs] + [old for _, old in pairs]
        return Batch(rows, self.corpus.images[:0], lines, torch.ones(len(rows), dtype=torch.bool))

    def pair(self, meta: dict, rng: random.Random) -> tuple[str, str]:
        """A caption and one that means the same. Of old ones only the English are to stay, and no keyword that is to
        become a name."""
        own = meta.get("label_zh")
        if "label" not in meta or rng.random() < self.recipe.old:
            behind = rng.choice(list(captions.COLOURS)) if rng.random() < self.recipe.data.coloured else None
            stay = [k for k in meta.get("keywords", ()) if k not in self.names.get(meta.get("label", ""), ())]
            line = captions.draw({**meta, "label_zh": None, "keywords": stay}, rng, behind)
            return line, line
        if self.pairs and rng.random() < self.recipe.named:
            name, label = rng.choice(self.pairs)
            return captions.paraphrase(rng.choice(self.shown[label]), ChainMap({label: [name]}, self.names), [], rng)
        return captions.paraphrase(meta, self.names, [own, *self.chinese.get(meta["label"], ())] if own else [], rng)

    def loss(self, batch: Batch, g: torch.Generator) -> Tensor:
        ids = self.encoders.tokens(batch.captions)
        new, old = ids.chunk(2)
        lengths, kept, losses = (ids != 0).sum(1).view(2, -1), (new == old).all(1), []
        for rows in lengths[0].argsort(stable=True).chunk(self.recipe.parts):
            read, z_t = self.net.student(new[rows, : lengths[0, rows].max()])
            with torch.no_grad():
                meant, z_t0 = self.net.teacher(old[rows, : lengths[1, rows].max()])
            lost = apart(read, meant, *lengths[:, rows]) + 10 * (1 - F.cosine_similarity(z_t.float(), z_t0))
            losses.append(lost.where(~kept[rows], self.recipe.keep * lost))
        return torch.cat(losses).mean()

    def renewed(self, net: Pair) -> CLIP:
        """CLIP with the text tower that learns."""
        clip = copy.copy(self.encoders.clip)
        clip._modules = clip._modules | {"text": net.student}
        return clip

    @torch.no_grad()
    def preview(self, net: Pair) -> tuple[None, dict[str, float]]:
        """How often captions find their pictures, and how near old captions have stayed."""
        clip, measures = self.renewed(net), {}
        for name, (pictures, lines) in self.splits.items():
            ids = self.encoders.tokens(lines)
            measures[f"{name}_recall"] = recall(clip, self.encoders.tokenizer, pictures, lines)
            measures[f"{name}_kept"] = F.cosine_similarity(net.student(ids)[1], net.teacher(ids)[1]).mean().item()
        return None, measures

    @torch.no_grad()
    def export(self, net: Pair, model: Path, notes: dict[str, str]) -> None:
        save_module(model / "clip", self.recipe.model, self.renewed(net).state_dict(), torch.float16, notes)
        hub.write_index(model, model.parent.name)


def apart(one: Tensor, other: Tensor, lengths: Tensor, others: Tensor) -> Tensor:
    """Mean squared difference [B] of encoded captions [B, L, width] and [B, M, width] of the given lengths.

    Tokens are compared from the last backwards, as many as both have: names differ in length, what follows does not.
    """
    span = min(one.shape[1], other.shape[1])
    back = torch.arange(span, device=one.device)
    ends = [x.gather(1, (n[:, None] - 1 - back).clamp(min=0)[..., None].expand(-1, -1, x.shape[2])).float()
            for x, n in ((one, lengths), (other, others))]  # fmt: skip
    both = back < torch.minimum(lengths, others)[:, None]
    return ((ends[0] - ends[1]).square().mean(2) * both).sum(1) / both.sum(1)
