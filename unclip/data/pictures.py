"""Every drawing of every source with the name it goes by, and a reason for each one left out."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from dataclasses import dataclass

from . import clipart
from .names import COUNTED, Name, Names, Splitter, TONED, slug
from .sources import Package, Source

EMOJI_SETS = {
    "noto", "twemoji", "fluent-emoji-flat", "fluent-emoji-3d", "emojione", "noto-v1", "fxemoji", "streamline-emojis"
}  # fmt: skip
BRANDS = {"brand", "logos"}
EMPTY = re.compile(r"abstract-\d+|[^a-z]*")  # names that say nothing


@dataclass(frozen=True)
class Picture:
    """A drawing (SVG or WebP bytes) and its name. `key` is unique in the corpus and stays the same between builds."""

    key: str
    source: Source
    name: Name
    data: bytes

    @property
    def digest(self) -> str:
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()


def gather(
    sources: Sequence[Source], fetch: Callable[[Package], dict[str, bytes]], emojibase: dict[str, bytes]
) -> tuple[list[Picture], Counter[tuple[str, str]]]:
    """All usable pictures and the count of the others by (source, reason).

    fetch: gives a package's files by path. Of two identical drawings the better named one is kept, then the earlier.
    """
    names = Names.read(emojibase)
    unused: Counter[tuple[str, str]] = Counter()
    files = {source.name: fetch(source.package) for source in sources}
    vocabulary = Counter(w for s in names.by_slug for w in s.split("-"))
    vocabulary.update(w for n in names.by_slug.values() for k in n.keywords for w in slug(k).split("-"))
    for source in sources:
        if "icons.json" in files[source.name] and source.name != "fxemoji":
            keys = json.loads(files[source.name]["icons.json"])["icons"]
            vocabulary.update(w for key in keys for w in key.split("-") if source.name != "circle-flags")
    splitter = Splitter(vocabulary.elements())
    pictures: list[Picture] = []
    for source in sources:
        if source.name == "openclipart":
            found = clipart.named(files[source.name], names, set(vocabulary))
            found = ((path, name, files[source.name].get(path, b"")) for path, name in found)
        elif source.name == "fluent-emoji-3d":
            found = _bitmaps(files[source.name], names)
        else:
            found = _icons(source, files[source.name], names, splitter)
        for path, name, data in found:
            if isinstance(name, Name):
                pictures.append(Picture(_key(source, path), source, name, data))
            else:
                unused[source.name, name] += 1
    return _distinct(pictures, unused), unused


def _distinct(pictures: list[Picture], unused: Counter) -> list[Picture]:
    kept: dict[str, Picture] = {}
    keys: set[str] = set()
    for picture in sorted(pictures, key=lambda p: not p.name.emoji):  # stable: sources stay in order
        if picture.digest in kept:
            unused[picture.source.name, "duplicate"] += 1
        elif picture.key in keys:
            unused[picture.source.name, "duplicate name"] += 1
        else:
            kept[picture.digest] = picture
            keys.add(picture.key)
    return list(kept.values())


def _key(source: Source, path: str) -> str:
    """At most 90 characters, so that `KEY.webp` fits a tar header."""
    key = f"{source.name}-{slug(path.removeprefix(clipart.ROOT).removesuffix('.svg'))}"
    return key if len(key) <= 90 else f"{key[:80]}-{hashlib.blake2b(key.encode(), digest_size=4).hexdigest()}"


def _bitmaps(files: dict[str, bytes], names: Names) -> Iterator[tuple[str, Name | str, bytes]]:
    """Files named by codepoint."""
    for path in sorted(p for p in files if p.endswith(".webp")):
        code = path.rpartition("/")[2].removesuffix(".webp")
        yield code, names.find("", codes=[code]) or "no name", files[path]


def _icons(
    source: Source, files: dict[str, bytes], names: Names, splitter: Splitter
) -> Iterator[tuple[str, Name | str, bytes]]:
    """An Iconify set: `icons.json` holds SVG bodies, `chars.json` codepoints, `metadata.json` categories."""
    icons = json.loads(files["icons.json"])
    codes, aliases, categories = defaultdict(list), defaultdict(list), defaultdict(set)
    for code, key in json.loads(files.get("chars.json", b"{}")).items():
        codes[key].append(code)
    for alias, target in icons.get("aliases", {}).items():
        if len(target) == 1:  # a further name, not a mirrored or turned drawing
            aliases[target["parent"]].append(alias)
    for category, keys in json.loads(files.get("metadata.json", b"{}")).get("categories", {}).items():
        for key in keys:
            categories[key].add(category.lower())
    for key, icon in icons["icons"].items():
        if categories[key] & BRANDS or "logo" in key.split("-"):
            yield key, "brand logo", b""
            continue
        if source.name == "circle-flags":
            name = _flag(key, names)
        elif source.name in EMOJI_SETS:
            guesses = [*aliases[key], f"flag-{key}"] if "flags" in categories[key] else aliases[key]
            name = names.find(key, codes[key], guesses) or _unmatched(key, names, splitter)
        else:
            plain = COUNTED.sub("", key)
            name = "generic title" if EMPTY.fullmatch(key) else names.words(plain.replace("-", " "))
        yield key, name, _svg(icons, icon)


def _flag(key: str, names: Names) -> Name | str:
    if name := names.flag(key):
        return name
    if key.startswith("lang-") or len(key.partition("-")[0]) < 4:
        return "no name"
    label = f"{key.replace('-', ' ')} flag"
    return Name(label, slug(label), flag=True)


def _unmatched(key: str, names: Names, splitter: Splitter) -> Name | str:
    """An emoji that emojibase does not know: its own words, cut apart where they run together."""
    base = COUNTED.sub("", TONED.sub("", key))
    label = base.replace("-", " ") if "-" in base else splitter(base) or base
    if EMPTY.fullmatch(base):
        return "no name"
    name = names.words(label)
    tone = TONED.sub("", key) != key
    return Name(label, name.concept, name.zh, name.keywords, tone=tone)


def _svg(icons: dict, icon: dict) -> bytes:
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    ).encode()
