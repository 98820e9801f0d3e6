"""Alignment: among several captions, does the judge find the one that a picture was drawn for?

Pictures are drawn for the captions of held-out real pictures. A score of the drawn means something beside the same
score of the real: the judge errs too, and their ratio says how much of what it can see came through.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unclip.data import captions
from unclip.data.images import Corpus, compose
from unclip.diffusion.draw import Draw
from unclip.errors import UnclipError
from unclip.evaluate.distances import frechet, kernel
from unclip.evaluate.judge import Judge
from unclip.pictures import to_pil

MANY = 32  # captions that a picture is matched against


@dataclass
class Split:
    """Held-out pictures on white in a fixed, shuffled order: each run of `many` is a group of distinct captions."""

    name: str
    many: int
    metas: list[dict[str, Any]]
    pictures: list[Image.Image]
    captions: list[str]

    @classmethod
    def load(
        cls, data: Path, size: int, name: str, seed: int = 0, limit: int | None = None, many: int = MANY
    ) -> "Split":
        """The core pictures of DIR/size/name, dealt into groups by `seed`; what fills no group is left out.

        limit: at most so many pictures. The groups are the same with and without a limit.
        """
        corpus = Corpus.load(data, size, name, core=True)
        lines = [captions.canonical(m) if "label" in m else m["caption"] for m in corpus.meta]
        groups = deal(lines, many, random.Random(f"{seed} {name}"))
        groups = groups if limit is None else groups[: max(limit, 0) // many]
        if not groups:
            raise UnclipError(
                f"{len(lines)} pictures of {name!r}, limit {limit}: no group of {many} with distinct captions; "
                "use more pictures or a higher limit"
            )
        rows = [row for group in groups for row in group]
        pictures = to_pil(compose(corpus.images[rows], torch.full((len(rows), 3), 255.0)))
        return cls(name, many, [corpus.meta[i] for i in rows], pictures, [lines[i] for i in rows])

    def seeds(self, seed: int) -> list[int]:
        """A seed for each picture, from its own key: it does not depend on which others are drawn."""
        return [Draw.hash(seed, f"{self.name} {meta['key']}") >> 1 for meta in self.metas]

    def questions(self, seed: int = 0) -> dict[str, list[list[str]]]:
        """For each picture the captions to choose from, its own first.

        caption: those of its group. concept: of as many concepts, all in the picture's style. style: the picture's
        label in every style of the split. Left out: what offers a picture no choice, and the last two where pictures
        have no label and style.
        """
        groups = [self.captions[i : i + self.many] for i in range(0, len(self.captions), self.many)]
        asked = {"caption": [[own, *(c for c in group if c != own)] for group in groups for own in group]}
        if all({"label", "style", "concept"} <= meta.keys() for meta in self.metas):
            labels = list({m["concept"]: m["label"] for m in self.metas}.items())
            styles = sorted({m["style"] for m in self.metas})
            rng = random.Random(f"{seed} concepts of {self.name}")
            asked |= {"concept": [], "style": []}
            for m in self.metas:
                others = [x for concept, x in labels if concept != m["concept"] and x != m["label"]]
                others = rng.sample(others, min(len(others), self.many - 1))
                asked["concept"].append([captions.canonical(m | {"label": x}) for x in (m["label"], *others)])
                others = [style for style in styles if style != m["style"]]
                asked["style"].append([captions.canonical(m | {"style": x}) for x in (m["style"], *others)])
        return {name: rows for name, rows in asked.items() if min(map(len, rows)) > 1}


def deal(lines: list[str], many: int, rng: random.Random) -> list[list[int]]:
    """Shuffled rows of `lines` in full groups of `many` whose captions are distinct."""
    groups: list[dict[str, int]] = [{} for _ in range(len(lines) // many)]
    for row in rng.sample(range(len(lines)), len(lines)):
        group = next((g for g in groups if len(g) < many and lines[row] not in g), None)
        if group is not None:
            group[lines[row]] = row
    return [list(group.values()) for group in groups if len(group) == many]


def measure(split: Split, drawn: list[Image.Image], judge: Judge, seed: int = 0) -> dict[str, Any]:
    """All numbers of a split: recalls with their chance level, and distances with their floor."""
    (fake, fake_z), (real, real_z) = judge.look(drawn), judge.look(split.pictures)
    asked = split.questions(seed)
    known = {line: i for i, line in enumerate(sorted({c for lists in asked.values() for row in lists for c in row}))}
    z_t = judge.read(list(known))
    recalls = {}
    for name, rows in asked.items():
        candidates = [z_t[[known[c] for c in row]] for row in rows]
        made, true = found(fake_z, candidates), found(real_z, candidates)
        chance = sum(1 / len(row) for row in rows) / len(rows)
        recalls[name] = {"generated": share(made), "real": share(true), "ratio": ratio(made, true), "chance": chance}
    return {"pictures": len(drawn), "recall": recalls, "distance": distances(fake, real)}


def found(z: Tensor, candidates: list[Tensor]) -> Tensor:
    """Boolean [N]: whether unit z[i] is nearer to the first of its candidates [K, D] than to all the others."""
    scores = [c @ v for v, c in zip(z, candidates, strict=True)]
    return torch.stack([s[0] > s[1:].max() for s in scores])


def share(hits: Tensor) -> dict[str, float]:
    """How often, and the binomial standard error of that."""
    p = hits.double().mean().item()
    return {"value": p, "error": (p * (1 - p) / len(hits)) ** 0.5}


def ratio(made: Tensor, true: Tensor) -> dict[str, float] | None:
    """mean(made) / mean(true) and its standard error by the delta method; the two are of the same captions."""
    made, true = made.double(), true.double()
    if true.sum() == 0:
        return None
    r = made.mean() / true.mean()
    error = (made - r * true).std(correction=0) / len(made) ** 0.5 / true.mean()
    return {"value": r.item(), "error": error.item()}


def distances(fake: Tensor, real: Tensor) -> dict[str, dict[str, float]]:
    """Drawn from real pictures of the same captions (`generated`), and, without shared captions, drawn from real
    (`halves`) beside real from real (`floor`): every second picture against the others."""
    half = len(real) // 2
    even, odd = slice(0, 2 * half, 2), slice(1, None, 2)
    pairs = {"generated": (fake, real), "halves": (fake[even], real[odd]), "floor": (real[even], real[odd])}
    kernels = {name: kernel(*pair) for name, pair in pairs.items()}
    return {
        "frechet": {name: frechet(*pair) for name, pair in pairs.items()},
        "kernel": {name: value for name, (value, _) in kernels.items()},
        "kernel_error": {name: error for name, (_, error) in kernels.items()},
    }
