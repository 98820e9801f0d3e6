"""The self-training loop: captions → pictures → kept or dropped by CLIP's score → shards that `unclip train` reads."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import unclip
from unclip.data import shards
from unclip.errors import UnclipError
from unclip.evaluate.judge import tensor
from unclip.evaluate.run import draw
from unclip.files import write_json
from unclip.pipeline import UnCLIP
from unclip.settings import Settings

BATCH = 16


def synthesise(
    system: UnCLIP, captions: Sequence[str], out: Path, settings: Settings, *, least: float, source: str, seed: int = 0
) -> dict[str, Any]:
    """Draw each caption once and keep what scores at least `least` (cosine of CLIP's z_i and z_t) in
    OUT/SIZE/train, one in twenty each in OUT/SIZE/val and OUT/SIZE/compose, of which training shows previews. Returns
    what was counted, which is also OUT/synthesis.json.

    Every sample's JSON says how it was made: weights and their digest, seed, score, settings, where the caption came
    from. Raises UnclipError when nothing was kept.
    """
    scores: list[float] = []
    held: dict[int, list[shards.Sample]] = {1: [], 2: []}  # by their number modulo twenty: of val, of compose

    def samples() -> Iterator[shards.Sample]:
        for i in range(0, len(captions), BATCH):
            lines = list(captions[i : i + BATCH])
            seeds = list(range(seed + i, seed + i + len(lines)))
            pictures = draw(system, settings, lines, seeds)
            found = fits(system, lines, pictures)
            scores.extend(found)
            for made in zip(lines, seeds, pictures, found, strict=True):
                if made[-1] >= least:
                    yield sample(*made)

    def training() -> Iterator[shards.Sample]:
        for i, made in enumerate(samples()):
            if i % 20 in held:
                held[i % 20].append(made)
            else:
                yield made

    def sample(caption: str, number: int, picture: Image.Image, score: float) -> shards.Sample:
        data, key = io.BytesIO(), f"synthetic-{number:09d}"
        picture.save(data, "WEBP", lossless=True)
        made = {
            "by": f"unclip {unclip.__version__}", "weights": system.name, "digest": system.digest, "seed": number,
            "score": round(score, 4), "captions": source, "steps": settings.steps, "guidance": settings.guidance,
        }  # fmt: skip
        meta = {"caption": caption, "concept": caption, "source": "synthetic", "licence": "generated", "core": True,
                "weight": 1.0, "provenance": made}  # fmt: skip
        return shards.Sample(key, data.getvalue(), meta)

    folder = out / str(system.decoder.config.size)
    if any(folder.glob("*/*.tar")):
        raise UnclipError(f"{str(folder)!r} holds shards already; choose another --out")
    shards.write(folder / "train", training())
    for split, some in zip(("val", "compose"), held.values(), strict=True):
        if some:
            shards.write(folder / split, some)
    kept = sum(score >= least for score in scores)
    counted = {"captions": len(captions), "kept": kept, "dropped": len(captions) - kept, "least": least,
               "median_score": float(np.median(scores)), "source": source}  # fmt: skip
    if not kept:
        raise UnclipError(f"no picture scored {least} or more (the best {max(scores):.3f}); lower --least", code=1)
    write_json(out / "synthesis.json", counted)
    return counted


@torch.inference_mode()
def fits(system: UnCLIP, captions: Sequence[str], pictures: Sequence[Image.Image]) -> list[float]:
    """Cosine of each picture's z_i to its caption's z_t."""
    _, _, z_t = system.read(captions)
    z_i = system.clip.encode_image(tensor(pictures).to(system.device))
    return (z_i * z_t).sum(1).tolist()
