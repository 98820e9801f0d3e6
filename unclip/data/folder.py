"""A folder of pictures with captions → a corpus to train on.

Captions stand in NAME.txt beside each picture, or in metadata.csv or metadata.jsonl with the columns file_name and text
(Hugging Face's imagefolder); a folder of WebDataset shards is taken too.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from unclip.data import shards
from unclip.data.render import webp
from unclip.errors import UnclipError
from unclip.pictures import plain, read, square

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"}
TABLES = ("metadata.jsonl", "metadata.csv")
EVERY, MOST = 20, 24  # one picture in EVERY is held out to look at, but at most MOST


def corpus(source: Path, folder: Path, sizes: Sequence[int], say: Callable[[str], object]) -> dict[str, Any]:
    """Write FOLDER/size/split; returns how many pictures came to each split, and how many were skipped and why.

    Each picture is made square on its longer side, on transparent ground, and not enlarged: it is left out of sizes
    beyond its own. say: told in a line of each file that is skipped. Raises UnclipError if nothing is left.
    """
    if any((folder / str(size)).exists() for size in sizes):
        raise UnclipError(f"{str(folder)!r} holds a corpus already; name another folder, or remove it")
    skipped: Counter[str] = Counter()
    samples: dict[int, list[shards.Sample]] = {size: [] for size in sizes}
    for name, image, caption in usable(source, skipped, say):
        meta = {"caption": caption, "file": name, "core": True, "opaque": image.mode != "RGBA"}
        key = f"{len(samples[sizes[0]]):06d}"
        for size in sizes:
            if size == sizes[0] or size <= max(image.size):
                small = square(image.convert("RGBA"), size, (255, 255, 255, 0))
                samples[size].append(shards.Sample(key, webp(small), meta))
    count = len(samples[sizes[0]])
    if count < 2:
        raise UnclipError(f"{str(source)!r} holds {count} usable pictures, and two are needed; each needs a caption: "
                          f"NAME.txt beside it, or a line in {' or '.join(TABLES)}")  # fmt: skip
    aside = {f"{i:06d}" for i in range(0, count, max(EVERY, -(-count // MOST)))} if count > EVERY else {"000000"}
    for size, made in samples.items():
        held = [sample for sample in made if sample.key in aside]
        shards.write(folder / str(size) / "train", [sample for sample in made if sample.key not in aside])
        for split in ("val", "compose"):
            shards.write(folder / str(size) / split, held)
    return {"train": count - len(aside), "held_out": len(aside), "skipped": dict(skipped)}


def usable(source: Path, skipped: Counter[str], say: Callable[[str], object]) -> Iterator[tuple[str, Image.Image, str]]:
    """Name, RGB or RGBA picture and caption of whatever can be read."""
    for name, file, caption in chain(beside(source), stored(source, skipped)):
        try:
            if not caption.strip():
                raise UnclipError(f"{name!r} has no caption")
            image = read(file) if isinstance(file, Path) else plain(Image.open(io.BytesIO(file)))
        except (UnclipError, OSError, ValueError, Image.DecompressionBombError) as e:
            skipped["no caption" if not caption.strip() else "no sound picture"] += 1
            say(f"skipped: {e}")
        else:
            yield name, image, " ".join(caption.split())


def beside(source: Path) -> Iterator[tuple[str, Path, str]]:
    """Pictures of a folder and those below it, in one order, with '' where there is no caption."""
    if not source.is_dir():
        raise UnclipError(f"{str(source)!r} is no folder; name one that holds pictures with captions")
    told = captions(source)
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        name, text = path.relative_to(source).as_posix(), path.with_suffix(".txt")
        caption = told.get(name, "")
        if not caption and text.is_file():
            caption = text.read_text(encoding="utf-8-sig", errors="replace")
        yield name, path, caption


def captions(source: Path) -> dict[str, str]:
    """What metadata.csv or metadata.jsonl says of each file."""
    told: dict[str, str] = {}
    for path in (source / name for name in TABLES if (source / name).is_file()):
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        try:
            rows = csv.DictReader(io.StringIO(text)) if path.suffix == ".csv" else map(json.loads, text.splitlines())
            told |= {row["file_name"]: str(row["text"]) for row in rows}
        except (ValueError, KeyError, TypeError, csv.Error) as e:
            raise UnclipError(f"{str(path)!r} is no table of file_name and text: {e!r}; correct it") from e
    return told


def stored(source: Path, skipped: Counter[str]) -> Iterator[tuple[str, bytes, str]]:
    """What shards in the folder hold."""
    if any(source.glob("*.tar")):
        damage = shards.Damage()
        for sample in shards.read(source, damage):
            yield sample.key, sample.image, sample.meta["caption"]
        skipped.update(damage.counts)
