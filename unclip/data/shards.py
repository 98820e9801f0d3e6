"""WebDataset shards in img2dataset's layout: `00000.tar`, `00000.parquet`, `00000_stats.json`.

The reader walks the tar headers itself. Only members with a known suffix and a plain name are looked at; nothing is
unpickled, extracted or run. Damage never stops it: what cannot be used is counted and the next sample is sought.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from unclip.errors import UnclipError
from unclip.files import atomic, write_bytes, writing

IMAGES = ("webp", "jpg", "jpeg", "png")
TEXTS = ("txt", "json")
LARGEST = dict.fromkeys(IMAGES, 64 << 20) | dict.fromkeys(TEXTS, 1 << 20)
BLOCK = 512
FURNITURE = b"5gK"  # folders, remarks on the whole archive, long link targets: no samples, no harm
PLAIN = re.compile(r"[\w][\w \-+,=@~()]{0,199}")


class Sample(NamedTuple):
    """One picture: its encoded bytes and what is said of it. `meta` holds at least `caption`."""

    key: str
    image: bytes
    meta: dict[str, Any]


@dataclass
class Damage:
    """What a reader could not use, by reason, with the first few places."""

    counts: Counter[str] = field(default_factory=Counter)
    places: list[str] = field(default_factory=list)

    def note(self, reason: str, place: str) -> None:
        self.counts[reason] += 1
        if len(self.places) < 20:
            self.places.append(f"{place}: {reason}")

    def __str__(self) -> str:
        return ", ".join(f"{n} × {reason}" for reason, n in sorted(self.counts.items())) or "no damage"


# Writing


def write(folder: str | Path, samples: Iterable[Sample], per_shard: int = 1000) -> int:
    """Write all samples as numbered shards and return how many shards that made."""
    queue, index = iter(samples), 0
    while batch := list(islice(queue, per_shard)):
        write_shard(folder, index, batch, [row(sample) for sample in batch])
        index += 1
    return index


def write_shard(folder: str | Path, index: int, samples: Sequence[Sample], rows: Sequence[dict], **stats: Any) -> None:
    """Write one shard. Each of its three files appears whole or not at all, the statistics last.

    rows: the parquet table, one row per picture, unusable ones too, as `row` and `failure` make them.
    stats: further entries for `_stats.json`. The files depend on the arguments alone, not on time or machine.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / f"{index:05d}.tar") as path, tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            document = json.dumps({"key": sample.key, **sample.meta}, ensure_ascii=False).encode()
            for suffix, data in ((_suffix(sample.image), sample.image), ("txt", sample.meta["caption"].encode()),
                                 ("json", document)):  # fmt: skip
                member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    _write_table(folder / f"{index:05d}.parquet", rows)
    statuses = Counter(r["error_message"] or r["status"] for r in rows)
    successes = sum(r["status"] == "success" for r in rows)
    summary = {
        "count": len(rows),
        "successes": successes,
        "failed": len(rows) - successes,
        "status_dict": dict(sorted(statuses.items())),
        **stats,
    }
    write_bytes(stats_path(folder, index), json.dumps(summary, indent=2, ensure_ascii=False).encode())


def stats_path(folder: str | Path, index: int) -> Path:
    return Path(folder) / f"{index:05d}_stats.json"


def row(sample: Sample, **more: Any) -> dict[str, Any]:
    """The parquet row of a written sample."""
    from PIL import Image

    width, height = Image.open(io.BytesIO(sample.image)).size
    size = {"width": width, "height": height, "sha256": hashlib.sha256(sample.image).hexdigest()}
    return {"key": sample.key, **sample.meta, "status": "success", "error_message": None, **size, **more}


def failure(key: str, meta: dict[str, Any], reason: str, **more: Any) -> dict[str, Any]:
    """The parquet row of a picture that could not be used."""
    absent = {"width": None, "height": None, "sha256": None}
    return {"key": key, **meta, "status": "failed", "error_message": reason, **absent, **more}


