"""A whole evaluation: draw a picture for every caption, measure, write it all down."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from unclip.errors import UnclipError
from unclip.evaluate.alignment import MANY, Drawer, Split, measure
from unclip.evaluate.gallery import Gallery
from unclip.evaluate.judge import Judge
from unclip.evaluate.report import sheet
from unclip.files import atomic, sha256, write_bytes, write_json
from unclip.pipeline import PARTS, TOKENIZER, UnCLIP
from unclip.settings import Settings
from unclip.weights import hub
from unclip.weights.checkpoint import WEIGHTS
from unclip.weights.config import from_dict

SPLITS = ("val", "compose")


def alignment(
    weights: str | Path,
    data: str | Path,
    judge: str | Path | None = None,
    *,
    splits: Sequence[str] = SPLITS,
    limit: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a pipeline (a shipped name, a folder, or "org/repo") on the held-out captions of a corpus.

    judge: its folder; by default see `judge.locate`. limit: at most so many pictures of each split. settings: fields of
    `Settings` but for `size`: pictures are judged as they leave the decoder. out: pictures are kept here as they are
    drawn, and a run that was broken off goes on; then results.json and a contact sheet.
    """
    asked = from_dict(Settings, settings or {})
    folder = hub.locate(weights)
    system = UnCLIP.from_pretrained(folder, device=device)
    seer = Judge.load(judge, folder, system.device)
    size = system.decoder.config.size
    if seer.size != size:
        raise UnclipError(f"judge {seer.name!r} looks at {seer.size} px, the decoder draws {size} px; name another")
    chosen = asdict(replace(asked, size=size))
    used = {k: v for k, v in chosen.items() if k != "upsampler_steps"}
    parts = {part: sha256(folder / part / WEIGHTS) for part in PARTS if part != "upsampler_256"}
    parts["tokenizer"] = sha256(folder / TOKENIZER)
    held = [Split.load(Path(data), size, name, limit=limit) for name in splits]
    results = {
        "weights": {"name": system.name, "sha256": parts},
        "judge": {"name": seer.name, "sha256": seer.sha256, "space": seer.space},
        "settings": used,
        "seed": seed,
        "among": MANY,
    }

    def draw(caption: str, number: int) -> Image.Image:
        return system.generate(caption, seed=number, progress=False, **chosen).images[0]

    gallery = Gallery(Path(out) / "pictures" if out else None, {"sha256": parts, "settings": used, "seed": seed})
    results["splits"], drawn = examine(draw, seer, held, seed, gallery)
    if out:
        shown = held[-1]
        picture, listed = sheet(shown, drawn[shown.name])
        with atomic(Path(out) / f"{shown.name}.png") as path:
            picture.save(path, "PNG")
        write_bytes(Path(out) / f"{shown.name}.txt", listed.encode())
        write_json(Path(out) / "results.json", results)
    return results


def examine(
    draw: Drawer, judge: Judge, splits: Sequence[Split], seed: int, gallery: Gallery
) -> tuple[dict[str, Any], dict[str, list[Image.Image]]]:
    """Draw what the gallery lacks and measure: the numbers of each split, and its pictures."""
    numbers, drawn = {}, {}
    for split in splits:
        places = [f"{split.name}/{meta['key']}" for meta in split.metas]
        rows = list(zip(places, split.captions, split.seeds(seed), strict=True))
        bar = tqdm(rows, f"drawing for {split.name}", file=sys.stderr, unit="picture", mininterval=1)
        drawn[split.name] = [gallery.find(*row) or gallery.keep(*row, draw(*row[1:])) for row in bar]
        numbers[split.name] = measure(split, drawn[split.name], judge)
    return numbers, drawn
