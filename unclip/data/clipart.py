"""Open Clip Art drawings: title, keywords and licence stand in each SVG's own metadata."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import PurePosixPath
from typing import NamedTuple

from unclip.data.names import Name, Names, slug

ROOT = "usr/share/openclipart/svg/"
DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
INTERFACE = re.compile(
    r"(computer/(icons|buttons|folders)|shapes/(stars|jigsaw|arrows|callouts)|special|logos|buttons"
    r"|signs_and_symbols/(map_symbols|led)|recreation/games/cards)/|theme"
)
ITALIAN = re.compile(r"archi?te?|rollandin", re.I)  # several hundred drawings by one author, titled in Italian
GENERIC = re.compile(
    r"clipart by nicu|various cliparts|svg road signs|untitled|^(icon|image|drawing|clip ?art)s?$", re.I
)
AUTHORED = re.compile(r"clip ?art by [^-]+- ", re.I)
FILING = {"hash", "unsorted", "signs_and_symbols", "clip_art", "clipart", "externalsource", "image", "images", "svg"}
SMALL = {"a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "s", "the", "to", "with"}


class Drawing(NamedTuple):
    path: str
    title: str
    keywords: list[str]


def drawings(files: dict[str, bytes]) -> Iterator[Drawing | tuple[str, str]]:
    """Every SVG's metadata, or (path, reason) for one that cannot be used."""
    for path in sorted(p for p in files if p.endswith(".svg")):
        place = path.removeprefix(ROOT)
        if INTERFACE.match(place) or "theme" in place:
            yield path, "interface icon, theme or playing card"
            continue
        try:
            root = ET.fromstring(files[path])
        except (ET.ParseError, ValueError, LookupError):
            yield path, "not well-formed XML"
            continue
        work = next((e for e in root.iter() if e.tag.endswith("}Work")), None)
        tags = [e.get(f"{RDF}resource", "") for e in work if e.tag.endswith("}license")] if work is not None else []
        if work is None or not any(tags):
            yield path, "no licence tag"
        elif "publicdomain" not in tags[0].lower():
            yield path, "licence is not public domain"
        elif ITALIAN.search(place):
            yield path, "title is not English"
        else:
            items = (item.text or "" for s in work.findall(f"{DC}subject") for item in s.iter(f"{RDF}li"))
            subjects = [item.strip().lower() for item in items]
            keywords = [s.replace("_", " ") for s in subjects if s and s not in FILING and not re.search(r"\d", s)]
            yield Drawing(path, unescape((work.findtext(f"{DC}title") or "").strip()), keywords)


def subjects(files: dict[str, bytes], names: Names, vocabulary: set[str]) -> Iterator[tuple[str, Name | str]]:
    """(path, Name) for each usable drawing and (path, reason) for each other one.

    vocabulary: English words known from elsewhere; keywords of the drawings themselves are added.
    """
    found = list(drawings(files))
    kept = [d for d in found if isinstance(d, Drawing)]
    yield from (d for d in found if not isinstance(d, Drawing))
    titles = Counter(d.title.lower() for d in kept)
    counted = Counter(w for d in kept for k in d.keywords for w in slug(k).split("-"))
    vocabulary = vocabulary | {w for w, n in counted.items() if n > 1}
    for drawing in kept:
        label = _label(drawing, titles[drawing.title.lower()])
        words = [w for w in slug(label).split("-") if w and w not in SMALL]
        own = {w for k in drawing.keywords for w in slug(k).split("-")}
        place = drawing.path.removeprefix(ROOT)
        geographic = place.startswith(("signs_and_symbols/flags/", "geography/"))
        flag = "flags/" in place and "semaphore" not in place and "signal" not in place
        if not words:
            yield drawing.path, "generic title"
        elif not geographic and sum(w in vocabulary or w in own for w in words) * 3 < len(words) * 2:
            yield drawing.path, "title is not English"
        else:
            label = capitals(label) if geographic else label.lower()
            if flag and "flag" not in words:
                label = f"flag of {label}"
            if place.startswith("geography/") and "map" in drawing.keywords and "map" not in words:
                label = f"map of {label}"
            name = names.words(label)
            if flag and (known := names.find(f"flag-{slug(label.removeprefix('flag of '))}")):
                name = known
            keywords = tuple(dict.fromkeys(k for k in drawing.keywords if slug(k) != slug(label)))
            yield drawing.path, Name(name.label, name.concept, name.zh, keywords, flag=flag, emoji=name.emoji,
                                     group=name.group)  # fmt: skip


def _label(drawing: Drawing, times: int) -> str:
    """The title without numbers and authors, or the file's own name where many share a title that is not theirs."""
    stem = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", PurePosixPath(drawing.path).stem)
    stem = re.sub(r"[\W_\d]+", " ", stem).strip().lower()
    stem = re.sub(r" (bw|aj|ganson|zazou|symbol|jon phillips)$|^contour |^sport ", "", stem)
    title = AUTHORED.sub("", drawing.title)
    first = slug(title).partition("-")[0]
    if GENERIC.search(drawing.title) or not first or (times >= 5 and not slug(stem).startswith(first[:4])):
        title = stem if len(stem) > 2 else ""
    title = re.sub(r"^\d\d |openclipart", "", title)
    title = re.sub(r"(?i)\(b and w\)", "black and white", title)
    parts = [p.strip() for p in title.split(" - ")]
    if len(parts) == 2 and "/flags/" in drawing.path:
        title = f"{parts[1]}, {parts[0]}"  # "Canada - Acadia"
    elif len(parts) == 2 and parts[1].lower() in ("body part", "clothing", "food"):
        title = parts[0]
    title = re.sub(r"[#_|]|\b\d+$|\bclip ?art\b|\((?:color|colour)\)", " ", title, flags=re.I)
    title = re.sub(r"(?<=\D)\d+$", "", title.strip())
    title = re.sub(r"\s+", " ", title).strip(" -,.")
    return title


def capitals(title: str) -> str:
    """Every word of a place's name with a capital, small words aside."""
    return " ".join(w if w in SMALL or not w.islower() else w.capitalize() for w in title.split())
