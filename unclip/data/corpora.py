"""The illustrations corpus: sources → named pictures → splits → renderings → shards.

The plan (which picture, under which name, in which split and shard) is made before anything is drawn and depends on the
packages alone. Renderings follow that order whatever the number of workers, so a corpus is the same bytes everywhere.
"""

import hashlib
import json
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import UnclipError
from ..files import write_bytes
from . import shards
from .captions import canonical
from .pictures import Picture, gather
from .render import Rendered, render
from .sources import NAMES, SOURCES, Source, contents, obtain

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
    """The JSON of every picture. A picture is `core` when its concept occurs in three or more colour sets."""
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
    or more; at least two styles of each stay in `train`, so that concept and style are seen, never together.
    """
    held_out: set[tuple[str, str]] = set()
    for concept, styles in colour_styles(pictures).items():
        drawn = sorted((chance("compose", concept, style), style) for style in styles)
        few = [style for value, style in drawn if value < HELD_OUT][: min(2, len(styles) - 2)]
        held_out.update((concept, style) for style in few if len(styles) >= 3)
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
        for size in sizes:
            place = folder / str(size) / self.split
            try:
                stats = json.loads(shards.stats_path(place, self.index).read_bytes())
            except (OSError, ValueError):
                return False
            if stats.get("fingerprint") != self.fingerprint or not (place / f"{self.index:05d}.tar").exists():
                return False
        return True


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


@dataclass
class Report:
    """What a corpus holds, counted from the shards on disk, and what was left out and why."""

    pictures: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, split)
    licences: Counter[str] = field(default_factory=Counter)
    core: Counter[str] = field(default_factory=Counter)  # by split
    unused: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, reason)

    def as_dict(self) -> dict[str, Any]:
        sources: dict[str, Any] = defaultdict(lambda: {"pictures": {}, "unused": {}})
        for (source, name), n in sorted(self.pictures.items()):
            sources[source]["pictures"][name] = n
        for (source, reason), n in sorted(self.unused.items()):
            sources[source]["unused"][reason] = n
        splits = {s: sum(n for (_, name), n in self.pictures.items() if name == s) for s in SPLITS}
        return {
            "count": sum(self.pictures.values()) + sum(self.unused.values()),
            "successes": sum(self.pictures.values()),
            "splits": splits,
            "core": dict(self.core),
            "licences": dict(self.licences),
            "sources": dict(sources),
        }


def illustrations(
    folder: str | Path,
    sizes: Sequence[int] = (64, 256),
    limit: int | None = None,
    given: str | Path | None = None,
    workers: int = 2,
    sources: Sequence[Source] = SOURCES,
    per_shard: int = 1000,
    progress: bool = True,
) -> Report:
    """Build the corpus in `folder`, or go on with one that was interrupted: finished shards are not made again.

    sizes: sides in pixels; each picture is drawn once, at the largest. limit: at most so many pictures.
    given: a folder that holds the packages already (`--from`). workers: processes that draw.
    Raises UnclipError when a package cannot be obtained or a file cannot be written.
    """
    folder, given = Path(folder), None if given is None else Path(given)
    if given is not None and not given.is_dir():
        raise UnclipError(f"--from {str(given)!r} is not a folder: name one that holds the package archives")
    store = folder / "sources"
    fetch: Callable[..., dict[str, bytes]] = lambda package: contents(obtain(package, store, given))  # noqa: E731
    pictures, unused = gather(sources, fetch, fetch(NAMES))
    planned = plan(pictures, sizes, limit, per_shard)
    _remove_strays(folder, sizes, planned)
    todo = [shard for shard in planned if not shard.done(folder, sizes)]
    seen = {
        r["pixels"]
        for shard in planned
        if shard not in todo
        for r in shards.table(folder / str(sizes[0]) / shard.split / f"{shard.index:05d}.parquet", ["pixels", "status"])
        if r["status"] == "success"
    }
    everything = [p for shard in todo for p in shard.pictures]
    with _drawing(everything, tuple(sizes), workers, progress) as drawn:
        for shard in todo:
            _write(folder, sizes, shard, list(islice(drawn, len(shard.pictures))), seen)
    report = survey(folder, sizes, planned, unused)
    write_bytes(folder / "_stats.json", json.dumps(report.as_dict(), indent=2, ensure_ascii=False).encode())
    write_bytes(folder / "ATTRIBUTION.md", attribution(report, sources).encode())
    return report


@contextmanager
def _drawing(
    pictures: Sequence[Picture], sizes: tuple[int, ...], workers: int, progress: bool
) -> Iterator[Iterator[Rendered]]:
    """Renderings in the order of `pictures`, drawn by `workers` processes."""
    from tqdm import tqdm

    job, data = partial(render, sizes=sizes), [p.data for p in pictures]
    trim = [p.source.trim for p in pictures]
    with tqdm(total=len(data), unit="picture", desc="drawing", disable=not progress) as bar, ExitStack() as stack:
        if workers > 1 and len(data) > 1:
            # spawn: threads that pyarrow may have started do not survive a fork
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, context))
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            drawn: Iterator[Rendered] = pool.map(job, data, trim, chunksize=16)
        else:
            drawn = map(job, data, trim)
        try:
            yield _counted(drawn, bar)
        except BrokenProcessPool as e:
            raise UnclipError(
                "a drawing process was killed (out of memory?): run again to go on, with --workers 1", code=1
            ) from e


def _counted(results: Iterator[Rendered], bar: Any) -> Iterator[Rendered]:
    for result in results:
        bar.update()
        yield result


def _write(folder: Path, sizes: Sequence[int], shard: Shard, drawn: list[Rendered], seen: set[str]) -> None:
    """Write a shard at every size, leaving out what failed and what was seen before."""
    unusable = []
    for rendered in drawn:
        reason = rendered.reason or ("duplicate" if rendered.pixels in seen else "")
        unusable.append(reason)
        seen.add(rendered.pixels)
    for size in sizes:
        samples, rows = [], []
        for picture, meta, rendered, reason in zip(shard.pictures, shard.metas, drawn, unusable, strict=True):
            if reason:
                rows.append(shards.failure(picture.key, meta, reason, pixels=rendered.pixels))
            else:
                sample = shards.Sample(picture.key, rendered.images[size], meta)
                samples.append(sample)
                rows.append(shards.row(sample, pixels=rendered.pixels))
        place = folder / str(size) / shard.split
        shards.write_shard(place, shard.index, samples, rows, fingerprint=shard.fingerprint)


def _remove_strays(folder: Path, sizes: Sequence[int], planned: Sequence[Shard]) -> None:
    """Remove shards that an earlier build with another plan left beyond the last shard of this one."""
    for size in sizes:
        for name in SPLITS:
            place = folder / str(size) / name
            count = sum(shard.split == name for shard in planned)
            for stats in place.glob("*_stats.json"):
                index = int(stats.name.partition("_")[0])
                if index >= count:
                    for path in (stats, place / f"{index:05d}.parquet", place / f"{index:05d}.tar"):
                        path.unlink(missing_ok=True)


def survey(folder: Path, sizes: Sequence[int], planned: Sequence[Shard], unused: Counter) -> Report:
    """Count what the finished shards hold."""
    report = Report(unused=Counter(unused))
    for shard in planned:
        path = folder / str(sizes[0]) / shard.split / f"{shard.index:05d}.parquet"
        for r in shards.table(path, ["source", "licence", "core", "status", "error_message"]):
            if r["status"] != "success":
                report.unused[r["source"], r["error_message"]] += 1
                continue
            report.pictures[r["source"], shard.split] += 1
            report.licences[r["licence"]] += 1
            report.core[shard.split] += r["core"]
    return report


def attribution(report: Report, sources: Sequence[Source]) -> str:
    """ATTRIBUTION.md: every source of the corpus with its author, licence and number of pictures."""
    lines = [
        "# Attribution",
        "",
        "The pictures of this corpus were drawn by others and are used under the licences below. They were rendered",
        "to WebP at a fixed size; nothing else was changed.",
        "",
        "| source | package | author | licence | pictures |",
        "|---|---|---|---|---|",
    ]
    for source in sources:
        n = sum(report.pictures[source.name, s] for s in SPLITS)
        package = f"{source.package.name} {source.package.version}"
        lines.append(f"| {source.name} | {package} | {source.author} | {source.licence} | {n} |")
    lines += ["", "| licence | pictures |", "|---|---|"]
    lines += [f"| {licence} | {n} |" for licence, n in sorted(report.licences.items())]
    lines += ["", f"Labels, keywords and Chinese names: {NAMES.name} {NAMES.version}, MIT.", ""]
    return "\n".join(lines)