def _write_table(path: Path, rows: Sequence[dict]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise UnclipError("pyarrow is needed to write shards: pip install 'unclip[data]'") from e
    columns = {name: [r.get(name) for r in rows] for r in rows[:1] for name in r}
    types = {
        "status": pyarrow.string(), "error_message": pyarrow.string(), "sha256": pyarrow.string(),
        "width": pyarrow.int32(), "height": pyarrow.int32(), "keywords": pyarrow.list_(pyarrow.string()),
        "label_zh": pyarrow.string(), "pixels": pyarrow.string(),
    }  # fmt: skip
    table = pyarrow.table({name: pyarrow.array(v, types.get(name)) for name, v in columns.items()})
    with atomic(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def table(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a shard's parquet file."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def _suffix(image: bytes) -> str:
    return "webp" if image[:4] == b"RIFF" else "png" if image[:1] == b"\x89" else "jpg"


# Reading


def read(folder: str | Path, damage: Damage | None = None) -> Iterator[Sample]:
    """The usable samples of every shard of `folder`, always in the same order.

    damage: an object to count in; read it when the iterator is used up.
    Raises UnclipError when there is no shard.
    """
    folder, damage = Path(folder), Damage() if damage is None else damage
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise UnclipError(f"no shards (*.tar) in {str(folder)!r}: name a folder such as DIR/64/train")
    seen: set[str] = set()
    for path in paths:
        with path.open("rb") as stream:
            for key, parts in _groups(_members(stream, path.name, damage), path.name, damage):
                if key in seen:
                    damage.note("duplicate key", f"{path.name}/{key}")
                    continue
                seen.add(key)
                sample, reason = _sample(key, parts)
                if sample:
                    yield sample
                else:
                    damage.note(reason, f"{path.name}/{key}")


def _sample(key: str, parts: dict[str, bytes]) -> tuple[Sample | None, str]:
    image = next((parts[suffix] for suffix in IMAGES if suffix in parts), None)
    if image is None or not any(suffix in parts for suffix in TEXTS):
        return None, "missing partner"
    if not _whole(image):
        return None, "bad image"
    try:
        meta = json.loads(parts.get("json", b"{}"))
        caption = parts["txt"].decode() if "txt" in parts else meta["caption"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "bad text"
    if not isinstance(meta, dict) or not isinstance(caption, str):
        return None, "bad text"
    return Sample(key, image, {**meta, "key": key, "caption": caption}), ""


def _whole(image: bytes) -> bool:
    """Whether the container is intact from its signature to its declared end. Pixels are not decoded here."""
    if image[:4] == b"RIFF":
        return image[8:12] == b"WEBP" and len(image) >= 8 + int.from_bytes(image[4:8], "little") > 20
    if image[:8] == b"\x89PNG\r\n\x1a\n":
        return image.rstrip(b"\0").endswith(b"IEND\xaeB`\x82")
    return image[:3] == b"\xff\xd8\xff" and b"\xff\xd9" in image[-64:]


def _groups(
    members: Iterator[tuple[str, str, bytes]], shard: str, damage: Damage
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Neighbouring members with one key, as {suffix: bytes}."""
    current, parts = "", {}
    for key, suffix, data in members:
        if key != current:
            if parts:
                yield current, parts
            current, parts = key, {}
        if suffix in parts:
            damage.note("duplicate key", f"{shard}/{key}.{suffix}")
        else:
            parts[suffix] = data
    if parts:
        yield current, parts


def _members(stream: BinaryIO, shard: str, damage: Damage) -> Iterator[tuple[str, str, bytes]]:
    """(key, suffix, bytes) of the plain members. After a damaged header it looks for the next sound one."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    lost, longer, any_header = False, None, False
    while True:
        at = stream.tell()
        header = stream.read(BLOCK)
        if len(header) < BLOCK:
            if not lost:
                damage.note("truncated" if end else "empty shard", shard)
            return
        if not any(header) and not lost:
            if not any_header:
                damage.note("empty shard", shard)
            return
        if not _sound(header):
            if not lost:
                damage.note("bad header", f"{shard} at byte {at}")
            lost = True
            continue
        lost, any_header = False, True
        name, size, kind = _text(header[:100]), _number(header[124:136]), header[156:157]
        if prefix := _text(header[345:500]):
            name = f"{prefix}/{name}"
        after = at + BLOCK + -(-size // BLOCK) * BLOCK
        if at + BLOCK + size > end:
            damage.note("truncated", f"{shard}/{name}")
            return
        if kind in b"xL" and size <= LARGEST["txt"]:  # a longer name for the member that follows
            longer = _longer_name(kind, stream.read(size)) or longer
        elif kind not in FURNITURE:
            name, longer = longer or name, None
            key, _, suffix = name.removeprefix("./").partition(".")
            suffix = suffix.lower()
            if reason := _unfit(kind, key, suffix, size):
                damage.note(reason, f"{shard}/{name}")
            else:
                yield key, suffix, stream.read(size)
        stream.seek(after)


def _unfit(kind: bytes, key: str, suffix: str, size: int) -> str:
    """Why a member is left alone, or nothing."""
    if kind not in b"0\0":
        return "not a plain file"
    if not PLAIN.fullmatch(key):
        return "name is not plain"
    if suffix not in LARGEST:
        return "unknown suffix"
    return "too large" if size > LARGEST[suffix] else ""


def _sound(header: bytes) -> bool:
    """Whether the checksum of a 512-byte header holds: the sum of its bytes with the field itself as spaces."""
    try:
        return sum(header[:148]) + 256 + sum(header[156:]) == int(_text(header[148:156]).strip() or "x", 8)
    except ValueError:
        return False


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def _number(raw: bytes) -> int:
    """An octal field, or the base-256 form for sizes of 8 GiB and more."""
    if raw[0] & 0x80:
        return int.from_bytes(raw[1:], "big")
    try:
        return int(_text(raw).strip() or "0", 8)
    except ValueError:
        return 0


def _longer_name(kind: bytes, data: bytes) -> str | None:
    if kind == b"L":
        return _text(data)
    found = re.search(rb"\d+ path=([^\n]*)\n", data)
    return found[1].decode("utf-8", "replace") if found else None
