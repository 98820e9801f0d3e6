"""Every system of a lineage measured by the same judge on the same captions, a row each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.data.images import Corpus, compose
from unclip.evaluate.alignment import Split, found
from unclip.evaluate.distances import frechet, kernel, precision_recall, spread
from unclip.evaluate.judge import Judge, tensor
from unclip.evaluate.probes import kinds, probe
from unclip.lineage.adm import ADMSystem
from unclip.lineage.palette import shrink
from unclip.lineage.reader import enlarge
from unclip.lineage.system import System
from unclip.pictures import to_pil

CAPTIONS = (
    "red apple, noto emoji", "cat face, flat twitter emoji", "smiling face, flat vector emoji",
    "red heart, noto emoji", "fox, glossy 3d emoji", "bird, flat twitter emoji", "sun, flat vector emoji",
    "police car, noto emoji",
)  # fmt: skip
BATCH = 32
PIXELS = 16  # side at which pictures are their own features
TWICE = 64  # captions that are drawn again, from other noise
BITS = 16  # pictures that the likelihood is taken of: it may cost a walk of the whole chain


@dataclass
class Held:
    """What all are measured on: held-out pictures with their captions, and what a probe is fitted to and tried on."""

    split: Split
    known: Corpus
    unseen: Corpus
    judge: Judge

    @classmethod
    def load(cls, data: Path, judge: Judge, pictures: int, known: int = 3000) -> "Held":
        split = Split.load(data, 64, "val", limit=pictures)
        train = Corpus.load(data, 64, "train", core=True, limit=known)
        return cls(split, train, Corpus.load(data, 64, "val", core=True), judge)

    @cached_property
    def seen(self) -> tuple[Tensor, Tensor]:
        """What the judge sees in the pictures, which every system is held beside."""
        return self.judge.look(self.split.pictures)

    @property
    def pictures(self) -> Tensor:
        return tensor(self.split.pictures)


@torch.no_grad()
def measure(system: System, held: Held, seconds: float | None, seed: int = 0) -> tuple[dict[str, Any], Tensor]:
    """A system's row, and the eight captions drawn by it (or what it makes of eight pictures) [8, 3, 64, 64]."""
    size, real = system.size, held.pictures
    row: dict[str, Any] = {
        "system": system.title, "models": system.models, "size": size, "text": system.text, "training": seconds,
        "parameters": sum(p.numel() for net in system.nets() for p in net.parameters()),
    }  # fmt: skip
    again = system.reconstruct(shrink(real, size))
    if again is not None:
        row["error"] = (again - shrink(real, size)).square().mean().item()
    bits = system.bits(shrink(real[:BITS], size))
    row["bits"] = None if bits is None else bits.mean().item()
    row |= system.numbers(shrink(real, size)) | probed(system.features, size, held)
    if not system.draws:
        assert again is not None
        return row, enlarge(system.reconstruct(shrink(real[:8], size)), 64)  # type: ignore[arg-type]
    began = time.monotonic()
    drawn = draw(system.sample, held.split.captions, held.split.seeds(seed))
    row |= {"sampling": (time.monotonic() - began) / len(drawn), "calls": system.calls}
    seen = held.judge.look(to_pil(drawn))
    row |= judged(seen, held, system.text)
    if system.text:
        again = draw(system.sample, held.split.captions[:TWICE], held.split.seeds(seed + 1)[:TWICE])
        row["spread"] = spread(seen[0][:TWICE], held.judge.look(to_pil(again))[0])
    return row, enlarge(system.sample(CAPTIONS, range(seed, seed + len(CAPTIONS))), 64)


@torch.no_grad()
def real(held: Held) -> tuple[dict[str, Any], Tensor]:
    """The row of the held-out pictures themselves: what the judge finds in them, what can be read off their pixels."""
    row = {"system": "real pictures", "models": "what all the others are held beside", "size": 64, "text": True}
    row |= {"alignment": matched(held, held.seen[1])}
    return row | probed(lambda x: x.flatten(1), PIXELS, held), held.pictures[:8]


def draw(sample: Callable[..., Tensor], captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Pictures [N, 3, 64, 64], in batches."""
    parts = [sample(captions[i : i + BATCH], seeds[i : i + BATCH]) for i in range(0, len(captions), BATCH)]
    return enlarge(torch.cat(parts), 64)


def judged(seen: tuple[Tensor, Tensor], held: Held, text: bool) -> dict[str, Any]:
    """Distances, precision and recall of drawn pictures, by what the judge sees in them; with text, how often it finds
    the caption among many."""
    (fake, z), (real, _) = seen, held.seen
    precision, recall = precision_recall(fake, real)
    row = {"frechet": frechet(fake, real), "kernel": kernel(fake, real)[0], "precision": precision, "recall": recall}
    if text:
        row["alignment"] = matched(held, z)
    return row


def matched(held: Held, z: Tensor) -> float:
    """How often the judge finds the caption of pictures, of which it says z, among those of others."""
    lists = held.split.questions()["caption"]
    known = {line: i for i, line in enumerate(sorted({c for row in lists for c in row}))}
    z_t = held.judge.read(list(known))
    return found(z, [z_t[[known[c] for c in row]] for row in lists]).double().mean().item()


def probed(features: Callable[[Tensor], Tensor | None], size: int, held: Held) -> dict[str, float]:
    """A linear probe on what `features` makes of pictures of `size`: the emoji group of unseen ones, and the style."""
    if features(shrink(held.pictures[:1], size)) is None:
        return {}

    def told(corpus: Corpus) -> Tensor:
        return torch.cat([features(shrink(compose(p), size)) for p in corpus.images.split(64)])  # type: ignore[misc]

    row, train, test = {}, told(held.known), told(held.unseen)
    for field in ("group", "style"):
        a, b = kinds(field, held.known.meta, held.unseen.meta)
        if (a >= 0).any() and (b >= 0).any():
            row[f"probe_{field}"] = probe(train[a >= 0], a[a >= 0], test[b >= 0], b[b >= 0])
    return row


@torch.no_grad()
def guided(system: ADMSystem, held: Held, scales: Sequence[float] = (0.0, 1.0, 3.0, 10.0)) -> list[dict[str, float]]:
    """Classifier guidance: what the scale gives in fidelity and takes in diversity (ADM, figure 4)."""
    rows, usual = [], system.scale
    for scale in scales:
        system.scale = scale
        drawn = draw(system.sample, held.split.captions, held.split.seeds(0))
        row = judged(held.judge.look(to_pil(drawn)), held, False)
        rows.append({"scale": scale, "precision": row["precision"], "recall": row["recall"]})
    system.scale = usual
    return rows
