"""The plan of a corpus: what is said of each picture, its split and its shard.

It is made before anything is drawn and depends on the packages alone.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from unclip.data import shards
from unclip.data.captions import canonical
from unclip.data.pictures import Picture

SPLITS = ("train", "val", "compose")
UNSEEN = 0.04  # share of concepts kept for `val`
HELD_OUT = 0.06  # share of (concept, style) pairs kept for `compose`
FORMAT = 1  # part of every shard's fingerprint: raise it when the pictures change
TONE_WEIGHT = 0.12


def chance(*words: str) -> float:
    """A number in [0, 1) that depends on the words alone."""
    digest = hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def describe(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """The JSON of every picture. A picture is `core` when three or more styles draw its concept in colour,
    and it is itself in colour, no flag and no skin tone."""
    styles = colour_styles(pictures)
    described = []
    for p in pictures:
        name, source = p.name, p.source
        core = len(styles[name.concept]) >= 3 and not (name.tone or name.flag or source.mono)
        meta = {
            "label": name.label,
            "label_zh": name.zh,
            "keywords": list(name.keywords),
            "style": source.style,
            "source": source.name,
            "licence": source.licence,
            "concept": name.concept,
            "group": name.group,
            "tone": name.tone,
            "flag": name.flag,
            "mono": source.mono,
            "core": core,
            "weight": round(source.weight * (TONE_WEIGHT if name.tone else 1.0), 4),
        }
        described.append({**meta, "caption": canonical(meta)})
    return described


def colour_styles(pictures: Iterable[Picture]) -> dict[str, set[str]]:
    """For each concept the styles in which it is drawn in colour."""
    styles: dict[str, set[str]] = defaultdict(set)
    for p in pictures:
        if not p.source.mono:
            styles[p.name.concept].add(p.source.style)
    return styles


def split(pictures: Sequence[Picture]) -> list[str]:
    """The split of each picture, by stable hashes of its concept and style.

    `val`: concepts never trained on. `compose`: of the others, one or two styles of some concepts drawn in three
    or more. Two styles or more of each stay in `train` (less what cannot be drawn), so that concept and style are
    both seen, never together.
    """
    held_out: set[tuple[str, str]] = set()
    for concept, styles in colour_styles(pictures).items():
        drawn = sorted((chance("compose", concept, style), style) for style in styles)
        spare = max(0, min(2, len(styles) - 2))
        held_out.update((concept, style) for value, style in drawn[:spare] if value < HELD_OUT)
    return [
        "val" if chance("val", p.name.concept) < UNSEEN
        else "compose" if (p.name.concept, p.source.style) in held_out
        else "train"
        for p in pictures
    ]  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """A planned shard. The fingerprint tells a finished one from one made of other pictures or sizes."""

    split: str
    index: int
    pictures: list[Picture]
    metas: list[dict[str, Any]]
    fingerprint: str

    def done(self, folder: Path, sizes: Sequence[int]) -> bool:
        """Whether the shard is on disk at every size, made of the same pictures."""
        for size in sizes:
            place = folder / str(size) / self.split
            try:
                stats = json.loads(shards.stats_path(place, self.index).read_bytes())
            except (OSError, ValueError):
                return False
            files = [place / f"{self.index:05d}.{suffix}" for suffix in ("tar", "parquet")]
            if stats.get("fingerprint") != self.fingerprint or not all(file.exists() for file in files):
                return False
        return True

    def rows(self, folder: Path, size: int) -> list[dict[str, Any]]:
        """The rows of a finished shard's table."""
        return shards.table(folder / str(size) / self.split / f"{self.index:05d}.parquet")


def plan(pictures: Sequence[Picture], sizes: Sequence[int], limit: int | None, per_shard: int) -> list[Shard]:
    """All shards in the order in which they are made; pictures are mixed by a hash of their keys.

    The splits are decided before `limit` cuts, so a small corpus is a part of the whole one.
    """
    rows = list(zip(split(pictures), pictures, describe(pictures), strict=True))
    rows = sorted(rows, key=lambda r: chance("order", r[1].key))[:limit]
    planned = []
    for name in SPLITS:
        queue = iter([(p, meta) for where, p, meta in rows if where == name])
        index = 0
        while batch := list(islice(queue, per_shard)):
            drawn, metas = [p for p, _ in batch], [meta for _, meta in batch]
            facts = [FORMAT, sorted(sizes), [[p.key, p.digest, meta] for p, meta in batch]]
            fingerprint = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
            planned.append(Shard(name, index, drawn, metas, fingerprint))
            index += 1
    return planned
