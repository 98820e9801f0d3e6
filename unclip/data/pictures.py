"""Every drawing of every source with the name it goes by, and a reason for each one left out."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from unclip.data import clipart
from unclip.data.names import NUMBERED, Name, Names, Splitter, slug
from unclip.data.sources import Package, Source
from unclip.errors import UnclipError

EMOJI_SETS = {
    "noto", "twemoji", "fluent-emoji-flat", "fluent-emoji-3d", "emojione", "noto-v1", "fxemoji", "streamline-emojis"
}  # fmt: skip
BRANDS = {"brand", "logos"}
VARIANT = re.compile(r"-(one|two|three|four|five|six)$")  # icon-park numbers its drawings in words
UNSUITABLE = re.compile(r"\b(sexy?|nude|naked|nazi|swastika|suicide|slave|pimp|terror|cannabis)\b")
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
    Raises UnclipError when a package holds nothing.
    """
    names = Names.read(emojibase)
    files = {source.name: fetch(source.package) for source in sources}
    icons = {name: json.loads(found["icons.json"]) for name, found in files.items() if "icons.json" in found}
    vocabulary = names.vocabulary()
    for name, collection in icons.items():
        if name not in ("circle-flags", "fxemoji"):  # codes, and names that run together
            vocabulary.update(word for key in collection["icons"] for word in key.split("-"))
    splitter = Splitter(vocabulary)
    pictures: list[Picture] = []
    unused: Counter[tuple[str, str]] = Counter()
    for source in sources:
        if source.name == "openclipart":
            found = _drawings(files[source.name], names, {word for word in vocabulary if len(word) > 2})
        elif source.name in icons:
            found = _icons(source, icons[source.name], files[source.name], names, splitter)
        else:
            found = _bitmaps(files[source.name], names)
        before = len(pictures) + unused.total()
        for path, name, data in found:
            if isinstance(name, Name) and not name.emoji and UNSUITABLE.search(" ".join([name.label, *name.keywords])):
                name = "unsuitable"
            if isinstance(name, Name):
                pictures.append(Picture(_key(source, path), source, name, data))
            else:
                unused[source.name, name] += 1
        if len(pictures) + unused.total() == before:
            raise UnclipError(f"the package {source.package.name} holds no pictures: delete it and run again")
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


def _drawings(files: dict[str, bytes], names: Names, vocabulary: set[str]) -> Iterator[tuple[str, Name | str, bytes]]:
    """Files that carry their own titles."""
    for path, name in clipart.subjects(files, names, vocabulary):
        yield path, name, files[path]


def _bitmaps(files: dict[str, bytes], names: Names) -> Iterator[tuple[str, Name | str, bytes]]:
    """Files named by codepoint."""
    for path in sorted(p for p in files if p.endswith(".webp")):
        code = path.rpartition("/")[2].removesuffix(".webp")
        yield code, names.find("", codes=[code]) or "no name", files[path]


def _icons(
    source: Source, icons: dict, files: dict[str, bytes], names: Names, splitter: Splitter
) -> Iterator[tuple[str, Name | str, bytes]]:
    """An Iconify set: `icons.json` holds SVG bodies, `chars.json` codepoints, `metadata.json` categories."""
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
            name = names.find(key, codes[key], guesses) or names.guess(key, splitter) or "no name"
        else:
            plain = VARIANT.sub("", key) if source.name == "icon-park" else NUMBERED.sub("", key)
            name = "generic title" if EMPTY.fullmatch(key) else names.words(plain.replace("-", " "))
        yield key, name, _svg(icons, icon)


def _flag(key: str, names: Names) -> Name | str:
    if name := names.flag(key):
        return name
    if key.startswith("lang-") or len(key.partition("-")[0]) < 4:
        return "no name"
    label = f"{key.replace('-', ' ')} flag"
    return Name(label, slug(label), flag=True)


def _svg(icons: dict, icon: dict) -> bytes:
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    ).encode()
