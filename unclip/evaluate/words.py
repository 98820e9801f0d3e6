"""Words that nobody captioned a picture with, and the other language: does CLIP put them where their pictures are?

`thesaurus.synonyms` are 200 words, none of which occurs in any label or keyword of the illustrations or is taught
otherwise, each with the label of what it means. Nothing is drawn: what z_t does not tell, no prior can.
"""

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.data.images import Corpus, compose
from unclip.data.thesaurus import synonyms
from unclip.errors import UnclipError
from unclip.evaluate.alignment import MANY, found, share
from unclip.pipeline import UnCLIP

EACH = 3  # pictures that stand for a concept
Line = tuple[str, str]  # a text, and the concept that it means


@torch.inference_mode()
def words(system: UnCLIP, data: str | Path, split: str = "train", seed: int = 0) -> dict[str, Any]:
    """recall@1 of texts: how often z_t is nearer to the mean z_i of its concept's pictures than to those of 31 others.

    Four rows: labels in English and Chinese, of the concepts that have both; synonyms, and the labels they stand for.
    """
    corpus = Corpus.load(data, system.clip.config.image_size, split, core=True)
    rows: dict[str, list[int]] = defaultdict(list)
    for i, meta in enumerate(corpus.meta):
        if "concept" in meta and len(rows[meta["concept"]]) < EACH:
            rows[meta["concept"]].append(i)
    if len(rows) < MANY:
        raise UnclipError(f"{split!r} of {str(data)!r} has {len(rows)} concepts; at least {MANY} are needed")
    wanted = [i for some in rows.values() for i in some]
    z_i = dict(zip(wanted, embed(system, corpus.images[wanted]), strict=True))
    means = {concept: F.normalize(torch.stack([z_i[i] for i in some]).sum(0), dim=0) for concept, some in rows.items()}
    first = {concept: corpus.meta[some[0]] for concept, some in rows.items()}
    concept_of = {meta["label"]: concept for concept, meta in first.items()}
    both = [(meta, concept) for concept, meta in first.items() if meta.get("label_zh")]
    known = [(word, label) for word, label in synonyms() if label in concept_of]
    asked = {
        "labels": [(meta["label"], concept) for meta, concept in both],
        "labels in Chinese": [(meta["label_zh"], concept) for meta, concept in both],
        "labels that have synonyms": [(label, concept_of[label]) for _, label in known],
        "synonyms": [(word, concept_of[label]) for word, label in known],
    }
    return {name: {"lines": len(lines), **recall(system, lines, means, seed)} for name, lines in asked.items() if lines}


def embed(system: UnCLIP, images: Tensor) -> Tensor:
    """uint8 RGBA [N, 4, S, S] → unit z_i [N, D]."""
    return torch.cat([system.clip.encode_image(compose(part).to(system.device)) for part in images.split(128)])


def recall(system: UnCLIP, lines: list[Line], means: dict[str, Tensor], seed: int) -> dict[str, float]:
    z_t = torch.cat([system.read([text for text, _ in lines[i : i + MANY]])[2] for i in range(0, len(lines), MANY)])
    candidates = []
    for _, concept in lines:
        others = [other for other in means if other != concept]
        chosen = random.Random(f"{seed} {concept}").sample(others, MANY - 1)  # the same, however it is called
        candidates.append(torch.stack([means[name] for name in (concept, *chosen)]))
    return share(found(z_t, candidates))


def table(results: dict[str, Any]) -> str:
    lines = [f"{'recall@1 among ' + str(MANY):28}{'lines':>7}"]
    lines += [f"{name:28}{row['lines']:7}{row['value']:8.3f} ± {row['error']:.3f}" for name, row in results.items()]
    return "\n".join(lines)
