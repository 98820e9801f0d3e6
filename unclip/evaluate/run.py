"""A whole evaluation: draw a picture for every caption, measure, write it all down."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from unclip.diffusion.draw import Draw
from unclip.errors import UnclipError
from unclip.evaluate.alignment import MANY, Split, measure
from unclip.evaluate.gallery import Gallery
from unclip.evaluate.judge import Judge
from unclip.evaluate.report import sheet
from unclip.files import atomic, write_bytes, write_json
from unclip.pictures import to_pil
from unclip.pipeline import UnCLIP
from unclip.settings import Settings

SPLITS = ("val", "compose")
BATCH = 16  # always the same pictures together, or another rounding would change a picture in its last bit
Drawer = Callable[[list[str], list[int]], list[Image.Image]]  # captions and seeds → pictures


def alignment(
    system: UnCLIP,
    judge: Judge,
    data: str | Path,
    settings: Settings,
    *,
    splits: Sequence[str] = SPLITS,
    limit: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a pipeline on the held-out captions of a corpus: what `report.table` prints, as JSON holds it.

    Pictures are judged as they leave the decoder: `settings` counts but for its size. limit: at most so many pictures
    of each split. out: pictures are kept here as they are drawn, and a run that was broken off goes on; then
    results.json and a contact sheet of the last split.
    """
    size = system.decoder.config.size
    if judge.size != size:
        raise UnclipError(f"judge {judge.name!r} looks at {judge.size} px, the decoder draws {size} px; name another")
    settings = system.hurried(replace(settings, size=size))
    held = [Split.load(Path(data), size, name, limit=limit) for name in splits]
    made = {
        "weights": {"name": system.name, "digest": system.digest},
        "settings": asdict(settings) | {"dtype": str(system.dtype).removeprefix("torch.")},
        "seed": seed,
    }
    gallery = Gallery(Path(out) / "pictures" if out else None, made)
    numbers, drawn = examine(partial(draw, system, settings), judge, held, seed, gallery)
    about = {"name": judge.name, "sha256": judge.sha256, "space": judge.space}
    results = {**made, "judge": about, "among": MANY, "splits": numbers}
    if out:
        shown = held[-1]
        picture, listed = sheet(shown, drawn[shown.name])
        with atomic(Path(out) / f"{shown.name}.png") as path:
            picture.save(path, "PNG")
        write_bytes(Path(out) / f"{shown.name}.txt", listed.encode())
        write_json(Path(out) / "results.json", results)
    return results


@torch.inference_mode()
def draw(system: UnCLIP, settings: Settings, captions: list[str], seeds: list[int]) -> list[Image.Image]:
    """What `generate` draws one by one, but for rounding, in one batch: half the work on a CPU core."""

    def tell(*step: object) -> None:
        pass

    z_i = system.sample_prior(captions, "", Draw(seeds, "prior"), settings, tell)
    return to_pil(system.decode(z_i, captions, "", Draw(seeds, "decoder"), settings, tell))


def examine(
    drawer: Drawer, judge: Judge, splits: Sequence[Split], seed: int, gallery: Gallery
) -> tuple[dict[str, Any], dict[str, list[Image.Image]]]:
    """Draw what the gallery lacks and measure: the numbers of each split, and its pictures."""
    numbers, drawn = {}, {}
    for split in splits:
        places = [f"{split.name}/{meta['key']}" for meta in split.metas]
        rows = list(zip(places, split.captions, split.seeds(seed), strict=True))
        pictures = []
        with tqdm(total=len(rows), desc=f"drawing for {split.name}", file=sys.stderr, unit="picture") as bar:
            for batch in (rows[i : i + BATCH] for i in range(0, len(rows), BATCH)):
                found = [gallery.find(*row) for row in batch]
                if None in found:
                    found = drawer([row[1] for row in batch], [row[2] for row in batch])
                    for row, picture in zip(batch, found, strict=True):
                        gallery.keep(*row, picture)
                pictures += found
                bar.update(len(batch))
        drawn[split.name], numbers[split.name] = pictures, measure(split, pictures, judge)
    return numbers, drawn
