"""The illustrations corpus: packages → named pictures → a plan → drawings → shards.

Drawings follow the plan's order whatever the number of workers, so a corpus is the same bytes everywhere.
"""

import json
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from unclip.data import shards
from unclip.data.pictures import Picture, gather
from unclip.data.plan import SPLITS, Shard, plan
from unclip.data.render import Rendered, render
from unclip.data.sources import NAMES, SOURCES, Package, Source, contents, obtain
from unclip.errors import UnclipError
from unclip.files import write_bytes, writing


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
    folder, given, sizes = Path(folder), None if given is None else Path(given), sorted(set(sizes))
    if given is not None and not given.is_dir():
        raise UnclipError(f"--from {str(given)!r} is not a folder: name one that holds the package archives")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(package: Package) -> dict[str, bytes]:
        return contents(obtain(package, folder / "sources", given))

    pictures, unused = gather(sources, fetch, fetch(NAMES))
    planned = plan(pictures, sizes, limit, per_shard)
    _remove_strays(folder, sizes, planned)
    done, todo = [], []
    for shard in planned:
        (done if shard.done(folder, sizes) else todo).append(shard)
    seen = {r["pixels"] for shard in done for r in shard.rows(folder, sizes[0]) if r["status"] == "success"}
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
    try:
        with tqdm(total=len(data), unit="picture", desc="drawing", disable=not progress) as bar, ExitStack() as stack:
            if workers > 1 and len(data) > 1:
                # spawn: threads that pyarrow may have started do not survive a fork
                pool = stack.enter_context(ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")))
                stack.callback(pool.shutdown, wait=False, cancel_futures=True)
                drawn: Iterator[Rendered] = pool.map(job, data, trim, chunksize=16)
            else:
                drawn = map(job, data, trim)
            yield _counted(drawn, bar)
    except BrokenProcessPool as e:
        message = "a drawing process was killed (out of memory?): run again to go on, with --workers 1"
        raise UnclipError(message, code=1) from e


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
        if not reason:
            seen.add(rendered.pixels)
    for size in sizes:
        samples, rows = [], []
        for picture, meta, rendered, reason in zip(shard.pictures, shard.metas, drawn, unusable, strict=True):
            if not reason and size not in rendered.images:
                reason = f"smaller than {size} px"
            if reason:
                rows.append(shards.failure(picture.key, meta, reason, pixels=rendered.pixels))
            else:
                sample = shards.Sample(picture.key, rendered.images[size], meta)
                samples.append(sample)
                rows.append(shards.row(sample, pixels=rendered.pixels))
        place = folder / str(size) / shard.split
        shards.write_shard(place, shard.index, samples, rows, fingerprint=shard.fingerprint)


def _remove_strays(folder: Path, sizes: Sequence[int], planned: Sequence[Shard]) -> None:
    """Remove what a killed build left half written, and shards beyond the last of this plan that another plan made."""
    for size in sizes:
        for name in SPLITS:
            place = folder / str(size) / name
            count = sum(shard.split == name for shard in planned)
            strays = [p for p in place.glob("[0-9]" * 5 + "[._]*") if int(p.name[:5]) >= count]
            for path in (*strays, *place.glob(".[0-9]*.tmp")):
                path.unlink(missing_ok=True)


def survey(folder: Path, sizes: Sequence[int], planned: Sequence[Shard], unused: Counter) -> Report:
    """Count what the finished shards hold."""
    report = Report(unused=Counter(unused))
    for shard in planned:
        for r in shard.rows(folder, sizes[0]):
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
        "The pictures of this corpus were drawn by others and are used under the licences below. Each was drawn as a",
        "square WebP; clip art that is small on its page was brought close. Nothing else was changed.",
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
